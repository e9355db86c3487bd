"""Confirmation: what fresh seeds and sealed questions say of the sets that were chosen because of their scores.

Reads: `patterns/findings.json` (`confirmed`), Variant rows, the study's rounds. Writes: nothing. These are the only
numbers that the page calls confirmed: whatever was measured while finalists were chosen keeps its luck. The intervals
hold for all finalists at once, so that no more allowance is made here for there being several.
"""

from __future__ import annotations

from ltm.dashboard import curve_charts, tables
from ltm.dashboard.effect_units import told_unit
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter
from ltm.dashboard.sentences import told
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import both, spans, texts

NEEDS = ("patterns/findings.json",)
_SHORT_ID = 8


def confirmed(inputs: Inputs) -> Chapter:
    """Return predicted against realised score of every finalist, or why nothing is confirmed."""
    rows = finalist_rows(inputs)
    if not rows:
        return Chapter(both(_why_not(inputs)), needs=NEEDS)
    said = told(inputs.findings["confirmed"]) or texts("confirmed.trained")
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
    chapter = Chapter(spans(said), f"<p>{both('confirmed.why')}</p>", needs=NEEDS)
    figure = Figure(
        rows,
        tables.CONFIRMED_COLUMNS,
        curve_charts.confirmed(),
        extra={"folded": folded},
        prefix={"axis": "axis.confirmed."},
        summary=said,
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


def best_confirmed(inputs: Inputs) -> Record | None:
    """Return the best finalist, or None where nothing is confirmed."""
    rows = finalist_rows(inputs)
    return rows[0] if rows else None


def confirmed_unit(inputs: Inputs) -> str:
    """Return the unit that finalists are compared in."""
    return told_unit(inputs, inputs.findings.get("confirmed"))


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
