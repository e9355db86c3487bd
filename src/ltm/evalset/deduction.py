"""Two-source deduction: one fact stands in a passage of book A, the other in a passage of B; the answer needs both.

Cells, in the order of the rule synergy: both facts, A's alone, B's alone, neither; each with the right answer and its
counterpart. Where a fact is left out, the same sentence about other people and things stands in its place, so that all
premises are equally long and look alike. Which thing is asked for, and the order in which either fact tells its two
halves, are drawn apart, so that neither the first nor the last that was said, nor equal places in both, is an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ltm.evalset.frames import SLOTS, Frame, fill, slots_of
from ltm.evalset.material import Entry, Material
from ltm.evalset.passages import Draft, EvalBook, Sizes, Span
from ltm.evalset.synthesis import span_of, unrelated

_LEAST_WORDS = 10  # of a passage, however long the facts are
_QUOTES = (("“", "”"), ("«", "»"), ("‘", "’"), ("(", ")"), ("[", "]"))


def deductions(
    book: EvalBook,
    others: Sequence[EvalBook],
    frames: Sequence[Frame],
    material: Material,
    sizes: Sizes,
    rng: np.random.Generator,
) -> Iterator[Draft]:
    """Yield items whose first passage is from this book and whose second is from an unrelated one."""
    strange = unrelated(book, others)
    if not strange or not frames:
        return
    longest = max(len(" ".join((*frame.facts, frame.ask)).split()) for frame in frames)
    half = max(_LEAST_WORDS, (sizes.context - longest) // 2)
    for first in book.tiles(half, rng):
        b_book = strange[int(rng.integers(len(strange)))]
        a, b = book.span(first, half), span_of(b_book, half, rng)
        if a is None or b is None:
            continue
        frame = frames[int(rng.integers(len(frames)))]
        yield _item(book, frame, material, (_halves(book, a), _halves(b_book, b)), rng)


def _halves(book: EvalBook, span: Span) -> tuple[str, str]:
    """Cut a passage in two between sentences, near its middle and never inside a quotation; the second may be empty."""
    passage = book.slice(span)
    places = [place for place in book.breaks(span) if not _open_quote(passage[:place])]
    at = min(places, key=lambda place: abs(place - len(passage) / 2), default=len(passage))
    return passage[:at].rstrip(), passage[at:].lstrip()


def _item(
    book: EvalBook,
    frame: Frame,
    material: Material,
    passages: tuple[tuple[str, str], tuple[str, str]],
    rng: np.random.Generator,
) -> Draft:
    slot, other = frame.answer_slots()
    filling = material.draw(frame, rng)
    facts = [_told(fact, filling, rng) for fact in frame.facts]
    foils = [_told(fact, _foil(index, frame, filling, material, rng), rng) for index, fact in enumerate(frame.facts)]
    asked = filling if rng.random() < 0.5 else _swapped(filling, slots_of(*frame.facts))
    ask = fill(frame.ask, asked)
    contexts = []
    for a_true, b_true in ((1, 1), (1, 0), (0, 1), (0, 0)):
        a, b = facts[0] if a_true else foils[0], facts[1] if b_true else foils[1]
        parts = (passages[0][0], a, passages[0][1], passages[1][0], b, passages[1][1], ask)
        contexts += ["\n\n".join(part for part in parts if part)] * 2
    right = " " + fill(frame.answer, asked)
    wrong = " " + fill(frame.answer, {**asked, slot: asked[other]})
    return Draft(book.book.book_id, book.book.language, contexts, [right, wrong] * 4, 0, frame.level)


def _told(fact: str, filling: dict[str, Entry], rng: np.random.Generator) -> str:
    """Tell a fact; half of the time its two halves change places, which says the same."""
    return fill(fact, filling if rng.random() < 0.5 else _swapped(filling, slots_of(fact)))


def _swapped(filling: dict[str, Entry], slots: set[str]) -> dict[str, Entry]:
    return {slot: filling[SLOTS[slot]] if slot in slots and slot in SLOTS else entry for slot, entry in filling.items()}


def _foil(
    index: int, frame: Frame, filling: dict[str, Entry], material: Material, rng: np.random.Generator
) -> dict[str, Entry]:
    """Return a filling that says the same of others: what only this fact holds is drawn anew, what links them stays."""
    own, rest = slots_of(frame.facts[index]), slots_of(frame.facts[1 - index])
    changed = dict(filling)
    held = {forms["nom"] for _, forms in filling.values()}
    for slot in sorted(own - rest):
        changed[slot] = material.other(slot, filling[slot][0], held, rng)
        held.add(changed[slot][1]["nom"])
    return changed


def _open_quote(text: str) -> bool:
    return text.count('"') % 2 == 1 or any(text.count(left) > text.count(right) for left, right in _QUOTES)
