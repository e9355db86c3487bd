"""The queue of runs: what is to be trained and how far it is, read from the work folder alone.

Writes: `runs/jobs.json` (what every run is), and per run `runs/<run_id>/`: `heartbeat.json` while it trains,
`checkpoint.safetensors` now and then, `weights.safetensors` and last of all `run.json` (Run); `failed.json` when its
own error ended it; `stopped.json` when it was stopped for good because others did better. A run whose heartbeat has no
living process behind it is lost, and taken up again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.errors import StoreError
from ltm.model.section import ModelSection
from ltm.records import Run, Shard, Variant
from ltm.runs import heartbeat, index
from ltm.runs.heartbeat import HEARTBEAT_SECONDS, beat
from ltm.runs.index import read_run
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity

__all__ = ["HEARTBEAT_SECONDS", "Job", "Recipe", "beat", "read_run"]

STATES = ("waiting", "running", "complete", "failed", "lost", "stopped")
FAILED, ENDED = "failed.json", "stopped.json"
VERSION = 4  # of the training code and the stream: a change that alters what comes out makes new run ids


@dataclass(frozen=True)
class Job:
    """One run that a study asks for."""

    run_id: str
    variant_index: int
    init_seed: int
    variant_id: str = ""
    cuts: str = ""  # fingerprint of how the variant's books were cut into tokens
    recipe: str = ""  # name of the recipe that it is trained with, where the study has more than one


@dataclass(frozen=True)
class Recipe:
    """What all runs of a study share; `runs/jobs.json` holds it for the workers."""

    sets: SetsSection
    model: ModelSection
    runs: RunsSection

    def n_steps(self) -> int:
        """Return the optimizer steps of every run."""
        return self.sets.run_tokens // self.runs.batch_tokens


def make_jobs(
    recipe: Recipe,
    variants: list[Variant],
    tokenizer: str,
    shards: Mapping[str, Shard],
    recipes: Mapping[str, Recipe] | None = None,
) -> list[Job]:
    """Return the runs of a study; equal inputs give equal run ids, whatever the machine or folder.

    Args:
        recipe: What runs are trained with.
        variants: What they are trained on.
        tokenizer: Fingerprint of the tokenizer.
        shards: The token index.
        recipes: By the variants' `recipe`, where the study has more than one.
    """
    shared = {name: made_from(own, tokenizer) for name, own in (recipes or {"": recipe}).items()}
    return [
        Job(run_id_of(shared[v.recipe], v.variant_id, cuts, seed), v.index, seed, v.variant_id, cuts, v.recipe)
        for v in variants
        for cuts in [cuts_of(v, shards)]
        for seed in v.init_seeds
    ]


def made_from(recipe: Recipe, tokenizer: str) -> dict[str, Any]:
    """Return what all runs of a study are made from, and nothing that cannot change what comes out of them."""
    return {
        "sets": {k: v for k, v in recipe.sets.model_dump().items() if k in _STREAM_SETTINGS},
        "model": recipe.model.outcome(),
        "runs": recipe.runs.outcome(),
        "tokenizer": tokenizer,
        "version": VERSION,
    }


def run_id_of(shared: Mapping[str, Any], variant_id: str, cuts: str, seed: int) -> str:
    """Return a run's id: the fingerprint of all that it is made from (`shared` as `made_from` returns it)."""
    return fingerprint({**shared, "variant": variant_id, "cuts": cuts, "seed": seed}, 12)


def cuts_of(variant: Variant, shards: Mapping[str, Shard]) -> str:
    """Return a fingerprint of how a variant's books were cut into tokens: with its definition, that is its stream."""
    return fingerprint([[shards[book].n_tokens, *shards[book].chapter_starts] for book in variant.book_ids])


_STREAM_SETTINGS = {"books_per_set", "book_tokens", "epochs", "passage_tokens"}


def plan_jobs(work: WorkFolder, recipe: Recipe, recipes: Mapping[str, Recipe] | None = None) -> list[Job]:
    """Lay out the queue of a study in its work folder and return it."""
    tokenizer = identity(work)
    jobs = make_jobs(recipe, read_variants(work), tokenizer, read_shards(work), recipes)
    for own in (recipes or {"": recipe}).values():
        keep_recipe(work, made_from(own, tokenizer))
    write_jobs(work, recipe, jobs, recipes, tokenizer)
    return jobs


def keep_recipe(work: WorkFolder, shared: Mapping[str, Any]) -> str:
    """Store what runs are made from under its fingerprint, for as long as the folder lives; returns the fingerprint."""
    name = fingerprint(shared)
    path = work.path("runs", "recipes", f"{name}.json")
    if not path.exists():
        write_json(path, shared)
    return name


def write_jobs(
    work: WorkFolder,
    recipe: Recipe,
    jobs: list[Job],
    recipes: Mapping[str, Recipe] | None = None,
    tokenizer: str = "",
) -> None:
    """Store the queue for workers and for `status`, with the identity of the tokenizer that it was laid out for."""
    value = {**_as_plain(recipe), "jobs": [dataclasses.asdict(job) for job in jobs], "tokenizer": tokenizer}
    if recipes:
        value["recipes"] = {name: _as_plain(own) for name, own in recipes.items()}
    path = work.path("runs", "jobs.json")
    try:
        if read_json(path) == value:
            return
    except StoreError:  # missing or damaged
        pass
    write_json(path, value)


