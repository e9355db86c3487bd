"""Build the two banks of items from the held-out books.

Reads: `books/catalogue.parquet` (Book), clean text, the eval file. Writes: `evalset/bank_a.parquet`,
`evalset/bank_b.parquet` (Item), `evalset/report.json`. The banks are cut from disjoint books (pools eval_a and
eval_b); bank B stays sealed until findings are confirmed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.errors import LibraryError
from ltm.evalset import evalfile
from ltm.evalset.bank import Tally, bank_fingerprint, build_bank, read_bank, stream
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.passages import EvalBook
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress
from ltm.records import Book, Item
from ltm.store import WorkFolder, read_json, write_json, write_rows

VERSION = 3
BANKS = ("a", "b")
_LANGUAGE_SHARE = 0.1  # of the training books, from which on a language gets its own templates


def inputs(section: EvalsetSection) -> str:
    """Return the text of the eval file: another file, or a changed one, makes other items."""
    return (Path(section.path) if section.path else evalfile.PACKAGED).read_text(encoding="utf-8")


def build(section: EvalsetSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Write both banks and the report; return what identifies them.

    Raises:
        ConfigError: the eval file has problems.
        LibraryError: no item at all can be built.
    """
    file = evalfile.load(section.path)
    books = read_catalogue(work)
    store = TextStore(work)
    pools = {bank: _held_out(books, bank, section.max_books, seed) for bank in BANKS}
    train = sorted((book for book in books if book.pool == "train"), key=lambda book: book.book_id)
    overlap = Overlap(store.read(book.book_id) for bank in BANKS for book in pools[bank])
    task = progress.task("evalset", len(train), "training books compared")
    for book in train:
        overlap.add_training(store.read(book.book_id), book.language)
        task.advance()
    languages = _languages(train)
    report: dict[str, Any] = {"eval_file": section.path or "ltm_eval_set.yaml", "languages": languages, "banks": {}}
    result = []
    for bank in BANKS:
        cut = [EvalBook.of(book, store.read(book.book_id)) for book in pools[bank]]
        items, tallies = build_bank(
            bank, file, cut, overlap, languages, seed, section.context_words, section.items_per_family
        )
        if bank == "a" and not items:
            raise LibraryError(
                "not one item of the eval set can be built", "hold out more or longer books, or add templates"
            )
        write_rows(work.path("evalset", f"bank_{bank}.parquet"), items, Item)
        report["banks"][bank] = _report(pools[bank], tallies)
        progress.say(f"evalset   bank {bank}: {len(items)} items from {len(cut)} held-out books")
        result.append(bank_fingerprint(work, bank))
    write_json(work.path("evalset", "report.json"), report)
    return result


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what was built and what was left out, by bank and family.

    Raises:
        StoreError: the stage has not been run.
    """
    value: dict[str, Any] = read_json(work.path("evalset", "report.json"))
    return value


def show(work: WorkFolder, n: int, bank: str = "a") -> str:
    """Return the first `n` items of every family as a person reads them.

    Raises:
        StoreError: the bank is missing or damaged.
    """
    shown: Counter[str] = Counter()
    lines: list[str] = []
    for item in read_bank(work, bank):
        if shown[item.family] < n:
            shown[item.family] += 1
            lines.append(_as_text(item))
    return "\n".join(lines)


def _held_out(books: Sequence[Book], bank: str, max_books: int, seed: int) -> list[Book]:
    """Return the books of a pool, at most `max_books`, evenly over genres, in a random order."""
    pool = sorted((book for book in books if book.pool == f"eval_{bank}"), key=lambda book: book.book_id)
    order = stream(seed, "evalset", bank).permutation(len(pool))
    mixed = [pool[i] for i in order]
    place: Counter[str] = Counter()
    keyed: list[tuple[int, int, Book]] = []
    for book in mixed:  # the k-th book of every genre comes before the k+1-th of any
        keyed.append((place[book.genre], len(keyed), book))
        place[book.genre] += 1
    return [book for _, _, book in sorted(keyed, key=lambda entry: entry[:2])][:max_books]


def _languages(train: Sequence[Book]) -> list[str]:
    counts = Counter(book.language for book in train)
    return sorted(code for code, count in counts.items() if count >= _LANGUAGE_SHARE * len(train))


def _report(pool: Sequence[Book], tallies: dict[str, Tally]) -> dict[str, Any]:
    families = {
        name: {
            "items": tally.built,
            "wanted": tally.wanted,
            "clusters": tally.clusters,
            "dropped": dict(sorted(tally.dropped.items())),
            "note": "" if tally.built >= tally.wanted else "the held-out books are too few or too short for more",
        }
        for name, tally in tallies.items()
    }
    return {"books": [book.title for book in pool], "families": families}


def _as_text(item: Item) -> str:
    head = f"--- {item.family} ({item.ability}, {item.rule}, {item.language}) {item.item_id}"
    lines = [head]
    previous = None
    for index, (context, continuation) in enumerate(zip(item.contexts, item.continuations, strict=True)):
        if context != previous:
            lines.append(f"  context: {context!r}" if context else "  no context")
            previous = context
        right = "*" if item.rule in ("choice", "pair") and index == item.gold else " "
        lines.append(f"  {right} [{index}] {continuation!r}")
    return "\n".join(lines)
