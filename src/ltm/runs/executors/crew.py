"""Many machines on one work folder, without a server: a board of jobs, and claims that only one can make.

Writes: `board/jobs.json` (what is to be done now), `board/members/` (signs of life), `board/claims/` and
`board/outcomes/` of each batch. One member leads: it holds the work folder's lock, does the stages, and puts their jobs
on the board. Every member, the leader too, takes jobs with its own local workers. A claim is a file that can be created
once (O_EXCL); it counts as long as its member's count goes on, by the clock of whoever looks, and the next one to take
the job creates the next generation of it. Nothing here is needed to go on: a board is thrown away with its batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ltm.errors import InputError, StoreError
from ltm.runs.executors.base import Job, Outcome
from ltm.runs.executors.local import LocalExecutor
from ltm.runs.heartbeat import Watcher
from ltm.store import WorkFolder, read_json, write_bytes, write_json

_BEAT_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_TASKS = ("ltm.runs.worker:train_run", "ltm.scores.stage:score_run")  # all that a board may ask for


class Member:
    """One process that takes part; its count goes on while it lives."""

    def __init__(self, work: WorkFolder) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}"
        self._path = work.path("board", "members", f"{self.name}.json")
        self._over = threading.Event()
        self._count = 0
        self._beat()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self._count += 1
        with contextlib.suppress(StoreError):
            write_json(self._path, {"count": self._count, "name": self.name}, durable=False)

    def _go_on(self) -> None:
        while not self._over.wait(_BEAT_SECONDS):
            self._beat()

    def leave(self) -> None:
        """Stop counting; what this member had claimed is free at once."""
        self._over.set()
        self._thread.join(_BEAT_SECONDS)
        self._path.unlink(missing_ok=True)


class Board:
    """The jobs of the present batch, as one member sees them."""

    def __init__(self, work: WorkFolder, member: Member | None) -> None:
        self._root, self._name = work.path("board"), member.name if member else ""
        self._watcher = Watcher()
        self.batch, self.task, self.jobs = "", "", list[Job]()

    def post(self, task: Callable[..., Any], jobs: Sequence[Job]) -> None:
        """Put a batch on the board, in place of the one before; for the leader."""
        before, self.batch = self.batch, secrets.token_hex(6)
        self.task, self.jobs = f"{task.__module__}:{task.__qualname__}", list(jobs)
        value = {"batch": self.batch, "task": self.task, "jobs": [dataclasses.asdict(job) for job in jobs]}
        write_json(self._root / "jobs.json", value)
        write_json(self._root / "now.json", {"batch": self.batch, "over": False})
        for kind in ("claims", "outcomes"):
            shutil.rmtree(self._root / kind / (before or "-"), ignore_errors=True)

    def clear(self, over: bool) -> None:
        """Take everything off the board; `over` says that the study is done. For the leader."""
        write_json(self._root / "now.json", {"batch": "", "over": over})

    def look(self) -> bool:
        """Read what is on the board now; returns whether the study goes on."""
        now = self._now()
        if now["batch"] and now["batch"] != self.batch:
            try:
                value = read_json(self._root / "jobs.json")
            except StoreError:
                return True
            self.batch, self.task = value["batch"], value["task"]
            self.jobs = [Job(**{**job, "arguments": tuple(job["arguments"])}) for job in value["jobs"]]
        elif not now["batch"]:
            self.batch, self.jobs = "", []
        return not now["over"]

    def _now(self) -> dict[str, Any]:
        try:
            return {"batch": "", "over": False, **read_json(self._root / "now.json")}
        except (StoreError, TypeError):
            return {"batch": self.batch, "over": False}

    def function(self) -> Callable[..., Any]:
        """Return the task of the batch.

        Raises:
            InputError: it is none that a board may ask for.
        """
        if self.task not in _TASKS:
            raise InputError(f"the board asks for an unknown task: {self.task}", "upgrade ltm on all machines alike")
        module, _, name = self.task.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    def open_jobs(self) -> list[Job]:
        """Return the jobs that have no outcome yet."""
        done = self._names("outcomes")
        return [job for job in self.jobs if f"{job.key}.json" not in done]

    def claim(self, job: Job) -> bool:
        """Try to take a job; False where a living member has it, it is done, or another batch is on the board."""
        if self._now()["batch"] != self.batch or (self._root / "outcomes" / self.batch / f"{job.key}.json").exists():
            return False
        folder = self._root / "claims" / self.batch
        folder.mkdir(parents=True, exist_ok=True)
        generation = 0
        while (path := folder / f"{job.key}.{generation}").exists():
            owner = path.read_text(encoding="utf-8", errors="replace")
            if owner == self._name:
                return True
            if not self._is_gone(owner):
                return False
            generation += 1
        return self._create(path)

    def _create(self, path: Path) -> bool:
        """Create a claim that says whose it is from its first moment on: a hard link appears whole, or not at all."""
        own = path.with_name(f".{self._name}-{secrets.token_hex(3)}")
        write_bytes(own, self._name.encode(), durable=False)
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def _is_gone(self, owner: str) -> bool:
        try:
            count = read_json(self._root / "members" / f"{owner}.json")["count"]
        except (StoreError, KeyError, TypeError):
            return not (self._root / "members" / f"{owner}.json").exists()
        return self._watcher.is_dead(owner, count)

    def report(self, outcome: Outcome) -> None:
        """Put down how a job ended."""
        write_json(self._root / "outcomes" / self.batch / f"{outcome.key}.json", dataclasses.asdict(outcome))

    def outcome(self, key: str) -> Outcome | None:
        """Return how a job ended, or None."""
        try:
            return Outcome(**read_json(self._root / "outcomes" / self.batch / f"{key}.json"))
        except (StoreError, TypeError):
            return None

    def finished(self) -> set[str]:
        """Return the keys of the jobs that have an outcome."""
        return {name.removesuffix(".json") for name in self._names("outcomes") if not name.startswith(".")}

    def _names(self, kind: str) -> set[str]:
        try:
            return set(os.listdir(self._root / kind / self.batch))  # noqa: PTH208
        except OSError:
            return set()


class CrewExecutor:
    """The leader's executor: its own workers, and those of all other members of the work folder.

    Args:
        local: This machine's workers.
        work: The work folder.
        member: This process.
    """

    def __init__(self, local: LocalExecutor, work: WorkFolder, member: Member) -> None:
        self._local, self._work, self._member, self._board = local, work, member, Board(work, member)
        self.may_work: Callable[[], bool] = lambda: True
        self.on_tick: Callable[[], None] = lambda: None

    def map(self, task: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield an outcome per job, in the order in which they end, whoever worked on them."""
        self._local.may_work, self._local.on_tick = self.may_work, self.on_tick
        own = str(self._work.root)
        if not jobs or any(job.arguments[:1] != (own,) for job in jobs):  # a rehearsal in a folder of this machine
            yield from self._local.map(task, jobs)
            return
        self._board.post(task, jobs)
        told: set[str] = set()
        while len(told) < len(jobs):
            for outcome in self._local.map(task, self._board.open_jobs(), self._board.claim):
                self._board.report(outcome)
                told.add(outcome.key)
                yield outcome
                yield from self._of_others(told)
            yield from self._of_others(told)
            if len(told) < len(jobs):
                self.on_tick()
                time.sleep(_LOOK_SECONDS)

    def _of_others(self, told: set[str]) -> Iterator[Outcome]:
        for key in sorted(self._board.finished() - told):
            outcome = self._board.outcome(key)
            if outcome is not None:
                told.add(key)
                yield outcome

    def close(self, graceful: bool = True) -> None:
        """End this machine's workers; the others look after themselves."""
        self._local.close(graceful)
        self._member.leave()


def announce(work: WorkFolder, over: bool) -> None:
    """Clear the board of a study that begins (or that is over); for whoever holds the work folder's lock."""
    work.path("board").mkdir(parents=True, exist_ok=True)
    Board(work, None).clear(over)


def follow(work: WorkFolder, local: LocalExecutor, has_leader: Callable[[], bool]) -> bool:
    """Work on what the leader puts on the board; returns whether somebody has to lead now, False when all is over.

    Args:
        work: The work folder.
        local: This machine's workers; ended afterwards.
        has_leader: Tells whether somebody holds the folder.
    """
    member = Member(work)
    board = Board(work, member)
    without = 0
    try:
        while True:
            goes_on = board.look()
            mine = board.open_jobs() if board.batch else []
            worked = False
            for outcome in local.map(board.function(), mine, board.claim) if mine else ():
                board.report(outcome)
                worked = True
            without = 0 if has_leader() else without + 1
            if without and not goes_on:
                return False
            if without > 1:  # twice in a row: one look may have met a leader that was just beginning
                return True
            if not worked:
                time.sleep(_LOOK_SECONDS)
    finally:
        local.close()
        member.leave()
