"""A cheap stand-in for training: what the scores so far say about sets that were never trained.

All scored runs enter, adaptively chosen ones too: a Bayesian fit stays valid whatever made the runs be chosen, as long
as everything that the choice looked at is in it. The score is the mean of the abilities that count, in seed standard
deviations. Only what books add up to carries over to new sets; order and gaps are fitted beside it as arms.

Source of the draws: posterior = prior draw + correction by the data (Matheron's rule; Wilson et al. 2020), exact and as
cheap for a million books as for a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltm.errors import DataError
from ltm.patterns import mixed
from ltm.patterns.books import MIN_SIDE, book_contrasts
from ltm.patterns.describe import describe
from ltm.patterns.layout import Sparse, make_layout
from ltm.patterns.ranking import open_rows, ranked_by
from ltm.patterns.table import Floats, Ints, Table
from ltm.records import Book

_FEWEST_RUNS = 4


@dataclass(frozen=True)
class Surrogate:
    """Posterior of what each book's presence does to the score."""

    book_ids: list[str]  # ascending; may hold books that no set held, which features alone describe
    mean_B: Floats  # noqa: N815 (B,) posterior mean of the change that presence brings, against the average book
    abilities: tuple[str, ...]  # whose mean is predicted
    set_size: float  # books of a usual set
    rest_sd: float  # of a set beyond the sum of its books, in the unit of the score
    seed_sd: float
    _solved: mixed.Solved
    _of_books: Mapping[str, Floats]  # name -> (B, m), scaled as in the fit
    _held: Ints  # (B_held,) place of each held book in `book_ids`

    def draws(self, n: int, seed: int) -> Floats:
        """Return posterior draws of what each book's presence brings, shape (n, B); equal seeds give equal draws."""
        rng = np.random.default_rng([seed, 0x5C0E])
        solved, factors = self._solved, self._solved.problem.factors
        unit = np.sqrt(solved.seed_variance)
        drawn = np.zeros((n, len(self.book_ids)))
        if (books := solved.ratios.get(mixed.BOOKS, 0.0)) > 0:
            drawn = rng.standard_normal((n, len(self.book_ids))) * np.sqrt(books / factors.book_scale) * unit
        for name, columns in self._of_books.items():
            if (ratio := solved.ratios.get(name, 0.0)) > 0:
                drawn += (rng.standard_normal((n, columns.shape[1])) * np.sqrt(ratio) * unit) @ columns.T
        held = drawn[:, self._held]
        sets = np.asarray(factors.books @ held.T) - factors.book_mean @ held.T
        drawn = drawn + self.mean_B - self._fitted(self._noisy(sets, rng))
        return np.asarray(drawn - drawn.mean(axis=1)[:, None])  # sets of one size say nothing about a common level

    def predict(self, sets: Sequence[Sequence[str]]) -> tuple[Floats, Floats]:
        """Return (mean, standard deviation) of the scores of sets above the average set, seed noise left out.

        Raises:
            DataError: a set holds a book that the fit does not know.
        """
        rows = self._rows(sets)
        average = self.usual
        mean = np.asarray(rows @ self.mean_B) - float(average @ self.mean_B)
        return mean, np.sqrt(np.maximum(self._variance(rows, average), 0.0))

    def alone(self) -> tuple[Floats, Floats] | None:
        """Return (estimate, standard error) of what each book brings by itself, each shape (B,), all others random.

        None where some book is in too few sets for that, or there are fewer sets than books.
        """
        problem = self._solved.problem
        holders, n_sets = problem.layout.holders, len(problem.root)
        enough = holders.min() >= MIN_SIDE and (n_sets - holders).min() >= MIN_SIDE
        if len(self._held) != len(self.book_ids) or len(self.book_ids) > n_sets or not enough:
            return None
        ratios = self._solved.ratios
        total = sum(ratio for name, ratio in ratios.items() if name != mixed.REST)
        plain = mixed.Problem(problem.layout, mixed.make_factors(problem.layout, {}), problem.score)
        solved = mixed.Solved(plain, {mixed.BOOKS: total, mixed.REST: ratios.get(mixed.REST, 0.0)})
        n = len(self.book_ids)
        found = book_contrasts(solved, np.arange(n), 1, np.random.default_rng(0), float(n_sets))
        if not (np.isfinite(found.estimate).all() and np.isfinite(found.se).all() and found.se.min() > 0):
            return None
        own = (n - 1) / n  # from "against the average other book" to the average of all
        return found.estimate * own, found.se * own

    @property
    def usual(self) -> Floats:
        """Return how much of a usual set each book is, shape (B,): its share of the sets."""
        share = np.zeros(len(self.book_ids))
        share[self._held] = self._solved.problem.factors.book_mean
        return share

    def _rows(self, sets: Sequence[Sequence[str]]) -> Sparse:
        from scipy import sparse

        place = {book_id: i for i, book_id in enumerate(self.book_ids)}
        unknown = sorted({b for held in sets for b in held if b not in place})
        if unknown:
            raise DataError(
                f"the scores say nothing about {len(unknown)} books, the first is {unknown[0]}",
                "predict sets of books of this library",
            )
        members = [sorted(set(held)) for held in sets]
        indices = [place[b] for held in members for b in held]
        values = [self.set_size / len(held) for held in members for _ in held]
        pointers = np.cumsum([0, *(len(held) for held in members)])
        return sparse.csr_array((values, indices, pointers), shape=(len(members), len(self.book_ids)))

    def _variance(self, rows: Sparse, average: Floats) -> Floats:
        """Return prior variance less what the data explain, and the rest of a set that nothing explains."""
        solved, factors = self._solved, self._solved.problem.factors
        root = solved.problem.root
        n_sets = len(root)
        prior, shared = np.zeros(rows.shape[0]), np.zeros((rows.shape[0], n_sets))
        if (books := solved.ratios.get(mixed.BOOKS, 0.0)) > 0:
            part = rows[:, self._held]
            cross = np.asarray((part @ factors.books.T).toarray()) - np.asarray(part @ factors.book_mean)[:, None]
            cross = cross - np.asarray(factors.books @ factors.book_mean) + float(average @ average)
            squares = np.asarray((rows * rows).sum(axis=1)).ravel() - 2 * np.asarray(rows @ average)
            prior += books / factors.book_scale * (squares + average @ average)
            shared += books / factors.book_scale * cross
        for name, columns in self._of_books.items():
            if (ratio := solved.ratios.get(name, 0.0)) > 0:
                mine = np.asarray(rows @ columns) - average @ columns
                prior += ratio * np.sum(mine**2, axis=1)
                shared += ratio * mine @ factors.small[name].T
        shared = shared * root
        explained = np.sum((shared @ np.asarray(solved.projector, dtype=np.float64)) * shared, axis=1)
        return np.asarray(solved.seed_variance * (prior - explained) + self.rest_sd**2)

    def _noisy(self, sets: Floats, rng: np.random.Generator) -> Floats:
        """Return residuals (S, n) of scores that these set values, a rest and seeds would give."""
        solved = self._solved
        problem, q, root = solved.problem, solved.problem.q, solved.problem.root
        unit = np.sqrt(solved.seed_variance)
        rest = np.sqrt(solved.ratios.get(mixed.REST, 0.0)) * unit
        shape = sets.shape
        between = root[:, None] * (sets + rest * rng.standard_normal(shape)) + unit * rng.standard_normal(shape)
        values, vectors = np.linalg.eigh(problem.within[:q, :q])
        within = (vectors * np.sqrt(np.maximum(values, 0.0))) @ rng.standard_normal((q, shape[1])) * unit
        arms = solved.arm_errors @ (within + solved.arms_QA.T @ between)
        return np.asarray(solved.inverse @ (between - problem.between[:, :q] @ arms), dtype=np.float64)

    def _fitted(self, residual: Floats) -> Floats:
        """Return what the fit would say of every book for residuals (S, n); shape (n, B)."""
        solved, factors = self._solved, self._solved.problem.factors
        pull = solved.problem.root[:, None] * residual
        total = np.zeros((residual.shape[1], len(self.book_ids)))
        if (books := solved.ratios.get(mixed.BOOKS, 0.0)) > 0:
            held = np.asarray(factors.books.T @ pull) - factors.book_mean[:, None] * pull.sum(axis=0)
            total[:, self._held] = (books / factors.book_scale * held).T
        for name, columns in self._of_books.items():
            if (ratio := solved.ratios.get(name, 0.0)) > 0:
                total += ratio * (columns @ (factors.small[name].T @ pull)).T
        return total


