"""The catalogue and the clean texts, as the other stages read them.

Reads and writes: `books/catalogue.parquet` (`Book`), `books/rejected.parquet` (`Rejected`), `books/text/`. How the
texts lie on the disk is known here only.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from ltm.errors import StoreError
from ltm.records import Book, Rejected
from ltm.store import WorkFolder, read_rows, write_bytes, write_rows

_ID_DIGITS = 16


def book_id(text: str) -> str:
    """Return the id of a book: the first 16 hex digits of the SHA-256 of its clean text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def read_catalogue(work: WorkFolder) -> list[Book]:
    """Return all books, by rank.

    Raises:
        StoreError: the books stage has not run, or its file is damaged.
    """
    return read_rows(work.path("books", "catalogue.parquet"), Book)


def read_rejected(work: WorkFolder) -> list[Rejected]:
    """Return what was left out and why; raises like `read_catalogue`."""
    return read_rows(work.path("books", "rejected.parquet"), Rejected)


def write_catalogue(work: WorkFolder, books: Iterable[Book], rejected: Iterable[Rejected]) -> None:
    """Write both tables."""
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    write_rows(work.path("books", "rejected.parquet"), rejected, Rejected)


class TextStore:
    """The clean texts of a study, by book id."""

    def __init__(self, work: WorkFolder) -> None:
        self._work = work

    def write(self, book_id: str, text: str) -> None:
        """Store a text; one that is there already is not written again.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        path = self._path(book_id)
        data = text.encode()
        if not path.exists() or path.stat().st_size != len(data):
            write_bytes(path, data)

    def read(self, book_id: str) -> str:
        """Return the text of a book, checked against its id.

        Raises:
            StoreError: it is missing or was changed.
        """
        path = self._path(book_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"the text of book {book_id} is missing: {path}", "run `ltm books` again") from None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
        if hashlib.sha256(data).hexdigest()[:_ID_DIGITS] != book_id:
            raise StoreError(f"the text of book {book_id} was damaged or changed: {path}", "delete it and run again")
        return data.decode()

    def keep_only(self, book_ids: Iterable[str]) -> None:
        """Delete the texts of all other books: leavings of an earlier library or of a killed run."""
        wanted = {self._path(book_id) for book_id in book_ids}
        folder = self._work.path("books", "text")
        if not folder.is_dir():
            return
        for path in sorted(folder.glob("*/*")):
            if path not in wanted:
                path.unlink(missing_ok=True)
        for child in folder.iterdir():
            if child.is_dir() and not any(child.iterdir()):
                shutil.rmtree(child, ignore_errors=True)

    def _path(self, book_id: str) -> Path:
        # folders of a 256th each keep listings short in a library of a million books
        return self._work.path("books", "text", book_id[:2], f"{book_id}.txt")
