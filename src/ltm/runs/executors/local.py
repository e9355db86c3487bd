"""Warm worker processes on this machine: each takes job after job without paying imports again.

A worker that dies is replaced and its job is worked on again; a worker whose parent dies ends itself. The jobs
themselves keep what they have done in the work folder, so that nothing but seconds is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ltm.errors import LtmError

_CONTEXT = multiprocessing.get_context("spawn")  # fork after torch has started threads can hang
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10.0  # to write a checkpoint when asked to stop
_LARGEST_DEATHS = 3  # of workers on one job before it counts as failed
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's names in <malloc.h>
_stop = threading.Event()


def stop_requested() -> bool:
    """Return whether this worker was asked to finish; a job checks it at every step."""
    return _stop.is_set()


@dataclass(frozen=True)
class Job:
    """One call of a task; the key names it in outcomes."""

    key: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a value, or with an error in words (and where it came from)."""

    key: str
    error: str = ""
    kind: str = ""  # class of the error
    trace: str = ""  # empty for errors that ltm understands: the same call would end the same way
    value: Any = None

    @property
    def ok(self) -> bool:
        """Whether the job has a value."""
        return not self.error


class LocalExecutor:
    """A pool of warm worker processes.

    Args:
        n_workers: How many processes.
        threads: Threads of each (1 is fastest for micro models: one process per core).
    """

    def __init__(self, n_workers: int, threads: int = 1) -> None:
        self._threads = threads
        self._wanted = n_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(graceful=kind is None or issubclass(kind, KeyboardInterrupt))

    def map(self, task: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield an outcome per job, in the order in which they end.

        Args:
            task: An importable function; called as `task(*job.arguments)` in a worker.
            jobs: Worked on in this order.
        """
        todo = deque(jobs)
        deaths: dict[str, int] = {}
        while len(self._workers) < min(self._wanted, len(jobs)):
            self._workers.append(_Worker(self._threads))
        while todo or any(w.job for w in self._workers):
            for worker in self._workers:
                if not worker.job and todo:
                    worker.give(task, todo.popleft())
            for worker in self._ready():
                job = worker.job
                assert job is not None  # only busy workers are waited for
                outcome = worker.take()
                if outcome is None:
                    deaths[job.key] = deaths.get(job.key, 0) + 1
                    self._workers[self._workers.index(worker)] = _Worker(self._threads)
                    if deaths[job.key] < _LARGEST_DEATHS:
                        todo.append(job)
                        continue
                    outcome = Outcome(
                        job.key, error=f"its worker process died {_LARGEST_DEATHS} times", kind="WorkerDied"
                    )
                yield outcome

    def _ready(self) -> list[_Worker]:
        busy = [w for w in self._workers if w.job]
        handles: list[Any] = [w.pipe for w in busy] + [w.process.sentinel for w in busy]
        ready = set(wait(handles))
        return [w for w in busy if w.pipe in ready or w.process.sentinel in ready]

    def close(self, graceful: bool = True) -> None:
        """End the workers; busy ones get some seconds to write a checkpoint."""
        for worker in self._workers:
            worker.ask_to_stop()
        deadline = time.monotonic() + (_GRACE_SECONDS if graceful else 0.0)
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()


class _Worker:
    def __init__(self, threads: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, threads, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, task: Callable[..., Any], job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed by its sentinel
            self.pipe.send((task, job))

    def take(self) -> Outcome | None:
        """Return the outcome, or None if the worker died."""
        self.job = None
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            return None
        return outcome

    def ask_to_stop(self) -> None:
        if self.job and self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, signal.SIGTERM)
        else:
            with contextlib.suppress(BrokenPipeError, OSError):
                self.pipe.send(None)


def _serve(pipe: Connection, threads: int, parent: int) -> None:
    """Run jobs until told to stop; ends with its parent, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which asks politely
    signal.signal(signal.SIGTERM, _on_stop)
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the closed pipe ends the worker
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when a task imports torch
        os.environ[name] = str(threads)
    keep_freed_memory()
    with contextlib.suppress(EOFError, OSError):
        while not _stop.is_set() and (message := pipe.recv()) is not None:
            task, job = message
            pipe.send(_call(task, job))


def keep_freed_memory() -> None:
    """Let this process keep what it frees: else each training step gives its activations back to the system and pays
    for their pages again, 8-25 % of its time on a CPU. Does nothing without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):  # glibc before 2.35 refuses more than half a heap
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def _call(task: Callable[..., Any], job: Job) -> Outcome:
    try:
        return Outcome(job.key, value=task(*job.arguments))
    except LtmError as error:
        return Outcome(job.key, error=str(error), kind=type(error).__name__)
    except Exception as error:
        return Outcome(
            job.key, error=f"{type(error).__name__}: {error}", kind=type(error).__name__, trace=traceback.format_exc()
        )


def _on_stop(*_: object) -> None:
    _stop.set()
