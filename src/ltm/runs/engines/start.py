"""Train one run with a Hugging Face model: here, or in several processes that share it.

Reads: the stored queue, the design, tokens, the base model. Writes: `runs/<run_id>/` as the native engine does, with
`adapter/` or `model/` in place of its weights. Several processes are started by torchrun, one for each device; the
first of them writes.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltm.errors import InputError, StoreError, TrainError
from ltm.model.base import identity
from ltm.model.section import ModelSection
from ltm.records import Run, Variant
from ltm.runs import checkpoint, hardware, micro_batch, queue
from ltm.runs.engines import axolotl_run, base_model, four_bit
from ltm.runs.engines.group import Group
from ltm.runs.engines.hf import HfTrainer, forget_the_place
from ltm.runs.engines.zero2 import Zero2Trainer
from ltm.runs.row import now, row_of
from ltm.runs.train import Stopped, TrainState
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, read_json, write_json
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import load

_GRACE_SECONDS = 60.0  # to write a checkpoint of a shared run


@dataclass(frozen=True)
class _Task:
    """What a run is to be: its place in the queue, its training set, and what all runs of its recipe share."""

    work: WorkFolder
    recipe: queue.Recipe
    job: queue.Job
    variant: Variant


@dataclass(frozen=True)
class _Training:
    """How a run was trained, once it has ended."""

    state: TrainState
    started: str  # as `row.now` says it
    n_params: int
    device: str
    precision: str  # of matrix products, by its name in a study
    micro_tokens: int  # of a forward pass that fitted


def train_run(root: str, run_id: str, micro_tokens: int, stop: Callable[[], bool]) -> dict[str, float]:
    """Train one run of a study whose engine is `hf` or `axolotl`; go on from its checkpoint if it has one.

    Args:
        root: The work folder.
        run_id: Which run.
        micro_tokens: Tokens of a forward pass that should fit; 0 = what the study says.
        stop: Says whether to stop; asked after every step.

    Raises:
        TrainError: the loss is no longer finite, memory does not do, or a process of a shared run failed.
        Stopped: it was asked to stop; a checkpoint stands.
    """
    recipe, _ = queue.read_jobs(WorkFolder(Path(root)))
    if recipe.runs.engine == "axolotl":
        return _train_axolotl(root, run_id, stop)
    if recipe.runs.processes_per_run == 1:
        return train_here(root, run_id, micro_tokens, stop)
    return _train_shared(root, run_id, micro_tokens, recipe.runs.processes_per_run, stop)


def _train_axolotl(root: str, run_id: str, stop: Callable[[], bool]) -> dict[str, float]:
    work = WorkFolder(Path(root))
    task = _task(work, run_id)
    recipe = task.recipe
    tokenizer, folder, started = load(work), work.path("runs", run_id), now()
    stream = open_stream(work, task.variant, recipe.sets, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    queue.beat(folder, "running", 0, recipe.n_steps())
    state, micro_tokens, device, precision = axolotl_run.train(folder, recipe, stream, task.job.init_seed, stop)
    training = _Training(state, started, recipe.model.shape(0).n_params, device, precision, micro_tokens)
    write_json(folder / "run.json", as_json(_row(task, training)))
    (folder / "heartbeat.json").unlink(missing_ok=True)
    return {"seconds": state.seconds}


def train_here(root: str, run_id: str, micro_tokens: int, stop: Callable[[], bool]) -> dict[str, float]:
    """Train in this process, alone or as one of several; see `train_run`."""
    work = WorkFolder(Path(root))
    task = _task(work, run_id)
    recipe = task.recipe
    section, tokenizer = recipe.runs, load(work)
    shape = recipe.model.shape(tokenizer.vocab_size)
    shards = read_shards(work)
    stream = open_stream(work, task.variant, recipe.sets, shards, tokenizer.bos_id, tokenizer.vocab_size)
    group = Group(section.parallel, hardware.pick_device(section))
    dtype, folder = hardware.pick_dtype(section, group.device.split(":")[0]), work.path("runs", run_id)
    folder.mkdir(parents=True, exist_ok=True)
    started = now()
    source = shape if recipe.model.base is None else Path(recipe.model.base)

    def attempt(micro: int) -> HfTrainer:
        gc.collect()
        model = base_model.prepare(section, source, dtype, group.device, task.job.init_seed)
        kind = Zero2Trainer if section.parallel == "zero2" else HfTrainer
        trainer = kind(section, model, stream, recipe.n_steps(), shape.block_size, micro, dtype, group)
        trainer.load_checkpoint(folder / checkpoint.CHECKPOINT)
        trainer.run(_Watch(folder, section.checkpoint_seconds, stop))
        return trainer

    wanted = micro_tokens or section.micro_batch_tokens or section.batch_tokens
    least = shape.block_size * group.size
    lean = four_bit.memory_given_back(group.device) if section.method == "qlora" else contextlib.nullcontext()
    with lean:
        trainer = micro_batch.run_with_halving(attempt, wanted, section.batch_tokens, least, _say_halved)
    trainer.save_result(folder, "" if recipe.model.base is None else Path(recipe.model.base).name)
    if group.rank == 0:
        device, precision = group.device.split(":")[0], str(dtype).removeprefix("torch.")
        training = _Training(trainer.state, started, trainer.n_params, device, precision, trainer.micro_tokens)
        write_json(folder / "run.json", as_json(_row(task, training)))
        for leftover in (checkpoint.CHECKPOINT, "heartbeat.json"):
            (folder / leftover).unlink(missing_ok=True)
    group.wait()
    return {"seconds": trainer.state.seconds}


def load_trained(
    work: WorkFolder, run_id: str, device: str, trainable: bool = False, tuned: bool = False, exact: bool = False
) -> Any:
    """Return the transformers model that a run of engine `hf` or `axolotl` made, in evaluation mode.

    Args:
        work: The study's folder.
        run_id: Which run.
        device: Where to.
        trainable: Let its adapters be trained on.
        tuned: As its dialogue layer left it.
        exact: With products in float32 also beside a 4-bit base.

    Raises:
        StoreError: what the run kept is missing.
        InputError: the base model is not where the study says, or is another one now.
    """
    recipe, _ = queue.read_jobs(work)
    kept = kept_folder(work, run_id, tuned)
    if kept.name == base_model.MODEL:
        return base_model.read_model(kept, torch.float32, device).eval()
    peft = base_model.need("peft")
    base, four_bit = _base_of(work, run_id, recipe), recipe.runs.method == "qlora"
    dtype = hardware.pick_dtype(recipe.runs, device) if four_bit and not exact else torch.float32
    model = base_model.load_base(base, dtype, device, four_bit=four_bit)
    return peft.PeftModel.from_pretrained(model, kept, is_trainable=trainable).eval()


def kept_folder(work: WorkFolder, run_id: str, tuned: bool = False) -> Path:
    """Return the folder with a run's whole model, or with its adapters: told apart by its name.

    Raises:
        StoreError: the run kept nothing.
    """
    folder = work.path("dialogue" if tuned else "runs", run_id)
    for name in (base_model.MODEL, base_model.ADAPTER):
        if any((folder / name).glob("*.safetensors")):
            return folder / name
    raise StoreError(f"run {run_id} kept no weights", "delete the run's folder and run again")


def save_tuned(work: WorkFolder, model: Any, folder: Path) -> None:
    """Write a model that was trained on, as its run keeps it: adapters, or the whole model."""
    recipe, _ = queue.read_jobs(work)
    if recipe.runs.method == "full":
        model.save_pretrained(folder / base_model.MODEL)
        return
    model.save_pretrained(folder / base_model.ADAPTER)
    forget_the_place(folder / base_model.ADAPTER, Path(str(recipe.model.base)).name)


def _base_of(work: WorkFolder, run_id: str, recipe: queue.Recipe) -> Path:
    """Return the folder of a run's base model; adapters beside another model would be nonsense.

    Raises:
        InputError: it is not there, or holds another model than when the run was trained.
    """
    folder = Path(str(recipe.model.base))
    if not folder.is_dir():
        raise InputError(f"the base model of run {run_id}, {folder}, is not there", "put it back where it was")
    run = queue.read_run(work, run_id)
    recorded = work.path("runs", "recipes", f"{run.recipe if run else ''}.json")
    if recorded.is_file() and read_json(recorded).get("model", {}).get("base") not in (None, identity(folder)):
        raise InputError(f"{folder} is not the model that run {run_id} was trained beside", "put that one back")
    return folder


def load_scored(work: WorkFolder, run_id: str, device: str, trainable: bool = False) -> base_model.Scored:
    """Return a run's model as the scores ask it; see `load_trained`."""
    recipe, _ = queue.read_jobs(work)
    shape = recipe.model.shape(load(work).vocab_size)
    return base_model.Scored(load_trained(work, run_id, device, trainable), shape).eval()


