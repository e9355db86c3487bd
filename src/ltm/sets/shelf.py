"""The training books as columns, so that a library of a million books is drawn from without a million objects.

Reads: `books/catalogue.parquet` (Book). Writes: nothing. Row i of every column is one book; rows are sorted by book id,
so that the order of the catalogue does not matter.

Legend: n books, f features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ltm.errors import InputError, LibraryError, StoreError
from ltm.records import Book, to_table

if TYPE_CHECKING:
    import pyarrow as pa

    from ltm.store import WorkFolder

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_COLUMNS = ["book_id", "year", "language", "genre", "rank", "pool", "features"]
_NAMES = ["title", "author"]  # name the works where the catalogue does not
_UNIT = "unit"  # a catalogue of an earlier ltm has none
_BATCH_BOOKS = 50_000
_LARGEST_LIST = 200_000_000  # bytes of a file of book ids


@dataclass(frozen=True)
class Shelf:
    """What a design has to know of the books that sets are drawn from."""

    book_ids: Any  # Arrow string array, ascending
    year_B: Floats  # NaN = not known
    rank_B: Ints
    genre_B: Ints  # code; -1 = not known
    language_B: Ints  # code
    unit_B: Ints  # books of one unit are editions of one work; codes 0 .. n_units - 1
    feature_names: tuple[str, ...]
    features_BF: npt.NDArray[np.float32]  # NaN = not known

    def __len__(self) -> int:
        return len(self.book_ids)

    @property
    def n_units(self) -> int:
        """Works, however many editions each has."""
        return int(self.unit_B.max()) + 1 if len(self) else 0

    def feature(self, name: str) -> Floats:
        """Return one feature of every book, NaN where it is not known."""
        if name not in self.feature_names:
            return np.full(len(self), np.nan)
        return self.features_BF[:, self.feature_names.index(name)].astype(np.float64)

    def ids(self, rows: npt.ArrayLike) -> list[str]:
        """Return the ids of some rows, in their order."""
        import pyarrow as pa

        found: list[str] = self.book_ids.take(pa.array(np.asarray(rows, dtype=np.int64))).to_pylist()
        return found

    def rows(self, book_ids: Sequence[str]) -> Ints:
        """Return the rows of some books; -1 for one that is not on the shelf."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(book_ids, type=pa.string()), value_set=self.book_ids)
        return np.asarray(pc.fill_null(found, -1), dtype=np.int64)


