"""The books stage: from a folder of files, or the embedded library, to a catalogue of clean books.

Reads: the files of the library and its manifest.
Writes: `books/catalogue.parquet` (`Book`), `books/rejected.parquet` (`Rejected`), `books/text/` (clean texts), and
what was found in each file (see `prepared`), so that a start that was cut short, and a library that has grown, are read
from where they were. A file that cannot be used costs one row of the rejected table, never the stage. Of a book that is
kept only a small row stays in memory; the catalogue is written from the disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.books import kjv
from ltm.books.catalogue import CatalogueWriter, TextStore, read_catalogue, read_rejected, write_rejected
from ltm.books.folder import BookFile, check_folder, in_order, list_files
from ltm.books.holdout import assign_pools
from ltm.books.judge import Judge, units
from ltm.books.library import DEFINITIONS as LIBRARY_FEATURES
from ltm.books.library import library_features
from ltm.books.manifest import Manifest, find_manifest, read_manifest
from ltm.books.parallel import FileTask, Outcome, prepare_all
from ltm.books.prepare import Prepared, Wanted, prepare_kjv
from ltm.books.prepared import PreparedStore, holders_of
from ltm.books.ranking import in_rank_order, kind_of_reason
from ltm.books.readers import holds_many
from ltm.books.section import BooksSection
from ltm.errors import LibraryError
from ltm.progress import Progress
from ltm.records import Book, Rejected
from ltm.store import WorkFolder, as_json, fingerprint

VERSION = 5

Made = tuple[list[str], npt.NDArray[np.float64]]  # the unit of every book, and its library features by row


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
        A fingerprint of every book in order of rank, over all that later stages depend on.

    Raises:
        LibraryError: no book is usable, or too few to hold any out.
        InputError, MissingPartError: as `inputs`.
        StoreError: the work folder cannot be written.
    """
    store = PreparedStore.of(work, VERSION) if section.source == "folder" else PreparedStore(None, VERSION)
    with contextlib.closing(store):
        source = _open(section, seed, store)
        judge, rejected = _consider(source, section, TextStore(work), progress)
        order, worse = in_rank_order(judge.kept, section.rank_by, section.keep_best)
        rejected.extend(worse)
        books = [dataclasses.replace(judge.kept[number], rank=rank) for rank, number in enumerate(order)]
        _write_missing_texts(source, books, TextStore(work))
        pools = assign_pools(books, section.held_out_share, section.held_out_authors, seed)
        made = _write(work, store, books, pools, _made_later(judge, order, books, pools))
        write_rejected(work, sorted(rejected, key=lambda row: (row.source, row.step)))
        TextStore(work).keep_only(book.book_id for book in books)
        if section.max_books is None:
            store.forget_others(source.relatives)
    progress.say(_summary(pools, rejected))
    return made


def _consider(
    source: _Source, section: BooksSection, texts: TextStore, progress: Progress
) -> tuple[Judge, list[Rejected]]:
    """Read the library book by book; what is kept in memory of each is small."""
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
                    if item.text:  # what was read in an earlier start has its text in the store
                        texts.write(item.book.book_id, item.text)
            task.advance(note=f"{len(judge.kept)} books, {len(rejected)} left out")
            if len(judge.kept) >= limit:
                break
    _check_any(len(judge.kept), rejected, section)
    return judge, rejected


def _write_missing_texts(source: _Source, books: Sequence[Book], texts: TextStore) -> None:
    """Read the files again whose texts went because their books were not kept before."""
    missing = {book.source for book in books if not texts.has(book.book_id, book.n_bytes)}
    if not missing:
        return
    for outcome in source.read_again(missing):
        for item in outcome:
            if isinstance(item, Prepared) and item.book.source in missing:
                texts.write(item.book.book_id, item.text)


