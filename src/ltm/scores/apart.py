"""Measures of runs that stand apart from the others: they are in no table that effects are estimated from.

Reads: weights (`runs/`), `evalset/bank_*.parquet` (Item). Writes: `scores/<name>.parquet` (Measure): `confirmed`, the
confirmation's runs on the sealed bank B, and `aside`, runs of the pilot that were trained another way. The raw answers
lie where all raw answers lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ltm.errors import StoreError
from ltm.evalset.bank import bank_fingerprint, read_bank
from ltm.progress import Progress
from ltm.records import Measure, Run
from ltm.scores import measures, stage
from ltm.scores.metric import stored_metrics
from ltm.scores.raw import mark_of, read_answers
from ltm.store import WorkFolder, fingerprint, read_rows, write_rows

if TYPE_CHECKING:
    from ltm.runs.executors.base import Executor

CONFIRMED, ASIDE = "confirmed", "aside"


def build(
    work: WorkFolder, runs: list[Run], bank: str, name: str, workers: Callable[[], Executor], progress: Progress
) -> str:
    """Score runs on a bank and write their measures under a name; returns a fingerprint of these.

    Without runs there is no file, and the bank is not looked at.

    Raises:
        StoreError: a run cannot be scored.
    """
    from ltm.runs.executors.base import Job, raise_for_folder

    path = work.path("scores", f"{name}.parquet")
    if not runs:
        path.unlink(missing_ok=True)
        return ""
    ids = [run.run_id for run in runs]
    mark = bank_fingerprint(work, bank)
    todo = stage.pending(work, ids, mark, bank)
    task = progress.task("scores", len(ids), f"models on bank {bank}")
    task.done = task.skipped = len(ids) - len(todo)
    jobs = [Job(run_id, (str(work.root), run_id, bank)) for run_id in todo]
    for outcome in workers().map(stage.score_run, jobs) if jobs else ():
        if not outcome.ok:
            raise_for_folder(outcome)
            raise StoreError(f"model {outcome.key} cannot be scored: {outcome.error}", outcome.trace)
        task.advance()
    items = read_bank(work, bank)
    raw = read_answers(work, items, dict.fromkeys(ids, mark_of(mark)), bank)
    rows = measures.measures(measures.family_tables(items, *raw), ids, stored_metrics(work))
    write_rows(path, rows, Measure)
    return fingerprint([[row.run_id, row.family, str(row.value), row.n_items] for row in rows])


def read(work: WorkFolder, name: str) -> list[Measure]:
    """Return the measures under a name; none where there is no such file."""
    path = work.path("scores", f"{name}.parquet")
    return read_rows(path, Measure) if path.exists() else []
