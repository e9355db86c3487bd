"""A mixed model of the scores: arms are fixed or random, sets are random, and part of a set is the sum of its books.

    score = arm + set + seed,   set = features w + cluster u + books v + rest

All parts of a set are random with variances of their own, chosen by restricted maximum likelihood (REML). What books
add is a kernel over sets, so a million books cost no more than a hundred: one S x S solve (the dual form, GBLUP in
genomic prediction, exact for unbalanced numbers of runs). Posterior means shrink what one run says towards what the
books, their features and the other runs say, which a ranking needs: the best of a thousand raw scores is mostly luck.

Everything is written in the space of sets: runs of one set share their row, so the n runs enter by the cross-products
between sets and within them.

Sources: Patterson and Thompson 1971 (REML); Rao 1972 (MINQUE, whose iteration is REML); Henderson 1975 (BLUP and its
error); VanRaden 2008 (GBLUP).

Legend: n runs, S sets, B books, q columns of arms, m columns of a small factor; R = diag(runs per set); all variances
are ratios to the seed's: H = I + sum of ratio_k R^1/2 K_k R^1/2, Q = H^-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltm.patterns.layout import Layout, Sparse
from ltm.patterns.table import Floats, Ints

BOOKS, REST = "books", "rest"
_LARGEST_REML = 1500  # sets; more are fitted on a random part of them: their variances are known well enough
_STEPS = 12
_SETTLED = 0.01  # relative change of all variances
_MIN_WITHIN_DF = 3
_SINGLE_FROM = 3000  # sets from which matrices are kept in single precision


@dataclass(frozen=True)
class Factors:
    """What a set is made of; every kernel has mean diagonal 1."""

    books: Sparse  # (S, B)
    book_mean: Floats  # (B,) of the columns
    book_scale: float  # mean squared length of a centred row; 0 = membership does not vary
    small: Mapping[str, Floats] = field(default_factory=dict)  # name -> (S, m), centred, mean squared row length 1
    of_books: Mapping[str, Floats] = field(default_factory=dict)  # name -> (B, m): small = centred(books @ of_books)

    def kernel(self, dtype: Any = np.float64) -> Floats:
        """Return the kernel of the books, shape (S, S), mean diagonal 1."""
        product = _gram(self.books, dtype)
        shift = np.asarray(self.books @ self.book_mean, dtype=dtype)
        product -= shift[:, None]
        product -= shift[None, :]
        product += dtype(self.book_mean @ self.book_mean)
        product /= dtype(max(self.book_scale, 1e-300))
        return product

    def part(self, sets: Ints) -> Factors:
        """Return the factors of some of the sets, with the scales of all."""
        return Factors(
            self.books[sets],
            self.book_mean,
            self.book_scale,
            {k: v[sets] for k, v in self.small.items()},
            self.of_books,
        )


def _gram(books: Sparse, dtype: Any) -> Floats:
    """Return books @ books.T as a dense matrix, in strips when it is large."""
    n_sets = books.shape[0]
    if books.nnz > 0.05 * n_sets * books.shape[1] and books.shape[1] <= 20_000:
        dense = books.toarray().astype(dtype)
        return np.asarray(dense @ dense.T)
    product = np.empty((n_sets, n_sets), dtype=dtype)
    turned = books.T.tocsr()
    for start in range(0, n_sets, 500):
        product[start : start + 500] = (books[start : start + 500] @ turned).toarray()
    return product


def make_factors(layout: Layout, of_books: Mapping[str, Floats] | None = None) -> Factors:
    """Return the factors of a layout.

    Args:
        layout: The runs.
        of_books: name -> (B, m) columns that describe books (features, clusters); each gets a variance of its own.
    """
    books = layout.membership
    n_sets = books.shape[0]
    mean = np.asarray(books.sum(axis=0)).ravel() / max(1, n_sets)
    squares = float(np.sum(books.data**2)) / max(1, n_sets) - float(mean @ mean)
    scale = squares if squares > 1e-9 * max(1.0, float(mean @ mean)) else 0.0
    small, kept = {}, {}
    for name, columns in (of_books or {}).items():
        values = np.asarray(books @ columns)
        values = values - values.mean(axis=0)
        size = float(np.sqrt(np.mean(np.sum(values**2, axis=1)))) if values.size else 0.0
        if scale and size > 1e-9:
            small[name], kept[name] = values / size, columns / size
    return Factors(books, mean, scale, small, kept)


class Problem:
    """Cross-products of [arms, score] between and within sets, once for all variances."""

    def __init__(self, layout: Layout, factors: Factors, score: Floats, arms: Floats | None = None) -> None:
        self.layout, self.factors, self.score = layout, factors, score
        self.arms = layout.arms if arms is None else arms
        both = np.column_stack([self.arms, score])
        self.root = np.sqrt(layout.runs_per_set)
        self.between = layout.set_means(both) * self.root[:, None]
        self.within = both.T @ both - self.between.T @ self.between
        self.n, self.q = self.arms.shape
        self.df = self.n - self.q


class Solved:
    """The model solved for given variances: projector of the sets, residual, arms.

    `projector` M, shape (S, S): x' M x is the information on the coefficient of a column x of sets, x' M y its score.
    Columns must be multiplied by `root` first.
    """

    def __init__(
        self,
        problem: Problem,
        ratios: Mapping[str, float],
        arm_precision: Floats | None = None,
        inverse: Floats | None = None,
    ) -> None:
        self.problem, self.ratios = problem, dict(ratios)
        q = problem.q
        self.dtype: Any = np.float64 if len(problem.root) < _SINGLE_FROM else np.float32
        self.inverse = _inverse(_covariance(problem, ratios, self.dtype)) if inverse is None else inverse
        self.arms_QA = np.asarray(self.inverse @ problem.between[:, :q].astype(self.dtype), dtype=np.float64)
        information = problem.within[:q, :q] + problem.between[:, :q].T @ self.arms_QA
        if arm_precision is not None:
            information = information + np.diag(arm_precision)
        self.information = information
        self.arm_errors = np.linalg.pinv(information, hermitian=True)
        cross = problem.within[:q, q] + self.arms_QA.T @ problem.between[:, q]
        self.cross = cross
        self.arms = self.arm_errors @ cross
        rest = problem.between[:, q] - problem.between[:, :q] @ self.arms
        self.residual = np.asarray(self.inverse @ rest.astype(self.dtype), dtype=np.float64)
        total = self.total = problem.within[q, q] + problem.between[:, q] @ np.asarray(
            self.inverse @ problem.between[:, q].astype(self.dtype), dtype=np.float64
        )
        self.df = problem.df + (0 if arm_precision is None else int(np.count_nonzero(arm_precision)))
        self.seed_variance = max(float(total - self.arms @ cross) / max(1, self.df), 1e-300)
        self._projector: Floats | None = None

    @property
    def of_set(self) -> float:
        """Return the variance of a whole set in units of the seed's."""
        return sum(self.ratios.values())

    @property
    def projector(self) -> Floats:
        """Return M, shape (S, S)."""
        if self._projector is None:
            leak = (self.arms_QA @ self.arm_errors).astype(self.dtype)
            self._projector = self.inverse - leak @ self.arms_QA.T.astype(self.dtype)
        return np.asarray(self._projector)

    def project(self, columns: Floats) -> Floats:
        """Return M x of columns of sets, shape (S, K), in M's precision: bringing M to that of x would copy it."""
        return np.asarray(self.projector @ columns.astype(self.dtype), dtype=np.float64)


