"""The last chapter: the conditions that every claim holds for, and what the words on the page mean.

Reads: `Inputs`. Writes: nothing.
"""

from __future__ import annotations

import html
import json
import statistics
from collections import Counter
from typing import Any

from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, conditions, definitions, heading
from ltm.dashboard.run_rows import listed
from ltm.dashboard.words import Argument, Percent, Term, both, entries
from ltm.records import FLUENCY, Run

DEFINED = (
    "seed_sd", "residual_sd", "interval", "claimed", "q", "p", "lfsr", "family", "confirmed", "shrunk", "icc",
    "split_half", "detectable", "chance", "truncated", "h2", "fluency",
)  # fmt: skip
STUDY_CHARACTERS = 60_000  # of the study file; a longer one is cut, the work folder has it whole


def method(inputs: Inputs) -> Chapter:
    """Return conditions, provenance, definitions and the study as it ran."""
    body = heading("method.conditions")
    for name, rows in (
        ("design", _design(inputs)),
        ("model", _model(inputs)),
        ("training", _training(inputs)),
        ("questions", _questions(inputs)),
        ("machine", _machine(inputs)),
        ("provenance", _provenance(inputs)),
    ):
        if rows:
            body += f"<h4>{both(f'method.{name}')}</h4>{conditions(rows)}"
    body += f'<p class="note">{both("method.again")}</p>'
    body += f"{heading('method.words')}{definitions(*DEFINED)}"
    if inputs.study:
        text = json.dumps(inputs.study, indent=2, ensure_ascii=False, sort_keys=True)[:STUDY_CHARACTERS]
        body += (
            f'<details><summary>{both("method.study")}</summary><pre tabindex="0">{html.escape(text)}</pre></details>'
        )
    return Chapter(both("method.finding"), body, needs=("study.json",))


Rows = list[tuple[str, Argument]]


def _settings(inputs: Inputs, part: str, names: dict[str, str]) -> Rows:
    """Return settings of one part of the study by the key of their word; those that are not set are left out."""
    section = inputs.study.get(part)
    found: Rows = []
    for name, key in names.items():
        value = section.get(name) if isinstance(section, dict) else None
        if value is None or value == "" or value == []:
            continue
        if isinstance(value, bool):
            found.append((key, Term("term.yes" if value else "term.no")))
        elif isinstance(value, int):
            found.append((key, value))
        elif isinstance(value, (float, str)):
            found.append((key, f"{value:g}" if isinstance(value, float) else value))
    return found


def _design(inputs: Inputs) -> Rows:
    rows: Rows = []
    if inputs.variants:
        rows.append(("variants", len({variant.variant_id for variant in inputs.variants})))
        rows.append(("sets", len({variant.set_id for variant in inputs.variants})))
        rows.append(("seeds", len({seed for variant in inputs.variants for seed in variant.init_seeds})))
    seed = inputs.study.get("seed")
    if isinstance(seed, (int, str)):
        rows.append(("seed", str(seed)))
    names = {"books_per_set": "books_per_set", "book_tokens": "book_tokens", "epochs": "epochs"}
    names |= {"base_order": "base_order", "common_init": "common_init"}
    rows += _settings(inputs, "sets", names)
    return [(key, Term(f"term.{v}", str(v)) if key == "base_order" else v) for key, v in rows]


def _model(inputs: Inputs) -> Rows:
    rows: Rows = []
    if inputs.runs:
        rows += [("model", usual(inputs.runs, "model")), ("params", usual(inputs.runs, "n_params"))]
    rows += _settings(inputs, "model", {"size": "size", "base": "base", "parametrization": "parametrization"})
    rows += _settings(inputs, "tokens", {"vocab_size": "vocab", "tokenizer": "tokenizer"})
    if inputs.shards:
        rows.append(("stored", sum(shard.n_tokens for shard in inputs.shards)))
    return rows


def _training(inputs: Inputs) -> Rows:
    rows: Rows = []
    if inputs.runs:
        rows += [("tokens", usual(inputs.runs, "n_tokens")), ("steps", usual(inputs.runs, "n_steps"))]
    names = {name: name for name in ("optimizer", "lr", "schedule", "warmup_share", "decay_share", "weight_decay")}
    return rows + _settings(inputs, "runs", names | {"batch_tokens": "batch_tokens", "document_mask": "document_mask"})


def _questions(inputs: Inputs) -> Rows:
    rows: Rows = []
    if inputs.items:
        rows.append(("items", len(inputs.items)))
    metrics = inputs.score_report.get("metrics")
    if isinstance(metrics, dict):
        for ability in sorted(metrics):
            if ability == FLUENCY or not isinstance(metrics[ability], str):
                continue
            rows.append((f"metric.{ability}", Term(f"term.metric.{metrics[ability]}", metrics[ability])))
    level, redraws = (number(inputs.findings.get(key)) for key in ("level", "redraws"))
    if level is not None:
        rows.append(("level", Percent(level)))
    if redraws is not None:
        rows.append(("redraws", redraws))
    return [(key, value) for key, value in rows if f"cond.{key}" in entries("en")]


def _machine(inputs: Inputs) -> Rows:
    runs, rows = inputs.runs, list[tuple[str, Argument]]()
    if runs:
        rows += [("device", usual(runs, "device")), ("dtype", usual(runs, "dtype"))]
        rates = [run.tokens_per_second for run in runs if number(run.tokens_per_second)]
        if rates:
            rows.append(("rate", round(statistics.median(rates))))
        hardware = Counter(listed(run.hardware) for run in runs if run.hardware)
        rows += [("hardware", _counted(hardware))] if hardware else []
        versions = Counter(listed(run.versions) for run in runs if run.versions)
        rows += [("versions", _counted(versions))] if versions else []
    return rows


def _provenance(inputs: Inputs) -> Rows:
    """Return what identifies the design and the recipe, so that another page can be compared with this one."""
    rows: Rows = []
    digest, books = inputs.design.get("hash"), inputs.design.get("books_hash")
    rows += [("design_hash", digest)] if isinstance(digest, str) else []
    rows += [("books_hash", books)] if isinstance(books, str) else []
    recipes = Counter(run.recipe for run in inputs.runs if run.recipe)
    rows += [("recipe", _counted(recipes))] if recipes else []
    known = sum(bool(run.weights_sha256) for run in inputs.runs)
    if known:
        rows.append(("weights", known))
    return rows


def _counted(counts: Counter[str], most: int = 6) -> str:
    """Return values, most frequent first, with their counts where there are several."""
    if len(counts) == 1:
        return next(iter(counts))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return ", ".join(f"{value} (×{count})" for value, count in ordered)


def usual(runs: list[Run], name: str) -> Any:
    """Return a value of the runs if all agree, or all values with their counts as text, most frequent first."""
    counts = Counter(getattr(run, name) for run in runs)
    if len(counts) == 1:
        return next(iter(counts))
    return _counted(Counter({str(value): count for value, count in counts.items()}))
