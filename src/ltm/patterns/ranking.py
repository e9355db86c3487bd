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

from dataclasses import dataclass, replace

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.inference import stream
from ltm.patterns.layout import Layout, interval, make_layout
from ltm.patterns.table import Floats, Ints, Table
from ltm.records import ABILITIES, FLUENCY, Ranked

_NOTHING = 1e-12  # a variance in squared seed sd that is rounding
_DRAWS = 4000  # behind the critical value: 0.10 is met within 0.005


@dataclass(frozen=True)
class Ranking:
    """The ranked variants, best first, and the abilities whose mean they are ranked by (empty: no ranking)."""

    rows: list[Ranked]
    by: tuple[str, ...]


def ranked_by(table: Table) -> tuple[str, ...]:
    """Return the abilities that count: the admitted ones, else fluency, else every ability that varies."""
    varying = [name for name, facts in table.abilities.items() if not facts.constant]
    admitted = tuple(name for name in ABILITIES if name in varying and table.abilities[name].admitted)
    if admitted:
        return admitted
    return (FLUENCY,) if FLUENCY in varying else tuple(varying)


def rank(table: Table, level: float = 0.10) -> Ranking:
    """Rank the variants that have a run scored in every ability that counts.

    Args:
        table: Scores by run.
        level: Chance, where all variants are alike, that any of them is said to be worse than the best.
    """
    by = ranked_by(table)
    if not by:
        return Ranking([], ())
    score = np.mean([table.scores[name] for name in by], axis=0)
    layout = make_layout(table, score)
    if len(layout.rows) < 2:
        return Ranking([], by)
    decompositions = mixed.spectra(layout)
    fitted = _fit(layout, score[layout.rows], decompositions)
    if fitted is None:
        return Ranking([], by)
    single = {name: _posterior_by_variant(table, name, layout, decompositions) for name in table.abilities}
    return Ranking(_rows(table, layout, score[layout.rows], fitted, single, level), by)


def _fit(layout: Layout, score: Floats, decompositions: list[mixed.Spectrum]) -> mixed.Fit | None:
    """Fit the model with one mean and random effects of the conditions in the place of the arms."""
    of_run = [(v.order, v.gap_kind, v.density) for v in layout.variants]
    conditions = sorted(set(of_run))
    columns = [np.ones(len(of_run))]
    if len(conditions) > 1:
        columns += [np.array([c == condition for c in of_run], dtype=np.float64) for condition in conditions]
    return mixed.fit(replace(layout, arms=np.column_stack(columns)), score, decompositions, len(columns) - 1)


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


def _spread(covariance: Floats) -> Floats:
    """Return the standard error of the difference of every pair, infinite where they differ in nothing."""
    own = np.diag(covariance)
    squares = own[:, None] + own[None, :] - 2.0 * covariance
    differ = squares > max(1e-9 * float(own.max()), _NOTHING)
    return np.asarray(np.where(differ, np.sqrt(np.maximum(squares, 0.0)), np.inf), dtype=np.float64)


def _posterior_by_variant(
    table: Table, name: str, layout: Layout, decompositions: list[mixed.Spectrum]
) -> dict[str, float]:
    """Return variant_id -> posterior mean of one ability."""
    if table.abilities[name].constant:
        return {}
    score = table.scores[name]
    if not np.isfinite(score[layout.rows]).all():
        layout = make_layout(table, score)
        decompositions = mixed.spectra(layout)
    fitted = _fit(layout, score[layout.rows], decompositions) if len(layout.rows) > 1 else None
    if fitted is None:
        return {}
    return {v.variant_id: float(value) for v, value in zip(layout.variants, fitted.posterior, strict=True)}


def _rows(
    table: Table, layout: Layout, score: Floats, fitted: mixed.Fit, single: dict[str, dict[str, float]], level: float
) -> list[Ranked]:
    ids = [v.variant_id for v in layout.variants]
    variant_ids = list(dict.fromkeys(ids))
    place = {variant_id: i for i, variant_id in enumerate(variant_ids)}
    of_run: Ints = np.array([place[i] for i in ids], dtype=np.int64)
    first = [ids.index(variant_id) for variant_id in variant_ids]
    posterior = fitted.posterior[first]
    raw = np.bincount(of_run, weights=score) / np.bincount(of_run)
    raw = raw - raw.mean()
    order = sorted(range(len(variant_ids)), key=lambda i: (-round(float(posterior[i]), 9), variant_ids[i]))
    best = order[0]
    errors = np.maximum(np.diag(fitted.covariance), 0.0)
    low, high = interval(posterior, np.sqrt(errors), fitted.df)
    spread = _spread(fitted.covariance)[best]
    allowed = critical_value(fitted.covariance, fitted.df, level) * np.where(np.isfinite(spread), spread, 0.0)
    tied = posterior[best] - posterior <= allowed + 1e-9
    return [
        Ranked(
            place=number,
            run_id=table.run_ids[layout.rows[first[i]]],
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
