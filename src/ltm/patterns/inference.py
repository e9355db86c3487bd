"""Randomisation p-values from the stored design, and the false discovery rate over the whole study.

The design was drawn by a known randomiser, so p-values need no model of the noise. Which books belong to which set is
a near-balanced incidence under uniformly random row and column permutations: if books do not matter, every assignment
of the set-level scores to the sets of one template is equally likely. Within a block the arms are exchangeable if
they do not matter. A p-value is the share of such redraws that are at least as extreme as the design that was run.

Sources: Fisher's randomisation test; Phipson and Smyth 2010 for (1 + #) / (1 + redraws); Benjamini and Hochberg 1995;
Simes 1986; Benjamini and Bogomolov 2014 for the selection of families.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ltm.store import fingerprint

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CHUNK_CELLS = 2_000_000  # numbers held at once: 16 MB
_TIE = 1e-9  # relative: sums of the same numbers in another order count as equal


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the frozen random stream of one (ability, kind), independent of what else is computed."""
    return np.random.default_rng(int(fingerprint([seed, "patterns", *names]), 16))


def permutation_p(coefficients: Floats, scores: Floats, strata: Ints, redraws: int, rng: np.random.Generator) -> Floats:
    """Return two-sided p-values of linear statistics when scores are permuted within strata.

    Args:
        coefficients: Shape (S, K): statistic k is `coefficients[:, k] @ scores`.
        scores: Shape (S,).
        strata: Shape (S,): template of each set; scores move only inside their stratum.
        redraws: Random permutations, the identity not counted.
        rng: Frozen stream.

    Returns:
        Shape (K,), each in [1 / (redraws + 1), 1].
    """
    observed = np.abs(coefficients.T @ scores)
    hits = np.zeros(coefficients.shape[1], dtype=np.int64)
    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    chunk = max(1, min(redraws, _CHUNK_CELLS // max(1, *coefficients.shape)))
    for start in range(0, redraws, chunk):
        size = min(chunk, redraws - start)
        drawn = np.empty((size, len(scores)))
        for rows in groups:
            drawn[:, rows] = rng.permuted(np.tile(scores[rows], (size, 1)), axis=1)
        hits += _hits(drawn @ coefficients, observed)
    return np.asarray((1 + hits) / (1 + redraws), dtype=np.float64)


def within_block_p(
    weights: Sequence[Floats], doses: Sequence[Floats], scores: Sequence[Floats], redraws: int, rng: np.random.Generator
) -> Floats:
    """Return two-sided p-values of slopes over blocks when scores are permuted inside their blocks.

    The statistic is the slope through the origin divided by the root of the summed squares of the differences. With
    two runs to a block this is the sign-flip test; with more, the division keeps the test exact where nothing matters
    and sensible where the other arms of the block differ among themselves (a studentised permutation test, Chung and
    Romano 2013). When all rearrangements together are no more than the redraws, they are enumerated.

    Args:
        weights: One array of shape (m_b, K) per block b: `weights.T @ scores` are its differences.
        doses: One array of shape (K,) per block: what each difference is expected to be proportional to.
        scores: One array of shape (m_b,) per block.
        redraws: Random rearrangements when there are too many to enumerate.
        rng: Frozen stream.

    Returns:
        Shape (K,).
    """
    diffs = np.array([w.T @ y for w, y in zip(weights, scores, strict=True)])
    observed = _studentised(np.sum(diffs * np.array(doses), axis=0), np.sum(diffs**2, axis=0))
    if math.prod(math.factorial(min(len(y), 20)) for y in scores) <= redraws + 1:
        return _enumerated_p(weights, doses, scores, observed)
    sizes = np.array([len(y) for y in scores])
    hits = np.zeros(len(observed), dtype=np.int64)
    chunk = max(1, min(redraws, _CHUNK_CELLS // (int(sizes.sum()) * (1 if sizes.max() == 2 else len(observed)))))
    for start in range(0, redraws, chunk):
        n = min(chunk, redraws - start)
        slope, squares = np.zeros((n, len(observed))), np.zeros((n, len(observed)))
        for size in np.unique(sizes):
            blocks = np.flatnonzero(sizes == size).tolist()
            drawn = rng.permuted(np.tile(np.array([scores[b] for b in blocks]), (n, 1, 1)), axis=2)
            dosed = np.concatenate([weights[b] * doses[b] for b in blocks])
            slope += drawn.reshape(n, -1) @ dosed
            if size == 2:  # both rearrangements have the same square
                squares += np.sum(diffs[blocks] ** 2, axis=0)
            else:
                squares += np.sum(np.einsum("nbm,bmk->nbk", drawn, np.array([weights[b] for b in blocks])) ** 2, axis=1)
        hits += _hits(_studentised(slope, squares), observed)
    return np.asarray((1 + hits) / (1 + redraws), dtype=np.float64)


def _studentised(slope: Floats, squares: Floats) -> Floats:
    return np.asarray(np.abs(slope) / np.sqrt(np.maximum(squares, 1e-300)), dtype=np.float64)


def _enumerated_p(
    weights: Sequence[Floats], doses: Sequence[Floats], scores: Sequence[Floats], observed: Floats
) -> Floats:
    slope, squares = np.zeros((1, len(observed))), np.zeros((1, len(observed)))
    for w, dose, y in zip(weights, doses, scores, strict=True):
        diffs = y[np.array(list(itertools.permutations(range(len(y)))))] @ w
        slope = (slope[:, None, :] + diffs * dose).reshape(-1, len(observed))
        squares = (squares[:, None, :] + diffs**2).reshape(-1, len(observed))
    drawn = _studentised(slope, squares)
    return np.asarray(_hits(drawn, observed) / len(drawn), dtype=np.float64)


def _hits(drawn: Floats, observed: Floats) -> Ints:
    return np.asarray(np.sum(np.abs(drawn) >= observed * (1 - _TIE) - _TIE * 1e-3, axis=0), dtype=np.int64)


def bh_adjusted(p: Floats) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values, in the order given.

    >>> [round(float(x), 3) for x in bh_adjusted(np.array([0.01, 0.04, 0.03]))]
    [0.03, 0.04, 0.04]
    """
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * m / np.arange(1, m + 1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return adjusted


def simes(p: Floats) -> float:
    """Return Simes' p-value of the hypothesis that nothing in a family is real: its smallest adjusted p-value."""
    return float(np.min(bh_adjusted(p)))


def two_stage_q(families: Sequence[Floats]) -> list[Floats]:
    """Return q-values such that `q <= level` is what the two-stage procedure claims at that level.

    At a level a, Benjamini-Hochberg over the families' Simes p-values selects R of m families; within a selected family
    Benjamini-Hochberg runs at a * R / m. A larger level never claims less, so the smallest level that claims a
    hypothesis exists; it is its q-value. With nothing real anywhere, any claim needs a selected family, and that
    happens with probability at most `level`.

    Args:
        families: p-values, one array per family of tests.

    Returns:
        q-values in the same shapes, at most 1.
    """
    m = len(families)
    if m == 0:
        return []
    selected_from = bh_adjusted(np.array([simes(p) for p in families]))  # level from which each family is selected
    count_from = np.sort(selected_from)  # level from which at least 1, 2, ... families are selected
    counts = np.arange(1, m + 1)
    q = []
    for p, entry in zip(families, selected_from, strict=True):
        needed = np.maximum(count_from[None, :], bh_adjusted(p)[:, None] * m / counts[None, :])
        q.append(np.minimum(1.0, np.maximum(entry, needed.min(axis=1))))
    return q
