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
from ltm.books.duplicates import DuplicateFinder
from ltm.books.folder import BookFile, check_folder, in_order, list_files
from ltm.books.holdout import assign_pools
from ltm.books.manifest import Manifest, find_manifest, read_manifest
from ltm.books.parallel import FileTask, Outcome, prepare_all
from ltm.books.prepare import Prepared, Wanted, prepare_kjv
from ltm.books.section import BooksSection
from ltm.errors import LibraryError
from ltm.progress import Progress
from ltm.records import Book, Rejected
from ltm.store import WorkFolder, as_json, fingerprint

VERSION = 1


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
    finder = DuplicateFinder()
    kept: list[Book] = []
    rejected = list(source.missing)
    limit = section.max_books or sys.maxsize
    with contextlib.closing(source.outcomes) as outcomes:
        for outcome in outcomes:
            for item in outcome:
                result = _judge(item, finder, section.dedupe)
                if isinstance(result, Rejected):
                    rejected.append(result)
                elif len(kept) < limit:
                    texts.write(result.book.book_id, result.text)
                    kept.append(result.book)
            task.advance(note=f"{len(kept)} books, {len(rejected)} left out")
            if len(kept) >= limit:
                break
    _check_any(kept, rejected, section)
    books = _ranked(kept)
    pools = assign_pools(books, section.held_out_share, section.held_out_authors, seed)
    books = [dataclasses.replace(book, pool=pools[book.book_id]) for book in books]
    write_catalogue(work, books, sorted(rejected, key=lambda row: (row.source, row.step)))
    texts.keep_only(book.book_id for book in books)
    progress.say(_summary(books, rejected))
    return [_what_matters(book) for book in books]


def _what_matters(book: Book) -> dict[str, Any]:
    """Return all that later stages may use of a book; where its file lies is not among it."""
    row = dataclasses.asdict(book)
    del row["source"], row["licence"]
    return row


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what the library holds: counts by language, genre and pool, and every rejected file with its reason.

    Raises:
        StoreError: the stage has not been run.
    """
    books, rejected = read_catalogue(work), read_rejected(work)
    return {
        "books": len(books),
        "words": sum(book.n_words for book in books),
        "bytes": sum(book.n_bytes for book in books),
        "pools": dict(Counter(book.pool for book in books)),
        "languages": dict(Counter(book.language for book in books)),
        "genres": dict(Counter(book.genre or "unknown" for book in books)),
        "rejected_by_step": dict(Counter(row.step for row in rejected)),
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
    manifest = read_manifest(root, section.manifest)
    files = in_order(list_files(root, section.manifest), manifest)
    tasks = [_task(files[place], place, manifest, wanted) for place in _order(len(files), section, seed)]
    return _Source(prepare_all(tasks), len(tasks), "files", _missing_files(manifest, files))


def _order(n: int, section: BooksSection, seed: int) -> list[int]:
    """Return the order of reading: the library's own, or a random one where only some books are wanted."""
    if section.max_books is None:
        return list(range(n))
    rng = np.random.default_rng(int(fingerprint([seed, "max_books"]), 16))
    return [int(place) for place in rng.permutation(n)]


def _task(file: BookFile, place: int, manifest: Manifest, wanted: Wanted) -> FileTask:
    row = manifest.find(file.relative)
    members = {}
    if file.relative.lower().endswith(".zip"):
        prefix = f"{file.relative}/"
        members = {name[len(prefix) :]: r[1] for name, r in manifest.rows.items() if name.startswith(prefix)}
    return FileTask(file, place, row[1] if row else {}, members, wanted)


def _missing_files(manifest: Manifest, files: list[BookFile]) -> list[Rejected]:
    if manifest.covers_more:
        return []
    there = {file.relative for file in files}
    archives = tuple(f"{name}/" for name in there if name.lower().endswith(".zip"))
    names = [name for name in manifest.rows if name not in there and not name.startswith(archives)]
    return [Rejected(name, "read", "the manifest names this file, but it is not in the folder") for name in names]


def _judge(item: Prepared | Rejected, finder: DuplicateFinder, dedupe: bool) -> Prepared | Rejected:
    if isinstance(item, Rejected):
        return item
    # the same text twice has one id, so exact copies go even where near ones may stay
    repeated = finder.find(item.sketch, exact_only=not dedupe)
    if repeated is not None:
        return Rejected(item.book.source, "duplicate", repeated)
    finder.add(item.sketch, f"{item.book.title} ({item.book.source})")
    return item


def _ranked(books: list[Book]) -> list[Book]:
    ordered = sorted(books, key=lambda book: (book.rank, book.source))
    return [dataclasses.replace(book, rank=rank) for rank, book in enumerate(ordered)]


def _check_any(kept: list[Book], rejected: list[Rejected], section: BooksSection) -> None:
    if kept:
        return
    where = section.path or "the embedded library"
    if not rejected:
        raise LibraryError(f"no books in {where}", "put txt, md, html, epub, fb2 or zip files there")
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
