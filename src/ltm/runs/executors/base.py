"""What every executor takes and gives: jobs, outcomes, and how a job learns that it should stop.

An executor is one file behind the protocol `Executor`. It hands calls of importable functions to worker processes, on
this machine or on others, and yields how each ended. A worker that goes away takes nothing along but seconds: jobs keep
what they have done in the work folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ltm.errors import DamagedError, DiskError, LtmError, StoreError

STOPPED_EXIT = 75  # of a worker that was asked to stop and had nothing to lose (EX_TEMPFAIL)
GRACE_SECONDS = 8.0  # to write a checkpoint when asked to stop; with the end of the program it stays below 10
STALL_SECONDS = 1800.0  # without a sign of life; compiling a large model takes minutes
LOG = "log.txt"  # of a run, in its folder; kept only of a run that did not end well
LOG_LINES = 20
_LOG_TAIL_BYTES = 16_384
STOPPED, KILLED, CRASHED, OVER_MEMORY = "Stopped", "WorkerKilled", "WorkerCrashed", "OverMemory"
_stop = threading.Event()
_farewell: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Job:
    """One call of a task; the key names it in outcomes."""

    key: str
    arguments: tuple[Any, ...]
    log: str = ""  # file that takes what the call prints, and what the interpreter prints when it crashes
    progress: str = ""  # file that changes when the job gets on: a worker killed after that is not counted
    pulse: str = ""  # file that changes while the job is alive: a worker that lets it stand for long is ended


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a value, or with an error in words (and where it came from)."""

    key: str
    error: str = ""
    kind: str = ""  # class of the error; or STOPPED, KILLED, CRASHED, OVER_MEMORY
    trace: str = ""  # empty for errors that ltm understands: the same call would end the same way
    value: Any = None
    damaged: str = ""  # the file, where the error is a DamagedError

    @property
    def ok(self) -> bool:
        """Whether the job has a value."""
        return not self.error


def raise_for_folder(outcome: Outcome) -> None:
    """Raise where a job failed by the work folder and not by its own fault: no other job would fare better.

    Raises:
        DamagedError: a file is damaged or gone.
        DiskError: the disk is full.
        StoreError: the folder cannot be used.
    """
    if outcome.damaged:
        path = Path(outcome.damaged)
        raise DamagedError(path, missing=not path.exists())
    message, _, hint = outcome.error.partition("\n  hint: ")
    if outcome.kind == "DiskError":
        raise DiskError(message, hint)
    if outcome.kind == "StoreError":
        raise StoreError(message, hint)


class Executor(Protocol):
    """Runs jobs in workers, wherever they are."""

    may_work: Callable[[], bool]  # asked about once a second; False = let the workers stop and wait (a pause)
    on_tick: Callable[[], None]  # called about once a second while jobs run; what it raises ends the work

    def map(self, task: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield an outcome per job, in the order in which they end; `task` is importable where the workers are."""

    def close(self, graceful: bool = True) -> None:
        """End the workers; busy ones get some seconds to write a checkpoint."""


def stop_requested() -> bool:
    """Return whether this worker was asked to finish; a job checks it at every step."""
    return _stop.is_set()


def ask_this_process_to_stop(*_: object) -> None:
    """Note that this worker should finish; one that has nothing to lose ends on the spot. A handler of SIGTERM."""
    _stop.set()
    if _farewell:
        _farewell[-1]()
        os._exit(STOPPED_EXIT)


@contextlib.contextmanager
def nothing_to_lose(farewell: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Let a stop end this process at once (after `farewell`) until the function that is given is called.

    For the time in which a model is compiled: minutes, in which no step is made that could be lost.
    """
    if _stop.is_set():
        farewell()
    _farewell.append(farewell)

    def begun() -> None:
        if farewell in _farewell:
            _farewell.remove(farewell)

    try:
        yield begun
    finally:
        begun()


def call(task: Callable[..., Any], job: Job) -> Outcome:
    """Run a job in this process and return how it ended."""
    try:
        with _into_log(job.log):
            return Outcome(job.key, value=task(*job.arguments))
    except DamagedError as error:
        return Outcome(job.key, error=str(error), kind=type(error).__name__, damaged=str(error.path))
    except LtmError as error:
        return Outcome(job.key, error=str(error), kind=type(error).__name__)
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Outcome(job.key, error=text, kind=type(error).__name__, trace=traceback.format_exc())


@contextlib.contextmanager
def _into_log(log: str) -> Iterator[None]:
    """Send what this process prints into a file, also what a crash in compiled code prints."""
    if not log:
        yield
        return
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # no room or no right to write: the job itself will say so
        yield
        return
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    for stream, _ in kept:
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        for stream, before in kept:
            os.dup2(before, stream)
            os.close(before)


def log_tail(log: str) -> list[str]:
    """Return the last lines of a job's log."""
    if not log:
        return []
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-LOG_LINES:]


def signal_name(exit_code: int) -> str:
    """Return how a process ended in words.

    >>> signal_name(-11), signal_name(3)
    ('by signal SIGSEGV', 'with exit code 3')
    """
    if exit_code >= 0:
        return f"with exit code {exit_code}"
    try:
        return f"by signal {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"by signal {-exit_code}"
