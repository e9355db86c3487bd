"""Models that cannot have an ability: what they reach is what an item gives away.

`untrained-1` has the study's shape and random weights; `unigram-1` and `ngram-1` count words, and five in a row, in the
tokens of one run of the study; `ending-1` is a trained run that sees the options without their context. Which runs
serve is written to `scores/baselines.json` before any is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltm.errors import StoreError
from ltm.records import Item, Run, Variant
from ltm.runs.queue import Recipe
from ltm.scores.measures import has_neutral
from ltm.scores.ngram import ORDER, NgramModel
from ltm.scores.rules import UNASKED
from ltm.scores.section import ScoresSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import Tokenizer, identity

UNTRAINED, UNIGRAM, NGRAM, ENDING = "untrained-", "unigram-", "ngram-", "ending-"
_MOST_TOKENS = 20_000_000  # that are counted: more changes little and takes memory
_FILE = "baselines.json"


@dataclass(frozen=True)
class Chosen:
    """Which runs the simple models are made from."""

    variants: list[str]  # whose tokens are counted
    runs: list[str]  # that are asked without contexts


NOBODY = Chosen([], [])


def untrained_ids(section: ScoresSection) -> list[str]:
    """Return the ids of the models with random weights that measure chance."""
    return [f"{UNTRAINED}{number}" for number in range(1, section.untrained + 1)]


def is_baseline(run_id: str) -> bool:
    """Return whether an id names a simple model and no run."""
    return run_id.startswith((UNTRAINED, UNIGRAM, NGRAM, ENDING))


def choose(work: WorkFolder, section: ScoresSection, runs: Sequence[Run]) -> Chosen:
    """Choose runs evenly over the design, and write down which; they stay as long as they are there.

    The counting models keep the variants that they were made from when a study grows.
    """
    n = min(section.baselines, len(runs))
    picked = [runs[round(k * (len(runs) - 1) / max(1, n - 1))] for k in range(n)]
    fresh = Chosen([run.variant_id for run in picked], [run.run_id for run in picked])
    try:
        kept = Chosen(**read_json(work.path("scores", _FILE)))
    except (StoreError, TypeError):
        kept = NOBODY
    known = {run.variant_id for run in runs}, {run.run_id for run in runs}
    if len(kept.variants) == n and set(kept.variants) <= known[0] and set(kept.runs) <= known[1]:
        return kept
    write_json(work.path("scores", _FILE), dataclasses.asdict(fresh))
    return fresh


def stored_choice(work: WorkFolder) -> Chosen:
    """Return which runs the simple models are made from.

    Raises:
        StoreError: nothing was chosen yet.
    """
    return Chosen(**read_json(work.path("scores", _FILE)))


def own_marks(work: WorkFolder, recipe: Recipe, section: ScoresSection, chosen: Chosen) -> dict[str, str]:
    """Return, by id, what each simple model was made from: another one is asked anew."""
    words = identity(work)
    shape = fingerprint([recipe.model.model_dump(), words])
    marks = dict.fromkeys(untrained_ids(section), shape)
    cut = fingerprint([[s.book_id, s.start, s.n_tokens] for s in read_shards(work).values()]) if chosen.variants else ""
    for number, variant in enumerate(chosen.variants, 1):
        marks |= {f"{kind}{number}": fingerprint([variant, words, cut]) for kind in (UNIGRAM, NGRAM)}
    for number, run_id in enumerate(chosen.runs, 1):
        marks[f"{ENDING}{number}"] = run_id
    return marks


def counting_model(work: WorkFolder, run_id: str, recipe: Recipe, tokenizer: Tokenizer) -> NgramModel:
    """Return the unigram or 5-gram model of an id, made from the tokens of its run in training order.

    Raises:
        StoreError: the design or the tokens are missing.
    """
    wanted = stored_choice(work).variants[_number(run_id) - 1]
    variant: Variant = next(v for v in read_variants(work) if v.variant_id == wanted)
    stream = open_stream(work, variant, recipe.sets, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    tokens = stream.read(0, min(recipe.sets.run_tokens, _MOST_TOKENS))
    return NgramModel(tokens, tokenizer.vocab_size, 1 if run_id.startswith(UNIGRAM) else ORDER)


def run_of_ending(work: WorkFolder, run_id: str) -> str:
    """Return the run that is asked without contexts."""
    return stored_choice(work).runs[_number(run_id) - 1]


def endings(items: Sequence[Item]) -> list[Item]:
    """Return the bank without contexts: options alone, the same number of cells.

    Items that compare the same option after different contexts have nothing left to tell them by; their rule becomes
    one that is not answered here.
    """
    return [_ending(item) for item in items]


def _ending(item: Item) -> Item:
    bare = item.rule in ("choice", "likelihood") or (item.rule == "pair" and len(set(item.contexts)) == 1)
    if not bare or not any(item.contexts):
        return dataclasses.replace(item, rule=UNASKED)
    if has_neutral(item):  # the options alone take the place of the context; the neutral one stays out
        half = len(item.contexts) // 2
        changes: dict[str, Any] = {"contexts": [""] * half, "continuations": item.continuations[:half]}
        return dataclasses.replace(item, rule="likelihood", **changes)
    return dataclasses.replace(item, contexts=[""] * len(item.contexts))


def _number(run_id: str) -> int:
    return int(run_id.rsplit("-", 1)[1])
