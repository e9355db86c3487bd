"""The last chapter: the conditions that every claim holds for, and what the words on the page mean.

Reads: `Inputs`. Writes: nothing.
"""

from __future__ import annotations

import html
import json
import statistics
from collections import Counter
from typing import Any

from ltm.dashboard.chapters import Chapter, conditions, definitions
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.words import Argument, both
from ltm.records import Run

DEFINED = ("seed_sd", "interval", "claimed", "q", "p", "shrunk", "icc", "split_half", "chance", "truncated", "fluency")
STUDY_CHARACTERS = 60_000  # of the study file; a longer one is cut, the work folder has it whole


def method(inputs: Inputs) -> Chapter:
    """Return conditions, definitions and the study as it ran."""
    body = f"<h3>{both('method.conditions')}</h3>{conditions(_rows(inputs))}"
    body += f"<h3>{both('method.words')}</h3>{definitions(*DEFINED)}"
    if inputs.study:
        text = json.dumps(inputs.study, indent=2, ensure_ascii=False, sort_keys=True)[:STUDY_CHARACTERS]
        body += (
            f'<details><summary>{both("method.study")}</summary><pre tabindex="0">{html.escape(text)}</pre></details>'
        )
    return Chapter(both("method.finding"), body, needs=("study.json",))


def _rows(inputs: Inputs) -> list[tuple[str, Argument]]:
    runs, rows = inputs.runs, list[tuple[str, Argument]]()
    if inputs.variants:
        rows.append(("variants", len({variant.variant_id for variant in inputs.variants})))
        rows.append(("sets", len({variant.set_id for variant in inputs.variants})))
        rows.append(("seeds", len({seed for variant in inputs.variants for seed in variant.init_seeds})))
    if runs:
        rows += [
            ("model", usual(runs, "model")),
            ("params", usual(runs, "n_params")),
            ("tokens", usual(runs, "n_tokens")),
            ("steps", usual(runs, "n_steps")),
            ("device", usual(runs, "device")),
            ("dtype", usual(runs, "dtype")),
        ]
        rates = [run.tokens_per_second for run in runs if number(run.tokens_per_second)]
        if rates:
            rows.append(("rate", round(statistics.median(rates))))
    if inputs.items:
        rows.append(("items", len(inputs.items)))
    if inputs.shards:
        rows.append(("stored", sum(shard.n_tokens for shard in inputs.shards)))
    seed = inputs.study.get("seed")
    if isinstance(seed, (int, str)):
        rows.append(("seed", str(seed)))
    versions = sorted({f"{name} {version}" for run in runs for name, version in run.versions.items()})
    if versions:
        rows.append(("versions", ", ".join(versions)))
    return rows


def usual(runs: list[Run], name: str) -> Any:
    """Return a value of the runs if all agree, or all values with their counts as text, most frequent first."""
    counts = Counter(getattr(run, name) for run in runs)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(
        f"{value} (×{count})" for value, count in sorted(counts.items(), key=lambda p: (-p[1], str(p[0])))[:6]
    )