def load_untrained(section: ModelSection, vocab_size: int, seed: int, device: str) -> base_model.Scored:
    """Return a model of the study's shape with random weights: the level of chance."""
    shape = section.shape(vocab_size)
    model = (
        base_model.from_shape(shape, seed) if section.base is None else base_model.random_weights(section.base, seed)
    )
    return base_model.Scored(model.to(device), shape).eval()


class _Watch:
    """Between steps: keep the heartbeat fresh, write checkpoints, stop when asked."""

    def __init__(self, folder: Path, checkpoint_seconds: float, stop: Callable[[], bool]) -> None:
        self.folder, self.checkpoint_seconds, self.stop = folder, checkpoint_seconds, stop
        self.saved_at = self.beaten_at = time.monotonic()

    def __call__(self, trainer: HfTrainer) -> None:
        group, now = trainer.group, time.monotonic()
        # the first process decides when, all of them together: a checkpoint gathers from every one
        stop = group.any(self.stop())
        due = group.any(group.rank == 0 and now - self.saved_at >= self.checkpoint_seconds)
        if stop or due:
            trainer.save_checkpoint(self.folder / checkpoint.CHECKPOINT)
            self.saved_at = now
        if group.rank == 0 and (stop or now - self.beaten_at >= queue.HEARTBEAT_SECONDS):
            queue.beat(self.folder, "stopped" if stop else "running", trainer.state.step, trainer.n_steps)
            self.beaten_at = now
        if stop:
            raise Stopped


