"""The chapters of books, of kinds of books, and of what books do together.

Reads: Effect, Book and Variant rows. Writes: nothing. Books that no design can tell apart - editions of one work, books
that always share their sets - are marked, since their effects are one effect.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable

from ltm.dashboard.chapters.effects import NEEDS, add_forest, effect_sentence
from ltm.dashboard.inputs import Inputs
from ltm.dashboard.layout import Chapter, bullets, folded, note
from ltm.dashboard.sentences import entries_of, texts_of
from ltm.dashboard.words import both
from ltm.records import Book, Effect, Variant

MARK = "≈"
_NAMED = 4


def books(inputs: Inputs) -> Chapter:
    """Return the effects of single books."""
    mine = [effect for effect in inputs.effects if effect.kind == "book"]
    if not mine:
        return Chapter(both("effects.absent" if inputs.effects else "effects.wait"), needs=NEEDS)
    together = twins(inputs.books, inputs.variants)
    marked = [
        dataclasses.replace(effect, label=f"{effect.label or effect.name} {MARK}")
        if effect.name in together
        else effect
        for effect in mine
    ]
    chapter = Chapter(effect_sentence(mine, "book"), needs=NEEDS)
    more: dict[str, dict[str, object]] = {book_id: {"twins": text} for book_id, text in together.items()}
    add_forest(chapter, inputs, marked, "book", "book", more)
    n_tested = sum(effect.name in together for effect in {e.name: e for e in mine}.values())
    if n_tested:
        chapter.body += note(both("books.twins", n=n_tested, mark=MARK))
    return chapter


def twins(library: Iterable[Book], variants: Iterable[Variant]) -> dict[str, str]:
    """Return, by book, the books that it cannot be told apart from: other editions, and those always in its sets."""
    books_by_id = {book.book_id: book for book in library}
    sets: dict[str, set[int]] = defaultdict(set)
    for variant in variants:
        for book_id in variant.book_ids:
            sets[book_id].add(variant.set_id)
    n_sets = len(set().union(*sets.values())) if sets else 0
    groups: dict[tuple[str, object], list[str]] = defaultdict(list)
    for book_id, own in sets.items():
        book = books_by_id.get(book_id)
        if book and book.unit:
            groups["unit", book.unit].append(book_id)
        if 0 < len(own) < n_sets:
            groups["sets", frozenset(own)].append(book_id)
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for group in groups.values():
        for book_id in group if len(group) > 1 else []:
            found[book_id] |= dict.fromkeys(other for other in group if other != book_id)
    return {book_id: _titles(others, books_by_id) for book_id, others in found.items()}


def _titles(others: Iterable[str], books_by_id: dict[str, Book]) -> str:
    titles = [books_by_id[b].title if b in books_by_id else b for b in others]
    return "; ".join(titles[:_NAMED]) + (f" (+{len(titles) - _NAMED})" if len(titles) > _NAMED else "")


def kinds(inputs: Inputs, mine: Iterable[Effect]) -> str:
    """Return what the numbered kinds of books hold that some effects name, as folded HTML; empty without any."""
    names = " | ".join(effect.name for effect in mine)
    listed = [entry for entry in entries_of(inputs.findings.get("kinds")) if _named(str(entry.get("name")), names)]
    return folded("features.kinds", bullets([texts_of(entry) for entry in listed])) if listed else ""


def _named(kind: str, names: str) -> bool:
    return re.search(rf"\b{re.escape(kind)}\b", names) is not None


def features(inputs: Inputs) -> Chapter:
    """Return the effects of traits of books, what each trait is, and what kinds of books do together."""
    mine = [effect for effect in inputs.effects if effect.kind == "feature"]
    if not mine:
        return Chapter(both("effects.absent" if inputs.effects else "effects.wait"), needs=NEEDS)
    chapter = Chapter(effect_sentence(mine, "feature"), needs=NEEDS)
    more: dict[str, dict[str, object]] = {effect.name: {"meaning": effect.name} for effect in mine}
    add_forest(chapter, inputs, mine, "feature", "feature", more)
    chapter.body += note(both("features.association"))
    pairs = [effect for effect in inputs.effects if effect.kind == "interaction"]
    if pairs:
        chapter.body += f"<p>{effect_sentence(pairs, 'interaction')}</p>"
        add_forest(chapter, inputs, pairs, "interaction", "interaction")
        chapter.body += kinds(inputs, pairs)
    else:
        chapter.body += note(both("features.no_pairs"))
    return chapter
