"""The manifest: a CSV file that says what the files of a library are."""

from __future__ import annotations

import csv
import difflib
import io
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from ltm.books.readers.txt import decode
from ltm.errors import BookError, InputError

NAME = "manifest.csv"
FIELDS = ("language", "title", "author", "year", "genre", "licence")
_MAX_BYTES = 200 * 1024**2


@dataclass(frozen=True)
class Manifest:
    """Rows by file, each with its place in the manifest."""

    path: Path | None
    rows: dict[str, tuple[int, dict[str, str]]]  # by path relative to the library folder, with forward slashes
    covers_more: bool  # it lies above the folder and may name files of other folders too

    def find(self, relative: str) -> tuple[int, dict[str, str]] | None:
        """Return (place, fields) of a file, or None if the manifest does not name it."""
        return self.rows.get(relative)


def find_manifest(root: Path, explicit: str | None) -> Path | None:
    """Return the path of the manifest that belongs to a folder of books, or None.

    Raises:
        InputError: the named manifest does not exist.
    """
    if explicit is not None:
        candidates = [Path(explicit), root / explicit]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise InputError(f"no such manifest: {explicit}", "check `books.manifest`, or leave it out")
    return next((path for path in (root / NAME, root.parent / NAME) if path.is_file()), None)


def read_manifest(root: Path, explicit: str | None, rating: str = "") -> Manifest:
    """Read the manifest of a folder; a folder without one has an empty manifest.

    Args:
        root: The folder of books.
        explicit: The manifest that the study names, if any.
        rating: The column to rank by, kept as the field `rating`; empty for none.

    Raises:
        InputError: it cannot be read, is not CSV, or lacks the column `file` or the one to rank by.
    """
    path = find_manifest(root, explicit)
    if path is None:
        if rating:
            raise InputError(
                f"books.rank_by is {rating}, but there is no manifest", "add a manifest.csv with that column"
            )
        return Manifest(None, {}, True)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a manifest", "see docs/books.md for its columns")
        reader = _csv_reader(decode(path.read_bytes()))
        records = list(reader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    except (BookError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}", "see docs/books.md for its columns") from None
    prefix = _prefix(root, path)
    columns = [name for name in reader.fieldnames or [] if name]
    if "file" not in columns:
        if explicit is None and prefix:
            return Manifest(None, {}, True)  # some other manifest.csv that happens to lie above the folder
        given = ", ".join(columns[:8]) or "none"
        raise InputError(f"{path} has no `file` column (columns: {given})", "name each book's path in a column `file`")
    rating = rating.strip().lower()
    if rating and rating not in columns:
        near = difflib.get_close_matches(rating, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its columns are {', '.join(columns[:12])}"
        raise InputError(f"books.rank_by is {rating!r}, a column that {path} lacks", hint)
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for place, record in enumerate(records):
        relative = _relative(record.get("file") or "", prefix)
        if relative and relative not in rows:
            fields = {name: (record.get(name) or "").strip() for name in FIELDS}
            rows[relative] = (place, fields | ({"rating": (record.get(rating) or "").strip()} if rating else {}))
    return Manifest(path, rows, bool(prefix))


def _csv_reader(text: str) -> csv.DictReader[str]:
    first_line = text.lstrip("\ufeff\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter, restkey="_rest")
    reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
    return reader


def _prefix(root: Path, path: Path) -> str:
    """Return the library folder as seen from a manifest that lies above it (`en/`), else nothing."""
    folder = path.resolve().parent
    absolute = root.resolve()
    if folder != absolute and absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix() + "/"
    return ""


def _relative(file: str, prefix: str) -> str:
    plain = posixpath.normpath(file.strip().replace(os.sep, "/").replace("\\", "/")) if file.strip() else ""
    if prefix and plain.startswith(prefix):
        return plain[len(prefix) :]
    return plain
