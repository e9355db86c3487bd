"""The books stage: from a folder of files, or the embedded library, to a catalogue of clean books.

Reads: the files of the library and its manifest.
Writes: `books/catalogue.parquet` (`Book`), `books/rejected.parquet` (`Rejected`), `books/text/` (clean texts).
A file that cannot be used costs one row of the rejected table, never the stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltm.books import kjv
from ltm.books.catalogue import TextStore, read_catalogue, read_rejected, write_catalogue
from ltm.books.folder import BookFile, check_folder, in_order, list_files
from ltm.books.holdout import assign_pools
from ltm.books.judge import Judge, units
from ltm.books.library import DEFINITIONS as LIBRARY_FEATURES
from ltm.books.library import library_features
from ltm.books.manifest import Manifest, find_manifest, read_manifest
from ltm.books.parallel import FileTask, Outcome, prepare_all
from ltm.books.prepare import Wanted, prepare_kjv
from ltm.books.ranking import in_rank_order, kind_of_reason
from ltm.books.readers import holds_many
from ltm.books.section import BooksSection
from ltm.errors import LibraryError
from ltm.progress import Progress
from ltm.records import Book, Rejected
from ltm.store import WorkFolder, as_json, fingerprint

VERSION = 2


def inputs(section: BooksSection) -> dict[str, Any]:
    """Return plain values that change when the library's files do; nothing is read but names, sizes and times.

    Raises:
        LibraryError: no folder is named, or it does not exist, is not a folder, or may not be read.
        InputError: the manifest that the section names does not exist.
        MissingPartError: the embedded library's package is not installed.
    """
    if section.source == "kjv":
        return {"kjv": kjv.package_version()}
    root = check_folder(section.path)
    manifest = find_manifest(root, section.manifest)
    files = list_files(root, section.manifest)
    return {
        "files": [[file.relative, file.n_bytes, file.mtime_ns, file.problem] for file in files],
        "manifest": _stamp(manifest),
    }


def build(section: BooksSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Build the catalogue.

    Args:
        section: What to read and what to hold out.
        work: The study's work folder.
        seed: Of the draw of books (`max_books`) and of held-out authors.
        progress: Told about each file.

    Returns:
        Every book in order of rank, with all that later stages depend on.

    Raises:
        LibraryError: no book is usable, or too few to hold any out.
        InputError, MissingPartError: as `inputs`.
        StoreError: the work folder cannot be written.
    """
    source = _open(section, seed)
    texts = TextStore(work)
    task = progress.task("books", source.n_files, source.unit)
    judge = Judge(section.dedupe)
    rejected = list(source.missing)
    limit = section.max_books or sys.maxsize
    with contextlib.closing(source.outcomes) as outcomes:
        for outcome in outcomes:
            for item in outcome:
                if isinstance(item, Rejected):
                    rejected.append(item)
                elif len(judge.kept) < limit:
                    rejected.extend(judge.consider(item))
                    texts.write(item.book.book_id, item.text)
            task.advance(note=f"{len(judge.kept)} books, {len(rejected)} left out")
            if len(judge.kept) >= limit:
                break
    _check_any(list(judge.kept.values()), rejected, section)
    order, worse = in_rank_order(judge.kept, section.rank_by, section.keep_best)
    rejected.extend(worse)
    books = _finished(judge, order, section, seed)
    write_catalogue(work, books, sorted(rejected, key=lambda row: (row.source, row.step)))
    texts.keep_only(book.book_id for book in books)
    progress.say(_summary(books, rejected))
    return [_what_matters(book) for book in books]


def _finished(judge: Judge, order: list[int], section: BooksSection, seed: int) -> list[Book]:
    """Return the books that stay, by rank, with everything that depends on the others."""
    books = [dataclasses.replace(judge.kept[number], rank=rank) for rank, number in enumerate(order)]
    pools = assign_pools(books, section.held_out_share, section.held_out_authors, seed)
    of_work = units([b.book_id for b in books], [b.title for b in books], [b.author for b in books])
    values = library_features(
        np.stack([judge.vectors[number] for number in order]),
        [book.language for book in books],
        np.array([pools[book.book_id] != "train" for book in books]),
        judge.finder.novelty(np.array(order, dtype=np.int32)),
    )
    return [
        dataclasses.replace(
            book,
            pool=pools[book.book_id],
            unit=unit,
            features=book.features | dict(zip(LIBRARY_FEATURES, row.tolist(), strict=True)),
        )
        for book, unit, row in zip(books, of_work, values, strict=True)
    ]


