"""How much of what differs between runs is the set, and where each run stands in the design.

Source: intraclass correlation ICC(1) from a one-way random model with the exact F interval (Shrout & Fleiss 1979; n0
for unequal groups, Searle).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri  # scipy.stats takes a second to import

from ltm.records import Variant
from ltm.scores.rules import Array
from ltm.scores.seeds import without_seed_effects

_CONFIDENCE = 0.90


@dataclass(frozen=True)
class Layout:
    """Where each run stands in the design, so that what orders and gaps do is not taken for what sets do."""

    base: NDArray[np.bool_]  # run of a base arm in the commonest base order: the ICC is about these
    cells: list[str]  # template, arm, order, gap kind, density and seed: split-half compares runs within them
    seeds: list[int]  # init seed of each run

    @classmethod
    def of(cls, variant_ids: Sequence[str], seeds: Sequence[int], variants: Sequence[Variant]) -> Layout:
        """Return the layout of runs; a run whose variant is not in the design is no base arm and alone in its cell."""
        by_id = {variant.variant_id: variant for variant in variants}
        known = [by_id.get(variant_id) for variant_id in variant_ids]
        orders = Counter(variant.order for variant in known if variant is not None and variant.arm == "base")
        commonest = min(orders, key=lambda order: (-orders[order], order), default=None)
        base = [variant is not None and variant.arm == "base" and variant.order == commonest for variant in known]
        cells = [
            f"unknown {place}" if v is None else f"{v.template} {v.arm} {v.order} {v.gap_kind} {v.density}"
            for place, v in enumerate(known)
        ]
        users = Counter(seeds)
        cells = [f"{cell} {seed if users[seed] > 1 else ''}" for cell, seed in zip(cells, seeds, strict=True)]
        return cls(np.array(base, dtype=bool), cells, list(seeds))

    @classmethod
    def flat(cls, n_runs: int) -> Layout:
        """Return the layout of runs that differ in their sets only."""
        return cls(np.ones(n_runs, dtype=bool), ["base"] * n_runs, list(range(n_runs)))

    def icc(self, values: Array, variants: Sequence[str]) -> Icc:
        """Return the ICC of the base arms, common init seeds taken out."""
        own = np.flatnonzero(self.base).tolist()
        names = [variants[i] for i in own]
        adjusted, n_effects = without_seed_effects(values[own], names, [self.seeds[i] for i in own])
        return icc(adjusted, names, n_effects)


@dataclass(frozen=True)
class Icc:
    """ICC(1) with its interval; NaN where no variant was trained with two seeds."""

    value: float
    low: float
    high: float
    seed_sd: float
    n_extra: int  # runs beyond the first of their variant


def icc(values: Array, groups: Sequence[str], n_effects: int = 0) -> Icc:
    """Return the share of the variance between runs that is the group (the set) and not the seed.

    Args:
        values: One per run.
        groups: The variant of each run.
        n_effects: Effects of common init seeds that were estimated and taken out, a degree of freedom each.
    """
    code = codes_of(groups)
    sizes = np.bincount(code).astype(float)
    n, g = len(values), len(sizes)
    extra = n - g - n_effects
    if extra < 1 or g < 2 or not np.all(np.isfinite(values)):
        return Icc(math.nan, math.nan, math.nan, math.nan, max(extra, 0))
    means = np.bincount(code, weights=values) / sizes
    within = float(np.sum((values - means[code]) ** 2)) / extra
    between = float(np.sum(sizes * (means - values.mean()) ** 2)) / (g - 1)
    n0 = (n - float(np.sum(sizes**2)) / n) / (g - 1)
    seed_sd = math.sqrt(within)
    if within <= 1e-30:
        same = 1.0 if between > 1e-30 else math.nan
        return Icc(same, same, same, seed_sd, extra)
    f = between / within
    tail = (1 - _CONFIDENCE) / 2
    f_low = f / float(fdtri(g - 1, extra, 1 - tail))
    f_high = f * float(fdtri(extra, g - 1, 1 - tail))
    low, value, high = (min(1.0, max(0.0, (x - 1) / (x + n0 - 1))) for x in (f_low, f, f_high))
    return Icc(value, low, high, seed_sd, extra)


def codes_of(names: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for every name, equal names alike, in sorted order."""
    place = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], dtype=np.int64)


def decision_accuracy(values: Array, groups: Sequence[str], base: NDArray[np.bool_] | None = None) -> float:
    """Return how often two seeds agree which of two sets is better; NaN without two sets with two runs each.

    Args:
        values: One per run.
        groups: The variant of each run.
        base: Runs that count; None = all.
    """
    firsts, seconds = [], []
    for name in dict.fromkeys(groups):
        own = [i for i, group in enumerate(groups) if group == name and (base is None or base[i])]
        if len(own) >= 2:
            firsts.append(values[own[0]])
            seconds.append(values[own[1]])
    one, two = np.array(firsts), np.array(seconds)
    if len(one) < 2 or not (np.isfinite(one).all() and np.isfinite(two).all()):
        return math.nan
    upper = np.triu_indices(len(one), 1)
    signs = [np.sign(x[:, None] - x[None, :])[upper] for x in (one, two)]
    return float(np.mean(np.where(signs[0] * signs[1] == 0, 0.5, signs[0] == signs[1])))
