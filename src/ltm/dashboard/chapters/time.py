"""The chapter of time: forecast against measured, stage by stage, with energy and money, and how long runs took.

Reads: `forecast.json`, `timings.json`, Run rows, the prices in `study.json`. Writes: nothing.
"""

from __future__ import annotations

import statistics

from ltm.dashboard import charts, figures, tables
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Capital, Duration, Fixed, Term, both, joined, spans, texts

NEEDS = ("forecast.json", "timings.json")


def time_chapter(inputs: Inputs) -> Chapter:
    """Return the forecast against the measured time, and the bill."""
    rows = figures.time_rows(inputs.forecast, inputs.timings)
    if not rows:
        return Chapter(both("time.none"), needs=NEEDS)
    told = _finding(rows)
    chapter = Chapter(spans(told), needs=NEEDS)
    folded = [{"stage": r["stage"], "kind": k, "seconds": r[k]} for r in rows for k in ("forecast", "measured") if r[k]]
    chart = Figure(
        rows,
        tables.TIME_COLUMNS,
        charts.times(),
        extra={"folded": folded},
        prefix={"stage": "term.stage."},
        summary=joined(told, *(_stage_words(row) for row in rows)),
    )
    chapter.add("time", chart, "time.figure", "time.subtitle")
    if bill := figures.bill_rows(inputs.forecast, rows):
        prefix = {"what": "term.bill."}
        chapter.add("bill", Figure(bill, tables.BILL_COLUMNS, caption="caption.bill", prefix=prefix))
        chapter.body += note(_power(inputs))
    chapter.body += note(*run_times(inputs))
    return chapter


def _finding(rows: list[Record]) -> dict[str, str]:
    paired = [row for row in rows if row["forecast"] and row["measured"]] or rows  # a total compares like with like
    forecast = sum(row["forecast"] or 0 for row in paired)
    measured = sum(row["measured"] or 0 for row in paired)
    if not (forecast and measured):
        if forecast:
            return texts("time.forecast", forecast=Duration(forecast))
        return texts("time.measured", measured=Duration(measured))
    finding = texts("time.both", measured=Duration(measured), forecast=Duration(forecast))
    ranged = [r for r in rows if None not in (r["low"], r["high"], r["measured"])]
    if not ranged:
        return finding
    inside = sum(r["low"] <= r["measured"] <= r["high"] for r in ranged)
    return joined(finding, texts("time.inside", n=inside, total=len(ranged)))


def _stage_words(row: Record) -> dict[str, str]:
    stage = Capital(Term(f"term.stage.{row['stage']}", row["stage"]))
    return texts("time.stage", stage=stage, forecast=Duration(row["forecast"]), measured=Duration(row["measured"]))


def _power(inputs: Inputs) -> str:
    """Return what energy and money are worked out from."""
    prices = inputs.study.get("forecast")
    watts = number(inputs.forecast.get("watts"))
    if watts is None:
        return ""
    per_kwh, per_hour = (
        number(prices.get(k)) if isinstance(prices, dict) else None for k in ("usd_per_kwh", "usd_per_hour")
    )
    return both("time.power", watts=Fixed(watts, 0), per_kwh=Fixed(per_kwh), per_hour=Fixed(per_hour))


def run_times(inputs: Inputs) -> list[str]:
    """Return how long single runs took, in sentences that are HTML already."""
    seconds = sorted(run.seconds for run in inputs.runs if number(run.seconds))
    if not seconds:
        return []
    middle = Duration(statistics.median(seconds))
    sentences = [both("time.runs", n=len(seconds), middle=middle, low=Duration(seconds[0]), high=Duration(seconds[-1]))]
    rates = [run.tokens_per_second for run in inputs.runs if number(run.tokens_per_second)]
    mfu = [run.mfu for run in inputs.runs if number(run.mfu)]
    if rates:
        sentences.append(both("time.rate", rate=Fixed(statistics.median(rates), 0)))
    if mfu:
        sentences.append(both("time.mfu", mfu=Fixed(100 * statistics.median(mfu), 0)))
    return sentences
