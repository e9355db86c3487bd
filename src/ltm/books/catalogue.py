"""The catalogue and the clean texts, as the other stages read them.

Reads and writes: `books/catalogue.parquet` (`Book`), `books/rejected.parquet` (`Rejected`), `books/text/`. How the
texts lie on the disk is known here only.

A catalogue may have a million rows. `read_catalogue` makes an object of each; whoever needs a few columns, a few
books or one book after another asks `columns`, `feature_matrix`, `read_books` or `iter_books`, which read no more of
the file than that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ltm import records
from ltm.errors import DamagedError, DataError, StoreError
from ltm.records import Book, Rejected
from ltm.seal import BLANK, check_file
from ltm.store import WorkFolder, read_rows, store_error, write_bytes, write_rows

if TYPE_CHECKING:
    import pyarrow as pa

_ID_DIGITS = 16
_GROUP_ROWS = 8_192  # rows that are held at once
_CHECKED_BYTES = 64 * 1024**2  # a larger file is checked when it was touched (`WorkFolder.check`), not at every look


def book_id(text: str) -> str:
    """Return the id of a book: the first 16 hex digits of the SHA-256 of its clean text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def read_catalogue(work: WorkFolder) -> list[Book]:
    """Return all books, by rank.

    Raises:
        StoreError: the books stage has not run, or its file is damaged.
    """
    return [book for batch in iter_books(work) for book in batch]


def iter_books(work: WorkFolder) -> Iterator[list[Book]]:
    """Yield all books by rank, some thousands at a time; raises like `read_catalogue`."""
    for batch in _batches(work, None):
        yield records.from_table(batch, Book)


def read_books(work: WorkFolder, book_ids: Iterable[str]) -> list[Book]:
    """Return some books, by rank; ids that the catalogue lacks are passed over. Raises like `read_catalogue`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(set(book_ids)), type=pa.string())
    found: list[Book] = []
    for batch in _batches(work, None):
        rows = batch.filter(pc.is_in(batch.column("book_id"), value_set=wanted))
        if rows.num_rows:
            found += records.from_table(rows, Book)
    return found


def columns(work: WorkFolder, names: Sequence[str], book_ids: Iterable[str] | None = None) -> pa.Table:
    """Return some columns of the catalogue, by rank; nothing else is read.

    Args:
        work: The study's work folder.
        names: Fields of `Book`; for features see `feature_matrix`.
        book_ids: The books to return, in place of all; ids that the catalogue lacks are passed over.

    Raises:
        DataError: `Book` has no such field, or the catalogue was written before it had.
        StoreError: as `read_catalogue`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = list(dict.fromkeys([*names, "book_id"])) if book_ids is not None else list(names)
    parts = list(_batches(work, asked))
    table = (
        pa.concat_tables(parts) if parts else pa.schema([records.schema(Book).field(n) for n in asked]).empty_table()
    )
    if book_ids is None:
        return table
    wanted = pa.array(sorted(set(book_ids)), type=pa.string())
    return table.filter(pc.is_in(table.column("book_id"), value_set=wanted)).select(list(names))


