"""The stored banks: written whole, and refused where they belong to another library.

Reads and writes: `evalset/bank_a.parquet`, `evalset/bank_b.parquet` (Item). The file's metadata say which library the
items were cut from; a bank copied from elsewhere, or left over from before, would ask about books that are trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltm import records
from ltm.errors import StoreError
from ltm.records import Item
from ltm.store import WorkFolder, fingerprint, read_rows, read_table, write_table

_LIBRARY = b"ltm_library"
_CATALOGUE = ("books", "catalogue.parquet")


def read_bank(work: WorkFolder, bank: str) -> list[Item]:
    """Return the items of a bank.

    Raises:
        StoreError: the bank is missing or damaged, or was built from another library.
    """
    path = bank_path(work, bank)
    items = read_rows(path, Item)
    built_from = _library_of(path)
    if built_from and work.path(*_CATALOGUE).exists() and built_from != library_fingerprint(work):
        raise StoreError(
            f"{path} was built from another library than {work.path(*_CATALOGUE)}",
            f"delete {path.parent} and run the same command again: the questions are built anew",
        )
    return items


def write_bank(work: WorkFolder, bank: str, items: Sequence[Item]) -> None:
    """Write a bank whole, marked with the library that it was built from.

    Raises:
        StoreError: the catalogue is missing, or the disk is full.
    """
    table = records.to_table(items, Item).replace_schema_metadata({_LIBRARY: library_fingerprint(work).encode()})
    write_table(bank_path(work, bank), table)


def bank_path(work: WorkFolder, bank: str) -> Path:
    """Return where a bank is stored."""
    return work.path("evalset", f"bank_{bank}.parquet")


def bank_fingerprint(work: WorkFolder, bank: str) -> str:
    """Return a fingerprint of a bank's items; scores of another bank have another one.

    Raises:
        StoreError: as `read_bank`.
    """
    return items_fingerprint(read_bank(work, bank))


def items_fingerprint(items: Sequence[Item]) -> str:
    """Return the fingerprint of items; their ids follow from their texts."""
    return fingerprint([item.item_id for item in items])


def library_fingerprint(work: WorkFolder) -> str:
    """Return a fingerprint of which books there are and which are held out.

    Raises:
        StoreError: the catalogue is missing or damaged.
    """
    table = read_table(work.path(*_CATALOGUE), ["book_id", "pool"])
    return fingerprint(sorted(map(list, zip(*(table[name].to_pylist() for name in ("book_id", "pool")), strict=True))))


def _library_of(path: Path) -> str:
    import pyarrow.parquet as pq

    return bytes((pq.read_schema(path).metadata or {}).get(_LIBRARY, b"")).decode()
