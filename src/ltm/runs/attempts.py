"""Attempts at runs: how much memory each may take, which are tried again and when, which are set aside.

Writes: `runs/micro_batch.json`, and `runs/<run_id>/failed.json` with the error and the last lines of the run's log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ltm.runs import hardware, heartbeat
from ltm.runs.executors.base import CRASHED, KILLED, LOG, OVER_MEMORY, Job, Outcome, log_tail, raise_for_folder
from ltm.runs.free_disk import DiskGuard, bytes_under_way
from ltm.runs.free_memory import free_bytes
from ltm.runs.micro_batch import halved, largest_that_fits
from ltm.runs.queue import FAILED, Recipe
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.tokens.tokenizer import load

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 60.0


@dataclass
class Attempts:
    """Keeps count of the attempts at each run in one start of a study."""

    work: WorkFolder
    recipe: Recipe
    version: str  # of the queue
    _counts: dict[str, int] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)  # time.monotonic()
    _most_tokens: dict[str, int] = field(default_factory=dict)  # micro batch, where memory was not enough

    def __post_init__(self) -> None:
        self._micro_tokens, self._free_bytes = room(self.work, self.recipe)
        self.shape = self.recipe.model.shape(load(self.work).vocab_size)
        section = self.recipe.runs
        if section.executor != "local":  # another machine may have less memory, or more
            self._free_bytes = 0.0
        n_workers = hardware.n_workers(section, hardware.pick_device(section))
        under_way = bytes_under_way(self.shape.n_params, n_workers, section.average_share > 0)
        self.guard = DiskGuard(self.work, section.free_disk, under_way)

    def job(self, run_id: str, until_step: int = 0) -> Job:
        """Return the call that trains a run, to its end or until a step at which it waits for a decision."""
        folder = self.work.path("runs", run_id)
        memory = (self._micro_tokens, self._free_bytes, self._most_tokens.get(run_id, 0))
        arguments = (str(self.work.root), run_id, self.version, *memory, until_step)
        files = {"log": LOG, "progress": "checkpoint.safetensors", "pulse": heartbeat.FILE}
        return Job(run_id, arguments, **{name: str(folder / file) for name, file in files.items()})

    def wait(self, run_ids: list[str]) -> None:
        """Wait until the first of some runs may be tried again."""
        now = time.monotonic()
        left = min((self._not_before.get(run_id, now) - now for run_id in run_ids), default=0.0)
        if left > 0:
            time.sleep(left)

    def again(self, outcome: Outcome) -> bool:
        """Decide whether a run that did not end well is tried again; one that is not is set aside with its error.

        Raises:
            DiskError: the disk is full; no run can go on.
            DamagedError: a file that runs are made from is not what was written.
            StoreError: the work folder cannot be used.
        """
        raise_for_folder(outcome)
        count = self._counts[outcome.key] = self._counts.get(outcome.key, 0) + 1
        if outcome.kind == OVER_MEMORY and self._with_less_memory(outcome.key):
            return True
        may_differ = bool(outcome.trace) and outcome.kind not in (CRASHED, KILLED)
        if may_differ and count <= self.recipe.runs.retries:
            wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (count - 1))
            self._not_before[outcome.key] = time.monotonic() + wait
            return True
        path = self.work.path("runs", outcome.key, FAILED)
        log = log_tail(str(path.with_name(LOG)))
        write_json(
            path,
            {"error": outcome.error, "trace": outcome.trace, "kind": outcome.kind, "attempts": count, "log": log},
        )
        return False

    def _with_less_memory(self, run_id: str) -> bool:
        """Halve a run's micro batch; the mathematics stays the same. Returns False where it cannot be halved."""
        section = self.recipe.runs
        largest = self._most_tokens.get(run_id) or self._micro_tokens or section.batch_tokens
        smaller = halved(largest, section.batch_tokens, self.shape.block_size)
        if smaller is None:
            return False
        self._most_tokens[run_id] = smaller
        return True


def room(work: WorkFolder, recipe: Recipe) -> tuple[int, float]:
    """Return the micro batch in tokens that is forecast to fit with all workers at work, and each one's free bytes.

    The micro batch is chosen once per study and shape and kept in `runs/micro_batch.json`: another one would round
    differently.
    """
    section = recipe.runs
    settings = hardware.engine_settings(section, recipe.model.shape(load(work).vocab_size), recipe.sets.run_tokens)
    free = free_bytes(settings.device, hardware.workers_on_each(section, settings.device))
    path = work.path("runs", "micro_batch.json")
    if section.micro_batch_tokens:
        return section.micro_batch_tokens, free
    shape = fingerprint([str(settings), section.batch_tokens])
    kept: dict[str, int] = read_json(path).get("by_shape", {}) if path.exists() else {}
    if shape in kept:
        return int(kept[shape]), free
    micro_tokens = largest_that_fits(
        settings.config,
        section.batch_tokens,
        settings.precision,
        settings.device,
        free,
        activation_checkpointing=settings.recompute,
        compiled=settings.compiled,
    )
    write_json(path, {"by_shape": {**kept, shape: micro_tokens}})
    return micro_tokens, free