def feature_matrix(work: WorkFolder, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return features of all books, by rank, shape (n_books, n_names); NaN where a book has none of that name.

    Raises:
        StoreError: as `read_catalogue`.
    """
    blocks = [_feature_block(batch.column("features"), names) for batch in _batches(work, ["features"])]
    return np.concatenate(blocks) if blocks else np.empty((0, len(names)), dtype=np.float32)


def feature_names(work: WorkFolder) -> list[str]:
    """Return the names of all features that any book has, sorted; raises like `read_catalogue`."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for batch in _batches(work, ["features"]):
        for chunk in batch.column("features").chunks:
            found.update(pc.unique(chunk.keys).to_pylist())
    return sorted(found)


def _feature_block(features: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.float32]:
    place = {name: i for i, name in enumerate(names)}
    block = np.full((len(features), len(names)), np.nan, dtype=np.float32)
    first = 0
    for chunk in features.chunks:
        offsets = np.asarray(chunk.offsets)
        keys = chunk.keys if hasattr(chunk.keys, "dictionary") else chunk.keys.dictionary_encode()
        values = np.asarray(chunk.items, dtype=np.float64)
        column_of = np.array([place.get(key, -1) for key in keys.dictionary.to_pylist()], dtype=np.int64)
        codes = np.asarray(keys.indices)
        inside = slice(int(offsets[0]), int(offsets[-1])) if len(keys) > offsets[-1] - offsets[0] else slice(None)
        codes, values = codes[inside], values[inside]
        every = len(chunk) * len(column_of)
        if len(codes) == every and every and (codes.reshape(len(chunk), -1) == np.arange(len(column_of))).all():
            there = np.flatnonzero(column_of >= 0)  # every book has the same features in the same order
            block[first : first + len(chunk), column_of[there]] = values.reshape(len(chunk), -1)[:, there]
        else:
            row_of = np.repeat(np.arange(len(chunk)), np.diff(offsets))
            at = column_of[codes] if len(column_of) else np.empty(0, dtype=np.int64)
            wanted = at >= 0
            block[first + row_of[wanted], at[wanted]] = values[wanted]
        first += len(chunk)
    return block


def _batches(work: WorkFolder, names: list[str] | None) -> Iterator[pa.Table]:
    """Yield the catalogue in pieces of some thousand rows, with one memory of a piece."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = work.path("books", "catalogue.parquet")
    unknown = [name for name in names or [] if name not in records.schema(Book).names]
    if unknown:
        raise DataError(f"a book has no {', '.join(unknown)}", f"it has {', '.join(records.schema(Book).names)}")
    try:
        if path.stat().st_size <= _CHECKED_BYTES:
            check_file(path)
        # names of features come as numbers, which is five times as fast; by groups, since Arrow cannot join such pieces
        with pq.ParquetFile(path, read_dictionary=["features.key_value.key"]) as file:
            there = file.schema_arrow.names
            missing = [name for name in names or [] if name not in there]
            if missing:
                raise DataError(f"{path} lacks {', '.join(missing)}", "run `ltm books STUDY` again")
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=names, use_threads=False)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run the stage that writes it") from None
    except (pa.ArrowException, OSError):
        raise DamagedError(path) from None


def read_rejected(work: WorkFolder) -> list[Rejected]:
    """Return what was left out and why; raises like `read_catalogue`."""
    return read_rows(work.path("books", "rejected.parquet"), Rejected)


def write_catalogue(work: WorkFolder, books: Iterable[Book], rejected: Iterable[Rejected]) -> None:
    """Write both tables; the books are taken one after another and not held.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    with CatalogueWriter(work) as writer:
        for book in books:
            writer.add(book)
    write_rejected(work, rejected)


def write_rejected(work: WorkFolder, rejected: Iterable[Rejected]) -> None:
    """Write the table of what was left out; raises like `write_catalogue`."""
    write_rows(work.path("books", "rejected.parquet"), rejected, Rejected)


class CatalogueWriter:
    """Writes `books/catalogue.parquet` row by row; the file appears, whole and sealed, when the block ends well."""

    def __init__(self, work: WorkFolder) -> None:
        self._path = work.path("books", "catalogue.parquet")
        self._temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        self._rows: list[Book] = []
        self._file: Any = None

    def __enter__(self) -> CatalogueWriter:
        import pyarrow.parquet as pq

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # no statistics: they leave NaN out, and DuckDB then answers questions about NaN wrongly
            self._file = pq.ParquetWriter(
                self._temporary, records.schema(Book), compression="zstd", write_statistics=False
            )
        except OSError as error:
            raise store_error(error, self._path) from error
        return self

    def add(self, book: Book) -> None:
        """Write one book.

        Raises:
            StoreError: the disk is full.
        """
        self._rows.append(book)
        if len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Write books that are an Arrow table with the schema of `Book`; raises like `add`."""
        self._flush()
        try:
            self._file.write_table(table, row_group_size=_GROUP_ROWS)
        except OSError as error:
            raise store_error(error, self._path) from error

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self.add_table(records.to_table(rows, Book))

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self._flush()
                self._file.add_key_value_metadata({"seal": BLANK})
            self._file.close()
            if kind is None:
                _seal(self._temporary)
                self._temporary.replace(self._path)
        except OSError as error:
            raise store_error(error, self._path) from error
        finally:
            self._temporary.unlink(missing_ok=True)


def _seal(path: Path) -> None:
    """Fill the blank seal of a file too large to be held, and flush it to the disk."""
    digest = hashlib.sha256()
    blank, digits = BLANK.encode(), len(BLANK) - BLANK.index(":") - 1
    with open(path, "r+b") as file:
        tail, at, end = b"", -1, 0
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            found = (tail + chunk).rfind(blank)
            if found >= 0:
                at = end - len(tail) + found
            end += len(chunk)
            tail = (tail + chunk)[-len(blank) :]
        if at >= 0:
            file.seek(at + len(blank) - digits)
            file.write(digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


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
            write_bytes(path, data, durable=False)  # its name tells whether it is whole, and it can be made again

    def has(self, book_id: str, n_bytes: int) -> bool:
        """Return whether a text is there, by its size."""
        try:
            return self._path(book_id).stat().st_size == n_bytes
        except OSError:
            return False

    def read(self, book_id: str) -> str:
        """Return the text of a book, checked against its id.

        Raises:
            DamagedError: it is missing or was changed.
            StoreError: it cannot be read.
        """
        path = self._path(book_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DamagedError(path, missing=True) from None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
        if hashlib.sha256(data).hexdigest()[:_ID_DIGITS] != book_id:
            raise DamagedError(path)
        return data.decode()

    def keep_only(self, book_ids: Iterable[str]) -> None:
        """Delete the texts of all other books: leavings of an earlier library or of a killed run."""
        wanted = set(book_ids)
        folder = self._work.path("books", "text")
        if not folder.is_dir():
            return
        for child in sorted(folder.iterdir()):
            if not child.is_dir():
                continue
            left = 0
            with os.scandir(child) as entries:
                for entry in entries:
                    if entry.name.removesuffix(".txt") in wanted:
                        left += 1
                    else:
                        Path(entry.path).unlink(missing_ok=True)
            if not left:
                shutil.rmtree(child, ignore_errors=True)

    def _path(self, book_id: str) -> Path:
        # folders of a 256th each keep listings short in a library of a million books
        return self._work.path("books", "text", book_id[:2], f"{book_id}.txt")
