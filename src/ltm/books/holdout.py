"""Choose the authors whose books no model ever sees, and split them into the eval pools A and B.

Whole authors are held out, because a model that read one book of an author knows the next one's names and manner.
Of many random draws of authors the best-balanced one is taken: the share of every language is met, genres are held
out in proportion, and books long enough to make items are preferred. The draw depends on the seed and the books alone.
Columns in, a column out: a library may have a million books.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm.books.names import author_keys
from ltm.errors import LibraryError
from ltm.records import POOLS, Book
from ltm.store import fingerprint

LONG_WORDS = 5_000  # below it a book makes few items
MIN_HELD_OUT = 3
_STRATUM_BOOKS = 10  # a language with so many books gets its own share
_DRAWS = 200  # of small libraries; among very many authors any draw is balanced
_FEWEST_DRAWS = 8
_DRAWN_UNITS = 400_000  # in all draws together
_ID_BYTES = 16

Ints = npt.NDArray[np.int64]
Key = tuple[str, str]


@dataclass(frozen=True)
class Rows:
    """What holding out asks of the books, by columns of one length."""

    book_ids: Sequence[str]
    authors: Sequence[str]
    languages: Sequence[str]
    genres: Sequence[str]
    n_words: Ints
    n_bytes: Ints

    def __len__(self) -> int:
        return len(self.book_ids)


@dataclass(frozen=True)
class Unit:
    """One author (or several who wrote together): the smallest thing that is held out."""

    name: str
    books: tuple[Book, ...]


@dataclass(frozen=True)
class _Units:
    """All authors of a library, in the order of their books' ids."""

    of_row: Ints  # shape (n_books,)
    first_row: Ints  # the book with the smallest id; this and the following have shape (n_units,)
    n_books: Ints
    n_bytes: Ints
    n_short: Ints
    language: Ints  # of its first book, numbered by name
    id_rank: Ints  # place of its first book in the order of ids

    def __len__(self) -> int:
        return len(self.first_row)


def assign_pools(books: Sequence[Book], share: float, authors: Sequence[str], seed: int) -> dict[str, str]:
    """Return the pool of every book by id; see `pools_of`."""
    rows = _rows(books)
    pools = pools_of(rows, share, authors, seed)
    return {book_id: POOLS[pool] for book_id, pool in zip(rows.book_ids, pools.tolist(), strict=True)}


def pools_of(rows: Rows, share: float, authors: Sequence[str], seed: int) -> npt.NDArray[np.int8]:
    """Return the pool of every book, as its place in `records.POOLS`.

    Args:
        rows: The whole library.
        share: Share of the books to hold out.
        authors: Names to hold out; if any, the share is not used.
        seed: Of the draw.

    Raises:
        LibraryError: there are too few books or authors to hold any out, or a named author has none.
    """
    units = _group(rows)
    if len(rows) < MIN_HELD_OUT + 1 or len(units) < 3:
        raise LibraryError(
            f"{len(rows)} books by {len(units)} authors are too few to hold any out for the eval set",
            f"give at least {MIN_HELD_OUT + 1} books by 3 authors (author names come from manifest.csv or the files)",
        )
    held = _named(rows, units, authors) if authors else _drawn(rows, units, share, seed)
    pool_of_unit = np.zeros(len(units), dtype=np.int8)
    for pool, members in enumerate(_split(units, held), start=1):
        pool_of_unit[members] = pool
    return pool_of_unit[units.of_row]


def group_by_author(books: Sequence[Book]) -> list[Unit]:
    """Return the library by author; a book by nobody known is its own unit, co-authors make one unit."""
    units = _group(_rows(books))
    members: dict[int, list[Book]] = defaultdict(list)
    for row in sorted(range(len(books)), key=lambda row: books[row].book_id):
        members[int(units.of_row[row])].append(books[row])
    return [Unit(group[0].author, tuple(group)) for _, group in sorted(members.items())]


def _rows(books: Sequence[Book]) -> Rows:
    return Rows(
        [book.book_id for book in books],
        [book.author for book in books],
        [book.language for book in books],
        [book.genre for book in books],
        np.array([book.n_words for book in books], dtype=np.int64),
        np.array([book.n_bytes for book in books], dtype=np.int64),
    )


