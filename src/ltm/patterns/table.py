"""One score per run and ability, in seed standard deviations: the table that every estimate starts from.

Reads: `sets/variants.parquet` (Variant), `runs/*/run.json` (Run), `scores/measures.parquet` (Measure),
`scores/reliability.parquet` (Reliability).

Families of items have different scales, so each is divided by its own seed standard deviation before the mean over
families is taken. Families that did not pass the admission gate are left out; an ability without any admitted family
is scored from all of them and marked as not measurable, so that nothing is ever claimed about it.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.errors import DataError, StoreError
from ltm.records import ABILITIES, FLUENCY, Book, Measure, Reliability, Run, Variant
from ltm.scores.seeds import without_seed_effects
from ltm.store import WorkFolder, read_json, read_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCORED = (*ABILITIES, FLUENCY)
_MIN_REPLICATE_DF = 5  # fewer replicate pairs say too little about the seed's standard deviation
_TINY = 1e-12


@dataclass(frozen=True)
class Ability:
    """What is known about one ability before any effect is estimated.

    `unit` says what one unit of the score is: `seed` (standard deviation between seeds), `residual` (standard
    deviation within sets, where the seed's is unknown), `score` (as it was given) or `none` (it cannot be scaled).
    """

    name: str
    admitted: bool
    reason: str
    families: tuple[str, ...]
    unit: str
    unit_sd: float  # what the mean of the standardised families was divided by
    n_runs: int
    n_missing: int  # runs without a usable score
    constant: bool
    form: str = "as it is"  # or what was made of it before effects were added up, such as log(loss - c)
    seed_sd: float = 1.0  # what one standard deviation of the noise is in the score
    noise: str = "seed"  # whose standard deviation `seed_sd` is: `seed`, or `residual` where the seed's is unknown


@dataclass(frozen=True)
class Table:
    """Scores by run. Row i belongs to `variants[variant_of[i]]`; a score that is missing is NaN."""

    run_ids: tuple[str, ...]
    variants: tuple[Variant, ...]  # those with at least one run, by place in the design
    variant_of: Ints  # (n,)
    scores: dict[str, Floats]  # ability -> (n,), in units of `abilities[ability].unit`
    abilities: dict[str, Ability]
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> runs or rows left out
    halves: dict[str, tuple[Floats, ...]] = field(default_factory=dict)  # the scores from each half of the eval books
    loss: Floats | None = None  # (n,) bits per byte behind the fluency, where they are known

    def variant(self, row: int) -> Variant:
        """Return the variant that a row was trained on."""
        return self.variants[int(self.variant_of[row])]

    def standard(self, name: str) -> Floats:
        """Return the scores of an ability in seed standard deviations, so that abilities can be averaged."""
        return np.asarray(self.scores[name] / self.abilities[name].seed_sd, dtype=np.float64)


def joint_unit(table: Table, names: Sequence[str]) -> tuple[str, float]:
    """Return the unit in which the mean of some abilities is told, and its size in that of `Table.standard`.

    One ability that was given in a unit of its own is told in that; a mean of several has none but their noise, which
    is `mixed` where the noise of one is the seed's and that of another what is left within sets.
    """
    facts = [table.abilities[name] for name in names]
    if len(facts) == 1 and facts[0].unit == "score":
        return "score", facts[0].seed_sd
    noises = {own.noise for own in facts}
    return (noises.pop() if len(noises) == 1 else "mixed"), 1.0


@dataclass(frozen=True)
class Rows:
    """The rows that the patterns are made of, as the earlier stages wrote them."""

    variants: Sequence[Variant]
    runs: Sequence[Run]
    measures: Sequence[Measure]
    reliability: Sequence[Reliability]
    books: Mapping[str, Book] = field(default_factory=dict)


def read_input(work: WorkFolder) -> Rows:
    """Read everything that the patterns need from a work folder.

    Raises:
        StoreError: a file is missing or damaged.
        DataError: a file holds other columns.
    """
    return Rows(
        variants=read_rows(work.path("sets", "variants.parquet"), Variant),
        runs=read_runs(work),
        measures=read_rows(work.path("scores", "measures.parquet"), Measure),
        reliability=read_rows(work.path("scores", "reliability.parquet"), Reliability),
    )


def read_runs(work: WorkFolder) -> list[Run]:
    """Read `runs/*/run.json`; a run without that file is not complete and is passed over.

    Raises:
        StoreError: a file is damaged or is not a run's record.
    """
    return [_run_from(read_json(path), str(path)) for path in sorted(work.path("runs").glob("*/run.json"))]


def _run_from(value: Any, path: str) -> Run:
    known = [f.name for f in dataclasses.fields(Run)]
    if not isinstance(value, dict) or not {"run_id", "variant_id", "init_seed"} <= value.keys():
        raise StoreError(f"{path} is not the record of a run", "delete it and run the same command again")
    try:
        return Run(**{name: value[name] for name in known if name in value})
    except TypeError:
        missing = ", ".join(name for name in known if name not in value)
        raise StoreError(f"{path} lacks {missing}", "delete it and run the same command again") from None


def make_table(rows: Rows) -> Table:
    """Return one score per run and ability.

    Raises:
        DataError: no run has a score, or two rows contradict each other.
    """
    dropped: Counter[str] = Counter()
    values = _values(rows.measures, dropped)
    chosen = _choose_runs(rows, values, dropped)
    if not chosen:
        raise DataError(
            "no run has a score, so there is nothing to compare",
            "look at `ltm status STUDY` for failed runs, then run the study again",
        )
    variants, runs = _sorted(chosen, rows.variants)
    place = {variant.variant_id: i for i, variant in enumerate(variants)}
    variant_of = np.array([place[run.variant_id] for run in runs], dtype=np.int64)
    run_ids = tuple(run.run_id for run in runs)
    sets = np.array([variants[v].set_id for v in variant_of], dtype=np.int64)
    values, n_effects = _without_seeds(values, runs)
    scores: dict[str, Floats] = {}
    abilities: dict[str, Ability] = {}
    for name in (*SCORED, *sorted(set(values) - set(SCORED))):
        if any(values.get(name, {}).values()):
            scores[name], abilities[name] = _score(
                name, values[name], run_ids, variant_of, sets, rows.reliability, n_effects
            )
    halves = {
        name: tuple(
            _score(name, half[name], run_ids, variant_of, sets, rows.reliability, n_effects)[0]
            for half in (_half(rows, "half_1", runs), _half(rows, "half_2", runs))
            if half.get(name)
        )
        for name in scores
    }
    counted = {reason: count for reason, count in sorted(dropped.items()) if count}
    return Table(run_ids, variants, variant_of, scores, abilities, counted, halves, _loss(values, abilities, run_ids))


def _loss(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], abilities: Mapping[str, Ability], run_ids: Sequence[str]
) -> Floats | None:
    """Return the mean bits per byte of each run over the families of fluency, or None without fluency."""
    if FLUENCY not in abilities:
        return None
    families = [values[FLUENCY][family] for family in abilities[FLUENCY].families]
    return np.asarray(-np.mean([[family.get(run_id, math.nan) for run_id in run_ids] for family in families], axis=0))


def _half(rows: Rows, which: str, runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the values over one half of the eval books."""
    measures = [dataclasses.replace(m, value=getattr(m, which)) for m in rows.measures]
    return _without_seeds(_values(measures, Counter()), runs)[0]


def _without_seeds(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], runs: Sequence[Run]
) -> tuple[dict[str, dict[str, dict[str, float]]], int]:
    """Return the values without what common init seeds do to all their runs, and how many effects that took."""
    variants, seeds = [run.variant_id for run in runs], [run.init_seed for run in runs]
    result: dict[str, dict[str, dict[str, float]]] = {}
    most = 0
    for ability, families in values.items():
        result[ability] = {}
        for family, by_run in families.items():
            raw = np.array([by_run.get(run.run_id, np.nan) for run in runs])
            adjusted, n_effects = without_seed_effects(raw, variants, seeds)
            most = max(most, n_effects)
            result[ability][family] = {
                run.run_id: float(value) for run, value in zip(runs, adjusted, strict=True) if np.isfinite(value)
            }
    return result, most


