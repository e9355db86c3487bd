"""Train every run of the design that is not complete yet.

Reads: `sets/variants.parquet` (Variant), tokens. Writes: `runs/jobs.json` and a folder per run (see `queue`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ltm.errors import BudgetError, DiskError
from ltm.progress import Progress, Task
from ltm.runs import halving, hardware, index, queue
from ltm.runs.attempts import Attempts
from ltm.runs.executors.base import LOG, Executor
from ltm.runs.executors.crew import CrewExecutor, Member
from ltm.runs.executors.local import LocalExecutor
from ltm.runs.order import in_order
from ltm.runs.pause import is_paused
from ltm.runs.queue import Recipe
from ltm.runs.section import RunsSection
from ltm.runs.worker import train_run
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint


@contextlib.contextmanager
def workers(section: RunsSection, work: WorkFolder | None = None) -> Iterator[Executor]:
    """Return a pool of warm workers, here or on a cluster; scoring uses the same ones as training.

    Args:
        section: Says how many and where.
        work: The work folder, whose pause they keep.
    """
    pool = make_executor(section, work)
    if work is not None:
        pool.may_work = lambda: not is_paused(work)
    try:
        yield pool
    except BaseException as error:
        pool.close(graceful=isinstance(error, (KeyboardInterrupt, BudgetError, DiskError)))
        raise
    pool.close()


def make_executor(section: RunsSection, work: WorkFolder | None) -> Executor:
    """Return the executor that a study asks for."""
    if section.executor == "ray":
        from ltm.runs.executors.ray import RayExecutor

        return RayExecutor(section, work)
    if section.executor == "crew" and work is not None:
        return CrewExecutor(local_executor(section), work, Member(work))
    return local_executor(section)


def local_executor(section: RunsSection) -> LocalExecutor:
    """Return the workers of this machine."""
    device = hardware.pick_device(section)
    return LocalExecutor(
        hardware.n_workers(section, device), section.threads, hardware.environments(device), section.memory_per_worker
    )


def build(
    work: WorkFolder,
    recipe: Recipe,
    jobs: list[queue.Job],
    pool: Executor,
    progress: Progress,
    judge: halving.Judge | None = None,
) -> Any:
    """Train what is missing; returns the ids of the complete runs. Failed runs are set aside, the rest go on.

    Args:
        work: The work folder.
        recipe: What the runs share.
        jobs: The runs.
        pool: Who trains them.
        progress: Told what happens.
        judge: Compares runs under way, for `runs.halving`; without it none is stopped early.

    Raises:
        DiskError: the disk is full, or nearly so.
        DamagedError: a file that runs are made from is not what was written.
        StoreError: the work folder cannot be used.
    """
    tidy(work, jobs)
    pending = _pending(work, jobs)
    task = progress.task("runs", len(jobs), "runs")
    task.done = task.skipped = len(jobs) - len(pending)
    if task.done and pending:
        progress.say(f"runs      {task.done} of {len(jobs)} are complete; going on")
    if pending:
        attempts = Attempts(work, recipe, fingerprint([job.run_id for job in jobs]))
        pool.on_tick = attempts.guard
        if judge is not None and recipe.runs.halving.enabled and recipe.runs.engine == "native":
            pending = _halve(work, pending, jobs, attempts, pool, task, judge)
        _train(work, pending, attempts, pool, task)
    return list(index.complete(work, [job.run_id for job in jobs]))


def tidy(work: WorkFolder, jobs: list[queue.Job]) -> None:
    """Give failed runs a new chance, and clear away what killed processes left behind."""
    wanted = {job.run_id for job in jobs}
    for folder in os.scandir(work.path("runs")):
        if not folder.is_dir():
            continue
        for name in os.listdir(folder.path):  # noqa: PTH208 - there may be ten thousand folders
            begun_and_killed = name.startswith(".") and name.endswith(".tmp")
            if begun_and_killed or (name == queue.FAILED and folder.name in wanted):
                Path(folder.path, name).unlink(missing_ok=True)


def _pending(work: WorkFolder, jobs: list[queue.Job]) -> list[str]:
    """Return the runs to train in the order in which to train them; those that were stopped for good are left out."""
    states = queue.states(work, [job.run_id for job in jobs])
    root = work.path("runs")
    begun = {run_id for run_id, state in states.items() if state in ("lost", "stopped")}
    for_good = {run_id for run_id in begun if (root / run_id / queue.ENDED).exists()}
    ordered = in_order(jobs, read_variants(work), begun)
    return [job.run_id for job in ordered if states[job.run_id] != "complete" and job.run_id not in for_good]


def _halve(
    work: WorkFolder,
    pending: list[str],
    jobs: list[queue.Job],
    attempts: Attempts,
    pool: Executor,
    task: Task,
    judge: halving.Judge,
) -> list[str]:
    """Bring the candidates from rung to rung and stop the worse part at each; returns the runs that are left."""
    recipe = attempts.recipe
    may = [run_id for run_id in halving.candidates(jobs, read_variants(work)) if run_id in set(pending)]
    steps = halving.rungs(recipe.runs.halving, recipe.n_steps())
    if len(may) < 2 or not steps:
        return pending
    halving.add_moments(work, [step * recipe.runs.batch_tokens for step in steps])
    for step in steps:
        tokens = step * recipe.runs.batch_tokens
        there = [r for r in may if work.path("runs", r, "moments", f"{tokens}.parquet").exists()]
        _train(work, [run_id for run_id in may if run_id not in there], attempts, pool, task, step)
        may = [run_id for run_id in may if not work.path("runs", run_id, queue.FAILED).exists()]
        scores = judge(may, tokens)
        stopped = halving.losers(scores, recipe.runs.halving.keep)
        halving.stop(work, stopped, scores, step, recipe.n_steps())
        task.advance(len(stopped), note=f"{len(stopped)} of {len(scores)} candidates stopped after {step} steps")
        may = [run_id for run_id in may if run_id not in stopped]
    root = work.path("runs")
    return [r for r in pending if not any((root / r / name).exists() for name in (queue.ENDED, queue.FAILED))]


def _train(
    work: WorkFolder, pending: list[str], attempts: Attempts, pool: Executor, task: Task, until_step: int = 0
) -> None:
    while pending:
        attempts.wait(pending)
        again: list[str] = []
        for outcome in pool.map(train_run, [attempts.job(run_id, until_step) for run_id in pending]):
            if outcome.ok:
                work.path("runs", outcome.key, LOG).unlink(missing_ok=True)
                if not until_step:
                    task.advance(note=_note(work, outcome.key))
            elif attempts.again(outcome):
                again.append(outcome.key)
            else:
                task.advance(note=f"run {outcome.key} failed: {outcome.error.splitlines()[0]}")
        pending = again


def _note(work: WorkFolder, run_id: str) -> str:
    run = queue.read_run(work, run_id)
    return f"loss {run.final_loss:.3f}, {run.tokens_per_second:,.0f} tokens/s a worker" if run else ""
