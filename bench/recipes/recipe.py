"""Recipes: all that decides how a run is trained, with names. One recipe is one line of the search's table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ltm.model.sizes import SIZES, ModelConfig
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection

BASE_WIDTH = 64
AVERAGES = (0.0, 0.25)  # shares of the steps whose weights are averaged: all are scored in every run
EMA_SHARES = (0.05, 0.2)  # shares of the steps over which a moving average forgets; scored too


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; the fields of `runs` are in `runs`, all else is named."""

    name: str
    size: str = "llama-0.5m"
    vocab_size: int = 2048
    block_size: int = 256
    run_tokens: int = 400_000
    books_per_set: int = 20
    common: str = ""  # what all sets share inside a replicate: "", "init", "stream" or "init stream"
    init: str = ""  # "embed 0.64 blocks 0.64 outputs 0": sd times root of width of these; else 0.02 at every width
    mup: bool = False  # weights and learning rates as a study has them by default; `init` then says nothing
    design: str = "balanced"  # how sets are drawn: balanced, or dispersed over genres
    shape: tuple[tuple[str, int], ...] = ()  # changes of the named size
    runs: tuple[tuple[str, Any], ...] = ()

    def model(self) -> ModelConfig:
        changes: dict[str, Any] = {"vocab_size": self.vocab_size, "block_size": self.block_size} | dict(self.shape)
        changes |= {"base_width": BASE_WIDTH} if self.mup else {}
        return dataclasses.replace(SIZES[self.size], **changes)

    def section(self) -> RunsSection:
        # averages are made by the search itself, of several shares at once
        return RunsSection(**({"dtype": "bfloat16", "compile": True} | dict(self.runs) | {"average_share": 0.0}))

    def sets(self) -> SetsSection:
        quota = self.run_tokens // self.books_per_set
        return SetsSection(books_per_set=self.books_per_set, book_tokens=quota, passage_tokens=128)

    @property
    def n_steps(self) -> int:
        return self.sets().run_tokens // self.section().batch_tokens

    @property
    def step_kind(self) -> str:
        """What a step's time depends on; recipes that share it are timed once."""
        section, model = self.section(), dataclasses.astuple(self.model())
        return f"{model} {section.batch_tokens} {section.dtype} {section.optimizer} {section.compile}"

    def but(self, name: str, **changes: Any) -> Recipe:
        """Return this recipe under another name with changes; fields that it lacks go to `runs`."""
        own = {f.name for f in dataclasses.fields(self)}
        outer = {k: v for k, v in changes.items() if k in own}
        inner = {k: v for k, v in changes.items() if k not in own}
        runs = tuple(sorted((dict(self.runs) | inner).items()))
        return dataclasses.replace(self, name=name, runs=runs, **outer)


PLAIN = Recipe("plain").but(
    "plain", lr=3e-3, batch_tokens=2048, schedule="linear", warmup_share=0.05, weight_decay=0.1, beta2=0.95
)
DEMO = PLAIN.but(
    "demo", size="llama-0.2m", vocab_size=1024, block_size=128, run_tokens=140_000,
    lr=2e-3, batch_tokens=512, schedule="wsd", decay_share=0.3,
)  # fmt: skip

FULL = DEMO.but("full", init="embed 0.64 blocks 0.64")
INIT = DEMO.but("init", common="init", lr=1e-3)
MUP = DEMO.but("mup", mup=True, common="init", lr=4e-3)  # what a study does by default

