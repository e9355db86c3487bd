"""Local false sign rates: how likely it is that an effect has the other sign than its estimate, or none.

Effects of one family are taken as draws from an unknown distribution with its peak at zero, a mixture of normals of
many widths, which is learned from the estimates and their standard errors (empirical Bayes).

Source: Stephens 2017, False discovery rates: a new deal (ash); the penalty on the weight at zero is his.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltm.patterns.table import Floats

_STEPS = 500
_SETTLED = 1e-6
_NULL_PENALTY = 10.0
_FEWEST = 4  # effects from which a distribution can be learned; below, half of them are taken as null


@dataclass(frozen=True)
class Shrunk:
    """Posterior of a family of effects: for each of K effects a mixture of W normals; width 0 = exactly no effect."""

    share: Floats  # (K, W) posterior weight of each normal
    mean: Floats  # (K, W)
    sd: Floats  # (K, W)

    def means(self) -> Floats:
        """Return the posterior means, shape (K,)."""
        return np.asarray(np.sum(self.share * self.mean, axis=1))

    def variances(self) -> Floats:
        """Return the posterior variances, shape (K,)."""
        return np.asarray(np.sum(self.share * (self.sd**2 + self.mean**2), axis=1) - self.means() ** 2)

    def draws(self, n: int, rng: np.random.Generator) -> Floats:
        """Return independent posterior draws, shape (n, K)."""
        upto = np.cumsum(self.share, axis=1)
        which = np.sum(rng.random((n, len(upto), 1)) * upto[None, :, -1:] > upto[None], axis=2)
        effects = np.arange(len(upto))
        return np.asarray(self.mean[effects, which] + self.sd[effects, which] * rng.standard_normal(which.shape))


def shrink(estimate: Floats, se: Floats, null_penalty: float = 1.0) -> Shrunk:
    """Return the posterior of a family of effects.

    Args:
        estimate: Shape (K,), finite.
        se: Shape (K,), above zero.
        null_penalty: Above 1 the weight at zero is overestimated, so that nothing is said of single effects too easily;
            at 1 it is the likeliest one, for what is said of sums of them.
    """
    widths, weights = learn(estimate, se, null_penalty)
    sd = np.sqrt(se[:, None] ** 2 + widths[None, :] ** 2)
    log_density = -0.5 * (estimate[:, None] / sd) ** 2 - np.log(sd)
    density = np.exp(log_density - log_density.max(axis=1)[:, None]) * weights
    shrinkage = widths**2 / sd**2
    return Shrunk(
        density / density.sum(axis=1)[:, None], shrinkage * estimate[:, None], np.sqrt(shrinkage) * se[:, None]
    )


def learn(estimate: Floats, se: Floats, null_penalty: float = _NULL_PENALTY) -> tuple[Floats, Floats]:
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
    prior[0] = null_penalty
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
    found = shrink(estimate, se, _NULL_PENALTY)
    something = found.sd > 0
    below = np.where(something, ndtr(-found.mean / np.maximum(found.sd, 1e-300)), 0.0)
    above = np.where(something, 1.0 - below, 0.0)
    positive, negative = np.sum(found.share * above, axis=1), np.sum(found.share * below, axis=1)
    return 1.0 - np.maximum(positive, negative), found.means()
