"""Orders of the books inside a set: one function a kind.

An order that needs a fact that a book lacks (its year, its readability) puts such books where the block's random
order has them relative to each other, after those that have the fact.
"""

from __future__ import annotations

from collections.abc import Sequence

from ltm.records import Book


def arrange(order: str, shuffled: Sequence[Book]) -> list[str]:
    """Return book ids in training order.

    Args:
        order: A kind of order; `random`, `shuffled` and `reverse` start from the block's own random order.
        shuffled: The books of the set in the block's random order.
    """
    if order == "reverse":
        return [book.book_id for book in reversed(shuffled)]
    if order in ("random", "shuffled"):
        return [book.book_id for book in shuffled]
    ranked = sorted(shuffled, key=lambda book: _sort_key(order, book))  # stable: ties keep the random order
    return [book.book_id for book in ranked]


def _sort_key(order: str, book: Book) -> tuple[bool, float]:
    if order == "chronological":
        return book.year is None, float(book.year or 0)
    if order == "given":
        return False, float(book.rank)
    easy = book.features.get("flesch")
    if order == "readability_up":  # from easy to hard
        return easy is None, -(easy or 0.0)
    if order == "readability_down":
        return easy is None, easy or 0.0
    raise ValueError(f"unknown order: {order}")