RECIPES = [
    PLAIN,
    PLAIN.but("plain no warm-up", warmup_share=0.0),
    PLAIN.but("plain common init", common="init"),
    DEMO,
    DEMO.but("demo lr 1e-3", lr=1e-3),
    DEMO.but("demo lr 4e-3", lr=4e-3),
    DEMO.but("demo zero init", init="outputs 0"),
    DEMO.but("demo wide init", init="embed 0.64"),
    DEMO.but("demo embed 8", init="embed 1.28"),
    FULL,
    FULL.but("full 6", init="embed 0.96 blocks 0.96"),
    FULL.but("full lr 1e-3", lr=1e-3),
    FULL.but("full lr 4e-3", lr=4e-3),
    FULL.but("full 70k tokens", run_tokens=70_000),
    FULL.but("full 70k lr 1e-3", run_tokens=70_000, lr=1e-3),
    FULL.but("full 70k common", run_tokens=70_000, common="init"),
    FULL.but("full 35k common", run_tokens=35_000, common="init"),
    FULL.but("full common", common="init"),
    FULL.but("full 0.1m", size="llama-0.1m", init="embed 0.64 blocks 0.64"),
    FULL.but("full 0.1m 70k common", size="llama-0.1m", run_tokens=70_000, common="init"),
    FULL.but("full batch 256", batch_tokens=256),
    FULL.but("full batch 1024", batch_tokens=1024),
    FULL.but("full vocabulary 512", vocab_size=512),
    FULL.but("full decay 1.0", weight_decay=1.0),
    FULL.but("full muon", optimizer="muon"),
    FULL.but("full 70k lr 4e-3", run_tokens=70_000, lr=4e-3),
    FULL.but("full 35k lr 4e-3", run_tokens=35_000, lr=4e-3),
    FULL.but("full 70k lr 8e-3", run_tokens=70_000, lr=8e-3),
    FULL.but("full muon 70k", optimizer="muon", run_tokens=70_000),
    FULL.but("full muon 70k lr 4e-3", optimizer="muon", run_tokens=70_000, lr=4e-3),
    FULL.but("full muon 35k lr 4e-3", optimizer="muon", run_tokens=35_000, lr=4e-3),
    FULL.but("full muon 0.1m 70k", optimizer="muon", run_tokens=70_000, size="llama-0.1m"),
    DEMO.but("demo muon", optimizer="muon"),
    FULL.but("full linear", schedule="linear"),
    FULL.but("full constant", schedule="constant"),
    FULL.but("full warm-up 0.2", warmup_share=0.2),
    FULL.but("full dispersed", design="dispersed"),
    FULL.but("full float32", dtype="float32"),
    PLAIN.but("plain full", init="embed 0.64 blocks 0.64"),
    DEMO.but("demo blocks 4", init="blocks 0.64"),
    DEMO.but("demo batch 256", batch_tokens=256),
    DEMO.but("demo common init", common="init"),
    DEMO.but("demo common stream", common="stream"),
    DEMO.but("both", common="init stream"),
    DEMO.but("both 70k tokens", common="init stream", run_tokens=70_000),
    INIT,
    INIT.but("init lr 5e-4", lr=5e-4),
    INIT.but("init lr 4e-3", lr=4e-3),
    INIT.but("init 70k tokens", run_tokens=70_000),
    INIT.but("init 35k tokens", run_tokens=35_000),
    INIT.but("init 0.1m", size="llama-0.1m"),
    INIT.but("init vocabulary 512", vocab_size=512),
    INIT.but("init vocabulary 257", vocab_size=257),
    INIT.but("init batch 256", batch_tokens=256),
    INIT.but("init batch 1024", batch_tokens=1024),
    INIT.but("init block 64", block_size=64),
    INIT.but("init decay 1.0", weight_decay=1.0),
    INIT.but("init linear", schedule="linear"),
    INIT.but("init constant", schedule="constant"),
    INIT.but("init warm-up 0.3", warmup_share=0.3),
    INIT.but("init float32", dtype="float32"),
    INIT.but("init dispersed", design="dispersed"),
    INIT.but("wide", init="embed 0.64"),
    INIT.but("wide lr 2e-3", init="embed 0.64", lr=2e-3),
    INIT.but("wide 70k tokens", init="embed 0.64", run_tokens=70_000),
    INIT.but("wide 0.1m", init="embed 0.64", size="llama-0.1m"),
    INIT.but("wide 0.1m 70k", init="embed 0.64", size="llama-0.1m", run_tokens=70_000),
    INIT.but("wide own init", init="embed 0.64", common=""),
    MUP,
    MUP.but("mup own init", common=""),
    MUP.but("mup lr 2e-3", lr=2e-3),
    MUP.but("mup lr 8e-3", lr=8e-3),
    MUP.but("mup batch 256", batch_tokens=256),
    MUP.but("mup batch 1024", batch_tokens=1024),
    MUP.but("mup decay 0", weight_decay=0.0),
    MUP.but("mup decay 1.0", weight_decay=1.0),
    MUP.but("mup decay 3.0", weight_decay=3.0),
    MUP.but("mup warm-up 0", warmup_share=0.0),
    MUP.but("mup warm-up 0.2", warmup_share=0.2),
    MUP.but("mup dispersed", design="dispersed"),
    MUP.but("mup 70k tokens", run_tokens=70_000),
    MUP.but("mup 35k tokens", run_tokens=35_000),
]


def by_name(name: str) -> Recipe:
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise SystemExit(f"no recipe {name!r}; see --list")
