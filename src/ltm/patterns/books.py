"""What single books, features of books and whole-set terms do: one thing fixed, everything else random.

The coefficient of one book is estimated by generalised least squares with all other books as random effects: least
squares where there are many sets, the plain contrast where there are few, without a choice between them. One solve
serves all books: adding c x x' to a covariance does not move the estimate of x's own coefficient, it only adds c to its
variance, so the book's own share of the kernel is subtracted afterwards.

p-values permute the whitened set scores among sets that were drawn by one law. Where no book has an effect the scores
are whitened by numbers of runs alone, and the test is the exact randomisation test of the stored design.

Sources: Kang et al. 2008 and 2010 (EMMA, EMMAX: one marker fixed, the rest random); Henderson 1975; Freedman and Lane
1983 (permuting residuals); Fisher's randomisation test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.inference import permutation_p
from ltm.patterns.layout import Sparse
from ltm.patterns.table import Floats, Ints

_WHITE_UP_TO = 3000  # sets; beyond, residuals are permuted unwhitened and the statistics studentised
_BLOCK = 2000  # books at once
_DENSE_SHARE = 0.1
MIN_SIDE = 3  # sets with a book, and sets without it, from which it can be told by itself
_TOLD = 1e-7  # of a column's size that must be left beside the arms and the mean


@dataclass(frozen=True)
class Contrast:
    """Estimates of many single things, each shape (K,)."""

    estimate: Floats
    se: Floats
    p: Floats
    df: float


class Whitened:
    """Scores of sets made independent, and what turns columns of sets into columns over them."""

    def __init__(self, solved: mixed.Solved) -> None:
        from scipy.linalg import cholesky

        self.solved = solved
        problem, q = solved.problem, solved.problem.q
        rest = problem.between[:, q] - problem.between[:, :q] @ solved.arms
        self.is_white = len(rest) <= _WHITE_UP_TO
        self._factor = cholesky(solved.inverse, lower=True) if self.is_white else None
        self.scores = self._factor.T @ rest if self._factor is not None else solved.residual

    def columns(self, projected: Floats) -> Floats:
        """Return the coefficients over `scores` of x' M y, for M x of shape (S, K)."""
        from scipy.linalg import solve_triangular

        if self._factor is None:
            return projected
        return np.asarray(solve_triangular(self._factor, projected, lower=True))


def book_contrasts(solved: mixed.Solved, kept: Ints, redraws: int, rng: np.random.Generator, df: float) -> Contrast:
    """Return the effect of each kept book against the average book.

    Args:
        solved: The mixed model of one ability.
        kept: Places of the books that enough sets hold and enough do not.
        redraws: Permutations behind a p-value.
        rng: Frozen stream.
        df: Degrees of freedom between sets.
    """
    factors, problem = solved.problem.factors, solved.problem
    books = factors.books[:, kept].multiply(problem.root[:, None]).tocsr()
    pull = np.asarray(books.T @ solved.residual)
    own = solved.ratios.get(mixed.BOOKS, 0.0) / factors.book_scale
    parts = _Common(solved, kept)
    information = _information(solved, books)
    shared = parts.with_books(books)  # g' M x
    free = np.maximum(1.0 - own * information, 1e-6)
    estimate = (1.0 - shared) * pull / information + parts.expected
    unit = parts.prior - parts.known - own * shared**2 / free
    unit = np.maximum(unit, 0.0) + (1.0 - shared / free) ** 2 * np.maximum(1.0 / information - own, 1e-12)
    se = np.sqrt(solved.seed_variance * unit)
    se[information <= _TOLD * np.asarray((books * books).sum(axis=0)).ravel()] = np.nan
    weight = (1.0 - shared) / information
    linear = weight**2 * information + 2.0 * weight * shared + parts.known
    white = Whitened(solved)
    if not white.is_white:
        scaled = _studentised(books, white.scores, solved.problem.layout.strata, estimate / se)
        p = permutation_p(books, white.scores, solved.problem.layout.strata, redraws, rng, scaled, pooled=True)
        return Contrast(estimate, se, p, df)
    inflation = np.sqrt(np.maximum(linear, 1e-300) / unit)
    p = np.ones(len(kept))
    common = white.columns(solved.project(parts.columns)) if parts.columns.size else None
    for start in range(0, len(kept), _BLOCK * 10):
        block = slice(start, start + _BLOCK * 10)
        coefficients = white.columns(np.asarray((books[:, block].T @ solved.projector).T)) * weight[block]
        if common is not None:
            coefficients = coefficients + common @ parts.weights[block].T
        p[block] = permutation_p(
            coefficients, white.scores, solved.problem.layout.strata, redraws, rng, inflation[block], pooled=True
        )
    return Contrast(estimate, se, p, df)


