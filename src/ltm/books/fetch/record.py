"""What was fetched into a folder, and where from: the manifest that the books stage reads, with the proof beside it.

Writes: `manifest.csv` (file, title, author, year, language, genre, licence, and source, url, sha256, bytes) and, while
a fetch goes on, `.fetched.jsonl`, to which every file is added when it stands. A fetch that is killed loses the file
in hand; its manifest is written by the next one.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.books.manifest import FIELDS, NAME
from ltm.errors import BusyError, InputError
from ltm.store import store_error, write_text

_OWN = ("source", "url", "sha256", "bytes", "text_bytes", "books")
_COLUMNS = ("file", *FIELDS, *_OWN)


@dataclass(frozen=True)
class Row:
    """One file of a fetched library."""

    file: str  # relative to the folder, with forward slashes
    source: str  # what it is at its source, for example `gutenberg:1342`
    url: str
    sha256: str
    bytes: int
    title: str = ""
    author: str = ""
    year: str = ""
    language: str = ""
    genre: str = ""
    licence: str = ""
    text_bytes: int = 0  # of all its books, where it holds several
    books: int = 0


class Record:
    """The record of one folder; open it with `open_record`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest, self._log = folder / NAME, folder / ".fetched.jsonl"
        self._rows: dict[str, dict[str, str]] = {}  # by file, in order
        self._columns = list(_COLUMNS)
        self._read_manifest()
        self._read_log()
        self._by_source = {row["source"]: row for row in self._rows.values() if row.get("source")}

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, source: str) -> dict[str, str] | None:
        """Return the row of something that was fetched before and still lies there as it was."""
        row = self._by_source.get(source)
        if row is None:
            return None
        try:
            there = (self.folder / row["file"]).stat().st_size
        except OSError:
            return None
        return row if str(there) == row.get("bytes", "") else None

    def knows(self, source: str) -> bool:
        """Return whether something was fetched before, whether it is still there or not."""
        return source in self._by_source

    def add(self, row: Row) -> None:
        """Note a file that stands.

        Raises:
            StoreError: the disk is full.
        """
        values = {key: str(value or "") for key, value in dataclasses.asdict(row).items()}
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
        except OSError as error:
            raise store_error(error, self._log) from error
        self._rows[row.file] = values
        self._by_source[row.source] = values

    def write(self) -> None:
        """Write the manifest, whole, and drop the log.

        Raises:
            StoreError: the disk is full.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        write_text(self._manifest, text.getvalue())
        self._log.unlink(missing_ok=True)

    def _read_manifest(self) -> None:
        if not self._manifest.exists():
            return
        try:
            reader = csv.DictReader(io.StringIO(self._manifest.read_text(encoding="utf-8-sig")))
            columns = list(reader.fieldnames or [])
            rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error):
            columns, rows = [], []
        if "file" not in columns:
            raise InputError(f"{self._manifest} is not a list of files that could be added to", "choose another --to")
        self._columns += [name for name in columns if name not in self._columns]
        self._rows = {row["file"]: row for row in rows if row["file"]}

    def _read_log(self) -> None:
        if not self._log.exists():
            return
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the line that was being written at a kill
                values: dict[str, Any] = json.loads(line)
                self._rows[values["file"]] = {key: str(value) for key, value in values.items()}


@contextlib.contextmanager
def open_record(folder: Path) -> Iterator[Record]:
    """Give the record of a folder to one process at a time; the manifest is written however the block ends.

    Raises:
        BusyError: another fetch works in the folder.
        InputError: the folder has a manifest that is none.
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".fetch.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise store_error(error, folder) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError(f"another fetch works in {folder}", "wait for it, or choose another --to") from None
    try:
        record = Record(folder)
        try:
            yield record
        finally:
            if len(record):
                record.write()
    finally:
        os.close(lock)
