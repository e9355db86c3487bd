"""What a worker process does with one job: open the stream, train, save the weights, write the row.

Reads: `runs/jobs.json`, `sets/variants.parquet`, tokens. Writes: `runs/<run_id>/`. A worker stays warm: the model of
the same shape (and its compiled form) is filled with new weights instead of being built again.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ltm.errors import DataError, TrainError
from ltm.records import Shard, Variant
from ltm.runs import checkpoint, free_memory, hardware, heartbeat, micro_batch, queue
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.executors.base import LOG, nothing_to_lose, stop_requested
from ltm.runs.moments import Moments
from ltm.runs.row import now, row_of
from ltm.runs.train import NotFinite, Stopped, Trainer
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, write_json
from ltm.tokens.stream import Stream, open_stream, read_shards
from ltm.tokens.tokenizer import load


def train_run(
    root: str,
    run_id: str,
    jobs_version: str,
    micro_tokens: int = 0,
    free_bytes: float = 0.0,
    most_tokens: int = 0,
    until_step: int = 0,
) -> dict[str, float]:
    """Train one run of the stored queue, from its last checkpoint if it has one.

    Args:
        root: The work folder.
        run_id: Which run.
        jobs_version: Changes when the queue was written anew, so that a warm worker reads it again.
        micro_tokens: Tokens of one forward pass that should fit; halved where they do not. 0 = what the study says.
        free_bytes: Memory that this worker may take; on a CPU beyond what it has, on a GPU in all. Running into it is
            an error that is answered, where the system would kill the process, or a neighbour. 0 = no bound.
        most_tokens: The largest micro batch allowed, also for a run that has a checkpoint made with a larger one: for
            a run whose worker took too much memory. 0 = no bound.
        until_step: Wait for a decision after this step, with a checkpoint. 0 = train to the end.

    Raises:
        TrainError: the loss is no longer finite, or not even one sequence fits into memory.
        Stopped: the worker was asked to stop; a checkpoint stands.
    """
    work = WorkFolder(Path(root))
    shared, recipes, jobs, variants = _queue(root, jobs_version)
    job = jobs[run_id]
    recipe = recipes.get(job.recipe, shared)
    variant = variants[job.variant_index]
    if recipe.runs.engine != "native":
        from ltm.runs.engines.start import train_run as train_base

        return train_base(root, run_id, micro_tokens, stop_requested)
    folder = work.path("runs", run_id)
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size, bos_id, shards = _tokens(root, jobs_version)
    settings = hardware.engine_settings(recipe.runs, recipe.model.shape(vocab_size), recipe.sets.run_tokens)
    stream = open_stream(work, variant, recipe.sets, shards, bos_id, vocab_size)
    started = now()

    def attempt(micro: int) -> Trainer:
        trainer = Trainer(recipe.runs, _warm_engine(settings), stream, recipe.n_steps(), job.init_seed, micro)
        checkpoint.load_checkpoint(folder / checkpoint.CHECKPOINT, trainer)
        if micro < wanted:  # the checkpoint's is what did not fit; else it stays: others would round differently
            trainer.micro_tokens = min(micro, trainer.micro_tokens)
        trainer.micro_tokens = min(trainer.micro_tokens, most_tokens or trainer.micro_tokens)
        step, n_steps = trainer.state.step, trainer.n_steps
        if until_step and step >= until_step:
            raise AtRung
        queue.beat(folder, "running", step, n_steps)
        with nothing_to_lose(lambda: queue.beat(folder, "stopped", step, n_steps)) as begun:  # while it compiles
            trainer.run(_Watch(folder, recipe.runs.checkpoint_seconds, begun, Moments(work, run_id), until_step))
        return trainer

    wanted = _fits.get(settings, micro_tokens or recipe.runs.micro_batch_tokens or recipe.runs.batch_tokens)
    wanted = min(wanted, most_tokens or wanted)
    try:
        with _bounded(settings.device, free_bytes):
            trainer = micro_batch.run_with_halving(
                attempt, wanted, recipe.runs.batch_tokens, settings.config.block_size, _say_halved
            )
    except NotFinite as error:
        raise _with_books(error, variant, shards, stream) from None
    except AtRung:
        return {"step": float(until_step)}
    _fits[settings] = trainer.micro_tokens
    _keep(work, job, variant, recipe, trainer, started)
    return {"seconds": trainer.state.seconds}


def _keep(
    work: WorkFolder, job: queue.Job, variant: Variant, recipe: queue.Recipe, trainer: Trainer, started: str
) -> None:
    """Write the weights, then the row that completes the run, and clear away what it needs no longer."""
    folder, settings = work.path("runs", job.run_id), trainer.engine.settings
    digest = checkpoint.save_weights(folder / checkpoint.WEIGHTS, trainer.scored_weights(), settings.config)
    row = row_of(
        work,
        job,
        variant,
        recipe,
        trainer.state,
        started=started,
        model=recipe.model.size,
        n_params=settings.config.n_params,
        n_steps=trainer.n_steps,
        device=str(trainer.device),
        precision=settings.precision,
        compiled=settings.compiled,
        micro_tokens=trainer.micro_tokens,
        matmul_flops=hardware.matmul_flops(settings.device, settings.dtype),
        weights_sha256=digest,
    )
    write_json(folder / "run.json", as_json(row))
    for leftover in (checkpoint.CHECKPOINT, heartbeat.FILE, LOG):
        (folder / leftover).unlink(missing_ok=True)
    for begun in folder.glob(".*.tmp"):  # by a worker that was killed while it wrote
        begun.unlink(missing_ok=True)


def _bounded(device: str, free_bytes: float) -> contextlib.AbstractContextManager[None]:
    """Return what turns taking too much memory into an error that is answered."""
    if free_bytes and device == "cpu":
        return free_memory.fence(free_bytes)
    if free_bytes and device == "cuda":
        return free_memory.card_fence(free_bytes)
    return contextlib.nullcontext()


def _say_halved(too_large: int, smaller: int) -> None:
    print(f"a micro batch of {too_large} tokens did not fit into memory; going on with {smaller}", file=sys.stderr)


_fits: dict[EngineSettings, int] = {}  # the micro batch that this worker found to fit


def _with_books(error: NotFinite, variant: Variant, shards: Mapping[str, Shard], stream: Stream) -> TrainError:
    """Return the error with the ids of the books that its batch is made of."""
    places = stream.places(error.start, error.count)
    inside = (
        book
        for book in variant.book_ids
        if any(shards[book].start <= first < shards[book].start + shards[book].n_tokens for first in places)
    )
    return TrainError(f"{error.message}, from the books {', '.join(dict.fromkeys(inside))}", error.hint)


class AtRung(Exception):
    """The run is where it has to wait for a decision; its checkpoint stands."""


class _Watch:
    """Between steps: keep the heartbeat fresh, write checkpoints, stop when asked."""

    def __init__(
        self, folder: Path, checkpoint_seconds: float, begun: Callable[[], None], moments: Moments, until_step: int = 0
    ) -> None:
        self.folder, self.checkpoint_seconds, self.begun, self.moments = folder, checkpoint_seconds, begun, moments
        self.until_step = until_step
        self.saved_at = self.beaten_at = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        self.begun()  # a step is made: from now on there is something to lose
        self.moments.look(trainer)  # before a checkpoint says that this step is behind us
        now = time.monotonic()
        stop = stop_requested()
        waits = bool(self.until_step) and trainer.state.step >= self.until_step
        if stop or waits or now - self.saved_at >= self.checkpoint_seconds:
            checkpoint.save_checkpoint(self.folder / checkpoint.CHECKPOINT, trainer)
            self.saved_at = now
        if stop or now - self.beaten_at >= queue.HEARTBEAT_SECONDS:
            queue.beat(self.folder, "stopped" if stop else "running", trainer.state.step, trainer.n_steps)
            self.beaten_at = now
        if waits:
            queue.beat(self.folder, "waiting", trainer.state.step, trainer.n_steps)
            raise AtRung
        if stop:
            raise Stopped


@functools.lru_cache(maxsize=1)
def _queue(
    root: str, _jobs_version: str
) -> tuple[queue.Recipe, dict[str, queue.Recipe], dict[str, queue.Job], dict[int, Variant]]:
    work = WorkFolder(Path(root))
    recipe, jobs = queue.read_jobs(work)
    by_id = {job.run_id: job for job in jobs}
    return recipe, queue.read_recipes(work), by_id, {v.index: v for v in read_variants(work)}


@functools.lru_cache(maxsize=1)
def _tokens(root: str, _jobs_version: str) -> tuple[int, int, Mapping[str, Shard]]:
    work = WorkFolder(Path(root))
    tokenizer = load(work)
    shards = read_shards(work)
    if not shards:
        raise DataError("the token index is empty", "delete the tokens folder and run again")
    return tokenizer.vocab_size, tokenizer.bos_id, shards


@functools.lru_cache(maxsize=1)
def _warm_engine(settings: EngineSettings) -> Engine:
    return Engine(settings)