def fit(table: Table, books: Mapping[str, Book] | None = None, clusters: Mapping[str, int] | None = None) -> Surrogate:
    """Fit the surrogate to all scored runs.

    Args:
        table: Scores by run (`ltm.patterns.table.make_table`).
        books: book_id -> row; their features let books share what is known, and books of pool `train` that no set held
            are described too.
        clusters: book_id -> cluster of the design, where it used any.

    Raises:
        DataError: no ability has scores that vary, or fewer than four runs have one.
    """
    by = ranked_by(table)
    score = np.mean([table.standard(name) for name in by], axis=0) if by else np.full(len(table.run_ids), np.nan)
    layout = make_layout(table, np.where(open_rows(table), score, np.nan))
    if len(layout.rows) < _FEWEST_RUNS:
        raise DataError(f"{len(layout.rows)} runs have a score: too few to learn from", "score more runs")
    held = set(layout.book_ids)
    ids = sorted(held | {b for b, book in (books or {}).items() if book.pool == "train"})
    known = describe(ids, books or {}, clusters)
    place = {book_id: i for i, book_id in enumerate(ids)}
    where = np.array([place[b] for b in layout.book_ids], dtype=np.int64)
    columns = known.columns()
    factors = mixed.make_factors(layout, {name: values[where] for name, values in columns.items()})
    problem = mixed.Problem(layout, factors, score[layout.rows])
    solved = mixed.fit(problem)
    if solved is None:
        raise DataError("the arms of the design use up all runs: nothing is left to learn from", "score more runs")
    scaled = {name: _scaled(columns[name], factors, name, where) for name in factors.small}
    empty = Surrogate(
        ids, np.zeros(len(ids)), by, float(np.median(np.diff(layout.membership.indptr))),
        float(np.sqrt(solved.ratios.get(mixed.REST, 0.0) * solved.seed_variance)),
        float(np.sqrt(solved.seed_variance)), solved, scaled, where,
    )  # fmt: skip
    from dataclasses import replace

    mean = empty._fitted(solved.residual[:, None])[0]
    return replace(empty, mean_B=mean - mean.mean())


def _scaled(columns: Floats, factors: mixed.Factors, name: str, where: Ints) -> Floats:
    """Return the columns of all books on the scale that the fit gave to those of the held ones."""
    fitted = factors.of_books[name]
    at = np.unravel_index(int(np.argmax(np.abs(fitted))), fitted.shape)
    return np.asarray(columns * (fitted[at] / columns[where][at]))
