"""Which variants are best, by what is believed of them after shrinkage, and which cannot be told from the best.

One run per variant is mostly luck: of a thousand raw scores the ten highest are exaggerated by a fifth to a half. The
posterior mean of the mixed model keeps of a score what the other runs of its set, its condition and its books support.

A condition is (order, gap kind, density), wherever in the design it occurs: the base arms of all templates are one
condition if they are laid out alike. Its effect is random and shrunk too. Which variants are tied with the best is one
statement about all of them, made after looking for the best, so it has one critical value: the quantile of the largest
of all standardised differences to the best in draws from the posterior covariance (in the manner of Tukey's range and
of Hsu 1984, multiple comparisons with the best).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm.patterns import mixed
from ltm.patterns.inference import stream
from ltm.patterns.layout import Layout, interval, make_layout
from ltm.patterns.table import Floats, Ints, Table
from ltm.records import ABILITIES, FLUENCY, Ranked

Models = Mapping[str, mixed.Solved]
OfBooks = Callable[[tuple[str, ...]], Mapping[str, Floats]]
OfRuns = Callable[[Layout, tuple[str, ...]], Floats]
CONFIRMATION = "confirmation"
_NOTHING = 1e-12  # a variance in squared seed sd that is rounding
_DRAWS = 4000  # behind the critical value: 0.10 is met within 0.005


@dataclass(frozen=True)
class Ranking:
    """The ranked variants, best first, and the abilities whose mean they are ranked by (empty: no ranking)."""

    rows: list[Ranked]
    by: tuple[str, ...]


def ranked_by(table: Table) -> tuple[str, ...]:
    """Return the abilities that count: the admitted ones, else fluency, else every ability that varies."""
    runs = {name: facts.n_runs for name, facts in table.abilities.items() if not facts.constant}
    varying = [name for name, n in runs.items() if 2 * n >= max(runs.values())]  # a rank needs all of them of a run
    admitted = [name for name in varying if name != FLUENCY and table.abilities[name].admitted]
    if admitted:  # a user's own abilities count where none of the three does
        return tuple(name for name in admitted if name in ABILITIES) or tuple(admitted)
    return (FLUENCY,) if FLUENCY in varying else tuple(varying)


def open_rows(table: Table) -> npt.NDArray[np.bool_]:
    """Return which runs may be looked at to choose the best: all but those that only confirm the choice."""
    usable = [v.round != CONFIRMATION and not v.aside for v in table.variants]
    return np.array(usable, dtype=np.bool_)[table.variant_of]


def rank(
    table: Table,
    level: float = 0.10,
    of_books: OfBooks | None = None,
    models: Models | None = None,
    of_runs: OfRuns | None = None,
) -> Ranking:
    """Rank the variants that have a run scored in every ability that counts.

    Args:
        table: Scores by run.
        level: Chance, where all variants are alike, that any of them is said to be worse than the best.
        of_books: Gives, for the books of a layout, the columns that describe them (`Described.columns`).
        models: ability -> its mixed model, used again where it was fitted to the same runs.
        of_runs: Gives, for a layout and some abilities, columns of runs, shape (n, K), that are known to move these:
            places of books in a random order. Without them what an order does counts as luck of its run.
    """
    by = ranked_by(table)
    if not by:
        return Ranking([], ())
    score = np.mean([table.standard(name) for name in by], axis=0)
    layout = make_layout(table, np.where(open_rows(table), score, np.nan))
    if len(layout.rows) < 2:
        return Ranking([], by)
    fitted = _fit(layout, score[layout.rows], of_books, by, models, of_runs)
    if fitted is None:
        return Ranking([], by)
    single = {
        name: _posterior_by_variant(table, name, layout, of_books, models, of_runs)
        for name in table.abilities
        if by != (name,)
    }
    if len(by) == 1:
        single[by[0]] = _by_variant(layout, fitted.mean * table.abilities[by[0]].seed_sd)
    return Ranking(_rows(table, layout, score[layout.rows], fitted, single, level), by)


def _fit(
    layout: Layout,
    score: Floats,
    of_books: OfBooks | None,
    names_of: tuple[str, ...],
    models: Models | None = None,
    of_runs: OfRuns | None = None,
) -> mixed.Posterior | None:
    """Fit the model with one mean and random effects of the conditions in the place of the arms.

    The variances of the parts of a set are those of the model with fixed arms; that of the conditions is then the
    likeliest under a weak prior.
    """
    factors = mixed.make_factors(layout, of_books(layout.book_ids) if of_books else None)
    problem = mixed.Problem(layout, factors, score)
    fitted = models.get(names_of[0]) if models and len(names_of) == 1 else None
    if fitted is not None and np.array_equal(fitted.problem.layout.rows, layout.rows):
        ratios, inverse = fitted.ratios, fitted.inverse
    else:
        ratios, inverse = mixed.fit_ratios(problem) or {mixed.REST: 1.0}, None  # a handful of runs: sets are unknown
    labels = [f"{v.order}\t{v.gap_kind}\t{v.density!r}\t{v.spacing}" for v in layout.variants]
    names, cell = np.unique(labels, return_inverse=True)
    columns = np.ones((len(labels), 1))
    if len(names) > 1:
        cells = np.zeros((len(labels), len(names)))
        cells[np.arange(len(labels)), cell] = 1.0
        columns = np.column_stack([columns, cells])
    if of_runs is not None:
        columns = np.column_stack([columns, of_runs(layout, names_of)])
    shrunk = mixed.Problem(layout, factors, score, columns)
    return mixed.posterior(mixed.with_random_arms(shrunk, ratios, inverse))


def critical_value(covariance: Floats, df: float, level: float) -> float:
    """Return what the largest standardised difference to the best exceeds with probability `level` by chance alone.

    Args:
        covariance: Shape (V, V), of the errors of the variants' posterior means.
        df: Degrees of freedom of the scale of the covariance.
        level: Chance of any difference beyond the value, where nothing differs.
    """
    rng = stream(0, "ranking", "ties")
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(1e-9 * float(values[-1]), _NOTHING)
    if not kept.any():
        return 0.0
    errors = rng.standard_normal((_DRAWS, int(kept.sum()))) @ (vectors[:, kept] * np.sqrt(values[kept])).T
    spread = _spread(covariance)
    best = np.argmax(errors, axis=1)
    gaps = (errors[np.arange(_DRAWS), best][:, None] - errors) / spread[best]
    scale = np.sqrt(rng.chisquare(df, _DRAWS) / df)
    return float(np.quantile(np.max(gaps, axis=1) / scale, 1.0 - level))


def _wide_critical_value(n_variants: int, df: float, level: float) -> float:
    """Return the same for many variants whose errors are taken as independent and alike."""
    rng = stream(0, "ranking", "ties")
    widest = np.empty(_DRAWS)
    for at in range(_DRAWS):
        errors = rng.standard_normal(n_variants)
        widest[at] = (errors.max() - errors.min()) / np.sqrt(2.0)
    return float(np.quantile(widest / np.sqrt(rng.chisquare(df, _DRAWS) / df), 1.0 - level))


def _spread(covariance: Floats) -> Floats:
    """Return the standard error of the difference of every pair, infinite where they differ in nothing."""
    own = np.diag(covariance)
    squares = own[:, None] + own[None, :] - 2.0 * covariance
    differ = squares > max(1e-9 * float(own.max()), _NOTHING)
    return np.asarray(np.where(differ, np.sqrt(np.maximum(squares, 0.0)), np.inf), dtype=np.float64)


def _by_variant(layout: Layout, mean: Floats) -> dict[str, float]:
    return {v.variant_id: float(value) for v, value in zip(layout.variants, mean, strict=True)}


def _posterior_by_variant(
    table: Table, name: str, layout: Layout, of_books: OfBooks | None, models: Models | None, of_runs: OfRuns | None
) -> dict[str, float]:
    """Return variant_id -> posterior mean of one ability."""
    if table.abilities[name].constant:
        return {}
    score = table.scores[name]
    if not np.isfinite(score[layout.rows]).all():
        layout = make_layout(table, np.where(open_rows(table), score, np.nan))
    fitted = _fit(layout, score[layout.rows], of_books, (name,), models, of_runs) if len(layout.rows) > 1 else None
    return _by_variant(layout, fitted.mean) if fitted is not None else {}


def _rows(
    table: Table, layout: Layout, score: Floats, fitted: mixed.Posterior, single: dict[str, dict[str, float]],
    level: float,
) -> list[Ranked]:  # fmt: skip
    ids = [v.variant_id for v in layout.variants]
    variant_ids = [ids[i] for i in fitted.places]
    place = {variant_id: i for i, variant_id in enumerate(variant_ids)}
    of_run: Ints = np.array([place[i] for i in ids], dtype=np.int64)
    posterior = fitted.mean[fitted.places]
    raw = np.bincount(of_run, weights=score) / np.bincount(of_run)
    raw = raw - raw.mean()
    order = sorted(range(len(variant_ids)), key=lambda i: (-round(float(posterior[i]), 9), variant_ids[i]))
    best = order[0]
    low, high = interval(posterior, np.sqrt(fitted.variance), fitted.df)
    spread = np.sqrt(fitted.with_best)
    if fitted.covariance is not None:
        critical = critical_value(fitted.covariance, fitted.df, level)
    else:
        critical = _wide_critical_value(len(variant_ids), fitted.df, level)
    tied = posterior[best] - posterior <= critical * spread + 1e-9
    return [
        Ranked(
            place=number,
            run_id=table.run_ids[layout.rows[fitted.places[i]]],
            variant_id=variant_ids[i],
            posterior=float(posterior[i]),
            low=float(low[i]),
            high=float(high[i]),
            raw=float(raw[i]),
            tied_with_best=bool(tied[i]),
            abilities={
                name: values[variant_ids[i]] for name, values in sorted(single.items()) if variant_ids[i] in values
            },
        )
        for number, i in enumerate(order, start=1)
    ]
