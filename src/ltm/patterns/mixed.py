"""A mixed model of the scores: arms are fixed or random, sets are random, and part of a set is the sum of its books.

    score = arm + (sum of book effects + rest of the set) + residual

Variances are chosen by restricted maximum likelihood (REML) on a grid. With the books' sum as a kernel over sets, this
is the GBLUP of genomic prediction, exact for unbalanced numbers of runs and as cheap for many books as for few. Its
posterior means shrink what one run says towards what the books and the other runs say, which is what a ranking needs:
the best of a thousand raw scores is mostly luck.

A ranking takes its arms as random too, with a variance of their own, so that they are shrunk like everything else. Few
arms often have a likelihood that is highest at no variance at all, which would call them exactly equal; a weak prior on
their standard deviation keeps it above zero.

Sources: Patterson and Thompson 1971 (REML); Henderson 1975 (BLUP and its error); VanRaden 2008 (GBLUP); Chung,
Rabe-Hesketh, Dorie, Gelman and Liu 2013 (gamma prior on the standard deviation of few groups).

Legend: n runs, S sets, B books, q columns of arms; R = diag(runs per set), H = R^1/2 (share K + (1 - share) I) R^1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltm.patterns.layout import Layout
from ltm.patterns.table import Floats

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the set variance that is the sum of books
_RATIOS = np.concatenate([[0.0], np.geomspace(1e-3, 1e2, 41)])  # set variance / residual variance
_FINER = np.geomspace(0.8, 1.25, 9)
_ARM_SDS = np.geomspace(0.05, 10.0, 30)  # of random arms / residual standard deviation
_LIKELY_ARM_SD = 0.5  # mode of their gamma prior of shape 2, where the scores say nothing


@dataclass(frozen=True)
class Spectrum:
    """The eigenvectors of H for one share; they do not depend on the scores, so abilities reuse them."""

    share: float
    kernel: Floats  # (S, S), mean diagonal 1
    values: Floats  # (S,)
    vectors: Floats  # (S, S)


@dataclass(frozen=True)
class Fit:
    """Estimates of the mixed model, in the unit of the score."""

    residual_variance: float
    set_variance: float  # of a whole set: books and rest together
    book_share: float  # of the set variance that is the sum of its books
    book_effects: Floats  # (B,) posterior means against the average book
    posterior: Floats  # (n,) arm + set of each run, centred over distinct variants
    covariance: Floats  # (V, V) of the errors of `posterior` over distinct variants
    df: float

    @property
    def set_share(self) -> float:
        """Return the share of one run's variance (arms taken out) that belongs to its set: the h2 of SCIENCE."""
        total = self.set_variance + self.residual_variance
        return self.set_variance / total if total > 0 else 0.0


def spectra(layout: Layout) -> list[Spectrum]:
    """Return the decompositions that `fit` searches; without any variation in membership only `share` 0."""
    root = np.sqrt(layout.runs_per_set)
    identity = np.eye(len(layout.set_ids))
    centred = layout.membership - layout.membership.mean(axis=0)
    kernel = centred @ centred.T
    scale = float(np.mean(np.diag(kernel)))
    if scale <= 1e-12:
        return [Spectrum(0.0, identity, layout.runs_per_set, identity)]
    kernel = kernel / scale
    found = [Spectrum(0.0, identity, layout.runs_per_set, identity)]
    even = np.ptp(layout.runs_per_set) == 0  # then all shares have the eigenvectors of the kernel
    for share in _SHARES[1:]:
        mixed = share * kernel + (1.0 - share) * identity
        if even and len(found) > 1:
            runs, last = layout.runs_per_set[0], found[-1]
            of_kernel = (last.values / runs - (1.0 - last.share)) / last.share
            values, vectors = runs * (share * of_kernel + 1.0 - share), last.vectors
        else:
            values, vectors = np.linalg.eigh(root[:, None] * mixed * root[None, :])
        found.append(Spectrum(share, mixed, np.maximum(values, 0.0), vectors))
    return found