def _group(rows: Rows) -> _Units:
    """Return the units; a name that is written in several ways is one author."""
    authors, author_of_row = _numbered(rows.authors)
    root_of_author = np.array(_joined([author_keys(author) for author in authors]), dtype=np.int64)
    root_of_row = root_of_author[author_of_row]
    alone = np.flatnonzero(root_of_row < 0)
    root_of_row[alone] = len(authors) + alone
    by_id = _order(rows.book_ids)
    _, first, number = np.unique(root_of_row[by_id], return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))  # units by their smallest id
    of_row = np.empty(len(rows), dtype=np.int64)
    of_row[by_id] = place[number]
    first_row = np.empty(len(place), dtype=np.int64)
    first_row[of_row[by_id[::-1]]] = by_id[::-1]  # the last to be written is the smallest id
    rank = np.empty(len(by_id), dtype=np.int64)
    rank[by_id] = np.arange(len(by_id))
    short = (rows.n_words < LONG_WORDS).astype(np.float64)
    return _Units(
        of_row,
        first_row,
        np.bincount(of_row, minlength=len(place)),
        np.bincount(of_row, weights=rows.n_bytes, minlength=len(place)).astype(np.int64),
        np.bincount(of_row, weights=short, minlength=len(place)).astype(np.int64),
        _numbered(rows.languages)[1][first_row],
        rank[first_row],
    )


def _joined(keys_of: Sequence[Sequence[Key]]) -> list[int]:
    """Return one number for each author; people who wrote a book together have the same, nobody known has -1."""
    leader: dict[Key, Key] = {}

    def find(key: Key) -> Key:
        while leader.get(key, key) != key:
            key = leader[key]
        return key

    for group in keys_of:
        for other in group[1:]:
            one, two = find(group[0]), find(other)
            leader[max(one, two)] = min(one, two)
    number: dict[Key, int] = {}
    return [number.setdefault(find(group[0]), len(number)) if group else -1 for group in keys_of]


def _order(book_ids: Sequence[str]) -> Ints:
    """Return the rows in the order of their ids."""
    ids = np.array(book_ids, dtype=f"S{_ID_BYTES}")
    halves = ids.view(">u8").reshape(len(ids), 2).astype(np.uint64)
    return np.lexsort((halves[:, 1], halves[:, 0]))


def _numbered(values: Sequence[str]) -> tuple[list[str], Ints]:
    """Return the different values, sorted, and the place of each value among them."""
    import pyarrow as pa

    coded = pa.array(values, type=pa.string()).dictionary_encode()
    names = coded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return [names[i] for i in order], place[np.asarray(coded.indices, dtype=np.int64)]


def _named(rows: Rows, units: _Units, authors: Sequence[str]) -> Ints:
    keys_of = {author: author_keys(author) for author in set(rows.authors)}
    held: list[int] = []
    for author in authors:
        wanted = set(author_keys(author))
        last_names = {last for last, _ in wanted} if len(author.split()) == 1 else set()
        fitting = {name for name, keys in keys_of.items() if any(k in wanted or k[0] in last_names for k in keys)}
        found = {int(units.of_row[row]) for row, name in enumerate(rows.authors) if name in fitting}
        if not found:
            near = difflib.get_close_matches(author, sorted(keys_of), n=1, cutoff=0.4)
            raise LibraryError(
                f"books.held_out_authors names {author!r}, of whom the library has no book",
                f"did you mean {near[0]!r}?" if near else "`ltm books` lists the authors",
            )
        held.extend(sorted(found - set(held)))
    n_held = int(units.n_books[held].sum())
    if len(held) < 2 or n_held < MIN_HELD_OUT or n_held == len(rows):
        raise LibraryError(
            f"books.held_out_authors holds out {n_held} of {len(rows)} books by {len(held)} authors",
            f"name at least two authors with {MIN_HELD_OUT} books together, and leave books to train on",
        )
    return np.array(held, dtype=np.int64)


def _drawn(rows: Rows, units: _Units, share: float, seed: int) -> Ints:
    genres = _numbered(rows.genres)[1]
    held: list[Ints] = []
    for name, stratum in sorted(_strata(rows, units).items()):
        size = int(units.n_books[stratum].sum())
        target = max(round(share * size), MIN_HELD_OUT if name else 0)
        if len(stratum) > 1 and target:
            held.append(_best_draw(units, stratum, genres, target, fingerprint([seed, "hold out", name])))
    chosen = np.concatenate(held) if held else np.empty(0, dtype=np.int64)
    if units.n_books[chosen].sum() < MIN_HELD_OUT or len(chosen) < 2:
        target = max(MIN_HELD_OUT, round(share * len(rows)))
        everyone = np.arange(len(units))
        chosen = _best_draw(units, everyone, genres, target, fingerprint([seed, "hold out", "all"]))
    if len(chosen) < 2 or units.n_books[chosen].sum() < MIN_HELD_OUT:
        raise LibraryError(
            f"no two authors can be held out and leave books to train on ({len(rows)} books by {len(units)} authors)",
            "give books by more authors, or name them in books.held_out_authors",
        )
    return chosen


