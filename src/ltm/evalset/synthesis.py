"""Synthesis over unrelated books (two streams), and plain held-out passages for fluency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ltm.evalset.evalfile import Family
from ltm.evalset.passages import Draft, EvalBook, Sizes, Span


def two_streams(
    book: EvalBook, others: Sequence[EvalBook], family: Family, sizes: Sizes, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield a continuation of this book after b, after a and b, and after a' and b.

    a is the passage before the continuation, b a passage of an unrelated book, a' one of another book, of the same
    genre as this one where there is one. With a single other book both b and a' are cut from it.
    """
    del family
    half = sizes.context // 2
    strange = unrelated(book, others)
    if not strange:
        return
    for first in book.tiles(half + sizes.option, rng):
        span = book.span(first, half)
        after = book.exact(span.next_sentence, sizes.option) if span else None
        if span is None or after is None:
            continue
        b_book = strange[int(rng.integers(len(strange)))]
        rest = [other for other in strange if other is not b_book] or [b_book]
        kin = [other for other in rest if other.book.genre == book.book.genre] or rest
        b, control = passage_of(b_book, half, rng), passage_of(kin[int(rng.integers(len(kin)))], half, rng)
        if b is None or control is None or b == control:
            continue
        a = book.slice(span)
        contexts = [b, f"{a}\n\n{b}", f"{control}\n\n{b}"]
        yield Draft(book.book.book_id, book.book.language, contexts, [f"\n\n{after}"] * 3)


def passage(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield plain passages, to be predicted from their first word."""
    del family
    for first in book.tiles(sizes.option, rng):
        span = book.span(first, sizes.option)
        if span is not None:
            yield Draft(book.book.book_id, book.book.language, [""], [book.slice(span)])


def unrelated(book: EvalBook, others: Sequence[EvalBook]) -> list[EvalBook]:
    """Return other books of the same language, by other authors where there are any."""
    same_language = [o for o in others if o is not book and o.book.language == book.book.language and o.starts]
    return [o for o in same_language if o.book.author != book.book.author] or same_language


def passage_of(book: EvalBook, n_words: int, rng: np.random.Generator) -> str | None:
    """Return some passage of a book, of whole sentences; None where none of that length is found."""
    span = span_of(book, n_words, rng)
    return book.slice(span) if span else None


def span_of(book: EvalBook, n_words: int, rng: np.random.Generator) -> Span | None:
    """Return where some passage of a book lies, of whole sentences; None where none of that length is found."""
    for index in rng.integers(0, len(book.starts), size=24):
        span = book.span(int(index), n_words)
        if span is not None:
            return span
    return None
