"""Choose the authors whose books no model ever sees, and split them into the eval pools A and B.

Whole authors are held out, because a model that read one book of an author knows the next one's names and manner.
Of many random draws of authors the best-balanced one is taken: the share of every language is met, genres are held
out in proportion, and books long enough to make items are preferred. The draw depends on the seed and the books alone.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltm.books.names import author_keys
from ltm.errors import LibraryError
from ltm.records import Book
from ltm.store import fingerprint

LONG_WORDS = 5_000  # below it a book makes few items
MIN_HELD_OUT = 3
_STRATUM_BOOKS = 10  # a language with so many books gets its own share
_DRAWS = 200


@dataclass(frozen=True)
class Unit:
    """One author (or several who wrote together): the smallest thing that is held out."""

    name: str
    books: tuple[Book, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all its books."""
        return sum(book.n_bytes for book in self.books)


def assign_pools(books: Sequence[Book], share: float, authors: Sequence[str], seed: int) -> dict[str, str]:
    """Return the pool of every book by id.

    Args:
        books: The whole library.
        share: Share of the books to hold out.
        authors: Names to hold out; if any, the share is not used.
        seed: Of the draw.

    Raises:
        LibraryError: there are too few books or authors to hold any out, or a named author has none.
    """
    units = group_by_author(books)
    if len(books) < MIN_HELD_OUT + 1 or len(units) < 3:
        raise LibraryError(
            f"{len(books)} books by {len(units)} authors are too few to hold any out for the eval set",
            f"give at least {MIN_HELD_OUT + 1} books by 3 authors (author names come from manifest.csv or the files)",
        )
    held = _named(units, authors) if authors else _drawn(units, len(books), share, seed)
    pools = {book.book_id: "train" for book in books}
    for pool, members in zip(("eval_a", "eval_b"), _split(held), strict=True):
        pools |= {book.book_id: pool for unit in members for book in unit.books}
    return pools


def group_by_author(books: Sequence[Book]) -> list[Unit]:
    """Return the library by author; a book by nobody known is its own unit, co-authors make one unit."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    keys = {book.book_id: author_keys(book.author) or [("", book.book_id)] for book in books}
    for group in keys.values():
        for other in group[1:]:
            leader[find(other)] = find(group[0])
    members: dict[tuple[str, str], list[Book]] = defaultdict(list)
    for book in sorted(books, key=lambda book: book.book_id):
        members[find(keys[book.book_id][0])].append(book)
    return [Unit(group[0].author, tuple(group)) for _, group in sorted(members.items())]


def _named(units: Sequence[Unit], authors: Sequence[str]) -> list[Unit]:
    held: list[Unit] = []
    for author in authors:
        wanted = set(author_keys(author))
        last_names = {last for last, _ in wanted} if len(author.split()) == 1 else set()
        found = [
            unit
            for unit in units
            if any(k in wanted or k[0] in last_names for book in unit.books for k in author_keys(book.author))
        ]
        if not found:
            known = sorted({book.author for unit in units for book in unit.books})
            near = difflib.get_close_matches(author, known, n=1, cutoff=0.4)
            raise LibraryError(
                f"books.held_out_authors names {author!r}, of whom the library has no book",
                f"did you mean {near[0]!r}?" if near else "`ltm books` lists the authors",
            )
        held.extend(unit for unit in found if unit not in held)
    n_held, n_all = sum(len(unit.books) for unit in held), sum(len(unit.books) for unit in units)
    if len(held) < 2 or n_held < MIN_HELD_OUT or n_held == n_all:
        raise LibraryError(
            f"books.held_out_authors holds out {n_held} of {n_all} books by {len(held)} authors",
            f"name at least two authors with {MIN_HELD_OUT} books together, and leave books to train on",
        )
    return held


def _drawn(units: Sequence[Unit], n_books: int, share: float, seed: int) -> list[Unit]:
    held: list[Unit] = []
    for name, stratum in sorted(_strata(units).items()):
        size = sum(len(unit.books) for unit in stratum)
        target = max(round(share * size), MIN_HELD_OUT if name else 0)
        if len(stratum) > 1 and target:
            held.extend(_best_draw(stratum, target, fingerprint([seed, "hold out", name])))
    if sum(len(unit.books) for unit in held) < MIN_HELD_OUT or len(held) < 2:
        target = max(MIN_HELD_OUT, round(share * n_books))
        held = _best_draw(units, target, fingerprint([seed, "hold out", "all"]))
    if len(held) < 2 or sum(len(unit.books) for unit in held) < MIN_HELD_OUT:
        raise LibraryError(
            f"no two authors can be held out and leave books to train on ({n_books} books by {len(units)} authors)",
            "give books by more authors, or name them in books.held_out_authors",
        )
    return held


def _strata(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Group authors by the language of most of their books; small languages share the stratum with no name."""
    sizes = Counter(book.language for unit in units for book in unit.books)
    strata: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        language = min(Counter(book.language for book in unit.books).items(), key=lambda item: (-item[1], item[0]))[0]
        strata[language if sizes[language] >= _STRATUM_BOOKS else ""].append(unit)
    return strata


def _best_draw(units: Sequence[Unit], target: int, draw_id: str) -> list[Unit]:
    rng = np.random.default_rng(int(draw_id, 16))
    n_books = sum(len(unit.books) for unit in units)
    best: tuple[float, list[Unit]] | None = None
    for _ in range(_DRAWS):
        chosen: list[Unit] = []
        count = 0
        for index in rng.permutation(len(units)):
            unit = units[int(index)]
            # one author with half the library would leave little to train on and a pool of one voice
            fits = count + len(unit.books) <= target or (len(chosen) < 2 and len(unit.books) <= n_books // 3)
            if count < target and fits and count + len(unit.books) < n_books:
                chosen.append(unit)
                count += len(unit.books)
        cost = _cost(chosen, units, target)
        if best is None or cost < best[0]:
            best = (cost, chosen)
    return best[1] if best else []


def _cost(chosen: Sequence[Unit], units: Sequence[Unit], target: int) -> float:
    """Rate a draw, 0 = ideal; each part is a share between 0 and about 1, the first two count most."""
    books = [book for unit in chosen for book in unit.books]
    if not books or len(chosen) < 2:
        return 1e9 - len(books)
    library = [book for unit in units for book in unit.books]
    short = sum(book.n_words < LONG_WORDS for book in books) / len(books)
    all_genres = Counter(book.genre for book in library)
    genres = Counter(book.genre for book in books)
    drift = sum(abs(genres[g] / len(books) - n / len(library)) for g, n in all_genres.items()) / 2
    pools = [sum(unit.n_bytes for unit in pool) for pool in _split(chosen)]
    lopsided = abs(pools[0] - pools[1]) / sum(pools)
    return 4 * abs(len(books) - target) / target + 2 * short + drift + lopsided + 1 / len(chosen)


def _split(held: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Split authors into two pools of about equal bytes, language by language."""
    pools: tuple[list[Unit], list[Unit]] = ([], [])
    sizes: dict[tuple[int, str], int] = defaultdict(int)
    # largest first, each to the pool that has less of its language, then less of all
    for unit in sorted(held, key=lambda unit: (-unit.n_bytes, unit.books[0].book_id)):
        language = unit.books[0].language
        side = min((0, 1), key=lambda s: (sizes[s, language], sizes[s, "*"], s))
        pools[side].append(unit)
        sizes[side, language] += unit.n_bytes
        sizes[side, "*"] += unit.n_bytes
    return pools