def read_shelf(work: WorkFolder, editions: str = "one", among: str | None = None) -> Shelf:
    """Return the training books of a catalogue.

    Args:
        work: The work folder.
        editions: `one`: editions of one work are one unit; `apart`: every book is its own.
        among: A text file of book ids; other books are left out.

    Raises:
        StoreError: the catalogue is missing or damaged.
        InputError: the file of book ids cannot be read.
        LibraryError: it names a book that the library has not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = work.path("books", "catalogue.parquet")
    if not path.exists():
        raise StoreError(f"{path} is missing", "run the stage that writes it")
    try:
        file = pq.ParquetFile(path, read_dictionary=["features.key_value.key"])
        # by groups: Arrow cannot join maps with numbered names, which a batch over two groups would ask for
        columns = [*_COLUMNS, *([_UNIT] if _has_units(file) else _NAMES)]
        groups = (file.read_row_group(group, columns=columns) for group in range(file.num_row_groups))
        shelf = _from_batches((batch for table in groups for batch in table.to_batches(_BATCH_BOOKS)), editions)
    except (pa.ArrowException, OSError, KeyError):
        raise StoreError(f"{path} is damaged", "delete the books folder and run the same command again") from None
    return shelf if among is None else _only(shelf, read_ids(among), among)


def shelf_of(books: Sequence[Book], editions: str = "one") -> Shelf:
    """Return the training books among some records."""
    return _from_batches(to_table(books, Book).select([*_COLUMNS, *_NAMES, _UNIT]).to_batches(), editions)


def _has_units(file: Any) -> bool:
    """Return whether a catalogue says which books are editions of one work; if any of its rows does, all do."""
    import pyarrow.compute as pc

    if _UNIT not in file.schema_arrow.names or not file.num_row_groups:
        return False
    return bool(pc.any(pc.not_equal(file.read_row_group(0, columns=[_UNIT])[_UNIT], "")).as_py())


def blank_shelf(count: int) -> Shelf:
    """Return so many books of which nothing is known: counts of a design do not depend on more."""
    import pyarrow as pa

    ids = pa.array([f"{i:016x}" for i in range(count)], type=pa.string())
    nothing, one_each = np.zeros(count, dtype=np.int64), np.arange(count, dtype=np.int64)
    return Shelf(
        ids, np.full(count, np.nan), one_each, nothing - 1, nothing, one_each, (), np.zeros((count, 0), np.float32)
    )


def read_ids(path: str) -> list[str]:
    """Return the book ids of a text file, one a line; empty lines and what follows a `#` do not count.

    Raises:
        InputError: it cannot be read, or names no book.
    """
    try:
        if Path(path).stat().st_size > _LARGEST_LIST:
            raise InputError(f"{path} is too large for a list of book ids", "name one book id a line")
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", "check `sets.among`, or leave it out") from None
    found = [stripped for line in lines if (stripped := line.split("#")[0].strip())]
    if not found:
        raise InputError(f"{path} names no book", "name one book id a line; `ltm sql STUDY` finds them")
    return list(dict.fromkeys(found))


def _only(shelf: Shelf, wanted: Sequence[str], path: str) -> Shelf:
    rows = shelf.rows(wanted)
    if (rows < 0).any():
        missing = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
        raise LibraryError(
            f"{path} names {len(missing)} books that are not among the training books, the first: {missing[0]}",
            "ids are those of `ltm sql STUDY \"select book_id, title from books where pool = 'train'\"`",
        )
    return _taken(shelf, np.sort(rows))


def _taken(shelf: Shelf, rows: Ints) -> Shelf:
    import pyarrow as pa

    return Shelf(
        shelf.book_ids.take(pa.array(rows)),
        shelf.year_B[rows],
        shelf.rank_B[rows],
        shelf.genre_B[rows],
        shelf.language_B[rows],
        np.unique(shelf.unit_B[rows], return_inverse=True)[1].astype(np.int64),
        shelf.feature_names,
        shelf.features_BF[rows],
    )


def _from_batches(batches: Iterable[pa.RecordBatch], editions: str) -> Shelf:
    """Return the training books of a catalogue, read piece by piece: the features of all are numbers at once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain, names, blocks = [], list[str](), []
    for batch in batches:
        kept = pc.equal(batch["pool"], "train")
        found, values = _feature_columns(batch["features"])
        names += [name for name in found if name not in names]
        blocks.append((found, values[np.asarray(kept, dtype=np.bool_)]))
        plain.append(batch.select([n for n in batch.schema.names if n not in ("features", "pool")]).filter(kept))
    if not plain or not sum(len(batch) for batch in plain):
        return blank_shelf(0)
    table = pa.Table.from_batches(plain)
    order = np.asarray(pc.sort_indices(table["book_id"]), dtype=np.int64)
    features_BF = _in_order(blocks, sorted(names), order)
    return Shelf(
        table["book_id"].combine_chunks().cast(pa.string()).take(pa.array(order)),
        np.asarray(pc.fill_null(pc.cast(table["year"], pa.float64()), float("nan")), dtype=np.float64)[order],
        np.asarray(table["rank"], dtype=np.int64)[order],
        _codes(table["genre"])[order],
        _codes(table["language"])[order],
        _by_first(_units(table)[order]) if editions == "one" else np.arange(len(table), dtype=np.int64),
        tuple(sorted(names)),
        features_BF,
    )


