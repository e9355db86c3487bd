"""The chapter of learning: loss against tokens, by arm."""

from __future__ import annotations

from ltm.dashboard import charts, curves, tables
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs
from ltm.dashboard.layout import Chapter
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Fixed, Term, both, joined, spans, texts

NEEDS = ("runs",)


def learning(inputs: Inputs) -> Chapter:
    """Return the loss curves."""
    if not inputs.runs:
        return Chapter(both("curves.none"), needs=NEEDS)
    quartiles = curves.final_losses(inputs.runs)
    told = texts("curves.no_loss")
    if quartiles:
        low, median, high = (Fixed(value, 3) for value in quartiles)
        told = texts("curves.some", n=len(inputs.runs), low=low, median=median, high=high)
    chapter = Chapter(spans(told), needs=NEEDS)
    rows = curves.curve_rows(inputs.runs, inputs.variants)
    if rows:
        sample = {"sample": curves.sample_rows(inputs.runs)}
        summary = joined(told, *(_arm_words(rows, arm) for arm in dict.fromkeys(row["arm"] for row in rows)))
        chart = Figure(rows, tables.CURVE_COLUMNS, charts.curves(), extra=sample, summary=summary)
        chapter.add("curves", chart, "curves.figure", "curves.subtitle")
    return chapter


def _arm_words(rows: list[Record], arm: str) -> dict[str, str]:
    last = max((row for row in rows if row["arm"] == arm), key=lambda row: row["tokens"])
    values = {key: Fixed(last[key], 3) for key in ("loss", "low", "high")}
    return texts("curves.arm", arm=Term(f"term.{arm}", arm), n=last["n"], **values)
