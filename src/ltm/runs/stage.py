"""Train every run of the design that is not complete yet.

Reads: `sets/variants.parquet` (Variant), tokens. Writes: `runs/jobs.json` and a folder per run (see `queue`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ltm.errors import StoreError
from ltm.progress import Progress
from ltm.runs import hardware, queue
from ltm.runs.executors.local import Job, LocalExecutor
from ltm.runs.free_memory import free_bytes
from ltm.runs.micro_batch import largest_that_fits
from ltm.runs.queue import Recipe
from ltm.runs.section import RunsSection
from ltm.runs.worker import train_run
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.tokens.tokenizer import load


@contextlib.contextmanager
def workers(section: RunsSection) -> Iterator[LocalExecutor]:
    """Return a pool of warm workers for this machine; scoring uses the same ones as training."""
    with LocalExecutor(hardware.n_workers(section, hardware.pick_device(section))) as pool:
        yield pool


def build(work: WorkFolder, recipe: Recipe, jobs: list[queue.Job], pool: LocalExecutor, progress: Progress) -> Any:
    """Train what is missing; returns the ids of the complete runs. Failed runs are kept aside, the rest go on."""
    for job in jobs:
        with contextlib.suppress(FileNotFoundError):  # a new start gives failed runs a new chance
            work.path("runs", job.run_id, "failed.json").unlink()
    pending = [job.run_id for job in jobs if queue.read_run(work, job.run_id) is None]
    version = fingerprint([job.run_id for job in jobs])
    task = progress.task("runs", len(jobs), "runs")
    task.done = task.skipped = len(jobs) - len(pending)
    if task.done and pending:
        progress.say(f"runs      {task.done} of {len(jobs)} are complete; going on")
    attempts: dict[str, int] = {}
    micro_tokens, free = room(work, recipe) if pending else (0, 0.0)
    while pending:
        arguments = [Job(run_id, (str(work.root), run_id, version, micro_tokens, free)) for run_id in pending]
        pending = []
        for outcome in pool.map(train_run, arguments):
            attempts[outcome.key] = attempts.get(outcome.key, 0) + 1
            if outcome.ok:
                task.advance(note=_note(work, outcome.key))
            elif outcome.kind == "StoreError":
                raise StoreError(outcome.error)
            elif outcome.trace and attempts[outcome.key] <= recipe.runs.retries:
                pending.append(outcome.key)
            else:
                failure = {"error": outcome.error, "trace": outcome.trace, "attempts": attempts[outcome.key]}
                write_json(work.path("runs", outcome.key, "failed.json"), failure)
                task.advance(note=f"run {outcome.key} failed: {outcome.error.splitlines()[0]}")
    return [job.run_id for job in jobs if queue.state_of(work, job.run_id) == "complete"]


def room(work: WorkFolder, recipe: Recipe) -> tuple[int, float]:
    """Return the micro batch in tokens that is forecast to fit with all workers at work, and each one's free bytes.

    The micro batch is chosen once per study and kept in `runs/micro_batch.json`: another one would round differently.
    """
    section = recipe.runs
    settings = hardware.engine_settings(section, recipe.model.shape(load(work).vocab_size), recipe.sets.run_tokens)
    on_device = 1 if settings.device == "cuda" else hardware.n_workers(section, settings.device)
    free = free_bytes(settings.device, on_device)
    path = work.path("runs", "micro_batch.json")
    if section.micro_batch_tokens:
        return section.micro_batch_tokens, free
    shape = fingerprint([str(settings), section.batch_tokens])
    if path.exists() and (kept := read_json(path)).get("shape") == shape:
        return int(kept["micro_tokens"]), free
    micro_tokens = largest_that_fits(
        settings.config,
        section.batch_tokens,
        settings.precision,
        settings.device,
        free,
        activation_checkpointing=settings.recompute,
        compiled=settings.compiled,
    )
    write_json(path, {"shape": shape, "micro_tokens": micro_tokens})
    return micro_tokens, free


def _note(work: WorkFolder, run_id: str) -> str:
    run = queue.read_run(work, run_id)
    return f"loss {run.final_loss:.3f}, {run.tokens_per_second:,.0f} tokens/s a worker" if run else ""
