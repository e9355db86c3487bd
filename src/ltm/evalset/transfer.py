"""Logical transfer: templates with invented names, as 2 x 2 contrasts.

An item has two premises that differ only in who has what, and two conclusions; the right fact must help the right
conclusion: m = {log p(c|P) - log p(c|P')} - {log p(c'|P) - log p(c'|P')}. Both premises hold the same words, so word
frequency and length cancel, and names occur in no book of the library. Sources: minimal-pair contrasts (BLiMP, EWoK),
rules and depth of reasoning (RuleTaker).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ltm.evalset.frames import WORDS, Frame, fill, slots_of
from ltm.evalset.material import Material, pick
from ltm.evalset.passages import Draft, Sizes

_OPENING = ('"', "“", "«")
_FILLER_WORDS = 7  # of a filler sentence, on average


def contrasts(
    frame: Frame, material: Material, language: str, cluster: str, sizes: Sizes, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield items of one template without end; every second one tells the facts in the other order."""
    slot, other = frame.answer_slots()
    turn = 0
    while True:
        filling = material.draw(frame, rng)
        swapped = {**filling, slot: filling[other], other: filling[slot]}
        facts = frame.facts[::-1] if frame.order == "any" and turn % 2 else frame.facts
        between = fillers(frame, material, sizes.gap, rng)
        ask = fill(frame.ask, filling)
        premises = [" ".join([*(fill(fact, one) for fact in facts), *between, ask]) for one in (filling, swapped)]
        conclusions = [" " + fill(frame.answer, one) for one in (filling, swapped)]
        turn += 1
        yield four_cells(cluster, language, premises, conclusions, frame.level)


def four_cells(cluster: str, language: str, premises: list[str], conclusions: list[str], level: int = 0) -> Draft:
    """Return a contrast: cells (P, c), (P', c), (P, c'), (P', c')."""
    return Draft(
        cluster, language, premises * 2, [conclusions[0], conclusions[0], conclusions[1], conclusions[1]], 0, level
    )


def with_mark(premises: list[str], answers: list[str]) -> tuple[list[str], list[str]]:
    """Move an opening quotation mark at the end of the question to the answers, where it belongs.

    >>> with_mark(['He said "'], ["yes"])
    (['He said'], [' "yes'])
    """
    mark = premises[0][-1] if premises[0].endswith(_OPENING) else ""
    return [premise.removesuffix(mark).rstrip() for premise in premises], [f" {mark}{answer}" for answer in answers]


def short_answers(
    frame: Frame, material: Material, language: str, cluster: str, sizes: Sizes, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield a premise and the one answer that must be written after it."""
    for draft in contrasts(frame, material, language, cluster, sizes, rng):
        yield Draft(cluster, language, draft.contexts[:1], draft.continuations[:1], 0, draft.level)


def fillers(frame: Frame, material: Material, n_words: int, rng: np.random.Generator) -> list[str]:
    """Return sentences of about `n_words` words that say nothing; a bare pattern is not broken by any."""
    if slots_of(*frame.facts) & set(WORDS):
        return []
    n = min(len(material.fillers), round(n_words / _FILLER_WORDS))
    return pick(material.fillers, n, rng)
