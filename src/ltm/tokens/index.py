"""Where each book lies in the token file: a million rows in plain arrays, looked up by book id.

Reads and writes: `tokens/shards.parquet` (Shard).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ltm import records
from ltm.errors import DataError
from ltm.records import Shard
from ltm.store import read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

_ID_BYTES = 16


class ShardIndex(Mapping[str, Shard]):
    """The rows of `tokens/shards.parquet` by book id; a row becomes an object when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        chapters = table.column("chapter_starts").combine_chunks()
        self._ids = np.array(table.column("book_id").to_pylist(), dtype=f"S{_ID_BYTES}")
        self._starts = table.column("start").to_numpy()
        self._counts = table.column("n_tokens").to_numpy()
        self._offsets = np.asarray(chapters.offsets) if len(table) else np.zeros(1, dtype=np.int32)
        self._chapters = np.asarray(chapters.values) if len(table) else np.empty(0, dtype=np.int64)
        self._order = np.argsort(self._ids, kind="stable")
        self._sorted = self._ids[self._order]

    def __getitem__(self, book_id: str) -> Shard:
        key = np.bytes_(book_id.encode("ascii", "replace"))
        place = int(np.searchsorted(self._sorted, key))
        if place >= len(self._sorted) or self._sorted[place] != key:
            raise KeyError(book_id)
        return self._row(int(self._order[place]))

    def __iter__(self) -> Iterator[str]:
        return (book_id.decode() for book_id in self._ids.tolist())

    def __len__(self) -> int:
        return len(self._ids)

    def _row(self, row: int) -> Shard:
        chapters = self._chapters[self._offsets[row] : self._offsets[row + 1]]
        book_id = self._ids[row].decode()
        return Shard(book_id, int(self._starts[row]), int(self._counts[row]), chapters.tolist())

    @property
    def end(self) -> int:
        """The token after the last one that belongs to a book."""
        return int((self._starts + self._counts).max()) if len(self._ids) else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of all books together."""
        return int(self._counts.sum())


class IndexRows:
    """Rows of an index to be, in arrays that hold a million of them in some hundred megabytes."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.starts, self.counts = array("q"), array("q")
        self.chapters, self.offsets = array("q"), array("q", [0])

    def __len__(self) -> int:
        return len(self.ids)

    def add(
        self, book_id: str, start: int, n_tokens: int, chapter_starts: Sequence[int] | npt.NDArray[np.int64]
    ) -> None:
        """Add a row."""
        self.ids.append(book_id)
        self.starts.append(start)
        self.counts.append(n_tokens)
        self.chapters.extend(int(c) for c in chapter_starts)
        self.offsets.append(len(self.chapters))

    def shard(self, row: int) -> Shard:
        """Return one row."""
        chapters = self.chapters[self.offsets[row] : self.offsets[row + 1]]
        return Shard(self.ids[row], self.starts[row], self.counts[row], list(chapters))

    def write(self, path: Path, rows: Sequence[int]) -> None:
        """Write some rows, in the given order, as `tokens/shards.parquet`."""
        import pyarrow as pa

        chapters = np.frombuffer(self.chapters, dtype=np.int64)
        bounds = np.frombuffer(self.offsets, dtype=np.int64)
        picked = np.asarray(rows, dtype=np.int64)
        lengths = np.diff(bounds)[picked] if len(picked) else np.empty(0, dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        if offsets[-1] > np.iinfo(np.int32).max:
            raise DataError("the token index has more chapters than one table can hold", "draw fewer books")
        places = (
            np.repeat(bounds[:-1][picked] - offsets[:-1], lengths) + np.arange(offsets[-1])
            if len(picked)
            else offsets[:0]
        )
        schema = records.schema(Shard)
        columns = [
            pa.array([self.ids[row] for row in rows], type=pa.string()),
            pa.array(np.frombuffer(self.starts, dtype=np.int64)[picked]),
            pa.array(np.frombuffer(self.counts, dtype=np.int64)[picked]),
            pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(chapters[places])).cast(
                schema.field("chapter_starts").type
            ),
        ]
        write_table(path, pa.Table.from_arrays(columns, schema=schema))


def read_index(path: Path) -> ShardIndex:
    """Return the index.

    Raises:
        DamagedError: it is not what was written.
        StoreError: it is missing.
    """
    return ShardIndex(read_table(path))