def _made_later(judge: Judge, order: list[int], books: Sequence[Book], pools: dict[str, str]) -> Made:
    """Return what depends on the other books: the unit of every book, and the features that compare it with them."""
    of_work = units([b.book_id for b in books], [b.title for b in books], [b.author for b in books])
    values = library_features(
        np.stack([judge.vectors[number] for number in order]),
        [book.language for book in books],
        np.array([pools[book.book_id] != "train" for book in books]),
        judge.finder.novelty(np.array(order, dtype=np.int32)),
    )
    return of_work, values


def _write(
    work: WorkFolder, store: PreparedStore, books: Sequence[Book], pools: dict[str, str], made: Made
) -> list[str]:
    """Write the catalogue row by row; returns a fingerprint of each row."""
    marks = []
    with CatalogueWriter(work) as writer:
        for book, unit, row in zip(books, *made, strict=True):
            whole = store.book(book.book_id, book.source)
            features = whole.features | dict(zip(LIBRARY_FEATURES, row.tolist(), strict=True))
            whole = dataclasses.replace(whole, rank=book.rank, pool=pools[book.book_id], unit=unit, features=features)
            writer.add(whole)
            marks.append(fingerprint(_what_matters(whole)))
    return marks


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
    missing: list[Rejected] = field(default_factory=list)
    relatives: Sequence[str] = ()  # of all its files
    read_again: Callable[[set[str]], Iterable[Outcome]] = lambda _: ()  # the files that hold books of these sources


def _open(section: BooksSection, seed: int, store: PreparedStore) -> _Source:
    wanted = Wanted(frozenset(language.lower() for language in section.languages), section.min_words)
    if section.source == "kjv":
        embedded = kjv.load()
        order = _order(len(embedded), section, seed)
        found = (store.keep(f"kjv:{embedded[i].title}", [prepare_kjv(embedded[i], wanted, i)]) for i in order)
        return _Source(found, len(embedded), "books")
    root = check_folder(section.path)
    column = section.rank_by.lstrip("-") if section.rank_by != "quality" else ""
    manifest = read_manifest(root, section.manifest, column)
    files = in_order(list_files(root, section.manifest), manifest)
    tasks = [
        _task(files[place], place, manifest, wanted, section.text_column) for place in _order(len(files), section, seed)
    ]

    def read_again(sources: set[str]) -> Iterable[Outcome]:
        holders = {holder for source in sources for holder in holders_of(source)}
        return prepare_all([task for task in tasks if task.file.relative in holders])

    missing = _missing_files(manifest, files)
    relatives = [task.file.relative for task in tasks]
    return _Source(store.outcomes(tasks), len(tasks), "files", missing, relatives, read_again)


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


def _check_any(n_kept: int, rejected: list[Rejected], section: BooksSection) -> None:
    if n_kept:
        return
    where = section.path or "the embedded library"
    if not rejected:
        raise LibraryError(f"no books in {where}", "put txt, md, html, epub, fb2, zip, jsonl or parquet files there")
    reasons = Counter((row.step, row.reason) for row in rejected).most_common(3)
    said = "; ".join(f"{n} x {step}: {reason}" for (step, reason), n in reasons)
    raise LibraryError(f"no usable book in {where} ({len(rejected)} left out: {said})", "see docs/books.md for formats")


def _summary(pool_of: dict[str, str], rejected: list[Rejected]) -> str:
    pools = Counter(pool_of.values())
    steps = Counter(row.step for row in rejected)
    left_out = ", ".join(f"{n} {step}" for step, n in sorted(steps.items()))
    held = f"held out {pools['eval_a']} (A) + {pools['eval_b']} (B)"
    return f"books     {len(pool_of)} books, {held}, left out {len(rejected)}" + (f" ({left_out})" if left_out else "")


def _stamp(manifest: Path | None) -> list[Any]:
    if manifest is None:
        return []
    stat = manifest.stat()
    return [manifest.name, stat.st_size, stat.st_mtime_ns]