def _train_shared(
    root: str, run_id: str, micro_tokens: int, processes: int, stop: Callable[[], bool]
) -> dict[str, float]:
    """Start one process for each device, and wait for them; passes a stop on."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "ltm.runs.engines.rank", root, run_id, str(micro_tokens)]
    log = WorkFolder(Path(root)).path("runs", run_id, "processes.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=_environment(processes))
        asked = 0.0
        while child.poll() is None:
            time.sleep(0.2)
            if stop() and not asked:
                child.send_signal(signal.SIGTERM)
                asked = time.monotonic()
            if asked and time.monotonic() - asked > _GRACE_SECONDS:
                child.kill()
    run = queue.read_run(WorkFolder(Path(root)), run_id)
    if run is not None:
        return {"seconds": run.seconds}
    if asked:
        raise Stopped
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("ltm: ")]
    raise TrainError((errors or lines or ["it said nothing"])[-1], f"the whole output of its processes is in {log}")


def _environment(processes: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def _say_halved(too_large: int, smaller: int) -> None:
    print(f"a micro batch of {too_large} tokens did not fit into memory; going on with {smaller}", file=sys.stderr)


def _task(work: WorkFolder, run_id: str) -> _Task:
    recipe, jobs = queue.read_jobs(work)
    job = next(job for job in jobs if job.run_id == run_id)
    recipe = queue.read_recipes(work).get(job.recipe, recipe)
    return _Task(work, recipe, job, next(v for v in read_variants(work) if v.index == job.variant_index))


def _row(task: _Task, training: _Training) -> Run:
    recipe = task.recipe
    return row_of(
        task.work,
        task.job,
        task.variant,
        recipe,
        training.state,
        started=training.started,
        model=_name(recipe),
        n_params=training.n_params,
        n_steps=recipe.n_steps(),
        device=training.device,
        precision=training.precision,
        compiled=False,
        micro_tokens=training.micro_tokens,
        matmul_flops=hardware.matmul_flops(training.device, getattr(torch, training.precision)),
        weights_sha256=kept_digest(task.work.path("runs", task.job.run_id)),
    )


def _name(recipe: queue.Recipe) -> str:
    method = recipe.runs.method
    return recipe.model.name if method == "full" else f"{recipe.model.name} ({method})"


def kept_digest(folder: Path) -> str:
    """Return the SHA-256 of the tensors that a run keeps below its folder, file by file."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/*.safetensors")):
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
