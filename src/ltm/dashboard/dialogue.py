"""The chapter of the dialogue layer: what tuning on conversations gained, and what it cost elsewhere."""

from __future__ import annotations

import statistics

from ltm.dashboard import tables
from ltm.dashboard.chapters import Chapter, table_slot
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Fixed, both

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
    shown = {"tuned": Figure(rows, tables.TUNED_COLUMNS, caption="caption.tuned")}
    body = table_slot("tuned")
    if gains:
        shown["gains"] = Figure(gains, tables.GAIN_COLUMNS, caption="caption.gains", filter="family")
        body += table_slot("gains")
    return Chapter(finding + both("dialogue.cost"), body, shown, _NEEDS)
