"""Do the items agree about the runs: halves of the eval books, one item against the rest, families of an ability.

Sources: split-half with Spearman-Brown over many random halves of the eval books; item-rest correlations and Cronbach's
alpha as in any textbook of test theory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ltm.scores.icc import codes_of
from ltm.scores.measures import FamilyTable, ratio
from ltm.scores.rules import Array
from ltm.store import fingerprint

_SPLITS = 200
_MIN_CENTRED = 8  # runs in cells of two or more, from which on halves are compared within cells


def split_half(tables: Sequence[FamilyTable], scales: Sequence[float], cells: Sequence[str] | None = None) -> float:
    """Return the mean Spearman-Brown reliability over random halves of the eval books, families averaged.

    A book is in the same half for every family. Where a family has fewer than four books, its items are halved.

    Args:
        tables: One or more families of one ability.
        scales: Between-run standard deviation of each family, so that none outweighs the others.
        cells: Where given, runs are compared with the runs of their cell only, and a run alone in its cell is left
            out; with fewer than eight runs left, all runs are compared with all.
    """
    if len(tables[0].num_RI) < 3:
        return math.nan
    rng = np.random.default_rng(int(fingerprint([t.family for t in tables]), 16))
    names = sorted({name for table in tables for name in _unit_names(table)})
    ranks = np.argsort(rng.random((_SPLITS, len(names))), axis=1)
    first_SU = ranks < len(names) // 2
    halves = []
    for chosen_SU in (first_SU, ~first_SU):
        total: Array = np.zeros((len(tables[0].num_RI), _SPLITS))
        for table, scale in zip(tables, scales, strict=True):
            place = {name: i for i, name in enumerate(names)}
            member_SI = chosen_SU[:, [place[name] for name in _unit_names(table)]].astype(float)
            total = total + ratio(table.num_RI @ member_SI.T, table.weight_RI @ member_SI.T) / scale
        halves.append(total)
    one, two = (_centred(np.asarray(half), cells) for half in halves)
    agreement = _column_correlations(one, two)
    if not len(agreement):
        return math.nan
    mean = float(np.mean(agreement))
    return 2 * mean / (1 + mean) if mean > 0 else mean


def item_rest(table: FamilyTable) -> Array:
    """Return the correlation of each item with the mean of the other items of its family, over runs.

    NaN for an item that some run has no answer to, and where there is no spread.
    """
    used = np.where(table.weight_RI > 0, table.num_RI, np.nan)
    whole = np.isfinite(used).all(0)
    result = np.full(used.shape[1], math.nan)
    values = used[:, whole]
    if values.shape[1] < 3 or len(values) < 3:
        return result
    rest = (values.sum(1, keepdims=True) - values) / (values.shape[1] - 1)
    one, two = values - values.mean(0), rest - rest.mean(0)
    product = np.sqrt((one**2).sum(0) * (two**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        result[whole] = np.where(product > 1e-300, (one * two).sum(0) / product, np.nan)
    return result


def item_sd(table: FamilyTable) -> float:
    """Return the standard error of a run's value that comes from which items were drawn, clustered by eval book."""
    weight_I = table.weight_RI.mean(0)
    total = weight_I.sum()
    if total <= 0:
        return math.nan
    codes = codes_of(table.units())
    k = codes.max() + 1
    if k < 2:
        return math.nan
    variances = []
    for num_I, own_I, value in zip(table.num_RI, table.weight_RI, table.values(), strict=True):
        if own_I.sum() > 0:
            residual_K = np.bincount(codes, weights=num_I - value * own_I)
            variances.append(float(np.sum(residual_K**2)) / float(own_I.sum()) ** 2 * k / (k - 1))
    return math.sqrt(float(np.mean(variances))) if variances else math.nan


def alpha(columns: Sequence[Array]) -> float:
    """Return Cronbach's alpha of families, each in its own standard deviations; NaN for fewer than two."""
    live = [(c - c.mean()) / c.std() for c in columns if np.isfinite(c).all() and c.std() > 0]
    if len(live) < 2:
        return math.nan
    k = len(live)
    return float(k / (k - 1) * (1 - k / np.var(np.sum(live, axis=0))))


def _unit_names(table: FamilyTable) -> list[str]:
    units = table.units()
    return units if units is table.clusters else [f"{table.family}:{unit}" for unit in units]


def _centred(values: Array, cells: Sequence[str] | None) -> Array:
    """Return the values (runs, columns) without the mean of their cell, runs that are alone in a cell left out."""
    if cells is None:
        return values
    code = codes_of(cells)
    size = np.bincount(code)
    shared = np.flatnonzero(size[code] > 1)
    if len(shared) < _MIN_CENTRED:
        return values
    total = np.zeros((len(size), values.shape[1]))
    np.add.at(total, code, values)
    result: Array = (values - (total / size[:, None])[code])[shared]
    return result


def _column_correlations(a: Array, b: Array) -> Array:
    """Return the correlation of each column pair; columns without spread or with gaps are left out."""
    good = np.isfinite(a).all(0) & np.isfinite(b).all(0)
    a, b = a[:, good] - a[:, good].mean(0), b[:, good] - b[:, good].mean(0)
    product = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    spread: Array = product > 1e-300
    result: Array = (a * b).sum(0)[spread] / product[spread]
    return result