def _what_matters(book: Book) -> dict[str, Any]:
    """Return all that later stages may use of a book; where its file lies is not among it."""
    row = dataclasses.asdict(book)
    for name in ("source", "licence", "removed"):
        del row[name]
    return row


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what the library holds: counts by language, genre and pool, and every rejected file with its reason.

    Raises:
        StoreError: the stage has not been run.
    """
    books, rejected = read_catalogue(work), read_rejected(work)
    return {
        "books": len(books),
        "units": len({book.unit for book in books}),
        "words": sum(book.n_words for book in books),
        "bytes": sum(book.n_bytes for book in books),
        "pools": dict(Counter(book.pool for book in books)),
        "languages": dict(Counter(book.language for book in books)),
        "genres": dict(Counter(book.genre or "unknown" for book in books)),
        "removed_characters": dict(sum((Counter(book.removed) for book in books), Counter[str]())),
        "rejected_by_step": dict(Counter(row.step for row in rejected)),
        "rejected_by_reason": dict(Counter(kind_of_reason(row) for row in rejected).most_common()),
        "rejected_by_language": dict(Counter(row.language or "unknown" for row in rejected)),
        "rejected": [as_json(row) for row in rejected],
    }


@dataclass(frozen=True)
class _Source:
    """A library about to be read."""

    outcomes: Generator[Outcome, None, None]
    n_files: int
    unit: str
    missing: list[Rejected]


def _open(section: BooksSection, seed: int) -> _Source:
    wanted = Wanted(frozenset(language.lower() for language in section.languages), section.min_words)
    if section.source == "kjv":
        embedded = kjv.load()
        order = _order(len(embedded), section, seed)
        return _Source(([prepare_kjv(embedded[i], wanted, i)] for i in order), len(embedded), "books", [])
    root = check_folder(section.path)
    column = section.rank_by.lstrip("-") if section.rank_by != "quality" else ""
    manifest = read_manifest(root, section.manifest, column)
    files = in_order(list_files(root, section.manifest), manifest)
    tasks = [
        _task(files[place], place, manifest, wanted, section.text_column) for place in _order(len(files), section, seed)
    ]
    return _Source(prepare_all(tasks), len(tasks), "files", _missing_files(manifest, files))


def _order(n: int, section: BooksSection, seed: int) -> list[int]:
    """Return the order of reading: the library's own, or a random one where only some books are wanted."""
    if section.max_books is None:
        return list(range(n))
    rng = np.random.default_rng(int(fingerprint([seed, "max_books"]), 16))
    return [int(place) for place in rng.permutation(n)]


def _task(file: BookFile, place: int, manifest: Manifest, wanted: Wanted, text_column: str) -> FileTask:
    row = manifest.find(file.relative)
    members = {}
    if holds_many(file.relative):
        prefix = f"{file.relative}/"
        members = {name[len(prefix) :]: r[1] for name, r in manifest.rows.items() if name.startswith(prefix)}
    return FileTask(file, place, row[1] if row else {}, members, wanted, text_column)


def _missing_files(manifest: Manifest, files: list[BookFile]) -> list[Rejected]:
    if manifest.covers_more:
        return []
    there = {file.relative for file in files}
    archives = tuple(f"{name}/" for name in there if holds_many(name))
    names = [name for name in manifest.rows if name not in there and not name.startswith(archives)]
    return [Rejected(name, "read", "the manifest names this file, but it is not in the folder") for name in names]


def _check_any(kept: list[Book], rejected: list[Rejected], section: BooksSection) -> None:
    if kept:
        return
    where = section.path or "the embedded library"
    if not rejected:
        raise LibraryError(f"no books in {where}", "put txt, md, html, epub, fb2, zip, jsonl or parquet files there")
    reasons = Counter((row.step, row.reason) for row in rejected).most_common(3)
    said = "; ".join(f"{n} x {step}: {reason}" for (step, reason), n in reasons)
    raise LibraryError(f"no usable book in {where} ({len(rejected)} left out: {said})", "see docs/books.md for formats")


def _summary(books: list[Book], rejected: list[Rejected]) -> str:
    pools = Counter(book.pool for book in books)
    steps = Counter(row.step for row in rejected)
    left_out = ", ".join(f"{n} {step}" for step, n in sorted(steps.items()))
    held = f"held out {pools['eval_a']} (A) + {pools['eval_b']} (B)"
    return f"books     {len(books)} books, {held}, left out {len(rejected)}" + (f" ({left_out})" if left_out else "")


def _stamp(manifest: Path | None) -> list[Any]:
    if manifest is None:
        return []
    stat = manifest.stat()
    return [manifest.name, stat.st_size, stat.st_mtime_ns]
