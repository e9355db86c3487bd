"""What else there is to say about the scores: abilities together, controls, what was cut and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltm.errors import StoreError
from ltm.records import Item, Reliability
from ltm.scores.agreement import item_rest
from ltm.scores.factors import correlations
from ltm.scores.icc import Layout
from ltm.scores.measures import FamilyTable, family_tables
from ltm.scores.rules import Array
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, json_safe, read_json

_FEWEST_RUNS = 3  # for a correlation over runs


def condensed_report(
    section: ScoresSection,
    work: WorkFolder,
    tables: Sequence[FamilyTable],
    judged: Sequence[Reliability],
    layout: Layout,
    controls: Sequence[Mapping[str, Any]],
    dropped: Mapping[str, str],
    metrics: Mapping[str, str],
    cut: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Return what `scores/report.json` holds.

    Args:
        section: The study's.
        work: Holds the last report: what was cut is known only when models are asked.
        tables: Families by the metric of their ability.
        judged: Their reliability.
        layout: Where each run stands in the design.
        controls: Rows of `control_rows`.
        dropped: Reason by item.
        metrics: Metric by ability.
        cut: Cells that the block size cut, where models were asked now.
    """
    admitted: dict[str, list[str]] = {}
    for row in judged:
        if row.admitted and row.family != "*":
            admitted.setdefault(row.ability, []).append(row.family)
    lost = {table.family: int((table.weight_RI.max(0) <= 0).sum()) for table in tables if len(table.weight_RI)}
    value: dict[str, Any] = json_safe(
        {
            "bank": section.bank,
            "metrics": dict(metrics),
            "correlations": correlations(tables, admitted, layout.cells),
            "items_against_rest": [found for table in tables if (found := _against_rest(table)) is not None],
            "controls": list(controls),
            "dropped_items": dict(sorted(Counter(dropped.values()).items())),
            "items_without_answer": {family: count for family, count in lost.items() if count},
            "cut_cells": dict(cut) if cut else _last(work),
        }
    )
    return value


def control_rows(items: Sequence[Item], raw: tuple[Array, Array], real: Sequence[FamilyTable]) -> list[dict[str, Any]]:
    """Return how runs do on items with a damaged context, beside the same items undamaged."""
    whole = {(table.ability, table.family): table for table in real}
    rows = []
    for table in family_tables(items, *raw, controls=True):
        base = whole.get((table.ability, table.family))
        if base is None or not len(table.num_RI):
            continue
        originals = {item.removesuffix(f"-{table.control}") for item in table.items}
        same = base.only(np.array([item in originals for item in base.items], dtype=bool))
        rows.append(
            {
                "ability": table.ability,
                "family": table.family,
                "control": table.control,
                "n_items": len(table.items),
                "accuracy": _mean(table.accuracy()),
                "margin": _mean(table.values()),
                "accuracy_undamaged": _mean(same.accuracy()),
                "margin_undamaged": _mean(same.values()),
            }
        )
    return rows


def _against_rest(table: FamilyTable) -> dict[str, Any] | None:
    """Return how the items of a family correlate with the rest of it over the runs; None with fewer than three runs."""
    if len(table.num_RI) < _FEWEST_RUNS:
        return None
    found = item_rest(table)
    known = found[np.isfinite(found)]
    if not len(known):
        return None
    return {
        "ability": table.ability,
        "family": table.family,
        "n_items": len(known),
        "median": float(np.median(known)),
        "below_zero": float((known < 0).mean()),
    }


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _last(work: WorkFolder) -> dict[str, int]:
    try:
        value: dict[str, int] = read_json(work.path("scores", "report.json")).get("cut_cells", {})
    except StoreError:
        return {}
    return value
