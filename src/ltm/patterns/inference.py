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
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.store import fingerprint

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sparse = Any  # scipy.sparse.csr_array; scipy has no types

_CHUNK_CELLS = 2_000_000  # numbers held at once: 16 MB
_SINGLE_FROM = 2e10  # multiplications from which single precision is enough and twice as fast
_FEWEST_POOLED = 20  # statistics, and scores, that make a pool
_TAIL_SD = 3.0  # of permutation sds: beyond it redraws are pooled
_ENOUGH_HITS = 10
_TIE = 1e-9  # relative: sums of the same numbers in another order count as equal


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the frozen random stream of one (ability, kind), independent of what else is computed."""
    return np.random.default_rng(int(fingerprint([seed, "patterns", *names]), 16))


def permutation_p(
    coefficients: Floats | Sparse,
    scores: Floats,
    strata: Ints,
    redraws: int,
    rng: np.random.Generator,
    inflation: Floats | None = None,
    pooled: bool = False,
) -> Floats:
    """Return two-sided p-values of linear statistics when scores are permuted within strata.

    Args:
        coefficients: Shape (S, K), dense or sparse: statistic k is `coefficients[:, k] @ scores`.
        scores: Shape (S,).
        strata: Shape (S,): sets that were drawn by one law; scores move only inside their stratum.
        redraws: Random permutations, the identity not counted.
        rng: Frozen stream.
        inflation: Shape (K,): what the observed statistics are multiplied by before they are compared; default 1.
        pooled: Statistics are alike after division by their permutation sd: where fewer than ten redraws of its own
            reach a statistic, those of all K count, so that a p may be smaller than 1 / (redraws + 1).

    Returns:
        Shape (K,), each at most 1.
    """
    n_tests = coefficients.shape[1]
    observed = np.abs(np.asarray(coefficients.T @ scores).ravel())
    if inflation is not None:
        observed = observed * inflation
    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    spread = permutation_sd(coefficients, scores, groups)
    pool = pooled and n_tests >= _FEWEST_POOLED and len(scores) >= _FEWEST_POOLED
    single = float(np.prod([len(scores), n_tests, redraws], dtype=np.float64)) > _SINGLE_FROM
    kind = np.float32 if single else np.float64
    scores, turned = scores.astype(kind), coefficients.T.astype(kind)
    floor = (observed * (1 - (2e-6 if single else _TIE)) - _TIE * 1e-3).astype(kind)
    tail = (_TAIL_SD * spread).astype(kind) if pool else None
    hits = np.zeros(n_tests, dtype=np.int64)
    tails: list[Floats] = []
    chunk = max(1, min(redraws, _CHUNK_CELLS // max(1, *coefficients.shape)))
    for start in range(0, redraws, chunk):
        size = min(chunk, redraws - start)
        drawn = np.empty((size, len(scores)), dtype=kind)
        for rows in groups:
            drawn[:, rows] = rng.permuted(np.tile(scores[rows], (size, 1)), axis=1)
        reached = np.abs(np.asarray(turned @ drawn.T))
        hits += np.sum(reached >= floor[:, None], axis=1)
        if tail is not None:
            test, draw = np.nonzero(reached > tail[:, None])
            tails.append((reached[test, draw] / np.maximum(spread[test], 1e-300)).astype(np.float64))
    p = (1 + hits) / (1 + redraws)
    if tail is not None:
        p = _with_pool(p, hits, observed / np.maximum(spread, 1e-300), np.concatenate(tails), redraws * n_tests)
    return np.asarray(p, dtype=np.float64)


def _with_pool(p: Floats, hits: Ints, observed: Floats, tails: Floats, n_pooled: int) -> Floats:
    """Return p-values with those of few hits replaced by the share of all redraws of all statistics that reach them."""
    ordered = np.sort(tails)
    reached = len(ordered) - np.searchsorted(ordered, observed * (1 - 1e-6), side="left")
    shared = (1 + reached) / (1 + n_pooled)
    few = (hits < _ENOUGH_HITS) & (observed > _TAIL_SD)
    return np.where(few, np.minimum(p, shared), p)


def permutation_sd(coefficients: Floats | Sparse, scores: Floats, groups: Sequence[Ints]) -> Floats:
    """Return the exact standard deviation of each statistic over all permutations within groups, shape (K,)."""
    total = np.zeros(coefficients.shape[1])
    for rows in groups:
        if len(rows) < 2:
            continue
        part = coefficients[rows]
        if isinstance(part, np.ndarray):
            squares, sums = np.sum(part**2, axis=0), np.sum(part, axis=0)
        else:
            squares, sums = np.asarray((part * part).sum(axis=0)).ravel(), np.asarray(part.sum(axis=0)).ravel()
        total += np.maximum(squares - sums**2 / len(rows), 0.0) * float(np.var(scores[rows], ddof=1))
    return np.asarray(np.sqrt(total), dtype=np.float64)


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