def read_jobs(work: WorkFolder) -> tuple[Recipe, list[Job]]:
    """Return the stored queue.

    Raises:
        StoreError: there is none yet.
    """
    value = read_json(work.path("runs", "jobs.json"))
    return _from_plain(value), [Job(**job) for job in value["jobs"]]


def read_recipes(work: WorkFolder) -> dict[str, Recipe]:
    """Return the recipes of the stored queue by name, empty where all runs share one.

    Raises:
        StoreError: there is no queue yet.
    """
    value = read_json(work.path("runs", "jobs.json"))
    return {name: _from_plain(own) for name, own in value.get("recipes", {}).items()}


def read_shared(work: WorkFolder) -> dict[str, dict[str, Any]]:
    """Return what the runs of the stored queue were made from (see `made_from`), by the name of their recipe.

    The queue may be older than the tokens: a change that was accepted rebuilds them first.

    Raises:
        StoreError: there is no queue yet.
    """
    value = read_json(work.path("runs", "jobs.json"))
    tokenizer = value.get("tokenizer") or identity(work)
    recipes = read_recipes(work) or {"": _from_plain(value)}
    return {name: made_from(own, tokenizer) for name, own in recipes.items()}


def _as_plain(recipe: Recipe) -> dict[str, Any]:
    return {"sets": recipe.sets.model_dump(), "model": recipe.model.model_dump(), "runs": recipe.runs.model_dump()}


def _from_plain(value: Mapping[str, Any]) -> Recipe:
    return Recipe(SetsSection(**value["sets"]), ModelSection(**value["model"]), RunsSection(**value["runs"]))


def state_of(work: WorkFolder, run_id: str) -> str:
    """Return a run's state, from its files alone."""
    return "complete" if read_run(work, run_id) is not None else _state_in(str(work.path("runs", run_id)))


def states(work: WorkFolder, run_ids: Iterable[str]) -> dict[str, str]:
    """Return the state of every run, from their files alone."""
    wanted = list(run_ids)
    root = str(work.path("runs"))
    try:
        begun = set(os.listdir(root))  # noqa: PTH208 - names are enough, and there may be ten thousand
    except OSError:
        begun = set()
    done = index.briefs(work, [run_id for run_id in wanted if run_id in begun])
    return {
        run_id: "complete" if run_id in done else _state_in(f"{root}/{run_id}") if run_id in begun else "waiting"
        for run_id in wanted
    }


def _state_in(folder: str) -> str:
    """Return the state of a run that is not complete."""
    names = set(os.listdir(folder)) if Path(folder).is_dir() else set()  # noqa: PTH208
    if FAILED in names:
        return "failed"
    if ENDED in names:
        return "stopped"
    beat = heartbeat.read_beat(folder) if heartbeat.FILE in names else None
    if beat is None:
        return "lost" if "checkpoint.safetensors" in names else "waiting"
    if beat.get("state") in ("stopped", "waiting"):
        return str(beat["state"])
    return "running" if heartbeat.is_alive(beat, Path(folder, heartbeat.FILE)) else "lost"


def stopped_for_good(work: WorkFolder, states_of: Mapping[str, str]) -> list[str]:
    """Return the runs that were stopped because others did better; `states_of` is what `states` returned."""
    root = work.path("runs")
    return [run_id for run_id, state in states_of.items() if state == "stopped" and (root / run_id / ENDED).exists()]


def missing(work: WorkFolder, jobs: Sequence[Job]) -> list[str]:
    """Return the runs that are neither complete nor stopped for good."""
    known = states(work, [job.run_id for job in jobs])
    ended = set(stopped_for_good(work, known))
    return [run_id for run_id, state in known.items() if state != "complete" and run_id not in ended]


def progress_of(work: WorkFolder, run_id: str) -> float:
    """Return the share of a started run that is done, from its heartbeat."""
    try:
        value = heartbeat.read_beat(work.path("runs", run_id)) or {}
        return float(value["step"]) / max(1, int(value["n_steps"]))
    except (KeyError, TypeError, ValueError):
        return 0.0


def complete_runs(work: WorkFolder) -> list[Run]:
    """Return the complete runs of the stored queue, in design order."""
    _, jobs = read_jobs(work)
    return list(index.complete(work, [job.run_id for job in jobs]).values())


def failures(work: WorkFolder, jobs: list[Job], states_of: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the error of every failed run; `states_of` is what `states` returned, if it was asked already."""
    known = states(work, [job.run_id for job in jobs]) if states_of is None else states_of
    return {job.run_id: _failure(work, job.run_id) for job in jobs if known[job.run_id] == "failed"}


def _failure(work: WorkFolder, run_id: str) -> str:
    try:
        return str(read_json(work.path("runs", run_id, FAILED))["error"])
    except (StoreError, KeyError, TypeError):
        return "its error was lost: failed.json is damaged"
