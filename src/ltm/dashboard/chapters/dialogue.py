"""The chapter of the dialogue layer: what tuning on conversations gained, and what it cost elsewhere."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from ltm.dashboard import curve_charts, figures, tables
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Fixed, Signed, Term, both, joined, texts
from ltm.records import Gain

_NEEDS = ("dialogue/tuned.parquet", "dialogue/gains.parquet")


def dialogue(inputs: Inputs) -> Chapter:
    """Return the models that were tuned, before and after, and every family of items."""
    if not inputs.tuned:
        waiting = _NEEDS[0] in inputs.problems
        return Chapter(both("dialogue.none" if waiting else "dialogue.off"), needs=_NEEDS)
    rows = [
        {
            "place": row.place,
            "run": row.run_id,
            "method": row.method,
            "n_train": row.n_train,
            "held_out_before": number(row.held_out_before),
            "held_out_after": number(row.held_out_after),
        }
        for row in sorted(inputs.tuned, key=lambda row: row.place)
    ]
    gains = [
        {
            "run": gain.run_id,
            "ability": gain.ability,
            "family": gain.family,
            "change": number(gain.change),
            "before": number(gain.before),
            "after": number(gain.after),
            "accuracy_before": number(gain.accuracy_before),
            "accuracy_after": number(gain.accuracy_after),
        }
        for gain in inputs.gains
    ]
    pairs = [(row.held_out_before, row.held_out_after) for row in inputs.tuned]
    pairs = [pair for pair in pairs if None not in map(number, pair)]
    finding = ""
    if pairs:
        before, after = (Fixed(statistics.median(column), 2) for column in zip(*pairs, strict=True))
        better = sum(two < one for one, two in pairs)
        finding = both("dialogue.some", n=len(pairs), better=better, before=before, after=after) + " "
    chapter = Chapter(finding + both("dialogue.cost"), needs=_NEEDS)
    chapter.add("tuned", Figure(rows, tables.TUNED_COLUMNS, caption="caption.tuned"))
    families = family_rows(inputs.gains)
    if families:
        chart = Figure(
            families,
            tables.FAMILY_GAIN_COLUMNS,
            curve_charts.gains(),
            prefix={"label": "term."},
            summary=joined(*(_family_words(row) for row in families)),
        )
        chapter.add("gains_by_family", chart, "dialogue.figure", "dialogue.subtitle")
    if gains:
        chapter.add("gains", Figure(gains, tables.GAIN_COLUMNS, caption="caption.gains", filter="family"))
    return chapter


def family_rows(gains: Sequence[Gain]) -> list[Record]:
    """Return the mean change of each family over the tuned models, with a 90 % Student interval.

    One model alone gives no interval: its change stays in the table.
    """
    by_family: dict[tuple[str, str], list[float]] = defaultdict(list)
    for gain in gains:
        if number(gain.change) is not None:
            by_family[gain.ability, gain.family].append(gain.change)
    rows: list[Record] = []
    for (ability, family), values in sorted(by_family.items(), key=lambda p: (figures.ability_order(p[0][0]), p[0][1])):
        mean, half = figures.mean_and_half_width(values)
        if half is None:
            continue
        direction = "raises" if mean > half else "lowers" if mean < -half else "unclear"
        row = {"ability": ability, "label": family, "estimate": mean, "low": mean - half, "high": mean + half}
        rows.append({**row, "n": len(values), "change_verdict": f"change.{direction}"})
    return rows


def _family_words(row: Record) -> dict[str, str]:
    values = {key: Signed(row[key]) for key in ("estimate", "low", "high")}
    return texts("dialogue.family", family=Term(f"term.{row['label']}", row["label"]), **values)