_ARM_SDS = np.geomspace(0.05, 10.0, 30)  # of random arms / seed standard deviation
_LIKELY_ARM_SD = 0.5  # mode of their gamma prior of shape 2, where the scores say nothing


def with_random_arms(problem: Problem, ratios: Mapping[str, float], inverse: Floats | None = None) -> Solved:
    """Return the model with a fixed mean (the first column of the arms) and random other arms, alike and independent.

    Few arms often have a likelihood that is highest at no variance at all, which would call them exactly equal; a weak
    prior on their standard deviation keeps it above zero (Chung, Rabe-Hesketh, Dorie, Gelman and Liu 2013).
    """
    fixed = Solved(problem, ratios, inverse=inverse)
    n_random = problem.q - 1
    if n_random < 1:
        return fixed
    likelihoods = [arm_likelihood(fixed, n_random, float(sd)) for sd in _ARM_SDS]
    best = float(_ARM_SDS[int(np.argmax(likelihoods))])
    precision = np.append(0.0, np.full(n_random, 1.0 / best**2))
    return Solved(problem, ratios, precision, fixed.inverse)


def arm_likelihood(fixed: Solved, n_random: int, sd: float) -> float:
    """Return the REML log likelihood of the arms' standard deviation with its log prior, but for a constant."""
    q = fixed.problem.q
    precision = np.zeros(q)
    precision[q - n_random :] = 1.0 / sd**2
    information = fixed.information + np.diag(precision)
    df = fixed.problem.df + n_random
    variance = max(float(fixed.total - fixed.cross @ np.linalg.solve(information, fixed.cross)) / max(1, df), 1e-300)
    determinant = float(np.linalg.slogdet(information)[1]) + 2.0 * n_random * float(np.log(sd))
    prior = float(np.log(sd)) - sd / _LIKELY_ARM_SD
    return float(-0.5 * (df * float(np.log(variance)) + determinant) + prior)


