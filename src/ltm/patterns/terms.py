"""The raw estimate of one thing before the whole study is judged, and contrasts inside blocks.

Arms of one block share their books, their base order and their initial weights, so differences inside a block are free
of all of these: the block is the unit, and its differences are what is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltm.patterns.inference import permutation_p, within_block_p
from ltm.patterns.layout import interval
from ltm.patterns.table import Floats

MIN_BLOCKS = 4  # three pairs can at best reach p = .25 when they are re-randomised
MIN_SLOPE_BLOCKS = 6  # for a slope with an intercept; six differences have at most 720 rearrangements


@dataclass(frozen=True)
class Estimate:
    """One effect without its q-value."""

    kind: str
    name: str
    label: str
    estimate: float
    se: float
    low: float
    high: float
    p: float
    shrunk: float
    n: int


@dataclass(frozen=True)
class Part:
    """One block's share of a contrast: `weights @ score[runs]` is its difference, expected to be effect x `dose`."""

    runs: tuple[int, ...]
    weights: tuple[float, ...]  # sum to 0
    dose: float = 1.0


@dataclass(frozen=True)
class Term:
    """One contrast inside blocks: its mean per unit of dose, or how it changes with the dose (`slope`)."""

    name: str
    label: str
    parts: tuple[Part, ...]
    slope: bool = False


def usable(term: Term) -> bool:
    """Return whether enough blocks carry the contrast, with a dose that is not zero, or with two doses for a slope."""
    if term.slope:
        return len(term.parts) >= MIN_SLOPE_BLOCKS and len({round(part.dose, 6) for part in term.parts}) > 1
    return sum(abs(part.dose) > 1e-12 for part in term.parts) >= MIN_BLOCKS


def difference(plus: Sequence[int], minus: Sequence[int], dose: float = 1.0) -> Part:
    """Return the part that compares the mean of some runs with the mean of others."""
    weights = [1.0 / len(plus)] * len(plus) + [-1.0 / len(minus)] * len(minus)
    return Part((*plus, *minus), tuple(weights), dose)


def evaluate(kind: str, terms: Sequence[Term], score: Floats, redraws: int, rng: np.random.Generator) -> list[Estimate]:
    """Estimate contrasts by regression over blocks, through the origin unless the term is a slope.

    p-values come from rearranging runs inside blocks; those of slopes from rearranging doses over blocks.

    Args:
        kind: Kind of the effects, order or gap.
        terms: Usable terms.
        score: Shape (n,) over the rows of the table, in seed standard deviations.
        redraws: See `within_block_p`.
        rng: Frozen stream of this (ability, kind).
    """
    p_of = _p_values([term for term in terms if not term.slope], score, redraws, rng)
    found = []
    for term in terms:
        doses = np.array([part.dose for part in term.parts])
        diffs = np.array([np.dot(part.weights, score[list(part.runs)]) for part in term.parts])
        df = len(diffs) - 1
        if term.slope:
            doses, diffs, df = doses - doses.mean(), diffs - diffs.mean(), df - 1
            one_stratum = np.zeros(len(diffs), dtype=np.int64)
            p_of[term.name] = float(permutation_p(doses[:, None], diffs, one_stratum, redraws, rng)[0])
        slope = float(doses @ diffs / (doses @ doses))
        se = float(np.sqrt(np.sum((diffs - slope * doses) ** 2) / df / (doses @ doses)))
        low, high = interval(slope, se, df)
        found.append(
            Estimate(
                kind, term.name, term.label, slope, se, float(low), float(high), p_of[term.name], slope, len(diffs)
            )
        )
    return shrink(found)


def _p_values(terms: Sequence[Term], score: Floats, redraws: int, rng: np.random.Generator) -> dict[str, float]:
    """Return p-values; terms over the same runs share their redraws, which costs one matrix product for all of them."""
    groups: dict[tuple[tuple[int, ...], ...], list[Term]] = {}
    for term in terms:
        groups.setdefault(tuple(part.runs for part in term.parts), []).append(term)
    p_of = {}
    for runs, members in groups.items():
        weights = [np.array([term.parts[b].weights for term in members]).T for b in range(len(runs))]
        doses = [np.array([term.parts[b].dose for term in members]) for b in range(len(runs))]
        p = within_block_p(weights, doses, [score[list(r)] for r in runs], redraws, rng)
        p_of.update({term.name: float(value) for term, value in zip(members, p, strict=True)})
    return p_of


def shrink(found: Sequence[Estimate]) -> list[Estimate]:
    """Pull estimates of one family towards zero by how much of their spread is noise.

    Normal effects around zero with the variance of the method of moments; few or noisy estimates are pulled far.
    """
    from dataclasses import replace

    if not found:
        return []
    spread = float(np.mean([e.estimate**2 - e.se**2 for e in found]))
    variance = max(0.0, spread)
    return [replace(e, shrunk=e.estimate * variance / (variance + e.se**2) if variance > 0 else 0.0) for e in found]
