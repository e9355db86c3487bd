"""The chapter of everything that was dropped or failed, in one place.

Reads: what `Inputs` could not read, runs without a result, `scores/report.json`, `evalset/report.json`, Rejected,
Reliability and Variant rows. Writes: nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ltm.dashboard import tables
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import BEGUN, DAMAGED, FAILED, STOPPED, Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import LANGUAGES, Term, both, entries, joined, say, show, spans, texts

_MOST_RUNS = 500
_STEP = "term.{}"


def lost(inputs: Inputs) -> Chapter:
    """Return failed, stopped and unfinished runs, and what was left out of books, questions, families and analysis."""
    runs, dropped = run_rows(inputs), dropped_rows(inputs)
    counts = Counter(run.state for run in inputs.ended)
    told = [texts(f"lost.{state}", n=counts[state]) for state in (FAILED, STOPPED, BEGUN) if counts[state]]
    if inputs.unreadable:
        told.append(texts("lost.unreadable", n=len(inputs.unreadable)))
    if dropped:
        told.append(_in_all(dropped))
    chapter = Chapter(spans(joined(*told)) if told else both("lost.nothing"))
    if runs:
        prefix = {"state": "term.state."}
        table = Figure(runs, tables.LOST_COLUMNS, caption="caption.lost", search="js.search_rows", prefix=prefix)
        chapter.add("lost", table)
        if len(inputs.ended) + len(inputs.unreadable) > len(runs):
            chapter.body += note(both("lost.cut", n=len(runs), total=len(inputs.ended) + len(inputs.unreadable)))
    if dropped:
        prefix = {"thing": "term.dropped."}
        chapter.add("dropped", Figure(dropped, tables.DROPPED_COLUMNS, caption="caption.dropped", prefix=prefix))
    return chapter


def _in_all(dropped: list[Record]) -> dict[str, str]:
    """Return how much was left out of each kind."""
    counts: Counter[str] = Counter()
    for row in dropped:
        counts[row["thing"]] += row["count"]
    listed = {
        language: ", ".join(
            f"{show(language, Term(f'term.dropped.{k}'))} – {show(language, n)}" for k, n in counts.items()
        )
        for language in LANGUAGES
    }
    return {language: say(language, "lost.other", list=listed[language]) for language in LANGUAGES}


def run_rows(inputs: Inputs) -> list[Record]:
    """Return the runs without a result, failed ones first."""
    order = {FAILED: 0, STOPPED: 1, BEGUN: 2}
    rows: list[Record] = [
        {"run": run_id, "state": "unreadable", "attempts": None, "reason": "", "log": ""}
        for run_id in inputs.unreadable
    ]
    rows += [
        {
            "run": run.run_id,
            "state": run.state,
            "attempts": run.attempts or None,
            "reason": run.reason,
            "log": "\n".join(run.log.splitlines()[-6:]),
        }
        for run in sorted(inputs.ended, key=lambda run: (order.get(run.state, 3), run.run_id))
    ]
    return rows[:_MOST_RUNS]


def dropped_rows(inputs: Inputs) -> list[Record]:
    """Return everything else that does not count, one row per kind and reason: what, which, how many, why."""
    rows = [_row("file", file, 1, "damaged") for file, problem in sorted(inputs.problems.items()) if problem == DAMAGED]
    for step, count in sorted(Counter(row.step for row in inputs.rejected).items()):
        rows.append(_row("book", "", count, step, _STEP.format(step)))
    report = inputs.score_report
    for bank, family, reason, count in _questions(inputs.questions):
        rows.append(_row("question", f"{family} ({bank})", count, reason))
    for reason, count in _counts(report.get("dropped_items")):
        rows.append(_row("item", "", count, reason))
    for family, count in _counts(report.get("items_without_answer")):
        rows.append(_row("unanswered", family, count, "did not fit the model's window"))
    for what, count in _counts(report.get("cut_cells")):
        rows.append(_row("cell", "", count, f"{what} were cut"))
    excluded = [entry.family for entry in inputs.reliability if entry.family != "*" and not entry.admitted]
    rows += [_row("family", family, 1, "see abilities") for family in excluded]
    aside = sum(len(variant.init_seeds) for variant in inputs.variants if variant.aside)
    if aside:
        rows.append(_row("aside", "", aside, "another recipe"))
    for reason, count in _counts(inputs.findings.get("dropped")):
        rows.append(_row("analysis", "", count, reason))
    missing = max(0, inputs.n_planned - len(inputs.runs) - len(inputs.ended) - len(inputs.unreadable))
    if missing:
        rows.append(_row("not_begun", "", missing, "not begun"))
    return rows


def _row(thing: str, which: str, count: int, reason: str, key: str = "") -> Record:
    """Return one row; a reason that the locale knows is written in both languages."""
    key = key or f"dropped.{reason}"
    words = {language: show(language, Term(key, reason)) for language in LANGUAGES}
    known = key in entries("ru")
    return {
        "thing": thing,
        "which": which,
        "count": count,
        "reason": words["en"] if known else reason,
        **({"reason_ru": words["ru"]} if known else {}),
    }


def _counts(value: Any) -> list[tuple[str, int]]:
    if not isinstance(value, dict):
        return []
    return [(str(name), int(count)) for name, found in sorted(value.items()) if (count := number(found))]


def _questions(report: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """Return (bank, family, reason, count) of the questions that were made and not kept."""
    banks = report.get("banks")
    found = []
    for bank, about in sorted(banks.items()) if isinstance(banks, dict) else []:
        families = about.get("families") if isinstance(about, dict) else None
        for family, own in sorted(families.items()) if isinstance(families, dict) else []:
            for reason, count in _counts(own.get("dropped") if isinstance(own, dict) else None):
                found.append((str(bank), str(family), reason, count))
    return found
