"""Which variants are best, by what is believed of them after shrinkage, and which cannot be told from the best.

One run per variant is mostly luck: of a thousand raw scores the ten highest are exaggerated by a fifth to a half. The
posterior mean of the mixed model keeps of a score what the other runs of its set, its arm and its books support.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.layout import Layout, interval, make_layout
from ltm.patterns.table import Floats, Ints, Table
from ltm.records import ABILITIES, FLUENCY, Ranked


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


def rank(table: Table) -> Ranking:
    """Rank the variants that have a run scored in every ability that counts."""
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
    return Ranking(_rows(table, layout, score[layout.rows], fitted, single), by)


def _fit(layout: Layout, score: Floats, decompositions: list[mixed.Spectrum]) -> mixed.Fit | None:
    fitted = mixed.fit(layout, score, decompositions)
    if fitted is not None:
        return fitted
    # Too few runs to know the arms: all variants then share one mean.
    from dataclasses import replace

    n = len(score)
    return mixed.fit(replace(layout, arms=np.full((n, 1), 1.0 / np.sqrt(n))), score, decompositions)


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
    table: Table, layout: Layout, score: Floats, fitted: mixed.Fit, single: dict[str, dict[str, float]]
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
    against = np.maximum(errors + errors[best] - 2.0 * fitted.covariance[best], 0.0)
    low, high = interval(posterior, np.sqrt(errors), fitted.df)
    _, reach = interval(posterior - posterior[best], np.sqrt(against), fitted.df)
    return [
        Ranked(
            place=number,
            run_id=table.run_ids[layout.rows[first[i]]],
            variant_id=variant_ids[i],
            posterior=float(posterior[i]),
            low=float(low[i]),
            high=float(high[i]),
            raw=float(raw[i]),
            tied_with_best=bool(reach[i] >= -1e-12),
            abilities={
                name: values[variant_ids[i]] for name, values in sorted(single.items()) if variant_ids[i] in values
            },
        )
        for number, i in enumerate(order, start=1)
    ]
