"""Decide which of several books with the same text stays, and which books are editions of one work.

Near-duplicates and parts: one of them stays, and the reason is kept with the other. Editions and translations share no
wording; both stay, but they count as one unit in statistics (`Book.unit`).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ltm.books.duplicates import DuplicateFinder, Match
from ltm.books.names import author_keys, same_author, title_key
from ltm.books.prepare import Prepared
from ltm.books.vectors import Vector
from ltm.records import Book, Rejected

_FULLER = 1.03  # so much longer a copy must be to stay in place of one that came before
_BETTER = 0.1  # or so much sounder (`Book.quality`)
_LARGER = 1.6  # a book so much longer than what it shares is a collection
_NOTHING: list[int] = []  # shared by all slim rows; nobody writes into a row
_NO_NUMBERS: dict[str, float] = {}
_NO_COUNTS: dict[str, int] = {}
_COVERED = 0.5  # share of a collection that the library has book by book, above which the single books stay


@dataclass
class Judge:
    """Takes books one after another; knows those that stay."""

    dedupe: bool
    kept: dict[int, Book] = field(default_factory=dict)  # by the finder's number, in order of coming; see `slim`
    vectors: dict[int, Vector] = field(default_factory=dict)
    finder: DuplicateFinder = field(default_factory=DuplicateFinder)
    _instead: dict[int, int] = field(default_factory=dict)  # a withdrawn book's number -> the one that stays

    def consider(self, item: Prepared) -> list[Rejected]:
        """Take a book in, or not.

        Returns:
            What is left out because of it: the book itself, or books that it replaces. `kept` tells which.
        """
        matches = self.finder.find(item.sketch)
        if matches and matches[0].exact:
            return [self._same(item.book, matches[0].owner)]
        matches = [match for match in matches if match.owner in self.kept] if self.dedupe else []
        refused = self._collection(item.book, matches)
        for match in matches if refused is None else ():
            refused = refused or self._refuse(item.book, match)
        if refused is not None:
            return [refused]
        replaced = [self._withdraw(item.book, match) for match in matches]
        number = self.finder.add(item.sketch)
        for match in matches:
            self._instead[match.owner] = number
            del self.kept[match.owner], self.vectors[match.owner]
        self.kept[number] = slim(item.book)
        self.vectors[number] = item.vector
        return replaced

    def _same(self, book: Book, owner: int) -> Rejected:
        number = owner
        while number not in self.kept:
            number = self._instead[number]
        other = self.kept[number]
        what = "the same text as" if number == owner else "the same text as a part or copy of"
        return Rejected(book.source, "duplicate", f"{what} {_name(other)}", other.source, book.language)

    def _collection(self, book: Book, matches: Sequence[Match]) -> Rejected | None:
        """Reject a collection whose parts are, for the greater part, in the library already."""
        parts = [match for match in matches if book.n_words > _LARGER * self.kept[match.owner].n_words]
        if not parts or len(parts) < len(matches):
            return None
        covered = min(1.0, sum(match.of_new for match in parts))
        if len(parts) < 2 or covered < _COVERED:
            return None
        names = ", ".join(_name(self.kept[match.owner]) for match in parts[:3])
        more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        reason = (
            f"a collection: about {covered:.0%} of this book is in the library book by book ({names}{more}), which stay"
        )
        return Rejected(book.source, "duplicate", reason, self.kept[parts[0].owner].source, book.language)

    def _refuse(self, book: Book, match: Match) -> Rejected | None:
        """Return why the new book goes, or None if the kept one does."""
        other = self.kept[match.owner]
        if other.n_words > _LARGER * book.n_words:
            reason = f"about {match.of_new:.0%} of it is inside {_name(other)}, a larger book, which stays"
        elif _is_fuller(book, other) or _is_sounder(book, other):
            return None
        else:
            why = "is the fuller text" if other.n_words > _FULLER * book.n_words else "came first"
            share = max(match.of_new, match.of_kept)
            reason = f"about {share:.0%} of it is the text of {_name(other)}, which {why} and stays"
        return Rejected(book.source, "duplicate", reason, other.source, book.language)

    def _withdraw(self, book: Book, match: Match) -> Rejected:
        other = self.kept[match.owner]
        if book.n_words > _LARGER * other.n_words:
            reason = f"about {match.of_kept:.0%} of it is inside {_name(book)}, a larger book, which stays"
        else:
            why = "is the fuller text" if book.n_words > _FULLER * other.n_words else "is the sounder text"
            share = max(match.of_new, match.of_kept)
            reason = f"about {share:.0%} of it is the text of {_name(book)}, which {why} and stays"
        return Rejected(other.source, "duplicate", reason, book.source, other.language)


def slim(book: Book) -> Book:
    """Return a row without what is large and needed only when the catalogue is written: a library may have a million.

    What is taken off is empty in it, and lies in the store of prepared books.
    """
    return dataclasses.replace(
        book, licence="", chapter_starts=_NOTHING, scene_starts=_NOTHING, features=_NO_NUMBERS, removed=_NO_COUNTS
    )


def _is_fuller(book: Book, other: Book) -> bool:
    return book.n_words > _FULLER * other.n_words and book.quality > other.quality - _BETTER


def _is_sounder(book: Book, other: Book) -> bool:
    return book.quality > other.quality + _BETTER and book.n_words * _FULLER > other.n_words


def units(book_ids: Sequence[str], titles: Sequence[str], authors: Sequence[str]) -> list[str]:
    """Return the unit of every book: the id of the first of its editions and translations, by title and author.

    Titles are compared without subtitle and in Latin letters, authors with their spelling variants; books by nobody
    known are never put together. Books come in order of rank.
    """
    by_title: dict[str, list[tuple[str, str]]] = defaultdict(list)
    found = []
    for book_id, title, author in zip(book_ids, titles, authors, strict=True):
        group = by_title[title_key(title)]
        known = bool(author_keys(author))
        unit = next((unit for other, unit in group if known and same_author(author, other)), book_id)
        found.append(unit)
        group.append((author, unit))
    return found


def _name(book: Book) -> str:
    return f"{book.title} ({book.source})"
