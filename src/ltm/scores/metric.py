"""Which number an ability is judged by, and which items count: decided on the first round, then kept.

Writes: `scores/metrics.json`, `scores/pruned.json`. The metric with the highest ICC is taken, where it leads the margin
by more than noise does (SCIENCE 3.3); items are dropped by three simple rules on pilot runs alone (SCIENCE 3.4), so
that no run of the search ever chooses its own questions. A decision stands as long as the bank and this code do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltm.errors import StoreError
from ltm.records import FLUENCY, Variant
from ltm.scores.agreement import item_rest
from ltm.scores.icc import Icc, Layout
from ltm.scores.measures import METRICS, FamilyTable, Metric
from ltm.scores.rules import Array
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, json_safe, read_json, write_json

LEAD = 0.05  # of ICC that another metric must have over the margin
SOLVED_LOGIT = 2.0  # a 5-gram model that gives the right option 88 % has solved the item
_ROUNDS = ("pilot", "exploration")
_CONSTANT = 0.01  # of the median spread over runs


def first_round(variant_ids: Sequence[str], variants: Sequence[Variant]) -> NDArray[np.bool_]:
    """Return which runs belong to the first round that there is."""
    round_of = {variant.variant_id: variant.round for variant in variants}
    rounds = [round_of.get(variant_id, "") for variant_id in variant_ids]
    wanted = next((name for name in _ROUNDS if name in rounds), "")
    return np.array([name == wanted for name in rounds], dtype=bool)


def choose_metrics(
    work: WorkFolder,
    mark: str,
    tables: Sequence[FamilyTable],
    variants: Sequence[str],
    layout: Layout,
    section: ScoresSection,
    first: NDArray[np.bool_],
) -> dict[str, Metric]:
    """Return the metric of each ability: the study's, the stored one, or the one with the highest ICC (then stored)."""
    abilities = list(dict.fromkeys(table.ability for table in tables))
    if section.metric != "auto":
        return dict.fromkeys(abilities, section.metric)
    kept = _kept(work, "metrics.json", mark)
    if kept is not None and set(kept["metrics"]) == set(abilities):
        return dict(kept["metrics"])
    chosen: dict[str, Metric] = {}
    shown: dict[str, dict[str, float]] = {}
    enough = False
    for ability in abilities:
        own = [table for table in tables if table.ability == ability]
        found = {metric: _icc_of(own, metric, variants, layout, first) for metric in METRICS}
        enough |= any(icc.n_extra >= section.min_replicates for icc in found.values())
        values = {m: icc.value for m, icc in found.items() if icc.n_extra >= section.min_replicates}
        values = {m: value for m, value in values.items() if math.isfinite(value)}
        best: Metric = max(values, key=lambda m: values[m], default="margin")
        leads = bool(values) and values[best] > values.get("margin", 0.0) + LEAD
        chosen[ability] = best if leads and ability != FLUENCY else "margin"
        shown[ability] = {metric: icc.value for metric, icc in found.items()}
    if enough:  # without replicates there is nothing to decide by; a later round may have them
        write_json(work.path("scores", "metrics.json"), json_safe({"mark": mark, "metrics": chosen, "icc": shown}))
    return chosen


def stored_metrics(work: WorkFolder) -> dict[str, Metric]:
    """Return the metric of each ability that was decided for the study, for other banks and runs; may be empty."""
    try:
        value: dict[str, Metric] = read_json(work.path("scores", "report.json"))["metrics"]
    except (StoreError, KeyError):
        return {}
    return value


def _icc_of(
    tables: Sequence[FamilyTable], metric: Metric, variants: Sequence[str], layout: Layout, first: NDArray[np.bool_]
) -> Icc:
    """Return the ICC of the mean of some families, each in its own spread between runs."""
    rows = np.flatnonzero(first).tolist()
    values = [table.by(metric).values()[rows] for table in tables]
    live = [(v - v.mean()) / v.std() for v in values if len(v) and np.isfinite(v).all() and v.std() > 0]
    if not live:
        return Icc(math.nan, math.nan, math.nan, math.nan, 0)
    own = Layout(layout.base[rows], [layout.cells[i] for i in rows], [layout.seeds[i] for i in rows])
    total: Array = np.mean(live, axis=0)
    return own.icc(total, [variants[i] for i in rows])


def worthless_items(
    work: WorkFolder,
    mark: str,
    tables: Sequence[FamilyTable],
    ngram: Sequence[FamilyTable],
    variants: Sequence[str],
    design: Sequence[Variant],
    section: ScoresSection,
) -> dict[str, str]:
    """Return why items are dropped, by item id: the stored decision, or one made on the pilot runs (then stored)."""
    kept = _kept(work, "pruned.json", mark)
    if kept is not None:
        return dict(kept["items"])
    pilots = {variant.variant_id for variant in design if variant.round == "pilot"}
    rows = np.array([name in pilots for name in variants], dtype=bool)
    if not section.prune or rows.sum() < section.min_runs:
        return {}
    dropped: dict[str, str] = {}
    for place, table in enumerate(tables):
        if table.ability != FLUENCY:
            dropped |= _worthless(table.of_runs(rows), ngram[place] if ngram else None)
    write_json(work.path("scores", "pruned.json"), {"mark": mark, "n_runs": int(rows.sum()), "items": dropped})
    return dropped


def _worthless(table: FamilyTable, ngram: FamilyTable | None) -> dict[str, str]:
    used = np.where(table.weight_RI > 0, table.num_RI, np.nan)
    known = np.isfinite(used).all(0)
    spread = np.where(known, np.std(np.where(known, used, 0.0), axis=0), np.nan)
    none: NDArray[np.bool_] = np.zeros(spread.shape, dtype=np.bool_)
    flat: NDArray[np.bool_] = np.asarray(spread < _CONSTANT * np.nanmedian(spread)) if known.any() else none
    against: NDArray[np.bool_] = np.asarray(item_rest(table) < 0)
    solved = none
    if ngram is not None and len(ngram.logit_RI):
        solved = np.asarray(np.all(np.nan_to_num(ngram.logit_RI, nan=0.0) > SOLVED_LOGIT, axis=0))
    reasons = (("solved by counting five words in a row", solved), ("the same for all runs", flat),
               ("against the other items of its family", against))  # fmt: skip
    return {table.items[i]: reason for reason, hit in reversed(reasons) for i in np.flatnonzero(hit & known).tolist()}


def without(table: FamilyTable, dropped: Mapping[str, str]) -> FamilyTable:
    """Return the table without dropped items; a family that would lose all of them keeps them."""
    keep: NDArray[np.bool_] = np.array([item not in dropped for item in table.items], dtype=bool)
    return table.only(keep) if table.items and keep.any() and not keep.all() else table


def _kept(work: WorkFolder, name: str, mark: str) -> dict[str, Any] | None:
    """Return a stored decision, or None where there is none for this bank."""
    path = work.path("scores", name)
    if not path.exists():
        return None
    try:
        value: dict[str, Any] = read_json(path)
    except StoreError:  # damaged: decided again
        return None
    return value if value.get("mark") == mark else None
