"""Confirmation: what fresh seeds and sealed questions say of the sets that were chosen because of their scores.

Reads: `patterns/findings.json` (`confirmed`), Variant rows, the study's rounds. Writes: nothing. These are the only
numbers that the page calls confirmed: whatever was measured while finalists were chosen keeps its luck.
"""

from __future__ import annotations

import statistics
from typing import Any

from ltm.dashboard import curve_charts, tables
from ltm.dashboard.effect_units import ranked_by, unit_of, unit_word
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Percent, Signed, both, joined, spans, texts

NEEDS = ("patterns/findings.json",)
_SHORT_ID = 8


def confirmed(inputs: Inputs) -> Chapter:
    """Return predicted against realised score of every finalist, or why nothing is confirmed."""
    rows = finalist_rows(inputs)
    if not rows:
        return Chapter(both(_why_not(inputs)), needs=NEEDS)
    found = inputs.findings["confirmed"]
    unit = unit_word(confirmed_unit(inputs))
    best = rows[0]
    above = n_clearly_above(rows)
    values: dict[str, Argument] = {key: Signed(best[key]) for key in ("confirmed", "low", "high")}
    controls = number(found.get("n_controls"))
    sentences = [
        texts("confirmed.best", run=best["label"], controls=controls, unit=unit, total=len(rows), **values),
        texts("confirmed.above" if above else "confirmed.none_above", n=above, total=len(rows)),
        _shrinkage(found, unit),
    ]
    folded = [
        {
            **row,
            "kind": kind,
            "value": row[key],
            "low": row["low"] if own else None,
            "high": row["high"] if own else None,
        }
        for row in rows
        for kind, key, own in (("confirmed_value", "confirmed", True), ("expected", "expected", False))
    ]
    chapter = Chapter(spans(joined(*sentences)), f"<p>{both('confirmed.why')}</p>", needs=NEEDS)
    figure = Figure(
        rows,
        tables.CONFIRMED_COLUMNS,
        curve_charts.confirmed(),
        extra={"folded": folded},
        prefix={"axis": "axis.confirmed."},
        summary=joined(*sentences),
    )
    chapter.add("confirmed", figure, "confirmed.figure", "confirmed.subtitle")
    return chapter


def finalist_rows(inputs: Inputs) -> list[Record]:
    """Return the finalists with what was expected of them and what fresh runs gave, best first."""
    found = inputs.findings.get("confirmed")
    finalists = found.get("finalists") if isinstance(found, dict) else None
    by_id = {variant.variant_id: variant for variant in inputs.variants}
    unit = confirmed_unit(inputs)
    rows: list[Record] = []
    for entry in finalists if isinstance(finalists, list) else []:
        value = number(entry.get("confirmed")) if isinstance(entry, dict) else None
        if value is None:
            continue
        variant = by_id.get(str(entry.get("variant_id")))
        rows.append(
            {
                "label": str(entry.get("variant_id"))[:_SHORT_ID],
                "confirmed": value,
                "low": number(entry.get("low")),
                "high": number(entry.get("high")),
                "expected": number(entry.get("expected")),
                "n_runs": number(entry.get("n_runs")),
                "order": variant.order if variant else None,
                "gap_kind": variant.gap_kind if variant else None,
                "density": number(variant.density) if variant else None,
                "axis": unit,
            }
        )
    return sorted(rows, key=lambda row: (-row["confirmed"], row["label"]))


def n_clearly_above(rows: list[Record]) -> int:
    """Return how many finalists are above the random sets, with allowance for there being several (Bonferroni).

    The best of several is above zero by chance more often than one that was named beforehand: each 90 % interval is
    made wider in the ratio of the normal quantiles.
    """
    wider = _quantile(0.05 / len(rows)) / _quantile(0.05) if rows else 1.0
    count = 0
    for row in rows:
        if row["low"] is not None and row["confirmed"] - wider * (row["confirmed"] - row["low"]) > 0:
            count += 1
    return count


def _quantile(tail: float) -> float:
    return statistics.NormalDist().inv_cdf(1.0 - tail)


def mean_confirmed(inputs: Inputs) -> float | None:
    """Return the mean of all finalists above the random sets: no choice among them flatters it."""
    values = [row["confirmed"] for row in finalist_rows(inputs)]
    return statistics.fmean(values) if values else None


def best_confirmed(inputs: Inputs) -> Record | None:
    """Return the best finalist, or None where nothing is confirmed."""
    rows = finalist_rows(inputs)
    return rows[0] if rows else None


def _abilities(inputs: Inputs) -> list[str]:
    found = inputs.findings.get("confirmed")
    names = found.get("abilities") if isinstance(found, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else ranked_by(inputs)


def confirmed_unit(inputs: Inputs) -> str:
    """Return the unit that finalists are compared in."""
    return unit_of(inputs, _abilities(inputs))


def _shrinkage(found: dict[str, Any], unit: Argument) -> dict[str, str]:
    """Return how much of the lead that was expected was there."""
    expected, got = number(found.get("mean_expected")), number(found.get("mean_confirmed"))
    if expected is None or got is None:
        return {}
    values: dict[str, Argument] = {"expected": Signed(expected), "confirmed": Signed(got), "unit": unit}
    if not 0 <= got < expected:
        return texts("confirmed.mean", **values)
    return texts("confirmed.shrinkage", share=Percent(got / expected), **values)


def _why_not(inputs: Inputs) -> str:
    """Return the key of why there is nothing confirmed."""
    rounds = inputs.study.get("rounds")
    if not isinstance(rounds, dict) or not rounds.get("enabled"):
        return "confirmed.off"
    done = {run.variant_id for run in inputs.runs}
    finals = [variant for variant in inputs.variants if variant.round == "confirmation"]
    if not finals:
        return "confirmed.to_come"
    return "confirmed.wait" if any(variant.variant_id not in done for variant in finals) else "confirmed.none"
