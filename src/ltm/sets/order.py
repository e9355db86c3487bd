"""Orders of the books inside a set: one function a kind.

An order that needs a fact that a book lacks (its year, its readability, its genre) puts such books where the block's
random order has them relative to each other, after those that have the fact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ltm.errors import LibraryError
from ltm.sets.kinds import Vectors, vectors
from ltm.sets.shelf import Floats, Ints, Shelf

PLAIN = ("random", "shuffled", "in_turns", "repetition")  # the block's own random order of books
_NEEDS = {
    "readability_up": "readability",
    "readability_down": "readability",
    "chronological": "year",
    "genre_blocked": "genre",
    "genre_interleaved": "genre",
    "similarity_chain": "features",
    "anti_chain": "features",
}
REPETITION = 0  # the spacing that stands for spaced repetition


class Arranger:
    """Puts the books of a set in order.

    Args:
        shelf: All books; similarity is measured on their standardised features.
        turns: Books that `in_turns` reads by turns.
    """

    def __init__(self, shelf: Shelf, turns: int = 4) -> None:
        self.shelf, self.turns = shelf, turns

    @cached_property
    def _vectors(self) -> Vectors:
        return vectors(self.shelf)

    def arrange(self, order: str, shuffled: Ints) -> Ints:
        """Return rows of the shelf in training order.

        Args:
            order: A kind of order.
            shuffled: The rows of the set in the block's random order.

        Raises:
            ValueError: there is no such order.
        """
        if order in PLAIN:
            return shuffled
        if order == "reverse":
            return shuffled[::-1]
        arrangers: dict[str, Callable[[Ints], Ints]] = {
            "chronological": lambda rows: _ranked(rows, self.shelf.year_B[rows]),
            "given": lambda rows: _ranked(rows, self.shelf.rank_B[rows].astype(np.float64)),
            "readability_up": lambda rows: _ranked(rows, -self.shelf.feature("flesch")[rows]),  # from easy to hard
            "readability_down": lambda rows: _ranked(rows, self.shelf.feature("flesch")[rows]),
            "genre_blocked": lambda rows: _blocked(rows, self.shelf.genre_B[rows]),
            "genre_interleaved": lambda rows: _interleaved(rows, self.shelf.genre_B[rows]),
            "similarity_chain": lambda rows: _chain(rows, self._vectors[rows], nearest=True),
            "anti_chain": lambda rows: _chain(rows, self._vectors[rows], nearest=False),
        }
        if order not in arrangers:
            raise ValueError(f"unknown order: {order}")
        return arrangers[order](shuffled)

    def spacing(self, order: str, base: int) -> int:
        """Return how many books an order reads by turns; 0 = spaced repetition."""
        return {"in_turns": self.turns, "repetition": REPETITION}.get(order, base)


def needs(order: str) -> str:
    """Return which fact about books an order needs: year, genre, readability, features, or nothing.

    >>> needs("chronological"), needs("reverse")
    ('year', '')
    """
    return _NEEDS.get(order, "")


def known_share(order: str, shelf: Shelf) -> float:
    """Return the share of the books that have the fact which an order needs."""
    fact = needs(order)
    if not fact or not len(shelf):
        return 1.0
    if fact == "year":
        return float(np.isfinite(shelf.year_B).mean())
    if fact == "genre":
        return float((shelf.genre_B >= 0).mean())
    if fact == "readability":
        return float(np.isfinite(shelf.feature("flesch")).mean())
    return float(np.isfinite(shelf.features_BF).any(axis=1).mean()) if shelf.feature_names else 0.0


def refuse_if_unknown(order: str, shelf: Shelf) -> None:
    """Raise where an order would be no order, because its fact is missing or the same for all.

    Raises:
        LibraryError: says which fact is missing and what can be done.
    """
    fact = needs(order)
    hint = f"leave `{order}` out of sets.contrast_orders"
    if fact in ("year", "genre"):
        hint += f", or give the books a `{fact}` in the manifest"
    if known_share(order, shelf) == 0:
        raise LibraryError(f"the order `{order}` needs the {fact} of the books, but none of {len(shelf)} has it", hint)
    if fact == "genre" and len(np.unique(shelf.genre_B[shelf.genre_B >= 0])) < 2:
        raise LibraryError(f"the order `{order}` needs two genres, but all books with a genre have the same", hint)


def _ranked(rows: Ints, key: Floats) -> Ints:
    """Return rows by ascending key; ties, and rows whose key is not known, keep their order."""
    found: Ints = rows[np.argsort(np.where(np.isfinite(key), key, np.inf), kind="stable")]
    return found


def _blocked(rows: Ints, genre: Ints) -> Ints:
    """Return rows genre after genre, in the order in which the genres first appear."""
    first = {int(code): place for place, code in reversed(list(enumerate(genre)))}
    return _ranked(rows, np.array([np.inf if code < 0 else first[int(code)] for code in genre], dtype=np.float64))


def _interleaved(rows: Ints, genre: Ints) -> Ints:
    """Return rows with each genre spread evenly from beginning to end."""
    sizes = {int(code): int((genre == code).sum()) for code in np.unique(genre)}
    seen: dict[int, int] = {}
    key = np.empty(len(rows))
    for place, code in enumerate(genre.tolist()):
        key[place] = np.inf if code < 0 else (seen.get(code, 0) + 0.5) / sizes[code]
        seen[code] = seen.get(code, 0) + 1
    return _ranked(rows, key)


def _chain(rows: Ints, points: npt.NDArray[np.float32], nearest: bool) -> Ints:
    """Return rows from the first, each followed by the most (or the least) similar one that is left."""
    left = np.ones(len(rows), dtype=np.bool_)
    place, order = 0, [0]
    left[0] = False
    for _ in range(len(rows) - 1):
        distance = ((points - points[place]) ** 2).sum(axis=1)
        place = int(np.where(left, distance, np.inf).argmin() if nearest else np.where(left, distance, -1.0).argmax())
        left[place] = False
        order.append(place)
    return np.asarray(rows[np.array(order)], dtype=np.int64)
