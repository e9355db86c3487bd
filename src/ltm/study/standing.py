"""Which stages of a study stand: what a stage is made from, and whether its marker still names exactly that.

Reads: the stages' markers and the library's file names. Writes: nothing, so that a plan can ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ltm.errors import LtmError
from ltm.runs import index, queue
from ltm.sets.stage import read_variants, used_books
from ltm.store import WorkFolder, fingerprint
from ltm.study.rounds import Rounds
from ltm.study.settings import STAGES, StudySettings
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity

AFTER_ROUNDS = ("patterns", "dialogue", "dashboard")  # stages that look at all rounds together
# What each stage reads of the stages before it.
_NEEDS: dict[str, tuple[str, ...]] = {
    "books": (),
    "sets": ("books",),
    "tokens": ("books", "sets"),
    "evalset": ("books",),
    "runs": ("sets", "tokens"),
    "scores": ("evalset", "runs"),
    "patterns": ("books", "sets", "scores"),
    "dialogue": ("books", "tokens", "evalset", "runs", "scores", "patterns"),
    "dashboard": ("books", "sets", "evalset", "runs", "scores", "patterns", "dialogue"),
}


def stage_inputs(settings: StudySettings, name: str, outputs: Mapping[str, str]) -> str:
    """Return a fingerprint of everything that a stage is made from; `outputs` are those of the stages before it."""
    section: Any = getattr(settings, name)
    stage: Any = import_module(f"ltm.{name}.stage")
    own = stage.inputs(section) if hasattr(stage, "inputs") else None
    needs = [outputs[_instead(settings, name, key)] for key in _NEEDS[name]]
    about = [settings.name, settings.question] if name == "dashboard" else []
    values = section.model_dump(exclude={"path", "manifest", "tokenizer", "among"})  # what files are matters, not where
    return fingerprint([name, stage.VERSION, values, settings.seed, own, needs, about])


def _instead(settings: StudySettings, name: str, key: str) -> str:
    """Return what a stage looks at: a new round gives no new tokens where it uses no new books."""
    return "used" if settings.rounds.enabled and (name, key) == ("tokens", "sets") else key


def is_missing(settings: StudySettings, work: WorkFolder, name: str) -> bool:
    """Return whether the page was deleted; it is the one thing that a user moves away."""
    if name != "dashboard":
        return False
    from ltm.dashboard.stage import page_path

    return not page_path(settings.dashboard, work).exists()


def standing(settings: StudySettings, work: WorkFolder) -> tuple[list[str], list[queue.Job]]:
    """Return the stages that need not be built again, and the runs that the study asks for as far as they are known.

    While rounds are still to come, what grows with each of them does not stand.
    """
    done, jobs, books = _walk(settings, work)
    if settings.rounds.enabled and (not books or not Rounds(settings, work).is_last(books)):
        done = [name for name in done if name in ("books", "tokens", "evalset")]
    return done, jobs


def walk(settings: StudySettings, work: WorkFolder) -> tuple[list[str], list[queue.Job]]:
    """Return the same for the rounds that are drawn so far."""
    done, jobs, _ = _walk(settings, work)
    return done, jobs


def runs_to_come(settings: StudySettings, work: WorkFolder) -> int:
    """Return the runs of rounds that are not drawn yet."""
    if not settings.rounds.enabled:
        return 0
    try:
        books = work.output_of("books", stage_inputs(settings, "books", {}))
    except LtmError:
        books = work.output_of("books")
    return Rounds(settings, work).runs_to_come(books)


def _walk(settings: StudySettings, work: WorkFolder) -> tuple[list[str], list[queue.Job], str]:
    outputs: dict[str, str] = {}
    jobs: list[queue.Job] = []
    if not work.path("ltm.json").exists():
        return [], jobs, ""
    rounds = Rounds(settings, work)
    for name in STAGES:
        if any(need not in outputs for need in _NEEDS[name]):
            continue
        if name == "runs":
            jobs = rounds.jobs(read_variants(work), identity(work), read_shards(work))
            done = list(index.complete(work, [job.run_id for job in jobs]))
            if jobs and not queue.missing(work, jobs):
                outputs[name] = fingerprint(done)
            continue
        try:
            if name == "sets" and rounds.enabled:
                found = rounds.output(outputs["books"])
                if found is not None:
                    outputs["used"] = used_books(work)
            else:
                found = work.output_of(name, stage_inputs(settings, name, outputs))
        except LtmError:  # the library is not there: nothing stands on it
            break
        if found is not None and not is_missing(settings, work, name):
            outputs[name] = found
    return [name for name in outputs if name in STAGES], jobs, outputs.get("books", "")
