"""The order of the books, which of them are good enough to stay, and the kinds of reasons for which others went."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ltm.records import Book, Rejected

_QUALITY = "quality"


def in_rank_order(
    kept: Mapping[int, Book], rank_by: str = "", keep_best: int | None = None
) -> tuple[list[int], list[Rejected]]:
    """Return the keys of the books that stay, best first, and rows for those that do not.

    Args:
        kept: Books by any key.
        rank_by: `quality`, a column of the manifest (its number is `Book.rating`), `-column` where less is better, or
            empty for the library's own order.
        keep_best: How many stay; None for all.
    """
    sign = -1.0 if rank_by.startswith("-") else 1.0
    name = rank_by.lstrip("-")

    def value(book: Book) -> float | None:
        return book.quality if name == _QUALITY else book.rating if name else None

    def place(number: int) -> tuple[bool, float, int, str]:
        book = kept[number]
        number_of = value(book)
        return number_of is None, -sign * (number_of or 0.0), book.rank, book.source

    order = sorted(kept, key=place)
    if keep_best is None:
        return order, []
    rejected = []
    for index, number in enumerate(order[keep_best:], start=keep_best + 1):
        book, number_of = kept[number], value(kept[number])
        said = (
            f"place {index} of {len(order)} by {name} ({number_of:g})"
            if number_of is not None
            else f"no {name} is given"
        )
        rejected.append(
            Rejected(book.source, "rank", f"{said}; books.keep_best is {keep_best}", language=book.language)
        )
    return order[:keep_best], rejected


def kind_of_reason(row: Rejected) -> str:
    """Return a reason without what is particular to one file, so that equal reasons can be counted.

    >>> kind_of_reason(Rejected("a.txt", "size", "12 words; books.min_words is 1000"))
    'size: N words; books.min_words is N'
    """
    plain = re.sub(r"\s*\((?![a-z]).*\)|`[^`]*`", "", row.reason)
    if row.step == "duplicate":
        plain = re.sub(
            r"(the text of|inside|copy of|part of|same text as|part or copy of) .*?(, a larger book|, which|$)",
            r"\1 another book\2",
            plain,
        )
    return f"{row.step}: {re.sub(r'[0-9][0-9.,%]*', 'N', plain)[:120]}"