def _inverse(matrix: Floats) -> Floats:
    """Return the inverse of a positive definite matrix by its Cholesky factor."""
    from scipy.linalg import cholesky, lapack

    if not np.count_nonzero(matrix) > len(matrix):
        return np.asarray(np.diag(1.0 / np.diag(matrix)))
    factor = cholesky(matrix, lower=True, check_finite=False)
    invert = lapack.dpotri if matrix.dtype == np.float64 else lapack.spotri
    inverse, _ = invert(factor, lower=1, overwrite_c=1)
    for start in range(0, len(inverse), 1000):  # only the lower triangle is filled; mirrored in strips to save memory
        stop = start + 1000
        block = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = block + np.tril(block, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    return np.asarray(inverse)


def _covariance(problem: Problem, ratios: Mapping[str, float], dtype: Any) -> Floats:
    """Return H, shape (S, S)."""
    root = problem.root.astype(dtype)
    books = ratios.get(BOOKS, 0.0)
    whole = problem.factors.kernel(dtype) * dtype(books) if books > 0 else np.zeros((len(root), len(root)), dtype=dtype)
    for name, columns in problem.factors.small.items():
        if ratios.get(name, 0.0) > 0:
            scaled = (columns * np.sqrt(ratios[name])).astype(dtype)
            whole += scaled @ scaled.T
    whole *= root[:, None]
    whole *= root[None, :]
    whole[np.diag_indices_from(whole)] += 1.0 + ratios.get(REST, 0.0) * problem.layout.runs_per_set
    return np.asarray(whole)


def fit(problem: Problem) -> Solved | None:
    """Return the model solved for its REML variances, or None when the arms use up all runs."""
    ratios = fit_ratios(problem)
    return None if ratios is None else Solved(problem, ratios)


def fit_ratios(problem: Problem) -> dict[str, float] | None:
    """Return the REML variances of the parts of a set as ratios to the seed's; None when the arms use up all runs.

    Iterated MINQUE with variances kept at or above zero. What a set is beyond its books can only be told from the seed
    where sets have several runs; otherwise it counts as seed.
    """
    if problem.df < 1:
        return None
    n_sets = len(problem.root)
    if n_sets > _LARGEST_REML:
        sets = np.sort(np.random.default_rng(0).permutation(n_sets)[:_LARGEST_REML])
        return fit_ratios(_part(problem, sets))
    names = [BOOKS] if problem.factors.book_scale else []
    names += list(problem.factors.small)
    if problem.n - n_sets - problem.q >= _MIN_WITHIN_DF or problem.n - n_sets >= 2 * _MIN_WITHIN_DF:
        names.append(REST)
    if not names:
        return {}
    kernel = problem.factors.kernel() * problem.root[:, None] * problem.root if BOOKS in names else None
    ratios = dict.fromkeys(names, 0.5 / len(names))
    for _ in range(_STEPS):
        solved = Solved(problem, ratios)
        wanted = _minque(solved, names, kernel)
        moved = max(abs(wanted[k] - ratios[k]) / (0.05 + ratios[k]) for k in names)
        ratios = wanted
        if moved < _SETTLED:
            break
    return ratios


def _part(problem: Problem, sets: Ints) -> Problem:
    """Return the problem of some of the sets."""
    from dataclasses import replace

    layout = problem.layout
    place = np.full(len(layout.set_ids), -1)
    place[sets] = np.arange(len(sets))
    runs = np.flatnonzero(place[layout.set_of] >= 0)
    part = replace(
        layout, rows=layout.rows[runs], set_ids=layout.set_ids[sets], set_of=place[layout.set_of[runs]],
        runs_per_set=layout.runs_per_set[sets], strata=layout.strata[sets], membership=layout.membership[sets],
    )  # fmt: skip
    return Problem(part, problem.factors.part(sets), problem.score[runs], problem.arms[runs])


def _minque(solved: Solved, names: list[str], kernel: Floats | None) -> dict[str, float]:
    """Return the variances that fit best where the given ones are taken as weights; see Rao 1972.

    The equations of the seed follow from those of the parts of the set, since P H P = P.
    """
    problem, m, r = solved.problem, solved.projector, solved.residual
    runs, k = problem.layout.runs_per_set, len(names)
    small = {
        name: problem.factors.small[name] * problem.root[:, None] for name in names if name in problem.factors.small
    }
    projected = {name: m @ z for name, z in small.items()}
    books = m @ kernel if kernel is not None else None
    traces, target, products = np.zeros(k), np.zeros(k), np.zeros((k + 1, k + 1))
    for i, a in enumerate(names):
        if a == BOOKS and books is not None and kernel is not None:
            traces[i], target[i] = np.trace(books), r @ kernel @ r
        elif a == REST:
            traces[i], target[i] = np.sum(np.diag(m) * runs), np.sum(runs * r**2)
        else:
            traces[i], target[i] = np.sum(small[a] * projected[a]), np.sum((small[a].T @ r) ** 2)
        for j, b in enumerate(names[: i + 1]):
            products[i, j] = products[j, i] = _trace_of_both(a, b, m, runs, books, small, projected)
    theta = np.array([solved.ratios[name] for name in names])
    products[:k, k] = products[k, :k] = traces - products[:k, :k] @ theta
    products[k, k] = problem.df - traces @ theta - products[k, :k] @ theta
    seed = solved.seed_variance * problem.df - target @ theta
    found = _at_least_zero(products, np.append(target, seed))
    noise = max(float(found[k]), 1e-3 * float(found.sum()), 1e-300)
    return {name: float(min(1e3, found[i] / noise)) for i, name in enumerate(names)}


def _at_least_zero(products: Floats, target: Floats) -> Floats:
    """Return x >= 0 that minimises x' products x / 2 - target' x, by coordinates; the matrix is at most 5 x 5."""
    scale = np.sqrt(np.maximum(np.diag(products), 1e-300))
    matrix, aim = products / scale[:, None] / scale[None, :], target / scale
    found = np.maximum(aim, 0.0)
    for _ in range(2000):
        before = found.copy()
        for i in range(len(aim)):
            found[i] = max(0.0, found[i] + aim[i] - float(matrix[i] @ found))
        if float(np.abs(found - before).max()) <= 1e-10 * float(np.abs(found).max() + 1e-300):
            break
    return np.asarray(found / scale)


def _trace_of_both(
    a: str, b: str, m: Floats, runs: Floats, books: Floats | None, small: Mapping[str, Floats],
    projected: Mapping[str, Floats],
) -> float:  # fmt: skip
    """Return the trace of M K_a M K_b."""
    if a == BOOKS or b == BOOKS:
        assert books is not None
        other = b if a == BOOKS else a
        if other == BOOKS:
            return float(np.sum(books * books.T))
        if other == REST:
            return float(np.sum(runs[:, None] * books * m))
        return float(np.sum((books @ projected[other]) * small[other]))
    if a == REST and b == REST:
        return float(runs @ m**2 @ runs)
    if REST in (a, b):
        other = b if a == REST else a
        return float(np.sum(runs[:, None] * projected[other] ** 2))
    return float(np.sum((small[a].T @ projected[b]) ** 2))


@dataclass(frozen=True)
class RunTerms:
    """What the runs say about columns that differ inside sets: estimate k alone = pull[k] / information[k, k]."""

    information: Floats  # (K, K) D' P D
    pull: Floats  # (K,) D' P y
    squares: float  # y' P y
    df: float


def run_terms(solved: Solved, columns: Floats) -> RunTerms:
    """Return the generalised least squares equations of columns of runs, shape (n, K), arms and sets fitted beside."""
    problem, q = solved.problem, solved.problem.q
    means = problem.layout.set_means(columns) * problem.root[:, None]
    both = np.column_stack([problem.arms, problem.score])
    cross_within = columns.T @ both - means.T @ problem.between
    weighted = np.asarray(solved.inverse @ means.astype(solved.dtype), dtype=np.float64)
    cross = cross_within + weighted.T @ problem.between
    own = columns.T @ columns - means.T @ means + means.T @ weighted
    known = cross[:, :q] @ solved.arm_errors
    information = own - known @ cross[:, :q].T
    squares = solved.seed_variance * max(1, solved.df)
    return RunTerms((information + information.T) / 2.0, cross[:, q] - known @ solved.cross, squares, float(solved.df))


def book_effects(solved: Solved) -> Floats:
    """Return posterior means of what a book's presence adds, shape (B,), against the average book."""
    factors, pull = solved.problem.factors, solved.problem.root * solved.residual
    total = np.zeros(factors.books.shape[1])
    if solved.ratios.get(BOOKS, 0.0) > 0:
        total += solved.ratios[BOOKS] / factors.book_scale * (factors.books.T @ pull - factors.book_mean * pull.sum())
    for name, columns in factors.of_books.items():
        if solved.ratios.get(name, 0.0) > 0:
            total += solved.ratios[name] * (columns @ (factors.small[name].T @ pull))
    return total


@dataclass(frozen=True)
class Posterior:
    """What is believed of each run's variant, centred over distinct variants, in the unit of the score."""

    mean: Floats  # (n,)
    places: list[int]  # (V,) first run of each distinct variant
    variance: Floats  # (V,) of the errors
    with_best: Floats  # (V,) variance of the difference to the best
    covariance: Floats | None  # (V, V) where V is small enough to hold it
    df: float


_LARGEST_COVARIANCE = 1500


def posterior(solved: Solved) -> Posterior:
    """Return posterior means and errors of arm + set by variant."""
    problem = solved.problem
    layout, q, root = problem.layout, problem.q, problem.root
    rest = problem.between[:, q] - problem.between[:, :q] @ solved.arms
    sets = (rest - solved.residual) / root
    mean = problem.arms @ solved.arms + sets[layout.set_of]
    places = _first_places(layout)
    arm_rows, set_rows = problem.arms[places], layout.set_of[places]
    leak = (problem.between[:, :q] - solved.arms_QA) / root[:, None]
    arm_part = arm_rows - leak[set_rows]  # an error of the arms moves arm and set against each other
    first = np.asarray(mean[places])
    best = int(np.argmax(np.round(first, 9)))
    if len(places) <= _LARGEST_COVARIANCE:
        between = -np.asarray(solved.inverse, dtype=np.float64)
        between[np.diag_indices_from(between)] += 1.0
        between = between / root[:, None] / root[None, :]
        covariance = between[np.ix_(set_rows, set_rows)] + arm_part @ solved.arm_errors @ arm_part.T
        covariance = covariance - covariance.mean(axis=0) - covariance.mean(axis=1)[:, None] + covariance.mean()
        covariance *= solved.seed_variance
        own, cross = np.diag(covariance), covariance[best]
    else:
        covariance = None
        own, cross = _wide_errors(solved, arm_part, set_rows, best)
    spread = np.maximum(own + own[best] - 2.0 * cross, 0.0)
    return Posterior(
        mean - float(np.mean(first)), places, np.maximum(own, 0.0), spread, covariance, float(max(1, solved.df))
    )


def _wide_errors(solved: Solved, arm_part: Floats, set_rows: Ints, best: int) -> tuple[Floats, Floats]:
    """Return (variances, covariances with the best) without the whole matrix; the mean of all is taken as known."""
    root = solved.problem.root
    column = -np.asarray(solved.inverse[:, set_rows[best]], dtype=np.float64)
    column[set_rows[best]] += 1.0
    diagonal = (1.0 - np.asarray(np.diag(solved.inverse), dtype=np.float64)) / root**2
    arms = arm_part @ solved.arm_errors
    own = diagonal[set_rows] + np.sum(arms * arm_part, axis=1)
    cross = (column / root / root[set_rows[best]])[set_rows] + arms @ arm_part[best]
    return solved.seed_variance * own, solved.seed_variance * cross


def _first_places(layout: Layout) -> list[int]:
    """Return the first run of every distinct variant, in layout order."""
    first: dict[str, int] = {}
    for place, variant in enumerate(layout.variants):
        first.setdefault(variant.variant_id, place)
    return list(first.values())
