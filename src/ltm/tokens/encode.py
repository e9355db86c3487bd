"""Encode many books, on all cores where it pays, always in the same order; no more texts are held than are in hand."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltm.books.catalogue import TextStore
from ltm.books.parallel import follow_parent
from ltm.store import WorkFolder
from ltm.tokens.token_file import Encoded, token_dtype
from ltm.tokens.tokenizer import Tokenizer, load

_MIN_BYTES = 64_000_000  # below it (2 s of work) starting processes costs more than it saves
_MAX_WORKERS = 32
_BATCH_BYTES = 4_000_000  # books that go to a process together
_WINDOW = 3  # batches in hand per process


class Wanted(NamedTuple):
    """A book to encode."""

    book_id: str
    n_bytes: int
    chapter_starts: Sequence[int]  # character offsets, ascending, the first is 0


def encode_books(work: WorkFolder, tokenizer: Tokenizer, books: Sequence[Wanted]) -> Iterator[Encoded]:
    """Yield every book in tokens, in the given order.

    Raises:
        StoreError: a text is missing, or was changed.
    """
    done = 0
    workers = min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
    if workers > 1 and sum(book.n_bytes for book in books) >= _MIN_BYTES:
        try:
            for encoded in _on_all_cores(work, books, workers):
                yield encoded
                done += 1
        except BrokenProcessPool:
            pass  # no processes to be had here (a script without a main guard, little memory): go on alone
    store = TextStore(work)
    for book in books[done:]:
        yield encode_book(store, tokenizer, book)


def encode_book(store: TextStore, tokenizer: Tokenizer, book: Wanted) -> Encoded:
    """Return one book in tokens; chapters are encoded apart, so that no token reaches over their border."""
    text = store.read(book.book_id)
    bounds = [*book.chapter_starts, len(text)]
    chapters = [text[a:b] for a, b in itertools.pairwise(bounds) if b > a]
    pieces = tokenizer.encoder.encode_many(chapters)
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    whole = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint32)
    return Encoded(book.book_id, whole.astype(token_dtype(tokenizer.vocab_size)).tobytes(), starts[:-1].tolist())


_here: list[tuple[TextStore, Tokenizer]] = []  # of a worker process


def _start(root: Path, parent: int) -> None:
    follow_parent(parent)
    work = WorkFolder(root)
    _here.append((TextStore(work), load(work)))


def _encode_batch(batch: list[Wanted]) -> list[Encoded]:
    store, tokenizer = _here[-1]
    return [encode_book(store, tokenizer, book) for book in batch]


def _on_all_cores(work: WorkFolder, books: Sequence[Wanted], workers: int) -> Generator[Encoded, None, None]:
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(work.root, os.getpid()))
    waiting: deque[Future[list[Encoded]]] = deque()
    try:
        for batch in _batches(books):
            waiting.append(pool.submit(_encode_batch, batch))
            if len(waiting) >= workers * _WINDOW:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(books: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    batch: list[Wanted] = []
    n_bytes = 0
    for book in books:
        batch.append(book)
        n_bytes += book.n_bytes
        if n_bytes >= _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch
