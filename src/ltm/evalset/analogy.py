"""Analogy: a relation is shown with a word of book A and asked for with a word of book B.

Each word of the language's tables has two relatives (great: greater, small). Premise P shows one relation, P' the
other, with the same words of A; the query word of B has a relative by either: a 2 x 2 contrast. The words shown stand
after passages of the books that contain them. Source: four-term analogies; the contrast keeps frequency out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ltm.evalset.frames import fill
from ltm.evalset.language import Language, Relation
from ltm.evalset.material import pick
from ltm.evalset.passages import Draft, EvalBook, Sizes
from ltm.evalset.synthesis import passage_of, unrelated
from ltm.evalset.transfer import four_cells, with_mark


def analogies(
    book: EvalBook, others: Sequence[EvalBook], lines: Sequence[str], language: Language, sizes: Sizes,
    rng: np.random.Generator,
) -> Iterator[Draft]:  # fmt: skip
    """Yield items whose demonstrations use words of this book and whose question a word of an unrelated one.

    Args:
        book: A.
        others: Where B is drawn from.
        lines: The wording of a demonstration and of a question.
        language: The tables of relations.
        sizes: Words of the two passages together, and the number of demonstrations.
        rng: A random stream.
    """
    strange = unrelated(book, others)
    half = sizes.context // 2
    if not strange or not language.relations or len(lines) != 2:
        return
    own = book.vocabulary
    for first in book.tiles(half, rng):
        span = book.span(first, half)
        b_book = strange[int(rng.integers(len(strange)))]
        other = passage_of(b_book, half, rng)
        relation = language.relations[int(rng.integers(len(language.relations)))]
        drawn = _drawn(relation, own, b_book.vocabulary, sizes.shots, rng)
        if span is None or other is None or drawn is None:
            continue
        shown, query = drawn
        premises = []
        for which in (0, 1):
            told = [_line(lines[0], word, relation.words[word][which]) for word in shown]
            premises.append(
                f"{book.slice(span)}\n\n{' '.join(told)}\n\n{other}\n\n{_line(lines[1], query, '')}".rstrip()
            )
        yield four_cells(book.book.book_id, book.book.language, *with_mark(premises, relation.words[query]))


def _drawn(
    relation: Relation, own: Collection[str], foreign: Collection[str], shots: int, rng: np.random.Generator
) -> tuple[list[str], str] | None:
    shown = [word for word in relation.words if word in own]
    queries = [word for word in relation.words if word in foreign]
    if len(shown) < shots or not queries:
        return None
    query = queries[int(rng.integers(len(queries)))]
    left = [word for word in shown if not {word, *relation.words[word]} & {query, *relation.words[query]}]
    return (pick(left, shots, rng), query) if len(left) >= shots else None


def _line(text: str, word: str, answer: str) -> str:
    return fill(text, {"1": ("n", {"nom": word}), "=": ("n", {"nom": answer})})
