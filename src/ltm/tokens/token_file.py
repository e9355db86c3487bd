"""The token file: ids of many books one after another, grown at its end, never rewritten for a book that comes later.

Writes: `tokens/tokens.bin` (flat uint16 or uint32), `tokens/shards.parquet` (Shard), `tokens/made_from.json` (which
tokenizer made them) and, while books are being added, `tokens/.added.jsonl`.

A book's ids are flushed to the disk before the line that says where they lie, and the index is written last of all. So
a process that is killed loses the books it had in hand; what lies behind the last line is cut off at the next start.
Books that no variant uses any more leave the index; when more than half of the file is theirs, it is written anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from ltm.errors import DamagedError, StoreError
from ltm.seal import check_file, file_digest, sidecar
from ltm.store import WorkFolder, read_json, store_error, write_json, write_text
from ltm.tokens.index import IndexRows, read_index

_FLUSH_BYTES = 32 * 1024**2  # at most so much is encoded again after a kill, and the books in hand
_COPY_TOKENS = 1 << 22


class Encoded(NamedTuple):
    """One book in tokens."""

    book_id: str
    ids: bytes
    chapter_starts: list[int]  # token offsets, the first is 0


class TokenFile:
    """The token file of a work folder, open for adding books."""

    def __init__(self, work: WorkFolder, made_from: dict[str, Any], dtype: type[np.unsignedinteger[Any]]) -> None:
        self._folder = work.path("tokens")
        self._bin, self._index = self._folder / "tokens.bin", self._folder / "shards.parquet"
        self._journal, self._header = self._folder / ".added.jsonl", self._folder / "made_from.json"
        self._made_from = {**made_from, "dtype": np.dtype(dtype).name}
        self._width = np.dtype(dtype).itemsize
        self.rows = IndexRows()
        self._row_of: dict[str, int] = {}
        self._end = 0  # in tokens
        self._unwritten: list[str] = []
        self._unflushed_bytes = 0
        self._data: BinaryIO
        self._lines: TextIO

    def __enter__(self) -> TokenFile:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._is_ours() or not self._is_whole():
                self._clear()
            sidecar(self._bin).unlink(missing_ok=True)  # it fits the file as it is, which is about to grow
            self._recall()
            self._data = open(self._bin, "ab")
            self._data.truncate(self._end * self._width)
            self._lines = open(self._journal, "a", encoding="utf-8")
        except OSError as error:
            raise store_error(error, self._bin) from error
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self._flush()
        except StoreError:
            if kind is None:
                raise
        finally:
            self._data.close()
            self._lines.close()

    def __contains__(self, book_id: str) -> bool:
        return book_id in self._row_of

    def add(self, book: Encoded) -> None:
        """Write a book behind the others.

        Raises:
            StoreError: the disk is full.
        """
        n_tokens = len(book.ids) // self._width
        try:
            self._data.write(book.ids)
        except OSError as error:
            raise store_error(error, self._bin) from error
        self._unwritten.append(_line(book.book_id, self._end, n_tokens, book.chapter_starts))
        self._remember(book.book_id, self._end, n_tokens, book.chapter_starts)
        self._unflushed_bytes += len(book.ids)
        if self._unflushed_bytes >= _FLUSH_BYTES:
            self._flush()

    def finish(self, used: Iterable[str]) -> list[list[Any]]:
        """Write the index of the books in use; returns their ids and numbers of tokens, by id."""
        self._flush()
        kept = [self._row_of[book_id] for book_id in sorted(used)]
        if 2 * sum(self.rows.counts[row] for row in kept) < self._end:
            self._compact(kept)
            kept = list(range(len(kept)))
        write_text(sidecar(self._bin), file_digest(self._bin) + "\n")
        self.rows.write(self._index, kept)
        self._lines.truncate(0)
        return [[self.rows.ids[row], self.rows.counts[row]] for row in kept]

    def _is_ours(self) -> bool:
        try:
            return bool(read_json(self._header) == self._made_from)
        except StoreError:
            return False

    def _is_whole(self) -> bool:
        try:
            check_file(self._bin)
        except DamagedError:
            return False
        return True

    def _clear(self) -> None:
        """Forget tokens of another tokenizer; the index goes first, so that it never names what is not there."""
        for path in (self._index, self._journal, self._bin):
            path.unlink(missing_ok=True)
        write_json(self._header, self._made_from)

    def _recall(self) -> None:
        """Take up what earlier starts have written, as far as the file reaches."""
        there = self._bin.stat().st_size // self._width if self._bin.exists() else 0
        known: dict[str, tuple[int, int, list[int]]] = {}
        with contextlib.suppress(StoreError):  # the first build, or a damaged index: the books are encoded again
            known.update((key, (s.start, s.n_tokens, s.chapter_starts)) for key, s in read_index(self._index).items())
        lines, whole = _read_lines(self._journal)
        known.update((book_id, (start, n_tokens, chapters)) for book_id, start, n_tokens, chapters in lines)
        for book_id, (start, n_tokens, chapters) in known.items():
            if start + n_tokens <= there:
                self._remember(book_id, start, n_tokens, chapters)
        if len(self.rows) < len(known) or not whole:
            # what names a place behind the end would name other books' tokens once the file has grown
            rows = [self.rows.shard(row) for row in range(len(self.rows))]
            text = "".join(_line(s.book_id, s.start, s.n_tokens, s.chapter_starts) for s in rows)
            self._index.unlink(missing_ok=True)
            write_text(self._journal, text)

    def _remember(self, book_id: str, start: int, n_tokens: int, chapters: list[int]) -> None:
        self._row_of[book_id] = len(self.rows)
        self.rows.add(book_id, start, n_tokens, chapters)
        self._end = max(self._end, start + n_tokens)

    def _flush(self) -> None:
        if not self._unwritten:
            return
        try:
            self._data.flush()
            os.fsync(self._data.fileno())
            self._lines.write("".join(self._unwritten))
            self._lines.flush()
            os.fsync(self._lines.fileno())
        except OSError as error:
            raise store_error(error, self._bin) from error
        self._unwritten, self._unflushed_bytes = [], 0

    def _compact(self, kept: list[int]) -> None:
        """Write the file anew with the books in use alone."""
        fresh = IndexRows()
        old = np.memmap(self._bin, dtype=f"u{self._width}", mode="r") if self._end else np.empty(0, dtype="u2")
        temporary = self._bin.with_name(".tokens.bin.tmp")
        end = 0
        try:
            with open(temporary, "wb") as file:
                for shard in (self.rows.shard(row) for row in kept):
                    _copy(old, shard.start, shard.n_tokens, file)
                    fresh.add(shard.book_id, end, shard.n_tokens, shard.chapter_starts)
                    end += shard.n_tokens
                file.flush()
                os.fsync(file.fileno())
            self._index.unlink(missing_ok=True)  # it fits the old file, which is about to go
            self._lines.truncate(0)
            self._data.close()
            temporary.replace(self._bin)
            self._data = open(self._bin, "ab")  # noqa: SIM115
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise store_error(error, self._bin) from error
        self.rows, self._end = fresh, end
        self._row_of = {book_id: row for row, book_id in enumerate(fresh.ids)}


def _line(book_id: str, start: int, n_tokens: int, chapter_starts: list[int]) -> str:
    return json.dumps([book_id, start, n_tokens, chapter_starts]) + "\n"


def _read_lines(path: Path) -> tuple[list[Any], bool]:
    """Return the rows of a journal, and whether it ends where a line does."""
    if not path.exists():
        return [], True
    rows: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            book_id, start, n_tokens, chapters = json.loads(line)
        except ValueError:
            return rows, False
        if not line.endswith("\n"):
            return rows, False
        rows.append((book_id, start, n_tokens, chapters))
    return rows, True


def _copy(tokens: npt.NDArray[Any], start: int, count: int, file: BinaryIO) -> None:
    for first in range(start, start + count, _COPY_TOKENS):
        file.write(tokens[first : min(first + _COPY_TOKENS, start + count)].tobytes())


def token_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def token_path(work: WorkFolder) -> Path:
    """Return where the token file lies."""
    return work.path("tokens", "tokens.bin")
