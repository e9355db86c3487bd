"""ICC of bits per byte between sets, with a bootstrap interval, and findings per hour."""

# ruff: noqa: N803, N806  (names carry shapes)
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_DRAWS = 2000


def icc(values_SR: Array, two_way: bool) -> float:
    """Return the share of variance that is the set's, of one run.

    Args:
        values_SR: One row a set, one column a replicate.
        two_way: Replicates share seeds over all sets, so their own means are no noise between sets.
    """
    between, within = components(values_SR, two_way)
    total = between + within
    return between / total if total > 0 else math.nan


def components(values_SR: Array, two_way: bool) -> tuple[float, float]:
    """Return the variance between sets (may come out negative) and within."""
    S, R = values_SR.shape
    centred = values_SR - values_SR.mean()
    if two_way:
        centred = centred - centred.mean(0)
    set_means = centred.mean(1)
    ms_between = R * float((set_means**2).sum()) / (S - 1)
    rest = float(((centred - set_means[:, None]) ** 2).sum())
    ms_within = rest / ((S - 1) * (R - 1) if two_way else S * (R - 1))
    return (ms_between - ms_within) / R, ms_within


def interval(values_SR: Array, two_way: bool, seed: int = 0) -> tuple[float, float]:
    """Return the 90 % interval of the ICC: sets drawn anew with their replicates."""
    rng = np.random.default_rng(seed)
    S = len(values_SR)
    drawn = [icc(values_SR[rng.integers(0, S, S)], two_way) for _ in range(_DRAWS)]
    low, high = np.nanquantile(drawn, [0.05, 0.95])
    return float(low), float(high)


def gain(one_SR: Array, plain_SR: Array, two_way: tuple[bool, bool], seconds: tuple[float, float]) -> list[float]:
    """Return how many times the findings per hour of a plain recipe one has: the value and its 90 % interval.

    Both have the same sets, which are drawn anew together.
    """
    rng = np.random.default_rng(0)
    S = len(one_SR)
    rows = [np.arange(S), *(rng.integers(0, S, S) for _ in range(_DRAWS))]
    speed = seconds[1] / seconds[0]
    ratios = [speed * icc(one_SR[r], two_way[0]) / max(icc(plain_SR[r], two_way[1]), 0.01) for r in rows]
    return [ratios[0], *(float(q) for q in np.nanquantile(ratios[1:], [0.05, 0.95]))]


def validity(one_SR: Array, other_SR: Array, two_way: tuple[bool, bool]) -> float:
    """Return the correlation of two recipes' set effects, both cleaned of seed noise; above 1 is noise."""
    reliability = 1.0
    for values, both in zip((one_SR, other_SR), two_way, strict=True):
        single = icc(values, both)
        R = values.shape[1]
        reliability *= R * single / (1 + (R - 1) * single)
    if not reliability > 0:
        return math.nan
    r = float(np.corrcoef(one_SR.mean(1), other_SR.mean(1))[0, 1])
    return r / math.sqrt(reliability)
