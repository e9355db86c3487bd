"""Measure what a run costs on this machine: the study's own model, trained by the study's own code for some seconds.

Reads: a work folder with tokens and a small design (a rehearsal's). Writes: `runs/` of that folder.

As many workers train at once as the study will use, since they share caches and memory, by the code that the study
will choose: whether it compiles and its micro batch follow from the length of its runs, not of these. The first jobs
are short and pay for imports, compiling and cold caches; the jobs after them are timed. Where a whole run is short,
whole runs are timed.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm.errors import TrainError
from ltm.runs import hardware, queue
from ltm.runs.attempts import room
from ltm.runs.engine import compiled_folder
from ltm.runs.executors.base import Executor, Job
from ltm.runs.executors.local import LocalExecutor
from ltm.runs.worker import train_run
from ltm.sets.section import SetsSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder
from ltm.tokens.tokenizer import load

_WARM_STEPS = (8, 24)  # the second number is timed, roughly, to size the jobs that are measured
_MOST_WARM_SECONDS = 2.0
_FEWEST_STEPS = 12
_BLOCK_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class RunCosts:
    """What was measured of training."""

    start_seconds: float  # workers started, imports and compiling (or reading compiled code) included
    tokens_per_second: float  # of one worker while all train
    spread: float  # relative standard deviation of the mean of that rate over the timed jobs
    run_seconds: float  # of a run beyond its steps
    checkpoint_share: float  # of training time that goes into checkpoints
    weights_bytes: int
    row_bytes: int


def measure_runs(
    work: WorkFolder,
    recipe: queue.Recipe,
    pool: Executor,
    n_workers: int,
    seconds: float,
    rounds: int,
    again: bool = False,
) -> RunCosts:
    """Train a few short runs on all workers and time them.

    Args:
        work: A folder with tokens and a small design; its runs are thrown away with it.
        recipe: The study's own.
        pool: Its workers; they may be cold. Where they had to compile first, the start is that of others, who find the
            code in the cache as the study will.
        n_workers: How many of them the study uses.
        seconds: Length of a timed job.
        rounds: Timed jobs of each worker.
        again: Start workers anew where the first ones compiled: the study will have other processes.

    Raises:
        TrainError: the model cannot be trained here.
    """
    recipe, micro_tokens, free_bytes = _as_the_study(work, recipe)
    probe = _Probe(work, recipe, pool, n_workers, micro_tokens, free_bytes)
    compiled_before = _compiled_codes()
    began = time.monotonic()
    first = probe.train(_WARM_STEPS[0], n_workers)
    first_seconds, first_steps = time.monotonic() - began, probe.n_steps
    rate = first_steps / float(np.mean(first))
    if recipe.runs.compile or _WARM_STEPS[1] / rate < _MOST_WARM_SECONDS:
        warm = probe.train(_WARM_STEPS[1], n_workers)
        rate = probe.n_steps / float(np.mean(warm))
    n_steps = min(recipe.n_steps(), max(_FEWEST_STEPS, round(rate * seconds)))
    began = time.monotonic()
    timed = probe.train(n_steps, n_workers * rounds)
    wall = (time.monotonic() - began) / rounds
    mean = float(np.mean(timed))
    spread = float(np.std(timed)) / mean / len(timed) ** 0.5 if len(timed) > 1 else 0.1
    step_seconds = mean / probe.n_steps
    if again and _compiled_codes() > compiled_before:
        with LocalExecutor(n_workers) as fresh:
            began = time.monotonic()
            _Probe(work, recipe, fresh, n_workers, micro_tokens, free_bytes).train(first_steps, n_workers, "again")
            first_seconds = time.monotonic() - began
    return RunCosts(
        start_seconds=max(0.0, first_seconds - first_steps * step_seconds),  # the first steps compile
        tokens_per_second=probe.n_steps * recipe.runs.batch_tokens / mean,
        spread=max(0.01, spread),
        run_seconds=max(0.0, wall - mean),
        checkpoint_share=_checkpoint_seconds(work, probe.weights_bytes()) / recipe.runs.checkpoint_seconds
        if recipe.n_steps() / rate > recipe.runs.checkpoint_seconds
        else 0.0,
        weights_bytes=probe.weights_bytes(),
        row_bytes=probe.row_bytes(),
    )


def _as_the_study(work: WorkFolder, recipe: queue.Recipe) -> tuple[queue.Recipe, int, float]:
    """Return the recipe with the study's decision on compiling, its micro batch in tokens, a worker's free bytes."""
    vocab_size = load(work).vocab_size
    settings = hardware.engine_settings(recipe.runs, recipe.model.shape(vocab_size), recipe.sets.run_tokens)
    micro_tokens, free_bytes = room(work, recipe)
    runs = recipe.runs.model_copy(update={"compile": settings.compiled})
    return dataclasses.replace(recipe, runs=runs), micro_tokens, free_bytes


def _compiled_codes() -> int:
    """Return how many shapes this machine has compiled."""
    return sum(1 for _ in compiled_folder().glob("*.done"))


def trained(work: WorkFolder) -> list[str]:
    """Return the runs of a probe, newest first; their weights can be scored."""
    return [job.run_id for job in reversed(queue.read_jobs(work)[1])]


class _Probe:
    """The same model trained for different numbers of steps."""

    def __init__(
        self,
        work: WorkFolder,
        recipe: queue.Recipe,
        pool: Executor,
        n_workers: int,
        micro_tokens: int,
        free_bytes: float,
    ) -> None:
        self.work, self.recipe, self.pool, self.n_workers = work, recipe, pool, n_workers
        self.micro_tokens, self.free_bytes = micro_tokens, free_bytes
        self.variants = read_variants(work)
        self.jobs: list[queue.Job] = []
        self.n_steps = 0  # of the last jobs

    def train(self, n_steps: int, n_jobs: int, name: str = "probe") -> list[float]:
        """Return the training seconds of `n_jobs` runs of so many steps."""
        recipe = dataclasses.replace(self.recipe, sets=self._sets(n_steps))
        self.n_steps = recipe.n_steps()
        self.jobs = [
            queue.Job(f"{name}-{n_steps}-{i}", self.variants[i % len(self.variants)].index, i) for i in range(n_jobs)
        ]
        queue.write_jobs(self.work, recipe, self.jobs)
        about = (f"{name}-{n_steps}-{n_jobs}", self.micro_tokens, self.free_bytes)
        calls = [Job(job.run_id, (str(self.work.root), job.run_id, *about)) for job in self.jobs]
        outcomes = list(self.pool.map(train_run, calls))
        done = [outcome.value["seconds"] for outcome in outcomes if outcome.ok]
        if not done:
            raise TrainError(
                f"this machine could not train the model for a moment: {outcomes[0].error}",
                "try a smaller model; a script that calls ltm needs `if __name__ == '__main__':`",
            )
        return done

    def weights_bytes(self) -> int:
        return self._size("weights.safetensors")

    def row_bytes(self) -> int:
        return self._size("run.json")

    def _size(self, name: str) -> int:
        paths = (self.work.path("runs", job.run_id, name) for job in self.jobs)
        return max((path.stat().st_size for path in paths if path.exists()), default=0)

    def _sets(self, n_steps: int) -> SetsSection:
        """Return the study's sets with as many tokens a run as `n_steps` take."""
        sets = self.recipe.sets
        books = len(self.variants[0].book_ids)
        quota = -(-n_steps * self.recipe.runs.batch_tokens // books)
        changes: dict[str, Any] = {"books_per_set": books, "book_tokens": quota, "epochs": 1}
        return sets.model_copy(update=changes)


def _checkpoint_seconds(work: WorkFolder, weights_bytes: int) -> float:
    """Return how long it takes to write a checkpoint: weights, their average and two moments, to the disk."""
    from ltm.store import write_bytes

    data = np.random.default_rng(0).bytes(_BLOCK_BYTES)
    began = time.monotonic()
    write_bytes(work.path("block.bin"), data)
    seconds = time.monotonic() - began
    work.path("block.bin").unlink()
    return seconds * 4 * weights_bytes / _BLOCK_BYTES
