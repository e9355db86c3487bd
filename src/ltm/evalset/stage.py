"""Build the two banks of items from the held-out books.

Reads: `books/catalogue.parquet` (Book), clean text, the eval file and the items of the user that it names. Writes:
`evalset/bank_a.parquet`, `evalset/bank_b.parquet` (Item), `evalset/report.json`. The banks are cut from disjoint books
(pools eval_a and eval_b); bank B stays sealed until findings are confirmed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.config import Document, validate
from ltm.errors import ConfigError, InputError, LibraryError
from ltm.evalset import evalfile, harness, language, own, shortcuts, show as showing
from ltm.evalset.bank import items_fingerprint, read_bank, write_bank
from ltm.evalset.build import Tally, Workshop, build_bank, stream
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.evalfile import EvalFile, Family
from ltm.evalset.own import OwnDraft, Problems
from ltm.evalset.passages import EvalBook
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress
from ltm.records import FLUENCY, Book, Item
from ltm.store import WorkFolder, read_json, write_json

VERSION = 4
BANKS = ("a", "b")
_LANGUAGE_SHARE = 0.1  # of the training books, from which on a language gets its own templates


def inputs(section: EvalsetSection) -> dict[str, Any]:
    """Return what the items follow from beside the library: the eval file, languages, and the user's data files.

    Raises:
        InputError: the eval file cannot be read.
    """
    path = Path(section.path) if section.path else evalfile.PACKAGED
    words = {code: (language.FOLDER / f"{code}.yaml").read_text(encoding="utf-8") for code in language.packaged_codes()}
    base = evalfile.PACKAGED.read_text(encoding="utf-8") if section.path else ""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the eval file {path}: {error.strerror}", "check evalset.path") from None
    return {"file": text, "extends": base, "languages": words, "data": _data_hashes(section)}


def questions(section: EvalsetSection) -> tuple[EvalFile, list[OwnDraft]]:
    """Read the eval file and the user's items; everything wrong with either is told at once.

    Raises:
        InputError: the eval file cannot be read.
        ConfigError: it, a family that the study names, or an item has problems, each with its place.
    """
    document = evalfile.document(section.path)
    file = validate(EvalFile, document)
    problems = Problems()
    drafts = own.drafts(file.items, document, problems)
    names = {family.name: "the family" for family in file.families}
    for entry in file.items:
        _own_name(entry.name, names, document.where(("items",)), problems)
    for task, folder, where in harness.resolved(file.tasks, document, problems):
        _own_name(task.task, names, where, problems)
        drafts += harness.drafts(task, folder, where, problems)
    known = [family.name for family in file.families]
    for name in section.families or ():
        if name not in known:
            problems.add("evalset.families", f"no family `{name}` in {document.path}; it has: {', '.join(known)}")
    problems.raise_any()
    return file, drafts


def wanted_items(section: EvalsetSection, file: EvalFile) -> dict[str, int]:
    """Return how many items each family is to have in each bank; families that are off are left out."""
    chosen = [f for f in file.families if f.items and (section.families is None or f.name in section.families)]
    if section.items_per_family:
        return {family.name: section.items_per_family for family in chosen}
    if section.items_per_ability:
        return {family.name: _share(family, chosen, section.items_per_ability) for family in chosen}
    return {family.name: family.items for family in chosen}


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
        lines += [showing.as_text(items[int(i)], books) for i in order[: 1 if control else n]]
    return "\n".join(lines)


def _share(family: Family, chosen: Sequence[Family], n: int) -> int:
    if family.ability == FLUENCY:
        return min(n, family.items)
    total = sum(other.items for other in chosen if other.ability == family.ability)
    return max(1, round(n * family.items / total))


def _own_name(name: str, names: dict[str, str], where: str, problems: Problems) -> None:
    if name in names:
        problems.add(where, f"`{name}` is the name of {names[name]} already; names of families must differ")
    names.setdefault(name, f"the set at {where}")


def _data_hashes(section: EvalsetSection) -> dict[str, str]:
    """Return the hash of every file that the eval file names; a file that cannot be read has none."""
    if section.path is None:
        return {}
    try:
        document = evalfile.document(section.path)
    except (ConfigError, InputError):
        return {}
    folder = Path(document.path).parent
    names = sorted(set(_named_files(document, folder)))
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if (folder / name).is_file()
    }


def _named_files(document: Document, folder: Path) -> list[str]:
    """Return every text below `items` and `tasks` that is the name of a file there, those in task files too."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, str) and 0 < len(node) < 500 and "\n" not in node and (folder / node).is_file():
            if node not in found:
                found.append(node)
                if node.endswith((".yaml", ".yml")):
                    walk(evalfile.document(str(folder / node)).data)

    walk([document.data.get("items"), document.data.get("tasks")])
    return found


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
    counts = {
        code: Counter({word: n for word, n in _small(words).items()}) for code, words in overlap.word_counts.items()
    }
    judged = shortcuts.judge(items, counts)
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


def _small(words: Mapping[str, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, n in words.items():
        counts[word.lower()] += n
    return counts


def _note(tally: Tally, telling: Sequence[str]) -> str:
    notes = []
    if tally.built < tally.wanted:
        notes.append("the held-out books are too few or too short for more")
    if tally.shared:
        notes.append(f"{tally.shared} items have 13 words in a row that also stand in a training book")
    if telling:
        notes.append(f"part of it is told by a rule that understands nothing: {', '.join(telling)}")
    return "; ".join(notes)
