"""What was found in each file of the library, kept so that no file is read twice and no library is held in memory.

Writes: `books/.prepared.sqlite`. A file is read again when its size or its time of change differ, when the manifest
says something else of it, or when the code that reads and cleans (`VERSION` of the stage) has changed. A file that was
changed within the moment in which it was read is told by its checksum, since its time may not tell. Each file is
committed when it is done: a process that is killed loses the files in hand. The texts themselves lie in the text store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltm.books.duplicates import Sketch
from ltm.books.folder import BookFile
from ltm.books.parallel import FileTask, Outcome, prepare_all
from ltm.books.prepare import Prepared
from ltm.errors import DiskError, StoreError
from ltm.records import Book, Rejected
from ltm.store import WorkFolder, fingerprint

_FORMAT = 1  # of this file; another one is thrown away
_FRESH_NS = 3_000_000_000  # a file changed so shortly before it was read may have been changed again unnoticed
_SCHEMA = """
create table files (relative text primary key, stamp text, context text, digest text) without rowid;
create table items (relative text, number integer, book_id text, row blob, arrays blob, primary key (relative, number))
  without rowid;
"""


class PreparedStore:
    """The outcomes of files, by path."""

    def __init__(self, path: Path | None, version: int) -> None:
        self._path, self._version = path, version
        self._database = self._open()

    @classmethod
    def of(cls, work: WorkFolder, version: int) -> PreparedStore:
        """Return the store of a work folder; a damaged one is begun anew.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = work.path("books", ".prepared.sqlite")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, version)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot write {path}: {error}", "check the folder's permissions, or choose --work"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def outcomes(self, tasks: Sequence[FileTask]) -> Generator[Outcome, None, None]:
        """Yield the outcome of every task in the order of the tasks; only what is not known is read.

        A book that was known has no text (it is empty): the text store has it.

        Raises:
            DiskError: the disk is full.
        """
        known = [self._is_known(task) for task in tasks]
        fresh = prepare_all([task for task, there in zip(tasks, known, strict=True) if not there])
        try:
            for task, there in zip(tasks, known, strict=True):
                if there:
                    yield self._recall(task)
                    continue
                outcome = next(fresh)
                self._keep(task, outcome)
                yield outcome
        finally:
            fresh.close()

    def keep(self, source: str, outcome: Outcome) -> Outcome:
        """Keep what does not come from a file."""
        self._write(source, "", "", "", outcome)
        return outcome

    def book(self, book_id: str, source: str) -> Book:
        """Return the whole row of a book that came in this session or an earlier one."""
        for relative in holders_of(source):
            query = "select row from items where relative = ? and book_id = ?"
            for (packed,) in self._database.execute(query, (relative, book_id)):
                row = json.loads(zlib.decompress(packed))
                if row["book"]["source"] == source:
                    return Book(**row["book"])
        raise StoreError(f"what is known of {source} is missing", "run the same command again: it is read anew")

    def forget_others(self, relatives: Iterable[str]) -> None:
        """Forget files that the library no longer has."""
        with self._database:
            self._database.execute("create temp table there (relative text primary key) without rowid")
            self._database.executemany("insert or ignore into there values (?)", ((r,) for r in relatives))
            for table in ("items", "files"):
                self._database.execute(f"delete from {table} where relative not in (select relative from there)")
            self._database.execute("drop table there")

    def forget(self, relative: str) -> None:
        """Forget one file, so that it is read again."""
        with self._database:
            self._database.execute("delete from items where relative = ?", (relative,))
            self._database.execute("delete from files where relative = ?", (relative,))

    def _open(self) -> sqlite3.Connection:
        for attempt in range(2):
            database = sqlite3.connect(str(self._path or ":memory:"))
            try:
                # killed processes lose nothing; after a power cut the file may be damaged, and is then begun anew
                database.execute("pragma locking_mode = exclusive")  # no shared memory, which network disks lack
                database.execute("pragma journal_mode = wal")
                database.execute("pragma synchronous = off")
                if database.execute("pragma user_version").fetchone()[0] != _FORMAT:
                    if database.execute("select count(*) from sqlite_master").fetchone()[0]:
                        raise sqlite3.DatabaseError("another format")
                    database.executescript(_SCHEMA)
                    database.execute(f"pragma user_version = {_FORMAT}")
                database.execute("select * from items limit 1").fetchone()
            except sqlite3.DatabaseError:
                database.close()
                if attempt or self._path is None:
                    raise
                for suffix in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            else:
                return database
        raise AssertionError

    def _context(self, task: FileTask) -> str:
        wanted = [sorted(task.wanted.languages), task.wanted.min_words]
        return fingerprint([self._version, task.fields, task.member_fields, wanted, task.text_column])

    def _is_known(self, task: FileTask) -> bool:
        query = "select stamp, context, digest from files where relative = ?"
        found = self._database.execute(query, (task.file.relative,)).fetchone()
        if found is None or found[0] != _stamp(task.file) or found[1] != self._context(task):
            return False
        return not found[2] or found[2] == _digest(task.file)

    def _keep(self, task: FileTask, outcome: Outcome) -> None:
        fresh = time.time_ns() - task.file.mtime_ns < _FRESH_NS
        digest = _digest(task.file) if fresh and not task.file.problem else ""
        self._write(task.file.relative, _stamp(task.file), self._context(task), digest, outcome)

    def _write(self, relative: str, stamp: str, context: str, digest: str, outcome: Outcome) -> None:
        items = [(relative, number, *_packed(item)) for number, item in enumerate(outcome)]
        try:
            with self._database:
                self._database.execute("delete from items where relative = ?", (relative,))
                self._database.executemany("insert into items values (?, ?, ?, ?, ?)", items)
                row = (relative, stamp, context, digest)
                self._database.execute("insert or replace into files values (?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                hint = "free some space and run the same command again"
                raise DiskError(f"the disk is full: cannot write {self._path}", hint) from None
            raise StoreError(f"cannot write {self._path}: {error}", "check the folder's permissions") from None

    def _recall(self, task: FileTask) -> Outcome:
        query = "select row, arrays from items where relative = ? order by number"
        rows = self._database.execute(query, (task.file.relative,)).fetchall()
        return [_unpacked(row, arrays, task.place) for row, arrays in rows]


def _packed(item: Prepared | Rejected) -> tuple[str, bytes, bytes]:
    """Return the id, the row and the arrays of an item as they are stored."""
    if isinstance(item, Rejected):
        return "", zlib.compress(json.dumps({"rejected": dataclasses.asdict(item)}).encode(), 1), b""
    sketch = item.sketch
    about = {
        "book": dataclasses.asdict(item.book),
        "exact": sketch.exact,
        "n_words": sketch.n_words,
        "n_hashes": len(sketch.hashes),
    }
    arrays = b"".join(
        np.ascontiguousarray(values, dtype=kind).tobytes()
        for values, kind in ((sketch.hashes, "<u8"), (sketch.bins, "u1"), (item.vector, "<f4"))
    )
    return item.book.book_id, zlib.compress(json.dumps(about).encode(), 1), arrays


def _unpacked(packed: bytes, arrays: bytes, place: int) -> Prepared | Rejected:
    about: dict[str, Any] = json.loads(zlib.decompress(packed))
    if "rejected" in about:
        return Rejected(**about["rejected"])
    n = about["n_hashes"]
    hashes = np.frombuffer(arrays, dtype="<u8", count=n)
    bins = np.frombuffer(arrays, dtype="u1", count=n, offset=8 * n)
    vector = np.frombuffer(arrays, dtype="<f4", offset=9 * n)
    sketch = Sketch(about["exact"], hashes, bins, about["n_words"])
    return Prepared(dataclasses.replace(Book(**about["book"]), rank=place), "", sketch, vector)


def holders_of(source: str) -> list[str]:
    """Return the files that a book may have come from: `a.zip/c.txt` is that file, or a member of `a.zip`."""
    parts = source.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _stamp(file: BookFile) -> str:
    return f"{file.n_bytes} {file.mtime_ns} {file.problem}"


def _digest(file: BookFile) -> str:
    digest = hashlib.sha256()
    try:
        with open(file.opened, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return "unreadable"
    return digest.hexdigest()
