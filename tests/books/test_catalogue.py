"""The catalogue on the disk: whole or not there, read by columns, by ids and piece by piece with the same answers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from ltm.books import catalogue
from ltm.books.catalogue import (
    CatalogueWriter,
    columns,
    feature_matrix,
    feature_names,
    iter_books,
    read_books,
    read_catalogue,
    write_catalogue,
)
from ltm.errors import DamagedError, DataError, StoreError
from ltm.records import Book, to_table
from ltm.seal import check_file
from ltm.store import WorkFolder


def book(rank: int) -> Book:
    features = {"flesch": rank / 2, "mtld": math.nan if rank % 3 == 0 else float(rank)}
    if rank % 5 == 0:
        del features["flesch"]
    if rank == 7:
        features = {}
    return Book(
        f"{rank * 7919 % 65521:016x}", f"Title {rank}", "A. Author" if rank % 2 else "Ёлкин",
        None if rank % 4 else 1800, "en", "novel", f"f/{rank}.txt", "", rank,
        "train" if rank % 6 else "eval_a", 100 + rank, 600 + rank,
        list(range(0, rank % 9 * 50 + 1, 50)), features,
    )  # fmt: skip


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkFolder:
    monkeypatch.setattr(catalogue, "_GROUP_ROWS", 16)
    return WorkFolder(tmp_path)


def test_what_is_written_is_read_however_it_is_asked(work: WorkFolder) -> None:
    books = [book(rank) for rank in range(100)]
    write_catalogue(work, iter(books), [])
    plain = [dataclasses.replace(b, features={k: v for k, v in b.features.items() if k != "mtld"}) for b in books]
    back = read_catalogue(work)
    assert [
        dataclasses.replace(b, features={k: v for k, v in b.features.items() if k != "mtld"}) for b in back
    ] == plain
    assert [len(batch) for batch in iter_books(work)] == [16] * 6 + [4]
    table = columns(work, ["author", "n_words", "book_id"])
    assert table.column_names == ["author", "n_words", "book_id"]
    assert table.column("n_words").to_pylist() == [b.n_words for b in books]
    some = [books[i].book_id for i in (93, 4, 50)]
    assert [b.rank for b in read_books(work, [*some, "f" * 16])] == [4, 50, 93]
    assert columns(work, ["rank"], [*some, "f" * 16]).column("rank").to_pylist() == [4, 50, 93]
    assert feature_names(work) == ["flesch", "mtld"]
    matrix = feature_matrix(work, ["mtld", "nowhere", "flesch"])
    for row, b in zip(matrix, books, strict=True):
        wanted = [b.features.get(name, math.nan) for name in ("mtld", "nowhere", "flesch")]
        assert np.array_equal(row, np.array(wanted, dtype=np.float32), equal_nan=True)


def test_pieces_of_any_size_are_read_back(work: WorkFolder) -> None:
    """Arrow cannot join maps over two groups of rows, which a reader in equal batches would ask it to do."""
    books = [book(rank) for rank in range(60)]
    with CatalogueWriter(work) as writer:
        for start, end in ((0, 25), (25, 26), (26, 60)):
            writer.add_table(to_table(books[start:end], Book))
    assert [b.rank for b in read_catalogue(work)] == list(range(60))
    wanted = np.array([b.features.get("flesch", math.nan) for b in books], dtype=np.float32)
    assert np.array_equal(feature_matrix(work, ["flesch"])[:, 0], wanted, equal_nan=True)
    assert len(columns(work, ["features"])) == 60


def test_a_catalogue_without_books_has_its_columns(work: WorkFolder) -> None:
    write_catalogue(work, [], [])
    assert read_catalogue(work) == []
    assert columns(work, ["book_id", "rank"]).column_names == ["book_id", "rank"]
    assert feature_matrix(work, ["a", "b"]).shape == (0, 2)


def test_the_same_books_give_the_same_bytes_and_a_whole_file(work: WorkFolder) -> None:
    path = work.path("books", "catalogue.parquet")
    write_catalogue(work, [book(rank) for rank in range(40)], [])
    first = path.read_bytes()
    check_file(path)
    write_catalogue(work, [book(rank) for rank in range(40)], [])
    assert path.read_bytes() == first
    damaged = bytearray(first)
    damaged[len(first) // 3] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(DamagedError):
        read_catalogue(work)


def test_a_writer_that_is_stopped_leaves_what_was_there(work: WorkFolder) -> None:
    write_catalogue(work, [book(1)], [])

    def write_and_fail() -> None:
        with CatalogueWriter(work) as writer:
            for rank in range(50):
                writer.add(book(rank))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [b.rank for b in read_catalogue(work)] == [1]
    assert sorted(p.name for p in work.path("books").iterdir()) == ["catalogue.parquet", "rejected.parquet"]


def test_unknown_columns_and_a_missing_catalogue_are_explained(work: WorkFolder) -> None:
    with pytest.raises(StoreError, match="missing"):
        columns(work, ["book_id"])
    with pytest.raises(DataError, match="a book has no titel"):
        columns(work, ["titel"])