def _strata(rows: Rows, units: _Units) -> dict[str, Ints]:
    """Group authors by the language of most of their books; small languages share the stratum with no name."""
    names, code = _numbered(rows.languages)
    sizes = np.bincount(code, minlength=len(names))
    pairs, counts = np.unique(units.of_row * len(names) + code, return_counts=True)
    order = np.lexsort((pairs % len(names), -counts, pairs // len(names)))  # by unit, then most books, then name
    first = np.unique(pairs[order] // len(names), return_index=True)[1]
    language = (pairs[order] % len(names))[first]
    strata: dict[str, Ints] = {}
    for number, name in enumerate(names):
        if sizes[number] >= _STRATUM_BOOKS and (language == number).any():
            strata[name] = np.flatnonzero(language == number)
    small = np.flatnonzero(sizes[language] < _STRATUM_BOOKS)
    return strata | ({"": small} if len(small) else {})


def _best_draw(units: _Units, among: Ints, genres: Ints, target: int, draw_id: str) -> Ints:
    rng = np.random.default_rng(int(draw_id, 16))
    sizes = units.n_books[among]
    n_books = int(sizes.sum())
    library = np.isin(units.of_row, among)
    all_genres = np.bincount(genres[library], minlength=int(genres.max()) + 1) / n_books
    best: tuple[float, Ints] | None = None
    for _ in range(max(_FEWEST_DRAWS, min(_DRAWS, _DRAWN_UNITS // len(among)))):
        chosen: list[int] = []
        count = 0
        for index in rng.permutation(len(among)).tolist():
            size = int(sizes[index])
            # one author with half the library would leave little to train on and a pool of one voice
            fits = count + size <= target or (len(chosen) < 2 and size <= n_books // 3)
            if fits and count + size < n_books:
                chosen.append(index)
                count += size
            if count >= target:
                break
        picked = among[np.array(chosen, dtype=np.int64)]
        cost = _cost(units, picked, genres, all_genres, target)
        if best is None or cost < best[0]:
            best = (cost, picked)
    return best[1] if best else np.empty(0, dtype=np.int64)


def _cost(units: _Units, chosen: Ints, genres: Ints, all_genres: npt.NDArray[np.float64], target: int) -> float:
    """Rate a draw, 0 = ideal; each part is a share between 0 and about 1, the first two count most."""
    count = int(units.n_books[chosen].sum())
    if len(chosen) < 2:
        return 1e9 - count
    short = float(units.n_short[chosen].sum()) / count
    mine = np.zeros(len(units), dtype=np.bool_)
    mine[chosen] = True
    held_genres = np.bincount(genres[mine[units.of_row]], minlength=len(all_genres)) / count
    drift = float(np.abs(held_genres - all_genres).sum()) / 2
    sizes = [int(units.n_bytes[pool].sum()) for pool in _split(units, chosen)]
    lopsided = abs(sizes[0] - sizes[1]) / max(1, sum(sizes))
    return 4 * abs(count - target) / target + 2 * short + drift + lopsided + 1 / len(chosen)


def _split(units: _Units, held: Ints) -> tuple[Ints, Ints]:
    """Split authors into two pools of about equal bytes, language by language."""
    # largest first, each to the pool that has less of its language, then less of all
    held = held[np.lexsort((units.id_rank[held], -units.n_bytes[held]))]
    pools: tuple[list[int], list[int]] = ([], [])
    of_all = [0, 0]
    of_language: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    columns = (held, units.language[held], units.n_bytes[held])
    for unit, language, n_bytes in zip(*(column.tolist() for column in columns), strict=True):
        mine = of_language[language]
        side = min((0, 1), key=lambda s: (mine[s], of_all[s], s))
        pools[side].append(unit)
        mine[side] += n_bytes
        of_all[side] += n_bytes
    return np.array(pools[0], dtype=np.int64), np.array(pools[1], dtype=np.int64)