def _studentised(books: Sparse, scores: Floats, strata: Ints, z: Floats) -> Floats:
    """Return what makes each observed statistic as large, in permutation sds, as its z is in standard errors."""
    from ltm.patterns.inference import permutation_sd

    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    spread = permutation_sd(books, scores, groups)
    plain = np.abs(np.asarray(books.T @ scores).ravel())
    return np.asarray(np.abs(z) * spread / np.maximum(plain, 1e-300))


class _Common:
    """What a book shares with others through its features and cluster: g = Z weights, for each kept book."""

    def __init__(self, solved: mixed.Solved, kept: Ints) -> None:
        factors = solved.problem.factors
        names = [name for name in factors.small if solved.ratios.get(name, 0.0) > 0]
        empty = np.zeros((len(kept), 0))
        self.weights = np.column_stack(
            [empty, *(solved.ratios[n] * factors.of_books[n][kept] for n in names)]
        )  # (K, m)
        root = solved.problem.root[:, None]
        self.columns = np.column_stack([np.zeros((len(root), 0)), *(factors.small[n] * root for n in names)])  # (S, m)
        self.prior = np.zeros(len(kept))
        for n in names:
            self.prior += solved.ratios[n] * np.sum(factors.of_books[n][kept] ** 2, axis=1)
        self._projected = solved.project(self.columns)
        self.expected = self.weights @ (self.columns.T @ solved.residual)
        self.known = np.sum((self.weights @ (self.columns.T @ self._projected)) * self.weights, axis=1)

    def with_books(self, books: Sparse) -> Floats:
        """Return g' M x for every book."""
        if not self.weights.shape[1]:
            return np.zeros(books.shape[1])
        return np.asarray(np.sum(np.asarray(books.T @ self._projected) * self.weights, axis=1))


def _information(solved: mixed.Solved, books: Sparse) -> Floats:
    """Return x' M x of every column of a sparse (S, K) matrix."""
    m = solved.projector
    if books.nnz > _DENSE_SHARE * books.shape[0] * books.shape[1] or books.shape[0] < 500:
        found = []
        for start in range(0, books.shape[1], _BLOCK):
            dense = books[:, start : start + _BLOCK].toarray().astype(m.dtype)
            found.append(np.sum(dense * (m @ dense), axis=0, dtype=np.float64))
        total = np.concatenate(found)
    else:
        columns = books.tocsc()
        total = np.empty(books.shape[1])
        for k in range(books.shape[1]):
            part = slice(columns.indptr[k], columns.indptr[k + 1])
            rows, values = columns.indices[part], columns.data[part]
            total[k] = values @ m[np.ix_(rows, rows)] @ values
    return np.maximum(np.asarray(total, dtype=np.float64), 1e-12)


def set_contrasts(
    solved: mixed.Solved, columns: Floats, own: Floats, redraws: int, rng: np.random.Generator, df: float
) -> Contrast:
    """Return the coefficient of each column of sets, one at a time, everything random beside it.

    Args:
        solved: The mixed model of one ability.
        columns: Shape (S, K).
        own: Shape (K,): the prior variance of the coefficient in the model (ratio to the seed's), 0 = not in the model.
        redraws: Permutations behind a p-value.
        rng: Frozen stream.
        df: Degrees of freedom.
    """
    scaled = columns * solved.problem.root[:, None]
    projected = solved.project(scaled)
    information = np.maximum(np.sum(scaled * projected, axis=0), 1e-12)
    estimate = (scaled.T @ solved.residual) / information
    unit = np.maximum(1.0 / information - own, 1e-12)
    se = np.sqrt(solved.seed_variance * unit)
    se[information <= _TOLD * np.sum(scaled**2, axis=0)] = np.nan  # the arms alone make this column
    white, strata = Whitened(solved), solved.problem.layout.strata
    if white.is_white:
        coefficients, inflation = white.columns(projected), np.sqrt(1.0 / information / unit)
    else:
        coefficients = scaled
        inflation = _studentised(scaled, white.scores, strata, estimate / se)
    p = permutation_p(coefficients, white.scores, strata, redraws, rng, inflation, pooled=True)
    return Contrast(estimate, se, p, df)
