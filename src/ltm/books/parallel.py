"""Read and prepare many files, on all cores where it pays, always in the same order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from ltm.books.folder import BookFile, read_bytes
from ltm.books.prepare import Prepared, Wanted, prepare
from ltm.books.readers import Found, read_file
from ltm.errors import BookError
from ltm.records import Rejected

_MIN_BYTES = 8_000_000  # below it (about 5 s of work) starting processes costs more than it saves
_MAX_WORKERS = 8
LIMIT_SECONDS = 10.0  # of computing for one file ...
LIMIT_SECONDS_PER_MB = 2.0  # ... and what its size allows on top; an honest megabyte takes 0.2
_WINDOW = 8  # files in hand per worker: enough to keep it busy, few enough to hold their texts in memory

Outcome = list[Prepared | Rejected]


@dataclass(frozen=True, slots=True)
class FileTask:
    """One file and what the manifest says about it and, for an archive, about its members."""

    file: BookFile
    place: int  # in the library's order
    fields: dict[str, str]
    member_fields: dict[str, dict[str, str]]
    wanted: Wanted
    text_column: str = ""  # of tables; empty = find it


class _TooSlow(BaseException):
    """Raised inside a file's work; no `except Exception` of a reader may swallow it."""


def prepare_file(task: FileTask) -> Outcome:
    """Return the books of one file, and the reasons for those that cannot be used; raises nothing.

    A file that takes longer than any honest one does is given up.
    """
    source = task.file.relative
    limit_seconds = LIMIT_SECONDS + LIMIT_SECONDS_PER_MB * task.file.n_bytes / 1e6
    outcome: Outcome = []
    try:
        with _at_most(limit_seconds):
            data = read_bytes(task.file)
            found = read_file(data, source, task.text_column)
            for item in found:
                outcome.append(_prepare(item, source, task, len(found) == 1))
    except BookError as error:
        return [Rejected(source, "read", error.message)]
    except _TooSlow:
        said = "the rest of it is left out" if outcome else "it is left out"
        outcome.append(Rejected(source, "read", f"the file took more than {limit_seconds:.0f} s of computing; {said}"))
    return outcome


def _prepare(item: Found, source: str, task: FileTask, alone: bool) -> Prepared | Rejected:
    name = f"{source}/{item.member}" if item.member else source
    if item.book is None:
        return Rejected(name, "read", item.reason)
    fields = task.member_fields.get(item.member, task.fields if alone else {})
    try:
        return prepare(item.book, name, fields, task.wanted, task.place)
    except (RecursionError, MemoryError):
        return Rejected(name, "clean", "the text is too large to be cleaned")
    except Exception as error:  # a fault of a cleaning step must cost one book, not the whole library
        return Rejected(name, "clean", f"the text cannot be cleaned: {type(error).__name__}: {error}"[:300])


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `_TooSlow` after so much computing of this process; only where signals can be had (the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_signal: int, _frame: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def most_workers() -> int:
    """Return how many processes read a library that is large enough."""
    return min(len(os.sched_getaffinity(0)), _MAX_WORKERS)


def prepare_all(tasks: Sequence[FileTask]) -> Generator[Outcome, None, None]:
    """Yield the outcome of every task in the order of the tasks."""
    done = 0
    workers = min(most_workers(), len(tasks))
    if workers > 1 and sum(task.file.n_bytes for task in tasks) >= _MIN_BYTES:
        try:
            for outcome in _on_all_cores(tasks, workers):
                yield outcome
                done += 1
        except BrokenProcessPool:
            pass  # no processes to be had here (a script without a main guard, little memory): go on alone
    for task in tasks[done:]:
        yield prepare_file(task)


def _on_all_cores(tasks: Sequence[FileTask], workers: int) -> Generator[Outcome, None, None]:
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent, initargs=(os.getpid(),))
    waiting: deque[Future[Outcome]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(prepare_file, task))
            if len(waiting) >= workers * _WINDOW:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def follow_parent(parent: int) -> None:
    """Make this process one that leaves interrupts to its parent and ends when that was killed.

    Without, it would wait at its queue for ever: it holds both ends of it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
