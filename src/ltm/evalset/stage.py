"""Build the two banks of items from the held-out books.

Reads: `books/catalogue.parquet` (Book), clean text, the eval file and the items of the user that it names. Writes:
`evalset/bank_a.parquet`, `evalset/bank_b.parquet` (Item), `evalset/report.json`. The banks are cut from disjoint books
(pools eval_a and eval_b); bank B stays sealed until findings are confirmed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.errors import LibraryError
from ltm.evalset import shortcuts
from ltm.evalset.bank import items_fingerprint, read_bank, write_bank
from ltm.evalset.build import Tally, Workshop, build_bank, stream
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.own import OwnDraft
from ltm.evalset.passages import EvalBook
from ltm.evalset.questions import questions, sources, wanted_items
from ltm.evalset.section import EvalsetSection
from ltm.evalset.show import as_text
from ltm.progress import Progress
from ltm.records import Book, Item
from ltm.store import WorkFolder, read_json, write_json

VERSION = 6
BANKS = ("a", "b")
_LANGUAGE_SHARE = 0.1  # of the training books, from which on a language gets its own templates


def inputs(section: EvalsetSection) -> dict[str, Any]:
    """Return what the items follow from beside the library; see `ltm.evalset.questions.sources`."""
    return sources(section)


def build(section: EvalsetSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Write both banks and the report; return what identifies them.

    Raises:
        ConfigError: the eval file or the user's items have problems.
        LibraryError: no item at all can be built.
    """
    file, drafts = questions(section)
    books = read_catalogue(work)
    store = TextStore(work)
    pools = {bank: _held_out(books, bank, section.max_books, seed) for bank in BANKS}
    train = sorted((book for book in books if book.pool == "train"), key=lambda book: book.book_id)
    overlap = _overlap(store, pools, drafts)
    task = progress.task("evalset", len(train), "training books compared")
    for book in train:
        overlap.add_training(store.read(book.book_id), book.language)
        task.advance()
    languages = _languages(train)
    counts = wanted_items(section, file)
    if not section.controls:
        file = file.model_copy(update={"families": [f.model_copy(update={"controls": 0}) for f in file.families]})
    made: dict[str, tuple[list[Item], dict[str, Tally]]] = {}
    for bank in BANKS:
        cut = [EvalBook.of(book, store.read(book.book_id)) for book in pools[bank]]
        made[bank] = build_bank(
            Workshop.of(bank, file, cut, overlap, languages, seed, section.context_words, counts), drafts
        )
        if bank == "a" and not made[bank][0]:
            raise LibraryError(
                "not one item of the eval set can be built", "hold out more or longer books, or add templates"
            )
        progress.say(f"evalset   bank {bank}: {len(made[bank][0])} items from {len(cut)} held-out books")
    report: dict[str, Any] = {
        "eval_file": section.path or "ltm_eval_set.yaml",
        "languages": languages,
        "banks": {bank: _report(pools[bank], *made[bank], overlap) for bank in BANKS},
    }
    for bank in BANKS:
        write_bank(work, bank, made[bank][0])
    write_json(work.path("evalset", "report.json"), report)
    return [items_fingerprint(made[bank][0]) for bank in BANKS]


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what was built and what was left out, by bank and family.

    Raises:
        StoreError: the stage has not been run.
    """
    value: dict[str, Any] = read_json(work.path("evalset", "report.json"))
    return value


def show(work: WorkFolder, n: int, bank: str = "a") -> str:
    """Return `n` items of every family, and one of each of its controls, as a person reads them.

    Raises:
        StoreError: the bank is missing or damaged.
    """
    books = {book.book_id: book for book in read_catalogue(work)}
    families: dict[tuple[str, str], list[Item]] = {}
    for item in read_bank(work, bank):
        families.setdefault((item.family, item.control), []).append(item)
    lines: list[str] = []
    for (_, control), items in families.items():
        order = stream(0, "show", items[0].family).permutation(len(items))  # from all levels, languages and books
        lines += [as_text(items[int(i)], books) for i in order[: 1 if control else n]]
    return "\n".join(lines)


def _overlap(store: TextStore, pools: Mapping[str, Sequence[Book]], drafts: Sequence[OwnDraft]) -> Overlap:
    def texts() -> Any:
        for bank in BANKS:
            for book in pools[bank]:
                yield store.read(book.book_id)
        for draft in drafts:
            yield from {*draft.contexts, *draft.continuations}

    return Overlap(texts())


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


def _report(
    pool: Sequence[Book], items: Sequence[Item], tallies: Mapping[str, Tally], overlap: Overlap
) -> dict[str, Any]:
    judged = shortcuts.judge(items, overlap.word_counts)
    families = {
        name: {
            "items": tally.built,
            "wanted": tally.wanted,
            "controls": tally.controls,
            "fast": tally.fast,
            "levels": {str(level): n for level, n in sorted(tally.levels.items())},
            "clusters": tally.clusters,
            "dropped": dict(sorted(tally.dropped.items())),
            "shared_with_training": tally.shared,
            "shortcuts": {solver: round(row["accuracy"], 4) for solver, row in judged.get(name, {}).items()},
            "chance": round(next(iter(judged[name].values()))["chance"], 4) if name in judged else None,
            "note": _note(tally, shortcuts.telling(judged.get(name, {}))),
        }
        for name, tally in tallies.items()
    }
    return {"books": [book.title for book in pool], "families": families}


def _note(tally: Tally, telling: Sequence[str]) -> str:
    notes = []
    if tally.built < tally.wanted:
        notes.append("the held-out books are too few or too short for more")
    if tally.shared:
        notes.append(f"{tally.shared} items have 13 words in a row that also stand in a training book")
    if telling:
        notes.append(f"part of it is told by a rule that understands nothing: {', '.join(telling)}")
    return "; ".join(notes)
