"""Warm worker processes on this machine: each takes job after job without paying imports again.

A worker that dies is replaced and its job is worked on again (see `deaths`); a worker whose parent dies ends itself.
The jobs themselves keep what they have done in the work folder, so that nothing but seconds is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ltm.errors import BudgetError, DiskError
from ltm.runs.executors.base import (
    GRACE_SECONDS,
    OVER_MEMORY,
    STALL_SECONDS,
    STOPPED,
    STOPPED_EXIT,
    Job,
    Outcome,
    ask_this_process_to_stop,
    call,
    stop_requested,
)
from ltm.runs.executors.deaths import Deaths, Stalls
from ltm.units import format_bytes

__all__ = ["Job", "LocalExecutor", "Outcome", "keep_freed_memory", "stop_requested"]

_CONTEXT = multiprocessing.get_context("spawn")  # fork after torch has started threads can hang
_PR_SET_PDEATHSIG = 1
_TICK_SECONDS = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's names in <malloc.h>
_GENTLE = (KeyboardInterrupt, BudgetError, DiskError)  # ends that leave time for a checkpoint


class LocalExecutor:
    """A pool of warm worker processes.

    Args:
        n_workers: How many processes.
        threads: Threads of each (1 is fastest for micro models: one process per core).
        environments: Environment variables by worker, so that each sees its own device; repeated where too few.
        most_bytes: Resident memory of a worker above which it is ended; 0 = not watched.
        deaths: What a worker's death means.
        stall_seconds: Without a sign of life of its job, a worker is ended and the job given to another.
    """

    def __init__(
        self,
        n_workers: int,
        threads: int = 1,
        environments: Sequence[Mapping[str, str]] = (),
        most_bytes: float = 0.0,
        deaths: Deaths | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._threads = threads
        self._wanted = n_workers
        self._environments = environments
        self.most_bytes = most_bytes
        self._workers: list[_Worker] = []
        self._deaths = deaths
        self._stalls = Stalls(stall_seconds)
        self.may_work: Callable[[], bool] = lambda: True
        self.on_tick: Callable[[], None] = lambda: None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(graceful=kind is None or issubclass(kind, _GENTLE))

    def _drop(self, worker: Any) -> None:
        with contextlib.suppress(ValueError):  # the pool was closed meanwhile, from another thread
            self._workers.remove(worker)

    def map(
        self, task: Callable[..., Any], jobs: Sequence[Job], claim: Callable[[Job], bool] | None = None
    ) -> Iterator[Outcome]:
        """Yield an outcome per job, in the order in which they end.

        Args:
            task: An importable function; called as `task(*job.arguments)` in a worker.
            jobs: Worked on in this order.
            claim: Asked before a job is given to a worker; one that somebody else has is left out.
        """
        todo = deque(jobs)
        deaths = self._deaths or Deaths()
        ticked = time.monotonic()
        working = True
        while todo or any(w.job for w in self._workers):
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                working = self._tick(working)
            if working:
                self._give(task, todo, deaths, claim)
            for worker in self._ready():
                job = worker.job
                assert job is not None  # only busy workers are waited for
                outcome = worker.take()
                if outcome is not None and outcome.kind == STOPPED:  # asked to, here or by somebody else
                    self._drop(worker)
                    todo.appendleft(job)
                    continue
                if outcome is None:
                    self._drop(worker)
                    outcome = self._of_death(worker, job, deaths)
                    if outcome is None:
                        todo.append(job) if working else todo.appendleft(job)
                        continue
                yield outcome

    def _give(
        self,
        task: Callable[..., Any],
        todo: deque[Job],
        deaths: Deaths,
        claim: Callable[[Job], bool] | None,
    ) -> None:
        """Give jobs to idle workers, those first that need not wait; start workers while there is work for them."""
        for _ in range(len(todo)):
            idle = next((w for w in self._workers if not w.job), None)
            if idle is None and len(self._workers) >= self._wanted:
                return
            job = todo.popleft()
            if deaths.wait_seconds(job) > 0:
                todo.append(job)
                continue
            if claim is not None and not claim(job):
                continue
            if idle is None:
                idle = _Worker(self._threads, self._environment())
                self._workers.append(idle)
            idle.give(task, job)

    def _environment(self) -> dict[str, str]:
        """Return the environment that the fewest of the present workers have."""
        if not self._environments:
            return {}
        shares = [sum(w.environment == dict(e) for w in self._workers) for e in self._environments]
        return dict(self._environments[shares.index(min(shares))])

    def _tick(self, working: bool) -> bool:
        """Look after pause, memory and whatever the owner watches; returns whether jobs may be given out."""
        self.on_tick()
        if working and not self.may_work():
            for worker in self._workers:
                worker.ask_to_stop()
            return False
        if not working and self.may_work():
            self._workers = [w for w in self._workers if w.job or w.process.is_alive()]
            return True
        for worker in self._workers:
            if worker.job is None:
                continue
            if self.most_bytes and worker.resident_bytes() > self.most_bytes:
                worker.over_memory = True
                worker.process.kill()
            elif working and self._stalls.has_stalled(worker.job, worker.process.pid or 0):
                worker.process.kill()
        return working

    def _of_death(self, worker: _Worker, job: Job, deaths: Deaths) -> Outcome | None:
        if worker.over_memory:
            text = f"its worker took more than {format_bytes(self.most_bytes)} of memory and was ended"
            return Outcome(job.key, text, OVER_MEMORY)
        if worker.process.exitcode == STOPPED_EXIT and not self.may_work():
            return None  # a pause, while it had nothing to lose
        return deaths.of(job, worker.process.exitcode)

    def _ready(self) -> list[_Worker]:
        """Wait a moment for workers to end a job, or to die; idle ones that died are let go."""
        self._workers = [w for w in self._workers if w.job or w.process.exitcode is None]
        busy = [w for w in self._workers if w.job]
        handles: list[Any] = [w.pipe for w in busy] + [w.process.sentinel for w in busy]
        if not handles:
            wait([], min(0.1, _TICK_SECONDS))
            return []
        ready = set(wait(handles, _TICK_SECONDS))
        return [w for w in busy if w.pipe in ready or w.process.sentinel in ready]

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that are alive."""
        return [w.process.pid for w in self._workers if w.process.pid and w.process.is_alive()]

    def close(self, graceful: bool = True) -> None:
        """End the workers; busy ones get some seconds to write a checkpoint. A second Ctrl-C ends them at once."""
        workers, self._workers = self._workers, []
        try:
            for worker in workers:
                worker.ask_to_stop()
            deadline = time.monotonic() + (GRACE_SECONDS if graceful else 0.0)
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    def __init__(self, threads: int, environment: dict[str, str]) -> None:
        self.environment = environment
        self.pipe, theirs = _CONTEXT.Pipe()
        arguments = (theirs, threads, environment, os.getpid())
        self.process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.over_memory = False

    def give(self, task: Callable[..., Any], job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # a dead worker is noticed by its sentinel
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
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)
        else:
            with contextlib.suppress(OSError):
                self.pipe.send(None)

    def join(self, seconds: float) -> None:
        """Wait for the end; an answer that is under way is taken, so that the worker need not wait for its reader."""
        deadline = time.monotonic() + seconds
        while self.process.is_alive() and (left := deadline - time.monotonic()) > 0:
            wait([self.process.sentinel, self.pipe], left)
            with contextlib.suppress(EOFError, OSError):
                if self.pipe.poll():
                    self.pipe.recv()
                    continue
            self.process.join(min(0.05, left))

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()

    def resident_bytes(self) -> float:
        """Return the memory that the worker holds in RAM; 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
            return (int(pages[1]) - int(pages[2])) * float(os.sysconf("SC_PAGE_SIZE"))  # without mapped files
        except (OSError, ValueError, IndexError):
            return 0.0


def _serve(pipe: Connection, threads: int, environment: dict[str, str], parent: int) -> None:
    """Run jobs until told to stop; ends with its parent, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which asks politely
    signal.signal(signal.SIGTERM, ask_this_process_to_stop)
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the closed pipe ends the worker
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.environ.update(environment)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when a task imports torch
        os.environ[name] = str(threads)
    # Before the first product on a card, whoever makes it: without it cuBLAS promises no order of sums.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_freed_memory()
    faulthandler.enable()  # a crash in compiled code leaves a trace in the job's log
    with contextlib.suppress(EOFError, OSError):
        while not stop_requested() and (message := pipe.recv()) is not None:
            task, job = message
            pipe.send(call(task, job))


def keep_freed_memory() -> None:
    """Let this process keep what it frees: else each training step gives its activations back to the system and pays
    for their pages again, 8-25 % of its time on a CPU. Does nothing without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):  # glibc before 2.35 refuses more than half a heap
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
