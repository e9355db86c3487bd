"""Ask every run, and the models that cannot have an ability, every item; then condense the answers.

Reads: weights, tokens, `evalset/bank_a.parquet` (Item), `sets/variants.parquet` (Variant). Writes: a file of raw
answers per model (`raw`), `scores/measures.parquet` (Measure), `scores/reliability.parquet` (Reliability),
`scores/report.json` (correlations between abilities, controls, what was cut and dropped), `scores/snapshots.parquet`
(Snapshot) where there are moments. The simple models (`baselines`) measure the chance level; they are no rows of the
measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.errors import StoreError
from ltm.evalset.bank import bank_fingerprint, read_bank
from ltm.progress import Progress
from ltm.records import Item, Measure, Reliability, Run
from ltm.scores import baselines, measures, metric, reliability
from ltm.scores.baselines import ENDING, NGRAM, UNIGRAM, UNTRAINED, untrained_ids
from ltm.scores.icc import Layout
from ltm.scores.raw import VERSION, mark_of, path_of, read_answers, stored_mark
from ltm.scores.report import condensed_report, control_rows
from ltm.scores.section import ScoresSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, fingerprint, read_json, read_rows, write_json, write_rows

if TYPE_CHECKING:
    from ltm.runs.executors.base import Executor

__all__ = ["VERSION", "build", "condense", "pending", "report", "score_run", "untrained_ids"]

Marks = dict[str, str]


def pending(work: WorkFolder, run_ids: Sequence[str], fingerprint_of_bank: str, bank: str = "a") -> list[str]:
    """Return which of the models have no scores, or scores of another bank or version."""
    wanted = mark_of(fingerprint_of_bank)
    found = {run_id: stored_mark(path_of(work, run_id, bank)) for run_id in run_ids}
    return [run_id for run_id, mark in found.items() if mark is None or not f"{mark}/".startswith(f"{wanted}/")]


def score_run(work_root: str, run_id: str, bank: str = "a") -> dict[str, Any]:
    """Ask one run, or one simple model, every item and write its raw answers; runs inside a worker process.

    Args:
        work_root: The work folder.
        run_id: Which run; `untrained-1`, `ngram-1` and so on are the simple models.
        bank: a or b.

    Raises:
        StoreError: weights, tokenizer or bank are missing or damaged.
        DataError: an item cannot be scored with this tokenizer and block size.
    """
    from ltm.scores.ask import ask

    started = time.monotonic()
    plan = ask(WorkFolder(Path(work_root)), run_id, bank)
    return {
        "run_id": run_id,
        "cells": len(plan.item_ids),
        "cut_contexts": plan.n_cut_contexts,
        "cut_continuations": plan.n_cut_continuations,
        "seconds": time.monotonic() - started,
    }


def build(
    section: ScoresSection, work: WorkFolder, runs: list[Run], workers: Callable[[], Executor], progress: Progress
) -> Any:
    """Score what has no scores yet on warm workers, then condense; `workers` starts them if they are needed.

    Raises:
        StoreError: a run cannot be scored.
    """
    write_json(work.path("scores", "settings.json"), section.model_dump())
    marks = wanted_marks(section, work, runs)
    todo = unanswered(work, marks, section.bank)
    cut: dict[str, int] = {}
    if todo:
        cut = score_all(work, todo, len(marks), section.bank, workers, progress)
    return condense(section, work, runs, progress, cut)


def score_all(
    work: WorkFolder,
    todo: Sequence[str],
    n_all: int,
    bank: str,
    workers: Callable[[], Executor],
    progress: Progress,
) -> dict[str, int]:
    """Ask models every item of a bank, on the workers; returns how many cells the block size cut.

    Raises:
        StoreError: one cannot be scored.
    """
    from ltm.runs.executors.base import Job, raise_for_folder

    task = progress.task("scores", n_all, "models")
    task.done = task.skipped = n_all - len(todo)
    cut = {"contexts": 0, "continuations": 0}
    for outcome in workers().map(score_run, [Job(name, (str(work.root), name, bank)) for name in todo]):
        if not outcome.ok:
            raise_for_folder(outcome)
            raise StoreError(f"model {outcome.key} cannot be scored: {outcome.error}", outcome.trace)
        if not outcome.key.startswith(ENDING):
            cut = {"contexts": outcome.value["cut_contexts"], "continuations": outcome.value["cut_continuations"]}
        task.advance()
    return cut


def condense(
    section: ScoresSection, work: WorkFolder, runs: list[Run], progress: Progress, cut: dict[str, int] | None = None
) -> Any:
    """Write measures and reliability from the raw answers; return what identifies them.

    Raises:
        StoreError: a run or a simple model has not been scored on the present bank, or the design is missing.
    """
    items = read_bank(work, section.bank)
    marks = wanted_marks(section, work, runs)
    design = read_variants(work)
    names = [run.variant_id for run in runs]
    layout = Layout.of(names, [run.init_seed for run in runs], design)
    run_ids = [run.run_id for run in runs]
    raw = read_answers(work, items, {name: marks[name] for name in run_ids}, section.bank)
    whole = measures.family_tables(items, *raw)
    simple = _baselines(work, items, marks, section.bank)
    bank = next(iter(marks.values())) if not runs else marks[run_ids[0]]
    dropped = metric.worthless_items(work, bank, whole, simple.ngram, names, design, section)
    kept = [metric.without(table, dropped) for table in whole]
    metrics = metric.choose_metrics(work, bank, kept, names, layout, section, metric.first_round(names, design))
    rows = measures.measures(kept, run_ids, metrics)
    by = [table.by(metrics[table.ability]) for table in kept]
    judged = reliability.judge(by, simple, names, section, layout, whole)
    controls = control_rows(items, raw, whole)
    told = condensed_report(section, work, by, judged, layout, controls, dropped, metrics, cut)
    write_rows(work.path("scores", "measures.parquet"), rows, Measure)
    write_rows(work.path("scores", "reliability.parquet"), judged, Reliability)
    write_json(work.path("scores", "report.json"), told)
    _collect_snapshots(work, items, runs)
    admitted = [row.family for row in judged if row.admitted and row.family != reliability.WHOLE_ABILITY]
    progress.say(f"scores    {len(runs)} runs; families that can be measured: {', '.join(admitted) or 'none'}")
    values = [[row.run_id, row.family, _plain(row.value), _plain(row.accuracy), row.n_items] for row in rows]
    return {"bank": bank, "measures": fingerprint(values), "admitted": admitted}


def report(work: WorkFolder) -> dict[str, Any]:
    """Return how well each family and ability can be measured, for `--json`.

    Raises:
        StoreError: the stage has not been run.
    """
    rows = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    path = work.path("scores", "report.json")
    return {
        "reliability": [as_json(row) for row in rows],
        "n_runs": max((row.n_runs for row in rows), default=0),
        **(read_json(path) if path.exists() else {}),
    }


def wanted_marks(section: ScoresSection, work: WorkFolder, runs: Sequence[Run]) -> Marks:
    """Return what the file of every model has to be marked with: simple models first, then the runs."""
    from ltm.runs.queue import read_jobs

    bank = bank_fingerprint(work, section.bank)
    recipe = read_jobs(work)[0]
    chosen = baselines.choose(work, section, runs)
    simple = baselines.own_marks(work, recipe, section, chosen)
    marks = {name: mark_of(bank, own) for name, own in simple.items()}
    return marks | {run.run_id: mark_of(bank) for run in runs}


def unanswered(work: WorkFolder, marks: Marks, bank: str) -> list[str]:
    """Return which models have no answers, or answers of something else than their marks say, in their order."""
    return [name for name, mark in marks.items() if stored_mark(path_of(work, name, bank)) != mark]


def _baselines(work: WorkFolder, items: list[Item], marks: Marks, bank: str) -> reliability.Baselines:
    def tables(kind: str, asked: list[Item]) -> list[measures.FamilyTable]:
        own = {name: mark for name, mark in marks.items() if name.startswith(kind)}
        return measures.family_tables(asked, *read_answers(work, asked, own, bank)) if own else []

    return reliability.Baselines(
        tables(UNTRAINED, items), tables(UNIGRAM, items), tables(NGRAM, items), tables(ENDING, baselines.endings(items))
    )


def _collect_snapshots(work: WorkFolder, items: list[Item], runs: Sequence[Run]) -> None:
    from ltm.scores.snapshots import collect

    collect(work, items, [run.run_id for run in runs])


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
