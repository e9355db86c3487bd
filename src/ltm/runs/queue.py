"""The queue of runs: what is to be trained and how far it is, read from the work folder alone.

Writes: `runs/jobs.json` (what every run is), and per run `runs/<run_id>/`: `heartbeat.json` while it trains,
`checkpoint.safetensors` now and then, `weights.safetensors` and last of all `run.json` (Run); `failed.json` when its
own error ended it. A run that was interrupted has a heartbeat that grows old: it is lost, and taken up again.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.errors import StoreError
from ltm.model.section import ModelSection
from ltm.records import Run, Shard, Variant
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity

STATES = ("waiting", "running", "complete", "failed", "lost", "stopped")
HEARTBEAT_SECONDS = 5.0
_STALE_SECONDS = 30.0
# Settings that say how fast or where a run is trained, not what comes out of it.
VERSION = 3  # of the training code and the stream: a change that alters what comes out makes new run ids
_WITHOUT_EFFECT = {"workers", "retries", "checkpoint_seconds"}


@dataclass(frozen=True)
class Job:
    """One run that a study asks for."""

    run_id: str
    variant_index: int
    init_seed: int


@dataclass(frozen=True)
class Recipe:
    """What all runs of a study share; `runs/jobs.json` holds it for the workers."""

    sets: SetsSection
    model: ModelSection
    runs: RunsSection

    def n_steps(self) -> int:
        """Return the optimizer steps of every run."""
        return self.sets.run_tokens // self.runs.batch_tokens


def make_jobs(recipe: Recipe, variants: list[Variant], tokenizer: str, shards: Mapping[str, Shard]) -> list[Job]:
    """Return the runs of a study; equal inputs give equal run ids, whatever the machine or folder."""
    shared = {
        "sets": {k: v for k, v in recipe.sets.model_dump().items() if k in _STREAM_SETTINGS},
        "model": recipe.model.model_dump(),
        "runs": {k: v for k, v in recipe.runs.model_dump().items() if k not in _WITHOUT_EFFECT},
        "tokenizer": tokenizer,
        "version": VERSION,
    }
    return [
        Job(fingerprint({**shared, **_own(v, shards), "seed": seed}, 12), v.index, seed)
        for v in variants
        for seed in v.init_seeds
    ]


def _own(variant: Variant, shards: Mapping[str, Shard]) -> dict[str, Any]:
    """Return what makes a variant's stream: its own definition, and how its books were cut into tokens."""
    cuts = [[shards[book].n_tokens, *shards[book].chapter_starts] for book in variant.book_ids]
    return {"variant": variant.variant_id, "cuts": fingerprint(cuts)}


_STREAM_SETTINGS = {"books_per_set", "book_tokens", "epochs", "passage_tokens"}


def plan_jobs(work: WorkFolder, recipe: Recipe) -> list[Job]:
    """Lay out the queue of a study in its work folder and return it."""
    jobs = make_jobs(recipe, read_variants(work), identity(work), read_shards(work))
    write_jobs(work, recipe, jobs)
    return jobs


def write_jobs(work: WorkFolder, recipe: Recipe, jobs: list[Job]) -> None:
    """Store the queue for workers and for `status`."""
    value = {
        "sets": recipe.sets.model_dump(),
        "model": recipe.model.model_dump(),
        "runs": recipe.runs.model_dump(),
        "jobs": [dataclasses.asdict(job) for job in jobs],
    }
    path = work.path("runs", "jobs.json")
    if not path.exists() or read_json(path) != value:
        write_json(path, value)


def read_jobs(work: WorkFolder) -> tuple[Recipe, list[Job]]:
    """Return the stored queue.

    Raises:
        StoreError: there is none yet.
    """
    value = read_json(work.path("runs", "jobs.json"))
    recipe = Recipe(SetsSection(**value["sets"]), ModelSection(**value["model"]), RunsSection(**value["runs"]))
    return recipe, [Job(**job) for job in value["jobs"]]


def state_of(work: WorkFolder, run_id: str) -> str:
    """Return a run's state, from its files alone."""
    folder = work.path("runs", run_id)
    if (folder / "run.json").exists():
        return "complete"
    if (folder / "failed.json").exists():
        return "failed"
    heartbeat = folder / "heartbeat.json"
    try:
        age = time.time() - heartbeat.stat().st_mtime
        beat = read_json(heartbeat)
    except (FileNotFoundError, StoreError):
        return "lost" if (folder / "checkpoint.safetensors").exists() else "waiting"
    if beat.get("state") == "stopped":
        return "stopped"
    return "running" if age < _STALE_SECONDS and _alive(beat) else "lost"


def _alive(beat: dict[str, Any]) -> bool:
    """Return whether the process of a heartbeat lives; on another host only the beat's age can tell."""
    if beat.get("host") != os.uname().nodename:
        return True
    return Path(f"/proc/{beat.get('pid')}").exists() or not Path("/proc/self").exists()


def beat(folder: Path, state: str, step: int, n_steps: int) -> None:
    """Say that a run is alive (or `stopped`), and how far it is."""
    where = {"pid": os.getpid(), "host": os.uname().nodename}
    write_json(folder / "heartbeat.json", {"state": state, "step": step, "n_steps": n_steps, **where})


def progress_of(work: WorkFolder, run_id: str) -> float:
    """Return the share of a started run that is done, from its heartbeat."""
    try:
        value = read_json(work.path("runs", run_id, "heartbeat.json"))
        return float(value["step"]) / max(1, int(value["n_steps"]))
    except (StoreError, KeyError, TypeError, ValueError):
        return 0.0


def read_run(work: WorkFolder, run_id: str) -> Run | None:
    """Return a complete run, or None; a damaged `run.json` counts as not complete. Keys of a newer ltm are ignored."""
    path = work.path("runs", run_id, "run.json")
    if not path.exists():
        return None
    try:
        known = {f.name for f in dataclasses.fields(Run)}
        return Run(**{key: value for key, value in read_json(path).items() if key in known})
    except (StoreError, TypeError, AttributeError):
        return None


def complete_runs(work: WorkFolder) -> list[Run]:
    """Return the complete runs of the stored queue, in design order."""
    _, jobs = read_jobs(work)
    return [run for job in jobs if (run := read_run(work, job.run_id)) is not None]


def failures(work: WorkFolder, jobs: list[Job]) -> dict[str, str]:
    """Return the error of every failed run."""
    paths = {job.run_id: work.path("runs", job.run_id, "failed.json") for job in jobs}
    return {run_id: read_json(path)["error"] for run_id, path in paths.items() if path.exists()}
