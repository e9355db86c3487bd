"""A mixed model of the scores: arms are fixed, sets are random, and part of a set is the sum of its books.

    score = arm + (sum of book effects + rest of the set) + residual

Variances are chosen by restricted maximum likelihood (REML) on a grid. With the books' sum as a kernel over sets, this
is the GBLUP of genomic prediction, exact for unbalanced numbers of runs and as cheap for many books as for few. Its
posterior means shrink what one run says towards what the books and the other runs say, which is what a ranking needs:
the best of a thousand raw scores is mostly luck.

Sources: Patterson and Thompson 1971 (REML); Henderson 1975 (BLUP and its error); VanRaden 2008 (GBLUP).

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
    """Cross-products of [arms, score], once for all variances."""

    def __init__(self, layout: Layout, score: Floats) -> None:
        self.layout = layout
        both = np.column_stack([layout.arms, score])
        self.root = np.sqrt(layout.runs_per_set)
        self.between = layout.set_means(both) * self.root[:, None]
        self.within = both.T @ both - self.between.T @ self.between
        self.n, self.q = layout.arms.shape

    def solve(self, spectrum: Spectrum, ratio: float, rotated: Floats) -> tuple[float, Floats, Floats, float]:
        """Return (REML log likelihood, inverse of arms' information, arm estimates, residual variance)."""
        weights = 1.0 / (1.0 + ratio * spectrum.values)
        cross = self.within + rotated.T @ (weights[:, None] * rotated)
        q, df = self.q, self.n - self.q
        inverse = np.linalg.inv(cross[:q, :q])
        arms = inverse @ cross[:q, q]
        variance = max(float(cross[q, q] - cross[q, :q] @ arms) / df, 1e-300)
        determinant = float(np.linalg.slogdet(cross[:q, :q])[1])
        likelihood = -0.5 * (df * np.log(variance) - float(np.sum(np.log(weights))) + determinant)
        return float(likelihood), np.asarray(inverse), np.asarray(arms), variance


def fit(layout: Layout, score: Floats, decompositions: list[Spectrum]) -> Fit | None:
    """Fit the model to the scores of a layout's runs.

    Args:
        layout: The runs.
        score: Shape (n,), finite, in the order of the layout.
        decompositions: `spectra(layout)`.

    Returns:
        The fit, or None when the arms use up all runs.
    """
    reduced = _Reduced(layout, score)
    if reduced.n - reduced.q < 1:
        return None
    best: tuple[float, Spectrum, float, Floats] | None = None
    for spectrum in decompositions:
        rotated = spectrum.vectors.T @ reduced.between
        likelihoods = [reduced.solve(spectrum, float(r), rotated)[0] for r in _RATIOS]
        centre = float(_RATIOS[int(np.argmax(likelihoods))])
        for ratio in centre * _FINER if centre > 0 else np.zeros(1):
            likelihood = reduced.solve(spectrum, float(ratio), rotated)[0]
            # Equal likelihoods (no set variance at all) must not depend on rounding: the first share stays.
            if best is None or likelihood > best[0] + 1e-9:
                best = (likelihood, spectrum, float(ratio), rotated)
    assert best is not None  # there is always share 0
    return _predict(reduced, best[1], best[2], best[3])


def _predict(reduced: _Reduced, spectrum: Spectrum, ratio: float, rotated: Floats) -> Fit:
    """Return BLUPs and the covariance of their errors for chosen variances."""
    layout, q, root = reduced.layout, reduced.q, reduced.root
    _, inverse, arms, variance = reduced.solve(spectrum, ratio, rotated)
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
        df=float(reduced.n - q),
    )


def _first_places(layout: Layout) -> list[int]:
    """Return the first run of every distinct variant, in layout order."""
    first: dict[str, int] = {}
    for place, variant in enumerate(layout.variants):
        first.setdefault(variant.variant_id, place)
    return list(first.values())
