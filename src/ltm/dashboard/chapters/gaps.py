"""The chapter of gaps: dose curves against the control, the tested effects, and what reading in turns does.

Reads: Variant, Run, Measure, Reliability and Effect rows, `patterns/findings.json`. Writes: nothing.
"""

from __future__ import annotations

from ltm.dashboard import charts, curve_charts, figures, tables
from ltm.dashboard.chapters.effects import effects
from ltm.dashboard.effect_units import first_measured, unit_word, units
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Capital, Fixed, Percent, Signed, Term, both, joined, spans, texts

_CONTROL = "truncated"


def gaps(inputs: Inputs) -> Chapter:
    """Return the effects of gaps, with the dose figures."""
    chapter = effects(inputs, "gap")
    tested, chapter.body = chapter.body, ""
    curve = dose_curve_rows(inputs)
    if curve:
        words = [_curve_words(inputs, ability) for ability in dict.fromkeys(row["ability"] for row in curve)]
        chapter.add(
            "gap_curve",
            Figure(
                curve,
                tables.GAP_CURVE_COLUMNS,
                curve_charts.gap_curve(),
                filter="ability",
                prefix={"axis": "axis.gap."},
                choice=first_measured(inputs),
                summary=joined(*words),
            ),
            "gap_curve.figure",
            "gap_curve.subtitle",
        )
        chapter.body += note(*(spans(text) for text in words))
    rows = figures.dose_rows(inputs.variants, inputs.runs, inputs.measures, inputs.reliability)
    if rows:
        choice = _best_family(inputs)
        told = dose_words(rows)
        figure = Figure(rows, tables.DOSE_COLUMNS, charts.dose(), filter="family", choice=choice, summary=told)
        chapter.add("dose", figure, "dose.figure", "dose.subtitle")
        if not all(row["shown"] for row in rows):
            chapter.body += note(both("dose.only_one"))
    chapter.body += tested
    if any(variant.spacing != 1 for variant in inputs.variants):
        chapter.body += note(both("gaps.spacing"))
    return chapter


def dose_curve_rows(inputs: Inputs) -> list[Record]:
    """Return gaps minus as much text without gaps by share left out, for each ability, as the analysis made it."""
    found = inputs.findings.get("dose_curve")
    known, rows = units(inputs), list[Record]()
    for ability, own in figures.by_ability(found):
        keys = ("left_out", "mean", "low", "high", "n")
        columns = [own.get(key) for key in keys]
        if not all(isinstance(column, list) for column in columns):
            continue
        for left_out, mean, low, high, n in zip(*columns, strict=False):
            values = {"dropped": left_out, "estimate": mean, "low": low, "high": high, "n": n}
            row: Record = {"ability": ability, **{key: number(value) for key, value in values.items()}}
            if row["dropped"] is not None and row["estimate"] is not None:
                rows.append({**row, "axis": known.get(ability, "seed")})
    return rows


def _curve_words(inputs: Inputs, ability: str) -> dict[str, str]:
    own = inputs.findings["dose_curve"][ability]
    best, p = number(own.get("best_left_out")), number(own.get("monotone_p"))
    values: dict[str, Argument] = {"ability": Capital(Term(f"term.{ability}", ability)), "best": Percent(best)}
    if p is None:
        return texts("gap_curve.best", **values)
    return texts("gap_curve.monotone", p=Fixed(p, 3), **values)


def _best_family(inputs: Inputs) -> str:
    """Return the first family that can be measured; empty where none can."""
    rows = [row for row in inputs.reliability if row.family != "*" and row.admitted]
    rows.sort(key=lambda row: (figures.ability_order(row.ability), row.family))
    return rows[0].family if rows else ""


def dose_words(rows: list[Record]) -> dict[str, str]:
    """Return the dose figure in words: per family the largest difference of gaps, and the control beside it."""
    parts = []
    drawn = [row for row in rows if row["shown"]]
    for family in dict.fromkeys(row["family"] for row in drawn):
        mine = [row for row in drawn if row["family"] == family]
        for kind in dict.fromkeys(row["gap_kind"] for row in mine):
            last = max((row for row in mine if row["gap_kind"] == kind), key=lambda row: row["dropped"])
            parts.append(
                texts(
                    "dose.summary",
                    family=Term(f"term.{family}", family),
                    kind=Term(f"term.{kind}", kind),
                    dropped=Percent(last["dropped"]),
                    estimate=Signed(last["estimate"]),
                    low=Signed(last["low"]),
                    high=Signed(last["high"]),
                    unit=unit_word("seed"),
                )
            )
    return joined(*parts)