def _values(measures: Sequence[Measure], dropped: Counter[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return ability -> family -> run_id -> value, finite values only."""
    values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in measures:
        if not math.isfinite(row.value):
            dropped["measures that are not a number"] += 1
            continue
        known = values[row.ability][row.family].setdefault(row.run_id, row.value)
        if known != row.value:
            raise DataError(
                f"run {row.run_id} has two different values for {row.ability}/{row.family}",
                "delete scores/measures.parquet and run the same command again",
            )
    return values


def _choose_runs(
    rows: Rows, values: Mapping[str, Mapping[str, Mapping[str, float]]], dropped: Counter[str]
) -> list[Run]:
    """Return one scored run per variant and seed."""
    scored = {run_id for families in values.values() for runs in families.values() for run_id in runs}
    known = {variant.variant_id for variant in rows.variants}
    # Confirmation runs and those of losing recipes are scored apart: here they are not missed.
    apart = {v.variant_id for v in rows.variants if v.aside or v.round == "confirmation"}
    chosen: dict[tuple[str, int], Run] = {}
    seen: set[str] = set()
    for run in sorted(rows.runs, key=lambda r: r.run_id):
        if run.run_id in seen or (run.run_id in scored and (run.variant_id, run.init_seed) in chosen):
            dropped["duplicated runs"] += 1
        elif run.run_id not in scored:
            dropped["runs without a score"] += run.variant_id not in apart
        elif run.variant_id not in known:
            dropped["runs of another design"] += 1
        else:
            chosen[run.variant_id, run.init_seed] = run
        seen.add(run.run_id)
    planned = sum(len(variant.init_seeds) for variant in rows.variants if variant.variant_id not in apart)
    missing = planned - sum(variant_id not in apart for variant_id, _ in chosen)
    if missing > 0:
        dropped["planned runs that are missing"] = missing
    return list(chosen.values())


def _sorted(runs: Sequence[Run], variants: Sequence[Variant]) -> tuple[tuple[Variant, ...], list[Run]]:
    used = {run.variant_id for run in runs}
    kept = {v.variant_id: v for v in sorted(variants, key=lambda v: (v.index, v.variant_id)) if v.variant_id in used}
    place = {variant_id: i for i, variant_id in enumerate(kept)}
    return tuple(kept.values()), sorted(runs, key=lambda r: (place[r.variant_id], r.init_seed, r.run_id))


def _score(
    name: str,
    families: Mapping[str, Mapping[str, float]],
    run_ids: Sequence[str],
    variant_of: Ints,
    sets: Ints,
    reliability: Sequence[Reliability],
    n_effects: int,
) -> tuple[Floats, Ability]:
    """Return the standardised score of one ability and the facts about it; `n_effects` degrees of freedom are spent."""
    used, admitted, reason = _families(name, families, reliability)
    seed_sds = {r.family: r.seed_sd for r in reliability if r.ability == name}
    columns, known_sd = [], True
    for family in used:
        raw = np.array([families[family].get(run_id, np.nan) for run_id in run_ids])
        sd = seed_sds.get(family, math.nan)
        if not (math.isfinite(sd) and sd > _TINY):
            known_sd, sd = False, _residual_sd(raw, sets)
        centre = float(np.mean(raw[np.isfinite(raw)])) if np.isfinite(raw).any() else 0.0
        columns.append((raw - centre) / sd if sd > _TINY else raw - centre)
    # A run that lacks a family would be scored on another scale than the rest, so it has no score at all.
    score = np.mean(columns, axis=0)
    finite = np.isfinite(score)
    n_finite = int(finite.sum())
    spread = float(np.std(score[finite])) if finite.any() else 0.0
    constant = spread <= _TINY * max(1.0, float(np.max(np.abs(score[finite]), initial=0.0)))
    unit, unit_sd = _unit(score, variant_of, sets, known_sd, len(used), n_effects) if not constant else ("none", 1.0)
    facts = Ability(
        name, admitted, reason, tuple(used), unit, unit_sd, n_finite, len(score) - n_finite, constant, noise=unit
    )
    return score / unit_sd, facts


def _families(
    name: str, families: Mapping[str, Any], reliability: Sequence[Reliability]
) -> tuple[list[str], bool, str]:
    """Return the families to use, whether the ability is admitted, and if not, why."""
    rows = {r.family: r for r in reliability if r.ability == name}
    whole = rows.pop("*", None)
    passed = sorted(f for f in families if f in rows and rows[f].admitted)
    if not rows and whole is not None and whole.admitted:
        return sorted(families), True, ""
    if passed and (whole is None or whole.admitted):
        return passed, True, ""
    reasons = [r.reason for r in (whole, *(rows[f] for f in sorted(rows))) if r is not None and r.reason]
    return passed or sorted(families), False, reasons[0] if reasons else "no family of items passed the gate"


def _unit(
    score: Floats, variant_of: Ints, sets: Ints, known_sd: bool, n_families: int, n_effects: int
) -> tuple[str, float]:
    """Return what one unit of the score is, and its size on the scale of the mean of the families."""
    replicate_sd, df = _within_sd(score, variant_of, n_effects)
    if df >= _MIN_REPLICATE_DF:
        if known_sd and n_families == 1:
            return "seed", 1.0  # it was divided by the seed's standard deviation already
        if replicate_sd > _TINY:
            return "seed", replicate_sd
    sd = _residual_sd(score, sets)
    return ("residual", sd) if sd > _TINY else ("none", 1.0)


def seed_unit(score: Floats, variant_of: Ints, sets: Ints) -> tuple[str, float]:
    """Return (`seed` or `residual`, standard deviation) of scores whose seed noise is not known from elsewhere."""
    return _unit(score, variant_of, sets, False, 1, 0)


def _within_sd(values: Floats, groups: Ints, n_effects: int = 0) -> tuple[float, int]:
    """Return the pooled standard deviation within groups and its degrees of freedom."""
    finite = np.isfinite(values)
    x, labels = values[finite], groups[finite]
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    df = len(x) - len(counts) - n_effects
    if df <= 0:
        return 0.0, 0
    means = np.bincount(index, weights=x) / counts
    return float(np.sqrt(np.sum((x - means[index]) ** 2) / df)), df


def _residual_sd(values: Floats, sets: Ints) -> float:
    """Return the standard deviation within sets, or over all runs where no set has two."""
    sd, df = _within_sd(values, sets)
    finite = values[np.isfinite(values)]
    if df > 0 and sd > _TINY:
        return sd
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0
