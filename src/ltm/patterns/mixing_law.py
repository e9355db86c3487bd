"""Bits per byte as the data mixing law has them: log(loss - c), where that fits better than the loss itself.

Books act on a loss by factors of what can still be learned (loss = c + k exp(sum of what books bring)), so their
effects add up in log(loss - c). Whether they do so in a study is asked of its likelihood, with the scale of the scores
paid for (Box and Cox 1964). The score stays in seed standard deviations, and more stays better.

Source: Ye et al. 2024, Data mixing laws.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.layout import make_layout
from ltm.patterns.table import Floats, Table, seed_unit
from ltm.records import FLUENCY

_FLOORS = (0.0, 0.5, 0.8, 0.9, 0.95)  # c as a share of the lowest loss
_BETTER = 2.0  # units of log likelihood that the law must win by
_FEWEST = 20


def with_mixing_law(table: Table) -> Table:
    """Return the table with fluency as -log(loss - c) where the likelihood prefers that, else as it is."""
    loss = table.loss
    if loss is None or FLUENCY not in table.scores or table.abilities[FLUENCY].constant:
        return table
    known = np.isfinite(loss) & np.isfinite(table.scores[FLUENCY])
    if known.sum() < _FEWEST or float(loss[known].min()) <= 0:
        return table
    layout = make_layout(table, np.where(known, loss, np.nan))
    factors = mixed.make_factors(layout)
    own = loss[layout.rows]
    plain = mixed.fit(mixed.Problem(layout, factors, -own))
    if plain is None:
        return table
    best, floor = -0.5 * plain.df * float(np.log(plain.seed_variance)) + _BETTER, None
    for share in _FLOORS:
        c = share * float(own.min())
        problem = mixed.Problem(layout, factors, -np.log(own - c))
        solved = mixed.Solved(problem, plain.ratios, inverse=plain.inverse)
        gain = -0.5 * solved.df * float(np.log(solved.seed_variance)) - float(np.sum(np.log(own - c)))
        if gain > best:
            best, floor = gain, c
    return table if floor is None else _replaced(table, loss, floor)


def _replaced(table: Table, loss: Floats, floor: float) -> Table:
    score = np.full(len(loss), np.nan)
    known = np.isfinite(loss) & (loss > floor) & np.isfinite(table.scores[FLUENCY])
    score[known] = -np.log(loss[known] - floor)
    sets = np.array([table.variants[v].set_id for v in table.variant_of], dtype=np.int64)
    unit, sd = seed_unit(score, table.variant_of, sets)
    facts = replace(
        table.abilities[FLUENCY], unit=unit, unit_sd=sd, n_runs=int(known.sum()), n_missing=int((~known).sum()),
        form=f"log(loss - {floor:.4g})",
    )  # fmt: skip
    scores = {**table.scores, FLUENCY: (score - float(np.mean(score[known]))) / sd}
    halves = {name: half for name, half in table.halves.items() if name != FLUENCY}  # they stand on the other scale
    return replace(table, scores=scores, abilities={**table.abilities, FLUENCY: facts}, halves=halves)
