"""Read and prepare many files, on all cores where it pays, always in the same order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from ltm.books.folder import BookFile, read_bytes
from ltm.books.prepare import Prepared, Wanted, prepare
from ltm.books.readers import read_file
from ltm.errors import BookError
from ltm.records import Rejected

_MIN_BYTES = 8_000_000  # below it (about 5 s of work) starting processes costs more than it saves
_MAX_WORKERS = 8
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


def prepare_file(task: FileTask) -> Outcome:
    """Return the books of one file, and the reasons for those that cannot be used; raises nothing."""
    source = task.file.relative
    try:
        data = read_bytes(task.file)
    except BookError as error:
        return [Rejected(source, "read", error.message)]
    outcome: Outcome = []
    found = read_file(data, source)
    for item in found:
        name = f"{source}/{item.member}" if item.member else source
        if item.book is None:
            outcome.append(Rejected(name, "read", item.reason))
            continue
        own = task.fields if len(found) == 1 else {}
        fields = task.member_fields.get(item.member, own)
        outcome.append(prepare(item.book, name, fields, task.wanted, task.place))
    return outcome


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
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent)
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


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
