"""Make a bank: spread every family evenly over its books or templates, leave out what cannot be used, and count.

A bank is reproducible from the library, the eval file and a seed: each family and source has its own random stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ltm.evalset import linking, synthesis, transfer
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.evalfile import EvalFile, Family
from ltm.evalset.passages import Draft, EvalBook, Sizes
from ltm.records import Item
from ltm.store import WorkFolder, fingerprint, read_rows

_MAX_DROPPED_IN_A_ROW = 400  # of one source, before it counts as used up

FromBook = Callable[[EvalBook, Family, Sizes, np.random.Generator], Iterator[Draft]]
_FROM_BOOK: dict[str, FromBook] = {
    "scene_order": linking.scene_order,
    "suffix": linking.suffix,
    "name_recall": linking.name_recall,
    "coherence": linking.coherence,
    "passage": synthesis.passage,
}


@dataclass
class Tally:
    """What became of one family of one bank."""

    wanted: int
    built: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    clusters: int = 0


def build_bank(
    bank: str,
    eval_file: EvalFile,
    books: Sequence[EvalBook],
    overlap: Overlap,
    languages: Sequence[str],
    seed: int,
    context_words: int,
    items_per_family: int | None,
) -> tuple[list[Item], dict[str, Tally]]:
    """Return the items of one bank and the tally by family.

    Args:
        bank: a or b.
        eval_file: Families and language material.
        books: Held-out books of this bank's pool.
        overlap: What training books contain.
        languages: Languages of the training books, for the families that are told from templates.
        seed: The same seed gives the same items.
        context_words: Words of an item of full length.
        items_per_family: Overrides the numbers of the file.
    """
    factor = context_words / eval_file.item_words
    materials = {
        code: transfer.Material(eval_file.language(code), overlap.train_words, overlap.word_counts[code], bank)
        for code in languages
    }
    items: list[Item] = []
    tallies: dict[str, Tally] = {}
    for family in (family for family in eval_file.families if family.items):
        tally = tallies[family.name] = Tally(items_per_family or family.items)
        if family.builder == "frames":
            sources = _template_sources(family, materials, languages, seed, bank)
        else:
            sources = _book_sources(family, eval_file, books, factor, seed, bank)
        drafts = spread(sources, tally, overlap)
        tally.built, tally.clusters = len(drafts), len({draft.cluster for draft in drafts})
        items += [_item(draft, family, bank) for draft in drafts]
    return items, tallies


def spread(sources: list[Iterator[Draft]], tally: Tally, overlap: Overlap) -> list[Draft]:
    """Take drafts from the sources in turns until there are enough, or all sources are used up."""
    chosen: list[Draft] = []
    seen: set[str] = set()
    alive = list(sources)
    while alive and len(chosen) < tally.wanted:
        for source in list(alive):
            if len(chosen) == tally.wanted:
                break
            draft = _next_usable(source, seen, tally, overlap)
            if draft is None:
                alive.remove(source)
            else:
                chosen.append(draft)
    return chosen


def bank_fingerprint(work: WorkFolder, bank: str) -> str:
    """Return a fingerprint of a bank's items; scores of another bank have another one.

    Raises:
        StoreError: the bank is missing or damaged.
    """
    return fingerprint([item.item_id for item in read_bank(work, bank)])


def read_bank(work: WorkFolder, bank: str) -> list[Item]:
    """Return the items of a bank.

    Raises:
        StoreError: the bank is missing or damaged.
    """
    return read_rows(work.path("evalset", f"bank_{bank}.parquet"), Item)


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the random stream of a thing with a name."""
    return np.random.default_rng(int(fingerprint([seed, *names]), 16))


def _book_sources(
    family: Family, eval_file: EvalFile, books: Sequence[EvalBook], factor: float, seed: int, bank: str
) -> list[Iterator[Draft]]:
    sources = []
    for book in books:
        sizes = Sizes.of(family, eval_file.language(book.book.language), factor)
        rng = stream(seed, bank, family.name, book.book.book_id)
        if family.builder == "two_streams":
            sources.append(synthesis.two_streams(book, books, family, sizes, rng))
        else:
            sources.append(_FROM_BOOK[family.builder](book, family, sizes, rng))
    return sources


def _template_sources(
    family: Family, materials: dict[str, transfer.Material], languages: Sequence[str], seed: int, bank: str
) -> list[Iterator[Draft]]:
    by_language = []
    for code in languages:
        frames = [frame for frame in family.frames.get(code, []) if materials[code].usable(frame)]
        sources = [
            transfer.contrasts(
                frame,
                materials[code],
                code,
                f"{family.name}:{code}:{frame.name}",
                stream(seed, bank, family.name, code, frame.name),
            )
            for frame in frames
        ]
        if sources:
            by_language.append(_in_turns(sources))
    return by_language


def _in_turns(sources: list[Iterator[Draft]]) -> Iterator[Draft]:
    """Yield from endless sources in turns, so that languages share evenly however many templates each has."""
    while True:
        for source in sources:
            yield next(source)


def _next_usable(source: Iterator[Draft], seen: set[str], tally: Tally, overlap: Overlap) -> Draft | None:
    for draft in islice(source, _MAX_DROPPED_IN_A_ROW):
        reason = _unusable(draft, seen, overlap)
        if reason is None:
            seen.add(_identity(draft))
            return draft
        tally.dropped[reason] += 1
    return None


def _unusable(draft: Draft, seen: set[str], overlap: Overlap) -> str | None:
    if _identity(draft) in seen:
        return "the same item twice"
    cells = list(zip(draft.contexts, draft.continuations, strict=True))
    if len(set(cells)) < len(cells):
        return "two options are the same text"
    if overlap.contains(sorted(set(draft.contexts) | set(draft.continuations))):
        return "13 words in a row also stand in a training book"
    return None


def _identity(draft: Draft) -> str:
    return fingerprint([draft.contexts, draft.continuations])


def _item(draft: Draft, family: Family, bank: str) -> Item:
    content = [family.rule, draft.contexts, draft.continuations, draft.gold]
    return Item(
        item_id=f"{family.name}-{bank}-{fingerprint(content, 12)}",
        bank=bank,
        ability=family.ability,
        family=family.name,
        language=draft.language,
        cluster=draft.cluster,
        rule=family.rule,
        contexts=draft.contexts,
        continuations=draft.continuations,
        gold=draft.gold,
    )
