"""How well each family, and each ability as a whole, can be measured: chance, agreement, set against seed.

Sources: ICC (`icc`), halves of the eval books (`agreement`), standard errors clustered by eval book (Miller, "Adding
Error Bars to Evals"), signal over noise (Heineman et al., "Signal and Noise": largest difference over the noise; here
between sets and over the seed), least difference found with 80 % power (2.8 standard errors).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltm.records import FLUENCY, Reliability
from ltm.scores.agreement import alpha, item_sd, split_half
from ltm.scores.icc import Icc, Layout, codes_of, decision_accuracy
from ltm.scores.measures import FamilyTable
from ltm.scores.rules import Array
from ltm.scores.section import ScoresSection

WHOLE_ABILITY = "*"
CODES = ("too_few_runs", "no_items", "no_family", "untrained", "ngram", "split_half", "icc")
"""What the gate may find lacking, in the order in which it is told."""
_RUNS_COMPARED = 4  # of each of two sets, in the least detectable difference
_POWER_80 = 2.8


@dataclass(frozen=True)
class Baselines:
    """The same families, in the same order, on models that cannot have the ability."""

    untrained: Sequence[FamilyTable]
    unigram: Sequence[FamilyTable] = ()
    ngram: Sequence[FamilyTable] = ()
    ending: Sequence[FamilyTable] = ()  # trained models that see the options without their context


def judge(
    tables: Sequence[FamilyTable],
    baselines: Baselines | Sequence[FamilyTable],
    variants: Sequence[str],
    gate: ScoresSection,
    layout: Layout | None = None,
    whole: Sequence[FamilyTable] | None = None,
) -> list[Reliability]:
    """Return a row for every family and for every ability as a whole (`*`), in the order of the tables.

    Args:
        tables: Trained runs, under the metric that is to be judged.
        baselines: The same families on models that cannot have the ability; a plain list is the untrained ones.
        variants: The variant of each trained run.
        gate: What a family must show.
        layout: Where each run stands in the design; None where runs differ in their sets only.
        whole: The families before items were dropped, to be held against the baselines: an item that was dropped
            because a baseline solves it would flatter the runs.
    """
    layout = layout or Layout.flat(len(variants))
    against = baselines if isinstance(baselines, Baselines) else Baselines(baselines)
    families = [
        _Family.of(table, (whole or tables)[place], against, place, variants, layout)
        for place, table in enumerate(tables)
    ]
    rows = [_family_row(family, gate, layout, variants) for family in families]
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
    z_over_ngram: float = math.nan
    simple: dict[str, Any] = field(default_factory=dict)  # accuracy (else value) of the simple models

    @classmethod
    def of(
        cls,
        table: FamilyTable,
        whole: FamilyTable,
        against: Baselines,
        place: int,
        variants: Sequence[str],
        layout: Layout,
    ) -> _Family:
        chance = against.untrained[place].by(table.metric)
        values, by_chance = table.values(), chance.values()
        difference, se = _above(whole.by(table.metric), chance)
        zs = [_ratio(difference, se), _ratio(*_above(whole.answers(), chance.answers()))]
        z = max((value for value in zs if math.isfinite(value)), default=math.nan)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        level = float(by_chance.mean()) if len(by_chance) else math.nan
        named = {"unigram": against.unigram, "ngram": against.ngram, "ending": against.ending}
        simple = {name: _plain_level(models[place]) for name, models in named.items() if models}
        over = _ratio(*_above(_plain(whole), _plain(against.ngram[place]))) if against.ngram else math.nan
        return cls(table, values, level, difference, se, z, sd, layout.icc(values, variants), over, simple)


def _plain(table: FamilyTable) -> FamilyTable:
    """Return right answers where the rule has them: margins of models of different kinds do not compare."""
    answers = table.answers()
    return answers if answers.weight_RI.any() else table


def _plain_level(table: FamilyTable) -> float:
    values = _plain(table).values()
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _family_row(family: _Family, gate: ScoresSection, layout: Layout, variants: Sequence[str]) -> Reliability:
    half = split_half([family.table], [family.sd], layout.cells) if family.sd > 0 else math.nan
    n_items = int(np.count_nonzero(family.table.weight_RI.sum(0) > 0))
    over_ngram = None if family.table.ability == FLUENCY or "ngram" not in family.simple else family.z_over_ngram
    accuracy = family.table.accuracy()
    lacking = _lacking(len(family.values), n_items, family.z, half, family.icc, gate, over_ngram)
    return Reliability(
        ability=family.table.ability,
        family=family.table.family,
        n_runs=len(family.values),
        n_items=n_items,
        mean=float(family.values.mean()) if len(family.values) else math.nan,
        chance=family.chance,
        z_over_chance=family.z,
        accuracy=float(accuracy.mean()) if len(accuracy) else math.nan,
        split_half=half,
        **_of_sets(family.values, family.icc, variants, layout),
        **_gate(lacking),
        metric=family.table.metric,
        z_over_ngram=family.z_over_ngram,
        item_sd=item_sd(family.table),
        **family.simple,
    )


def _of_sets(values: Array, of_sets: Icc, variants: Sequence[str], layout: Layout) -> dict[str, Any]:
    """Return what says how far sets can be told apart by these values."""
    named: dict[str, list[float]] = {}
    for value, name, base in zip(values.tolist(), variants, layout.base.tolist(), strict=True):
        if base:
            named.setdefault(name, []).append(value)
    means = [float(np.mean(own)) for own in named.values()]
    spread = max(means) - min(means) if means else math.nan
    return {
        "icc": of_sets.value,
        "icc_low": of_sets.low,
        "icc_high": of_sets.high,
        "seed_sd": of_sets.seed_sd,
        "snr": spread / of_sets.seed_sd if of_sets.seed_sd > 0 else math.nan,
        "detectable": _POWER_80 * math.sqrt(2 / _RUNS_COMPARED) * of_sets.seed_sd,
        "decision_accuracy": decision_accuracy(values, variants, layout.base),
    }


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
    lacking = _lacking(n_runs, n_items, z, half, of_sets, gate)
    if not any_admitted and n_runs >= gate.min_runs:
        lacking = {"no_family": (0.0, 1.0)}
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
        **_of_sets(values, of_sets, variants, layout),
        **_gate(lacking, [family.table.family for family in families]),
        metric=families[0].table.metric,
        alpha=alpha([f.values for f in live]),
    )


Lacking = dict[str, tuple[float, float]]  # code -> what was measured, what is needed


def _lacking(
    n_runs: int,
    n_items: int,
    z: float,
    half: float,
    of_sets: Icc,
    gate: ScoresSection,
    over_ngram: float | None = None,
) -> Lacking:
    """Return what keeps something out; empty where it is admitted."""
    if n_runs < gate.min_runs:
        return {"too_few_runs": (float(n_runs), float(gate.min_runs))}
    if n_items == 0:
        return {"no_items": (0.0, 1.0)}
    found: Lacking = {}
    if not z > gate.min_z:
        found["untrained"] = (z, gate.min_z)
    if over_ngram is not None and not over_ngram > gate.min_z_over_ngram:
        found["ngram"] = (over_ngram, gate.min_z_over_ngram)
    if not half >= gate.min_split_half:
        found["split_half"] = (half, gate.min_split_half)
    if of_sets.n_extra >= gate.min_replicates and not of_sets.value >= gate.min_icc:
        found["icc"] = (of_sets.value, gate.min_icc)
    return found


_WORDS = {
    "too_few_runs": "too few runs to judge ({value:.0f} of at least {needed:.0f})",
    "no_items": "no items",
    "untrained": "not clearly better than untrained models (z {value:.1f}, needed {needed:g})",
    "ngram": "not clearly better than counting five words in a row (z {value:.1f}, needed {needed:g})",
    "split_half": "two halves of the eval set disagree about the runs (split-half {value:.2f}, needed {needed:g})",
    "icc": "the seed matters more than the set (ICC {value:.2f}, needed {needed:g})",
}


def _in_words(lacking: Lacking, families: Sequence[str] = ()) -> str:
    """Return what is lacking as an English sentence."""
    told = []
    for code, (value, needed) in lacking.items():
        if code == "no_family":
            told.append("none of its families can be measured: " + ", ".join(families))
        else:
            words = re.sub(r"\{value:[^}]*\}", "not measured", _WORDS[code]) if math.isnan(value) else _WORDS[code]
            told.append(words.format(value=value, needed=needed))
    return "; ".join(told)


def _gate(lacking: Lacking, families: Sequence[str] = ()) -> dict[str, Any]:
    """Return the columns of a row that say whether something is admitted, and why not."""
    return {
        "admitted": not lacking,
        "reason": _in_words(lacking, families),
        "reasons": {code: value for code, (value, _) in lacking.items()},
        "needed": {code: needed for code, (_, needed) in lacking.items()},
    }


def _above(table: FamilyTable, chance: FamilyTable) -> tuple[float, float]:
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
    codes = codes_of(table.units())
    residual_K = np.bincount(codes, weights=gap_I - difference * weight_I)
    k = len(residual_K)
    variance = float(np.sum(residual_K**2)) / float(weight_I.sum()) ** 2 * (k / (k - 1) if k > 1 else math.nan)
    for values in (table.values(), chance.values()):
        if len(values) > 1:
            variance += float(np.var(values, ddof=1)) / len(values)
    return difference, math.sqrt(variance)


def _ratio(difference: float, se: float) -> float:
    return difference / se if se > 0 else math.nan
