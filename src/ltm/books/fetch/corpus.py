"""Rows of a dataset as books of a library: whole documents, or many short ones bound into volumes.

Writes: Parquet files of about 32 MiB of text with the columns title, author, language, licence and text, which the
books stage reads like any other. One shard of the dataset is fetched at a time and thrown away when its rows are
written, so that no more of a dataset lies on the disk than is wanted of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ltm.books.fetch.client import Client
from ltm.books.fetch.download import Expected, download
from ltm.books.fetch.hub import DataFile, Dataset, Document, read_documents, shuffled, token_headers
from ltm.books.fetch.record import Record, Row
from ltm.books.fetch.remote import NoPartsError, RemoteFile
from ltm.progress import Progress
from ltm.seal import file_digest
from ltm.store import store_error
from ltm.units import format_bytes

_FILE_BYTES = 32 * 1024**2  # of text
_GROUP_ROWS = 1000
_MOST_SHARD_BYTES = 20 * 1024**3
_SHORT_BYTES = 6000  # documents of fewer bytes (about 1,000 words) on average are bound into volumes
_GUESS_DOCUMENTS = 200
_SMALL_SHARE = 0.3  # of a shard's bytes: when less text is wanted than this, its parts are read where they lie


@dataclass(frozen=True)
class Binding:
    """How rows become books."""

    column: str = ""  # with the text; empty = found
    form: str = "auto"  # documents, volumes, or auto: volumes where documents are short
    volume_bytes: int = 200_000
    language: str = ""  # in place of the dataset's own


@dataclass
class Filled:
    """How much of a dataset is in the library."""

    wanted_bytes: int | None  # of text; None = all
    n_bytes: int = 0
    n_books: int = 0
    shards: int = 0
    shards_there: int = 0


def fill(
    client: Client,
    dataset: Dataset,
    record: Record,
    progress: Progress,
    binding: Binding,
    wanted_bytes: int | None,
    seed: int = 0,
) -> Filled:
    """Fetch shards of a dataset until there is enough text of it.

    Args:
        client: Asks.
        dataset: What for.
        record: Of the folder that is filled.
        progress: Told about each shard.
        binding: How rows become books.
        wanted_bytes: Text that is wanted, in UTF-8 bytes; None = all.
        seed: Of the order in which shards are taken.

    Raises:
        SourceError: a shard cannot be had or is damaged.
        InputError: it has no such column.
        StoreError: the disk is full.
    """
    filled = Filled(wanted_bytes)
    files = shuffled(dataset, seed)
    task = progress.task("fetch", len(files) if wanted_bytes is None else wanted_bytes, dataset.name)
    for file in files:
        left = None if wanted_bytes is None else wanted_bytes - filled.n_bytes
        if left is not None and left <= 0:
            break
        before = filled.n_bytes
        if not _count_known(dataset, file, record, binding, filled, left):
            _take(client, dataset, file, record, binding, filled, left)
        filled.shards += 1
        task.advance(1 if wanted_bytes is None else filled.n_bytes - before, note=format_bytes(filled.n_bytes))
    return filled


def _count_known(
    dataset: Dataset, file: DataFile, record: Record, binding: Binding, filled: Filled, left: int | None
) -> bool:
    """Count a shard that was taken before, whole or as much of it as is wanted now."""
    for source in (source_of(dataset, file, binding, None), source_of(dataset, file, binding, left)):
        row = record.find(source)
        if row is None:
            continue
        parts = [row, *_other_parts(record, source)]
        if any(part is None for part in parts):
            continue
        filled.n_bytes += sum(int(part.get("text_bytes") or 0) for part in parts if part)
        filled.n_books += sum(int(part.get("books") or 0) for part in parts if part)
        filled.shards_there += 1
        return True
    return False


def _other_parts(record: Record, source: str) -> Iterator[dict[str, str] | None]:
    number = 1
    while record.knows(f"{source}#{number}"):
        yield record.find(f"{source}#{number}")
        number += 1


def _take(
    client: Client, dataset: Dataset, file: DataFile, record: Record, binding: Binding, filled: Filled, left: int | None
) -> None:
    """Fetch one shard, write its rows, and forget it."""
    try:
        rows = _write_books(
            _documents(client, dataset, file, record, binding, left), dataset, file, record, binding, left
        )
    except NoPartsError:
        rows = _write_books(
            _documents(client, dataset, file, record, binding, None), dataset, file, record, binding, left
        )
    taken = sum(row.text_bytes for row in rows)
    source = source_of(dataset, file, binding, left if left is not None and taken >= left else None)
    for number, row in enumerate(rows, start=1):  # the last one's plain name says that the shard is done
        record.add(dataclasses.replace(row, source=source if number == len(rows) else f"{source}#{number}"))
    filled.n_bytes += taken
    filled.n_books += sum(row.books for row in rows)
    _raw_path(dataset, file, record).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (record.folder / ".shards").rmdir()


def _documents(
    client: Client, dataset: Dataset, file: DataFile, record: Record, binding: Binding, left: int | None
) -> Iterator[Document]:
    """Return the rows of a shard: fetched whole, or read where it lies when little of it is wanted."""
    raw = _raw_path(dataset, file, record)
    if is_small(file, left) and not raw.exists():
        remote = RemoteFile(client, file.url, file.n_bytes, token_headers())
        return read_documents(raw, binding.column, remote)
    if not raw.exists():
        expected = Expected(file.n_bytes or None, file.sha256, _MOST_SHARD_BYTES)
        download(client, file.url, raw, expected, token_headers())
    return read_documents(raw, binding.column)


def _raw_path(dataset: Dataset, file: DataFile, record: Record) -> Path:
    name = f"{dataset.name}/{dataset.commit[:12]}/{file.path}"
    return record.folder / ".shards" / name.replace("/", "--")


def _write_books(
    documents: Iterator[Document], dataset: Dataset, file: DataFile, record: Record, binding: Binding, left: int | None
) -> list[Row]:
    """Write the books of a shard, as many as are wanted; returns a row for each file."""
    book_rows = _bound(documents, dataset, file, binding, left)
    stem = f"hf/{dataset.name.replace('/', '--')}/{file.path.replace('/', '--').split('.')[0]}"
    rows: list[Row] = []
    for number, (table, n_bytes) in enumerate(_tables(_until(book_rows, left)), start=1):
        name = f"{stem}-{number:04d}.parquet"
        path = record.folder / name
        _write(path, table)
        rows.append(
            Row(
                file=name,
                source="",
                url=file.url,
                sha256=file_digest(path),
                bytes=path.stat().st_size,
                licence=dataset.licence,
                text_bytes=n_bytes,
                books=table.num_rows,
            )
        )
    return rows


def is_small(file: DataFile, left: int | None) -> bool:
    """Return whether so little of a shard is wanted that its parts are read where they lie."""
    return left is not None and file.path.endswith(".parquet") and left < _SMALL_SHARE * file.n_bytes


def source_of(dataset: Dataset, file: DataFile, binding: Binding, left: int | None) -> str:
    """Return what a shard, or the beginning of one, is called in the record."""
    asked = [word for word in (binding.column, binding.form if binding.form != "auto" else "") if word]
    cut = ("?" + ",".join(asked) if asked else "") + ("" if left is None else f"[:{left}]")
    return f"hf:{dataset.name}@{dataset.commit[:12]}/{file.path}{cut}"


def _bound(
    documents: Iterator[Document], dataset: Dataset, file: DataFile, binding: Binding, left: int | None
) -> Iterator[dict[str, str]]:
    """Yield books: documents as they are, or joined until a volume is full."""
    first = list(islice(documents, _GUESS_DOCUMENTS))
    form = binding.form
    if form == "auto":
        mean = sum(len(document.text.encode("utf-8", "replace")) for document in first) / max(1, len(first))
        form = "volumes" if mean < _SHORT_BYTES else "documents"
    language = binding.language or (dataset.languages[0] if len(dataset.languages) == 1 else "")
    fixed = {"language": language, "licence": dataset.licence}
    every = (document for part in (first, documents) for document in part)
    if form == "documents":
        for document in every:
            yield {"title": document.title, "author": document.author, **fixed, "text": document.text}
        return
    title = f"{dataset.name.split('/')[-1]} {file.path.split('/')[-1].split('.')[0]}"
    for number, texts in enumerate(_volumes(every, binding.volume_bytes, left), start=1):
        yield {"title": f"{title}, volume {number}", "author": "", **fixed, "text": "\n\n".join(texts)}


def _volumes(documents: Iterable[Document], volume_bytes: int, left: int | None) -> Iterator[list[str]]:
    """Yield the texts of each volume; the last one ends where there is enough."""
    texts: list[str] = []
    n_bytes = total = 0
    for document in documents:
        texts.append(document.text.strip())
        size = len(texts[-1].encode("utf-8", "replace")) + 2
        n_bytes, total = n_bytes + size, total + size
        if n_bytes >= volume_bytes or (left is not None and total >= left):
            yield texts
            texts, n_bytes = [], 0
    if texts:
        yield texts


def _until(rows: Iterator[dict[str, str]], left: int | None) -> Iterator[tuple[dict[str, str], int]]:
    """Yield rows with their size until there is enough; the one that makes it enough is the last."""
    for row in rows:
        n_bytes = len(row["text"].encode("utf-8", "replace"))
        yield row, n_bytes
        if left is not None:
            left -= n_bytes
            if left <= 0:
                return


def _tables(rows: Iterator[tuple[dict[str, str], int]]) -> Iterator[tuple[Any, int]]:
    """Yield tables of about 32 MiB of text, and how much each holds."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.large_string()) for name in ("title", "author", "language", "licence", "text")])
    held: list[dict[str, str]] = []
    n_bytes = 0
    for row, size in rows:
        held.append({key: value.encode("utf-8", "replace").decode() for key, value in row.items()})
        n_bytes += size
        if n_bytes >= _FILE_BYTES:
            yield pa.Table.from_pylist(held, schema=schema), n_bytes
            held, n_bytes = [], 0
    if held:
        yield pa.Table.from_pylist(held, schema=schema), n_bytes


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary, compression="zstd", row_group_size=_GROUP_ROWS)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise store_error(error, path) from error
