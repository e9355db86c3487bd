"""Local false sign rates: how likely it is that an effect has the other sign than its estimate, or none.

Effects of one family are taken as draws from an unknown distribution with its peak at zero, a mixture of normals of
many widths, which is learned from the estimates and their standard errors (empirical Bayes).

Source: Stephens 2017, False discovery rates: a new deal (ash); the penalty on the weight at zero is his.
"""

from __future__ import annotations

import numpy as np

from ltm.patterns.table import Floats

_STEPS = 500
_SETTLED = 1e-6
_NULL_PENALTY = 10.0
_FEWEST = 4  # effects from which a distribution can be learned; below, half of them are taken as null


def learn(estimate: Floats, se: Floats) -> tuple[Floats, Floats]:
    """Return (widths, weights) of the mixture that the effects come from; the first width is 0."""
    smallest = float(np.min(se)) / 5.0
    largest = 2.0 * float(np.sqrt(max(np.max(estimate**2 - se**2), smallest**2 * 4.0)))
    n = max(2, int(np.ceil(np.log2(largest / smallest) * 2.0)) + 1)
    widths = np.concatenate([[0.0], smallest * 2.0 ** (np.arange(n) / 2.0)])
    if len(estimate) < _FEWEST:
        width = float(np.sqrt(np.mean(estimate**2)))
        return np.array([0.0, max(width, smallest)]), np.array([0.5, 0.5])
    sd = np.sqrt(se[:, None] ** 2 + widths[None, :] ** 2)
    log_density = -0.5 * (estimate[:, None] / sd) ** 2 - np.log(sd)
    density = np.exp(log_density - log_density.max(axis=1)[:, None])
    prior = np.ones(len(widths))
    prior[0] = _NULL_PENALTY
    weights = np.full(len(widths), 1.0 / len(widths))
    for _ in range(_STEPS):
        share = density * weights
        share /= share.sum(axis=1)[:, None]
        fresh = share.sum(axis=0) + prior - 1.0
        fresh /= fresh.sum()
        moved = float(np.abs(fresh - weights).max())
        weights = fresh
        if moved < _SETTLED:
            break
    return widths, weights


def sign_rates(estimate: Floats, se: Floats) -> tuple[Floats, Floats]:
    """Return (local false sign rates, posterior means) of a family of effects, each shape (K,).

    Args:
        estimate: Shape (K,), finite.
        se: Shape (K,), at least zero.
    """
    from scipy.special import ndtr

    if not len(estimate):
        return np.zeros(0), np.zeros(0)
    size = float(np.max(np.abs(estimate)))
    if size == 0.0:
        return np.ones(len(estimate)), np.zeros(len(estimate))
    se = np.maximum(se, 1e-6 * size)  # scores without any noise have no standard error
    widths, weights = learn(estimate, se)
    sd = np.sqrt(se[:, None] ** 2 + widths[None, :] ** 2)
    log_density = -0.5 * (estimate[:, None] / sd) ** 2 - np.log(sd)
    density = np.exp(log_density - log_density.max(axis=1)[:, None]) * weights
    share = density / density.sum(axis=1)[:, None]
    shrinkage = widths**2 / sd**2
    mean = shrinkage * estimate[:, None]
    spread = np.sqrt(shrinkage) * se[:, None]
    below = np.where(widths > 0, ndtr(-mean / np.maximum(spread, 1e-300)), 0.0)
    above = np.where(widths > 0, 1.0 - below, 0.0)
    positive, negative = np.sum(share * above, axis=1), np.sum(share * below, axis=1)
    return 1.0 - np.maximum(positive, negative), np.sum(share * mean, axis=1)