def _in_order(
    blocks: list[tuple[tuple[str, ...], npt.NDArray[np.float32]]], names: Sequence[str], order: Ints
) -> npt.NDArray[np.float32]:
    """Return the features of all blocks, shape (B, F), rows by `order`; blocks are given up as they are copied."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    features_BF = np.empty((len(order), len(names)), dtype=np.float32)
    row = 0
    while blocks:
        found, values = blocks.pop(0)
        columns = [found.index(name) if name in found else len(found) for name in names]
        if len(found) < len(names):  # not all books have all features
            values = np.column_stack([values, np.full(len(values), np.nan, dtype=np.float32)])
        features_BF[place[row : row + len(values)]] = values[:, columns]
        row += len(values)
    return features_BF


def _codes(column: Any) -> Ints:
    """Return a code per text, in alphabetical order of the texts; -1 for an empty one."""
    import pyarrow.compute as pc

    coded = column.combine_chunks().dictionary_encode()  # few texts: each is cleaned once
    lowered = pc.utf8_trim_whitespace(pc.utf8_lower(coded.dictionary)).to_pylist()
    place = {text: i for i, text in enumerate(sorted({text for text in lowered if text}))}
    code_of = np.array([*(place.get(text, -1) for text in lowered), -1], dtype=np.int64)
    return code_of[np.asarray(pc.fill_null(coded.indices, len(lowered)), dtype=np.int64)]


def _units(table: pa.Table) -> Ints:
    """Return a code per work: as the catalogue says, else books with one author and title (letters and digits)."""
    import pyarrow.compute as pc

    has_names = set(_NAMES) <= set(table.column_names)
    if _UNIT in table.column_names and (not has_names or pc.any(pc.not_equal(table[_UNIT], "")).as_py()):
        named_by = pc.if_else(pc.equal(table[_UNIT], ""), table["book_id"], table[_UNIT])
        shared = pc.unique(
            named_by.filter(pc.not_equal(named_by, table["book_id"]))
        )  # few, so only these are told apart
        codes = np.asarray(pc.fill_null(pc.index_in(named_by, value_set=shared), -1), dtype=np.int64)
        return np.where(codes >= 0, codes, np.arange(len(codes)) + len(shared))

    def plain(name: str) -> Any:
        texts = table[name].combine_chunks().dictionary_encode()  # names come again: each is cleaned once
        kept = pc.replace_substring_regex(pc.utf8_lower(texts.dictionary), r"[^\p{L}\p{N}]+", " ")
        return pc.utf8_trim_whitespace(kept).take(texts.indices)

    title, author = plain("title"), plain("author")
    named = np.asarray(pc.and_(pc.not_equal(title, ""), pc.not_equal(author, "")), dtype=np.bool_)
    key = pc.binary_join_element_wise(author, title, table["language"].combine_chunks(), "\n")
    codes = np.asarray(key.dictionary_encode().indices, dtype=np.int64)
    own = np.arange(len(codes), dtype=np.int64) + len(codes)  # a book without a name is a work of its own
    return np.where(named, codes, own)


def _by_first(codes: Ints) -> Ints:
    """Return the codes numbered by the first book that has each, so that they follow the book ids."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse], dtype=np.int64)


def _feature_columns(maps: Any) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Return feature names and values, shape (n, f), from an Arrow map array."""
    import pyarrow as pa

    n, offsets = len(maps), np.asarray(maps.offsets, dtype=np.int64)
    n_values = int(offsets[-1] - offsets[0])
    if not n_values:
        return (), np.zeros((n, 0), dtype=np.float32)
    keys = maps.keys.slice(offsets[0], n_values)
    keys = keys if pa.types.is_dictionary(keys.type) else keys.dictionary_encode()
    values = np.asarray(maps.items.slice(offsets[0], n_values), dtype=np.float32)
    names = tuple(keys.dictionary.to_pylist())
    codes = np.asarray(keys.indices)
    if n_values == n * len(names) and (codes.reshape(n, -1) == np.arange(len(names))).all():
        result = values.reshape(n, -1).copy()  # every book has the same features in the same order
    else:
        result = np.full((n, len(names)), np.nan, dtype=np.float32)
        result[np.repeat(np.arange(n), np.diff(offsets)), codes.astype(np.int64)] = values
    result[~np.isfinite(result)] = np.nan
    return names, result
