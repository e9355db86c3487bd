"""What a worker process does with one job: open the stream, train, save the weights, write the row.

Reads: `runs/jobs.json`, `sets/variants.parquet`, tokens. Writes: `runs/<run_id>/`. A worker stays warm: the model of
the same shape (and its compiled form) is filled with new weights instead of being built again.
"""

from __future__ import annotations

import datetime
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ltm.errors import DataError
from ltm.model.gpt import GPT, init_weights
from ltm.model.sizes import ModelConfig
from ltm.records import Run, Shard, Variant
from ltm.runs import checkpoint, hardware, queue
from ltm.runs.executors.local import stop_requested
from ltm.runs.train import Stopped, Trainer
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, write_json
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import load


def train_run(root: str, run_id: str, jobs_version: str) -> dict[str, float]:
    """Train one run of the stored queue, from its last checkpoint if it has one.

    Args:
        root: The work folder.
        run_id: Which run.
        jobs_version: Changes when the queue was written anew, so that a warm worker reads it again.

    Raises:
        TrainError: the loss is no longer finite.
        Stopped: the worker was asked to stop; a checkpoint stands.
    """
    work = WorkFolder(Path(root))
    recipe, jobs, variants = _queue(root, jobs_version)
    job = jobs[run_id]
    variant = variants[job.variant_index]
    folder = work.path("runs", run_id)
    folder.mkdir(parents=True, exist_ok=True)
    device = hardware.pick_device(recipe.runs)
    dtype = hardware.pick_dtype(recipe.runs, device)
    vocab_size, bos_id, shards = _tokens(root, jobs_version)
    config = recipe.model.shape(vocab_size)
    model, loss_fn = _warm_model(config, device, recipe.runs.compile)
    init_weights(model, job.init_seed)
    stream = open_stream(work, variant, recipe.sets, shards, bos_id, vocab_size)
    trainer = Trainer(recipe.runs, model, loss_fn, stream, recipe.n_steps(), dtype)
    started = _now()
    checkpoint.load_checkpoint(folder / checkpoint.CHECKPOINT, trainer)
    queue.beat(folder, "running", trainer.state.step, trainer.n_steps)
    trainer.run(_Watch(folder, recipe.runs.checkpoint_seconds))
    checkpoint.save_weights(folder / checkpoint.WEIGHTS, trainer.scored_weights(), config)
    run = _row(job, variant, recipe, trainer, config, started, hardware.matmul_flops(device, dtype))
    write_json(folder / "run.json", as_json(run))
    for leftover in (checkpoint.CHECKPOINT, "heartbeat.json"):
        (folder / leftover).unlink(missing_ok=True)
    return {"seconds": run.seconds}


class _Watch:
    """Between steps: keep the heartbeat fresh, write checkpoints, stop when asked."""

    def __init__(self, folder: Path, checkpoint_seconds: float) -> None:
        self.folder, self.checkpoint_seconds = folder, checkpoint_seconds
        self.saved_at = self.beaten_at = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        now = time.monotonic()
        stop = stop_requested()
        if stop or now - self.saved_at >= self.checkpoint_seconds:
            checkpoint.save_checkpoint(self.folder / checkpoint.CHECKPOINT, trainer)
            self.saved_at = now
        if stop or now - self.beaten_at >= queue.HEARTBEAT_SECONDS:
            queue.beat(self.folder, "stopped" if stop else "running", trainer.state.step, trainer.n_steps)
            self.beaten_at = now
        if stop:
            raise Stopped


@functools.lru_cache(maxsize=1)
def _queue(root: str, _jobs_version: str) -> tuple[queue.Recipe, dict[str, queue.Job], dict[int, Variant]]:
    work = WorkFolder(Path(root))
    recipe, jobs = queue.read_jobs(work)
    return recipe, {job.run_id: job for job in jobs}, {v.index: v for v in read_variants(work)}


@functools.lru_cache(maxsize=1)
def _tokens(root: str, _jobs_version: str) -> tuple[int, int, dict[str, Shard]]:
    work = WorkFolder(Path(root))
    tokenizer = load(work)
    shards = read_shards(work)
    if not shards:
        raise DataError("the token index is empty", "delete the tokens folder and run again")
    return tokenizer.vocab_size, tokenizer.bos_id, shards


@functools.lru_cache(maxsize=1)
def _warm_model(config: ModelConfig, device: str, compiled: bool) -> tuple[GPT, Callable[[Tensor, Tensor], Tensor]]:
    model = GPT(config).to(device)
    return model, torch.compile(model.loss) if compiled else model.loss


def _row(
    job: queue.Job,
    variant: Variant,
    recipe: queue.Recipe,
    trainer: Trainer,
    config: ModelConfig,
    started: str,
    matmul_flops: float,
) -> Run:
    state = trainer.state
    n_tokens = trainer.n_steps * recipe.runs.batch_tokens
    rate = n_tokens / max(state.seconds, 1e-9)
    tail = state.curve_loss[-max(1, len(state.curve_loss) // 20) :]
    return Run(
        run_id=job.run_id,
        variant_id=variant.variant_id,
        init_seed=job.init_seed,
        model=recipe.model.size,
        n_params=config.n_params,
        n_tokens=n_tokens,
        n_steps=trainer.n_steps,
        seconds=state.seconds,
        tokens_per_second=rate,
        mfu=6 * config.n_params * rate / matmul_flops,
        device=str(trainer.device),
        dtype=str(trainer.dtype).removeprefix("torch."),
        final_loss=sum(tail) / len(tail),
        curve_tokens=state.curve_tokens,
        curve_loss=state.curve_loss,
        worker=f"{os.uname().nodename}:{os.getpid()}",
        started_at=started,
        finished_at=_now(),
        versions=hardware.versions(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
