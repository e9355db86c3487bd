"""How well each family, and each ability as a whole, can be measured: chance, agreement, set against seed.

Sources: intraclass correlation ICC(1) from a one-way random model with the exact F interval (Shrout & Fleiss 1979;
n0 for unequal groups, Searle); split-half with Spearman-Brown over many random halves of the eval books; standard
errors clustered by eval book (Miller, "Adding Error Bars to Evals").
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ltm.records import Reliability, Variant
from ltm.scores.measures import Array, FamilyTable, ratio
from ltm.scores.section import ScoresSection
from ltm.scores.seeds import without_seed_effects
from ltm.store import fingerprint

WHOLE_ABILITY = "*"
_SPLITS = 200
_CONFIDENCE = 0.90
_MIN_CENTRED = 8  # runs in cells of two or more, from which on halves are compared within cells


@dataclass(frozen=True)
class Layout:
    """Where each run stands in the design, so that what orders and gaps do is not taken for what sets do."""

    base: NDArray[np.bool_]  # run of a base arm in the commonest base order: the ICC is about these
    cells: list[str]  # template, arm, order, gap kind, density and seed: split-half compares runs within them
    seeds: list[int]  # init seed of each run

    @classmethod
    def of(cls, variant_ids: Sequence[str], seeds: Sequence[int], variants: Sequence[Variant]) -> Layout:
        """Return the layout of runs; a run whose variant is not in the design is no base arm and alone in its cell."""
        by_id = {variant.variant_id: variant for variant in variants}
        known = [by_id.get(variant_id) for variant_id in variant_ids]
        orders = Counter(variant.order for variant in known if variant is not None and variant.arm == "base")
        commonest = min(orders, key=lambda order: (-orders[order], order), default=None)
        base = [variant is not None and variant.arm == "base" and variant.order == commonest for variant in known]
        cells = [
            f"unknown {place}" if v is None else f"{v.template} {v.arm} {v.order} {v.gap_kind} {v.density}"
            for place, v in enumerate(known)
        ]
        users = Counter(seeds)
        cells = [f"{cell} {seed if users[seed] > 1 else ''}" for cell, seed in zip(cells, seeds, strict=True)]
        return cls(np.array(base, dtype=bool), cells, list(seeds))

    @classmethod
    def flat(cls, n_runs: int) -> Layout:
        """Return the layout of runs that differ in their sets only."""
        return cls(np.ones(n_runs, dtype=bool), ["base"] * n_runs, list(range(n_runs)))

    def icc(self, values: Array, variants: Sequence[str]) -> Icc:
        """Return the ICC of the base arms, common init seeds taken out."""
        own = np.flatnonzero(self.base).tolist()
        names = [variants[i] for i in own]
        adjusted, n_effects = without_seed_effects(values[own], names, [self.seeds[i] for i in own])
        return icc(adjusted, names, n_effects)


@dataclass(frozen=True)
class Icc:
    """ICC(1) with its interval; NaN where no variant was trained with two seeds."""

    value: float
    low: float
    high: float
    seed_sd: float
    n_extra: int  # runs beyond the first of their variant


def icc(values: Array, groups: Sequence[str], n_effects: int = 0) -> Icc:
    """Return the share of the variance between runs that is the group (the set) and not the seed.

    Args:
        values: One per run.
        groups: The variant of each run.
        n_effects: Effects of common init seeds that were estimated and taken out, a degree of freedom each.
    """
    code = _codes(groups)
    sizes = np.bincount(code).astype(float)
    n, g = len(values), len(sizes)
    extra = n - g - n_effects
    if extra < 1 or g < 2 or not np.all(np.isfinite(values)):
        return Icc(math.nan, math.nan, math.nan, math.nan, max(extra, 0))
    means = np.bincount(code, weights=values) / sizes
    within = float(np.sum((values - means[code]) ** 2)) / extra
    between = float(np.sum(sizes * (means - values.mean()) ** 2)) / (g - 1)
    n0 = (n - float(np.sum(sizes**2)) / n) / (g - 1)
    seed_sd = math.sqrt(within)
    if within <= 1e-30:
        same = 1.0 if between > 1e-30 else math.nan
        return Icc(same, same, same, seed_sd, extra)
    f = between / within
    tail = (1 - _CONFIDENCE) / 2
    f_low = f / float(stats.f.ppf(1 - tail, g - 1, extra))
    f_high = f * float(stats.f.ppf(1 - tail, extra, g - 1))
    low, value, high = (min(1.0, max(0.0, (x - 1) / (x + n0 - 1))) for x in (f_low, f, f_high))
    return Icc(value, low, high, seed_sd, extra)


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


def judge(
    tables: Sequence[FamilyTable],
    chance: Sequence[FamilyTable],
    variants: Sequence[str],
    gate: ScoresSection,
    layout: Layout | None = None,
) -> list[Reliability]:
    """Return a row for every family and for every ability as a whole (`*`), in the order of the tables.

    Args:
        tables: Trained runs.
        chance: The same families on untrained models.
        variants: The variant of each trained run.
        gate: What a family must show.
        layout: Where each run stands in the design; None where runs differ in their sets only.
    """
    layout = layout or Layout.flat(len(variants))
    families = [_Family.of(table, by_chance, variants, layout) for table, by_chance in zip(tables, chance, strict=True)]
    rows = [_family_row(family, gate, layout) for family in families]
    wholes = []
    for ability in dict.fromkeys(row.ability for row in rows):
        own = [(family, row) for family, row in zip(families, rows, strict=True) if row.ability == ability]
        admitted = [family for family, row in own if row.admitted]
        chosen = admitted or [family for family, _ in own]
        wholes.append(_ability_row(ability, chosen, bool(admitted), variants, gate, layout))
    return rows + wholes


@dataclass(frozen=True)
class _Family:
    table: FamilyTable
    values: Array  # per run
    chance: float
    difference: float  # mean of the runs above chance
    se: float
    z: float  # how clearly above chance: by margins or by right answers, whichever shows it better
    sd: float  # between runs
    icc: Icc

    @classmethod
    def of(cls, table: FamilyTable, chance: FamilyTable, variants: Sequence[str], layout: Layout) -> _Family:
        values, by_chance = table.values(), chance.values()
        difference, se = _above_chance(table, chance)
        zs = [_ratio(difference, se), _ratio(*_above_chance(table.answers(), chance.answers()))]
        z = max((value for value in zs if math.isfinite(value)), default=math.nan)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        level = float(by_chance.mean()) if len(by_chance) else math.nan
        return cls(table, values, level, difference, se, z, sd, layout.icc(values, variants))


def _family_row(family: _Family, gate: ScoresSection, layout: Layout) -> Reliability:
    half = split_half([family.table], [family.sd], layout.cells) if family.sd > 0 else math.nan
    z = family.z
    n_items = int(np.count_nonzero(family.table.weight_RI.sum(0) > 0))
    reason = _reason(len(family.values), n_items, z, half, family.icc, gate)
    accuracy = family.table.accuracy()
    return Reliability(
        ability=family.table.ability,
        family=family.table.family,
        n_runs=len(family.values),
        n_items=n_items,
        mean=float(family.values.mean()) if len(family.values) else math.nan,
        chance=family.chance,
        z_over_chance=z,
        accuracy=float(accuracy.mean()) if len(accuracy) else math.nan,
        split_half=half,
        icc=family.icc.value,
        icc_low=family.icc.low,
        icc_high=family.icc.high,
        seed_sd=family.icc.seed_sd,
        admitted=not reason,
        reason=reason,
    )


def _ability_row(
    ability: str,
    families: Sequence[_Family],
    any_admitted: bool,
    variants: Sequence[str],
    gate: ScoresSection,
    layout: Layout,
) -> Reliability:
    """Return the row of an ability: the mean of its families above chance, in between-run standard deviations."""
    live = [family for family in families if family.sd > 0 and math.isfinite(family.chance)]
    n_runs = len(families[0].values)
    n_items = sum(int(np.count_nonzero(f.table.weight_RI.sum(0) > 0)) for f in families)
    values = np.full(n_runs, math.nan)
    z = half = math.nan
    if live:
        values = np.mean([(f.values - f.chance) / f.sd for f in live], axis=0)
        se = math.sqrt(sum((f.se / f.sd) ** 2 for f in live)) / len(live)
        together = _ratio(sum(f.difference / f.sd for f in live) / len(live), se)
        z = max(together, min(f.z for f in live))  # at least as clear as its least clear family
        half = split_half([f.table for f in live], [f.sd for f in live], layout.cells)
    of_sets = layout.icc(values, variants)
    reason = _reason(n_runs, n_items, z, half, of_sets, gate)
    if not any_admitted and n_runs >= gate.min_runs:
        reason = "none of its families can be measured: " + ", ".join(f.table.family for f in families)
    accuracies = [x for x in (float(f.table.accuracy().mean()) for f in families if n_runs) if math.isfinite(x)]
    return Reliability(
        ability=ability,
        family=WHOLE_ABILITY,
        n_runs=n_runs,
        n_items=n_items,
        mean=float(values.mean()) if n_runs else math.nan,
        chance=0.0,
        z_over_chance=z,
        accuracy=float(np.mean(accuracies)) if accuracies else math.nan,
        split_half=half,
        icc=of_sets.value,
        icc_low=of_sets.low,
        icc_high=of_sets.high,
        seed_sd=of_sets.seed_sd,
        admitted=not reason,
        reason=reason,
    )


def _reason(n_runs: int, n_items: int, z: float, half: float, of_sets: Icc, gate: ScoresSection) -> str:
    """Return why something is not admitted; empty where it is."""
    if n_runs < gate.min_runs:
        return f"too few runs to judge ({n_runs} of at least {gate.min_runs})"
    if n_items == 0:
        return "no items"
    reasons = []
    if not z > gate.min_z:
        shown = "not measured" if math.isnan(z) else f"{z:.1f}"
        reasons.append(f"not clearly better than untrained models (z {shown}, needed {gate.min_z:g})")
    if not half >= gate.min_split_half:
        shown = "not measured" if math.isnan(half) else f"{half:.2f}"
        reasons.append(
            f"two halves of the eval set disagree about the runs (split-half {shown}, needed {gate.min_split_half:g})"
        )
    if of_sets.n_extra >= gate.min_replicates and not of_sets.value >= gate.min_icc:
        reasons.append(f"the seed matters more than the set (ICC {of_sets.value:.2f}, needed {gate.min_icc:g})")
    return "; ".join(reasons)


def _above_chance(table: FamilyTable, chance: FamilyTable) -> tuple[float, float]:
    """Return how far the runs are above untrained models, and its standard error.

    The error has three parts: eval books (or items where there are few books), runs, and untrained models.
    """
    n_runs, n_chance = len(table.num_RI), len(chance.num_RI)
    if not n_runs or not n_chance:
        return math.nan, math.nan
    weight_I = table.weight_RI.mean(0)
    if weight_I.sum() <= 0:
        return math.nan, math.nan
    gap_I = table.num_RI.mean(0) - chance.num_RI.mean(0)
    difference = float(gap_I.sum() / weight_I.sum())
    codes = _codes(table.units())
    residual_K = np.bincount(codes, weights=gap_I - difference * weight_I)
    k = len(residual_K)
    variance = float(np.sum(residual_K**2)) / float(weight_I.sum()) ** 2 * (k / (k - 1) if k > 1 else math.nan)
    for values in (table.values(), chance.values()):
        if len(values) > 1:
            variance += float(np.var(values, ddof=1)) / len(values)
    return difference, math.sqrt(variance)


def _ratio(difference: float, se: float) -> float:
    return difference / se if se > 0 else math.nan


def _unit_names(table: FamilyTable) -> list[str]:
    units = table.units()
    return units if units is table.clusters else [f"{table.family}:{unit}" for unit in units]


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    place = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], dtype=np.int64)


def _centred(values: Array, cells: Sequence[str] | None) -> Array:
    """Return the values (runs, columns) without the mean of their cell, runs that are alone in a cell left out."""
    if cells is None:
        return values
    code = _codes(cells)
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