class _Reduced:
    """Cross-products of [arms, score], once for all variances; the last `n_random` of the arms are random."""

    def __init__(self, layout: Layout, score: Floats, n_random: int) -> None:
        self.layout, self.n_random = layout, n_random
        both = np.column_stack([layout.arms, score])
        self.root = np.sqrt(layout.runs_per_set)
        self.between = layout.set_means(both) * self.root[:, None]
        self.within = both.T @ both - self.between.T @ self.between
        self.n, self.q = layout.arms.shape
        self.df = self.n - self.q + n_random

    def likelihoods(self, spectrum: Spectrum, ratio: float, rotated: Floats) -> Floats:
        """Return the REML log likelihood for each of `arm_sds`, with the log prior of random arms."""
        weights, cross = self._cross(spectrum, ratio, rotated)
        sds, q = self.arm_sds, self.q
        precision = np.zeros((len(sds), q))
        precision[:, q - self.n_random :] = 1.0 / sds[:, None] ** 2
        information = cross[:q, :q] + precision[:, :, None] * np.eye(q)
        arms = np.linalg.solve(information, np.broadcast_to(cross[:q, q, None], (len(sds), q, 1)))[:, :, 0]
        variance = np.maximum((cross[q, q] - arms @ cross[q, :q]) / self.df, 1e-300)
        determinant = np.linalg.slogdet(information)[1] + 2.0 * self.n_random * np.log(sds)
        prior = np.log(sds) - sds / _LIKELY_ARM_SD if self.n_random else 0.0
        likelihood = -0.5 * (self.df * np.log(variance) - float(np.sum(np.log(weights))) + determinant)
        return np.asarray(likelihood + prior, dtype=np.float64)

    @property
    def arm_sds(self) -> Floats:
        """Return the standard deviations of random arms that are tried."""
        return _ARM_SDS if self.n_random else np.ones(1)

    def solve(self, spectrum: Spectrum, ratio: float, arm_sd: float, rotated: Floats) -> tuple[Floats, Floats, float]:
        """Return (error covariance of the arms per residual variance, arm estimates, residual variance)."""
        cross, q = self._cross(spectrum, ratio, rotated)[1], self.q
        precision = np.zeros(q)
        precision[q - self.n_random :] = 1.0 / arm_sd**2
        inverse = np.linalg.inv(cross[:q, :q] + np.diag(precision))
        arms = inverse @ cross[:q, q]
        variance = max(float(cross[q, q] - cross[q, :q] @ arms) / self.df, 1e-300)
        return np.asarray(inverse), np.asarray(arms), variance

    def _cross(self, spectrum: Spectrum, ratio: float, rotated: Floats) -> tuple[Floats, Floats]:
        weights = 1.0 / (1.0 + ratio * spectrum.values)
        return weights, self.within + rotated.T @ (weights[:, None] * rotated)


def fit(layout: Layout, score: Floats, decompositions: list[Spectrum], n_random: int = 0) -> Fit | None:
    """Fit the model to the scores of a layout's runs.

    Args:
        layout: The runs.
        score: Shape (n,), finite, in the order of the layout.
        decompositions: `spectra(layout)`.
        n_random: How many of the last columns of `layout.arms` have random effects, alike and independent.

    Returns:
        The fit, or None when the fixed arms use up all runs.
    """
    reduced = _Reduced(layout, score, n_random)
    if reduced.df < 1:
        return None
    best: tuple[float, Spectrum, float, float, Floats] | None = None
    for spectrum in decompositions:
        rotated = spectrum.vectors.T @ reduced.between
        highest = [float(np.max(reduced.likelihoods(spectrum, float(r), rotated))) for r in _RATIOS]
        centre = float(_RATIOS[int(np.argmax(highest))])
        for ratio in centre * _FINER if centre > 0 else np.zeros(1):
            likelihoods = reduced.likelihoods(spectrum, float(ratio), rotated)
            at = int(np.argmax(likelihoods))
            # Equal likelihoods (no set variance at all) must not depend on rounding: the first share stays.
            if best is None or likelihoods[at] > best[0] + 1e-9:
                best = (float(likelihoods[at]), spectrum, float(ratio), float(reduced.arm_sds[at]), rotated)
    assert best is not None  # there is always share 0
    return _predict(reduced, *best[1:])


def _predict(reduced: _Reduced, spectrum: Spectrum, ratio: float, arm_sd: float, rotated: Floats) -> Fit:
    """Return BLUPs and the covariance of their errors for chosen variances."""
    layout, q, root = reduced.layout, reduced.q, reduced.root
    inverse, arms, variance = reduced.solve(spectrum, ratio, arm_sd, rotated)
    weights = 1.0 / (1.0 + ratio * spectrum.values)
    gamma = ratio * spectrum.kernel
    half = root[:, None] * spectrum.vectors
    signal = half @ (weights * (rotated[:, q] - rotated[:, :q] @ arms))  # Z'V^-1 (y - arms)
    sets = gamma @ signal

    centred = layout.membership - layout.membership.mean(axis=0)
    scale = float(np.mean(np.sum(centred**2, axis=1)))
    per_book = ratio * spectrum.share / scale if scale > 1e-12 else 0.0

    information = (half * weights) @ half.T  # Z'V^-1 Z
    leak = gamma @ (half @ (weights[:, None] * rotated[:, :q]))  # G Z'V^-1 arms
    set_errors = gamma - gamma @ information @ gamma + leak @ inverse @ leak.T
    places = _first_places(layout)
    arm_rows, set_rows = layout.arms[places], layout.set_of[places]
    crossed = arm_rows @ inverse @ leak[set_rows].T
    covariance = arm_rows @ inverse @ arm_rows.T - crossed - crossed.T + set_errors[np.ix_(set_rows, set_rows)]
    covariance = covariance - covariance.mean(axis=0) - covariance.mean(axis=1)[:, None] + covariance.mean()
    posterior = layout.arms @ arms + sets[layout.set_of]
    return Fit(
        residual_variance=variance,
        set_variance=ratio * variance,
        book_share=spectrum.share,
        book_effects=per_book * (centred.T @ signal),
        posterior=posterior - float(np.mean(posterior[places])),
        covariance=variance * covariance,
        df=float(reduced.df),
    )


def _first_places(layout: Layout) -> list[int]:
    """Return the first run of every distinct variant, in layout order."""
    first: dict[str, int] = {}
    for place, variant in enumerate(layout.variants):
        first.setdefault(variant.variant_id, place)
    return list(first.values())
