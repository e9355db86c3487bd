"""What the pilot teaches: how loud seeds, orders and gaps are against sets, and how to go on.

Reads: `scores/measures.parquet` and `scores/aside.parquet` (Measure), `scores/reliability.parquet`, run rows, variants.
Writes: nothing; `rounds` keeps what `learn` returns in `sets/pilot/learned.json`.

Every set of the pilot is trained in two orders, with and without gaps, with two seeds: a score is the mean of its cell,
plus what the set, the order inside the set, the gaps inside the set and the seed add. The variances of these four are
estimated without bias and in closed form (MINQUE, Rao 1971), an interval by drawing sets again (bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.patterns.knowledge import expected_accuracy, smallest_book_effect
from ltm.records import ABILITIES, FLUENCY, Measure, Reliability, Run, Variant
from ltm.runs import queue
from ltm.scores import apart
from ltm.scores.seeds import without_seed_effects
from ltm.store import WorkFolder, read_json, read_rows
from ltm.study.round_sizes import SLOW, sizes
from ltm.study.settings import StudySettings

Floats = npt.NDArray[np.float64]

_COMPONENTS = ("set", "order", "gaps", "seed")
_QUIET_SHARE = 0.10  # of the seed's variance: below it orders and gaps get fewer blocks
_FEW_PAIRED = 0.20  # of the sets, then
_BOOTSTRAPS = 200
_NO_GO_H2 = 0.05
_TINY = 1e-12


@dataclass(frozen=True)
class Cells:
    """The runs of one recipe: where each stands in the pilot."""

    runs: list[Run]
    variants: list[Variant]

    @property
    def sets(self) -> list[int]:
        """Set of each run."""
        return [v.set_id for v in self.variants]


def learn(settings: StudySettings, work: WorkFolder, variants: Sequence[Variant]) -> dict[str, Any]:
    """Return what the pilot taught, in numbers and in words; equal scores give equal bytes.

    Returns:
        `abilities` (h2 with its interval, shares of orders and gaps), `slow_lr` (agreement of the rankings), `recipes`
        (findings per hour), `recipe` (the chosen one, empty = the study's own), `shares` of the exploration (None = the
        study's own), `go`, and `words`.
    """
    measures = [*read_rows(work.path("scores", "measures.parquet"), Measure), *apart.read(work, apart.ASIDE)]
    reliability = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    by_recipe = _cells(work, variants)
    families = _families(measures, reliability)
    main = by_recipe[""]
    abilities = {name: components(main, _ability(main, measures, used)) for name, used in families.items()}
    admitted = {r.ability for r in reliability if r.admitted}
    counted = _counted({name: row for name, row in abilities.items() if name in admitted} or abilities)
    recipes = {
        name: _per_hour(cells, measures, families)
        for name, cells in by_recipe.items()
        if name != SLOW and len(cells.runs) > 1
    }
    chosen = max(recipes, key=lambda name: (recipes[name]["findings_per_hour"], name == ""), default="")
    slow = _agreement(main, by_recipe.get(SLOW), measures, families)
    shares = _shares(settings, [abilities[name] for name in counted])
    h2 = float(np.mean([abilities[name]["h2"] for name in counted])) if counted else 0.0
    go = h2 > _NO_GO_H2
    found: dict[str, Any] = {
        "n_books": int(read_json(work.path("sets", "design.json"))["n_units"]),
        "abilities": abilities,
        "counted": counted,
        "h2": h2,
        "slow_lr": slow,
        "recipes": recipes,
        "recipe": chosen,
        "shares": shares,
        "go": go,
    }
    return {**found, "words": _words(settings, found)}


def components(cells: Cells, values: Floats) -> dict[str, Any]:
    """Return the variance of sets, orders, gaps and seeds for one ability, and what follows from it."""
    keep = np.flatnonzero(np.isfinite(values))
    if len(keep) < 4:
        return {"n_runs": len(keep), "h2": 0.0, "h2_low": 0.0, "h2_high": 0.0, "order_and_gaps_over_seed": 0.0}
    kept = [cells.variants[i] for i in keep]
    estimate = _minque(kept, values[keep])
    rng = np.random.default_rng(0)
    set_ids = sorted({v.set_id for v in kept})
    drawn = []
    for _ in range(_BOOTSTRAPS if len(set_ids) > 2 else 0):
        picked = rng.choice(set_ids, len(set_ids))
        rows = [(i, new) for new, old in enumerate(picked) for i, v in enumerate(kept) if v.set_id == old]
        again = _minque([kept[i] for i, _ in rows], values[keep][[i for i, _ in rows]], [new for _, new in rows])
        drawn.append(_h2(again))
    low, high = (float(x) for x in np.quantile(drawn, [0.05, 0.95])) if drawn else (0.0, 1.0)
    seed = estimate["seed"]
    other = estimate["order"] + estimate["gaps"]
    return {
        "n_runs": len(keep),
        "n_sets": len(set_ids),
        **{f"{name}_variance": _rounded(estimate[name]) for name in _COMPONENTS},
        "h2": _rounded(_h2(estimate)),
        "h2_low": _rounded(low),
        "h2_high": _rounded(high),
        "order_and_gaps_over_seed": _rounded(other / seed if seed > _TINY else math.inf if other > _TINY else 0.0),
    }


def _minque(variants: Sequence[Variant], values: Floats, sets: Sequence[int] | None = None) -> dict[str, float]:
    """Return unbiased variances (cut at 0) of set, order inside set, gaps inside set, and seed.

    Cell means are fixed. What orders and gaps do on average counts into their variance, since an order that is better
    everywhere is worth finding as much as one that is better here and there.
    """
    set_of = list(sets) if sets is not None else [v.set_id for v in variants]
    order = [v.arm in ("order", "order+gap") for v in variants]
    gaps = [v.arm in ("gap", "order+gap") for v in variants]
    cell = [(a, b) for a, b in zip(order, gaps, strict=True)]
    fixed = _indicator(cell)
    fixed /= np.sqrt(fixed.sum(axis=0))  # columns of unit length that do not overlap

    def project(x: Floats) -> Floats:
        return np.asarray(x - fixed @ (fixed.T @ x), dtype=np.float64)

    groups: dict[str, list[Any]] = {"set": set_of}
    if len(set(order)) > 1:
        groups["order"] = list(zip(set_of, order, strict=True))
    if len(set(gaps)) > 1:
        groups["gaps"] = list(zip(set_of, gaps, strict=True))
    names = [*groups, "seed"]
    roots = [project(_indicator(groups[name])) for name in groups]  # a part of the covariance is root @ root.T
    rest = project(values)
    system = np.zeros((len(names), len(names)))
    right = np.array([*(float(np.sum((z.T @ rest) ** 2)) for z in roots), float(rest @ rest)])
    for i, one in enumerate(roots):
        system[i, -1] = system[-1, i] = float(np.sum(one**2))
        for j, two in enumerate(roots):
            system[i, j] = float(np.sum((one.T @ two) ** 2))
    system[-1, -1] = len(values) - fixed.shape[1]
    solved = np.linalg.lstsq(system, right, rcond=None)[0]
    found = dict.fromkeys(_COMPONENTS, 0.0) | {n: max(0.0, float(x)) for n, x in zip(names, solved, strict=True)}
    for name, flags in (("order", order), ("gaps", gaps)):
        found[name] = found[name] / 2 + _main_effect(values, flags, found["seed"])
    return found


def _main_effect(values: Floats, flags: Sequence[bool], seed: float) -> float:
    """Return the variance that two levels with different means add: a quarter of the squared difference, less noise."""
    on = np.array(flags)
    if not on.any() or on.all():
        return 0.0
    difference = float(values[on].mean() - values[~on].mean())
    noise = seed * (1 / on.sum() + 1 / (~on).sum())
    return float(max(0.0, difference**2 - noise)) / 4


def _indicator(labels: Sequence[Any]) -> Floats:
    places = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    found = np.zeros((len(labels), len(places)))
    found[np.arange(len(labels)), [places[label] for label in labels]] = 1.0
    return found


def _h2(variance: Mapping[str, float]) -> float:
    total = float(variance["set"] + variance["seed"])
    return float(variance["set"]) / total if total > _TINY else 0.0


def _cells(work: WorkFolder, variants: Sequence[Variant]) -> dict[str, Cells]:
    by_id = {v.variant_id: v for v in variants}
    found: dict[str, Cells] = {"": Cells([], [])}
    for run in queue.complete_runs(work):
        variant = by_id.get(run.variant_id)
        if variant is not None:
            cells = found.setdefault(variant.recipe, Cells([], []))
            cells.runs.append(run)
            cells.variants.append(variant)
    return found


def _families(measures: Sequence[Measure], reliability: Sequence[Reliability]) -> dict[str, list[str]]:
    """Return the families that stand for each ability: the admitted ones, else all; fluency has its own."""
    present: dict[str, set[str]] = {}
    for row in measures:
        present.setdefault(row.ability, set()).add(row.family)
    admitted = {(r.ability, r.family) for r in reliability if r.admitted}
    found = {}
    for name in (*ABILITIES, FLUENCY):
        families = sorted(present.get(name, ()))
        if families:
            found[name] = [f for f in families if (name, f) in admitted] or families
    return found


def _ability(cells: Cells, measures: Sequence[Measure], families: Sequence[str]) -> Floats:
    """Return one value per run: the mean of its families, each in standard deviations between runs."""
    place = {run.run_id: i for i, run in enumerate(cells.runs)}
    columns = []
    for family in families:
        raw = np.full(len(cells.runs), np.nan)
        for row in measures:
            if row.family == family and row.run_id in place:
                raw[place[row.run_id]] = row.value
        ids, seeds = [v.variant_id for v in cells.variants], [run.init_seed for run in cells.runs]
        adjusted, _ = without_seed_effects(raw, ids, seeds)
        finite = adjusted[np.isfinite(adjusted)]
        sd = float(np.std(finite)) if len(finite) > 1 else 0.0
        columns.append((adjusted - finite.mean()) / sd if sd > _TINY else adjusted * 0)
    return np.asarray(np.mean(columns, axis=0), dtype=np.float64)


def _counted(abilities: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the abilities that decide how to go on: those that tell sets apart at all, else fluency, else all.

    Those that can be measured are asked first; at chance an ability seems to tell sets apart by luck.
    """
    real = [name for name in abilities if name != FLUENCY and abilities[name]["h2_low"] > 0]
    return real or [name for name in abilities if name == FLUENCY] or list(abilities)


def _per_hour(cells: Cells, measures: Sequence[Measure], families: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return h2, seconds of a run and N x h2 per hour of one worker for the base variants of a recipe."""
    base = [i for i, v in enumerate(cells.variants) if v.arm == "base"]
    own = Cells([cells.runs[i] for i in base], [cells.variants[i] for i in base])
    found = [components(own, _ability(own, measures, used)) for used in families.values()]
    h2 = float(np.mean([row["h2"] for row in found])) if found else 0.0
    seconds = float(np.mean([run.seconds for run in own.runs])) if own.runs else math.inf
    return {"h2": _rounded(h2), "seconds": round(seconds, 3), "findings_per_hour": round(3600 / seconds * h2, 1)}


def _agreement(
    main: Cells, slow: Cells | None, measures: Sequence[Measure], families: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return, by ability, how alike the sets rank at both learning rates, and how alike seeds alone would let them.

    `ceiling` is the correlation that two recipes with the same truth would show: the root of the product of the
    reliabilities of their set means, here taken as equal (Spearman 1904).
    """
    if slow is None or len(slow.runs) < 6:
        return {}
    from scipy.stats import spearmanr

    base = [i for i, v in enumerate(main.variants) if v.arm == "base"]
    usual = Cells([main.runs[i] for i in base], [main.variants[i] for i in base])
    found = {}
    for name, used in families.items():
        means = [_set_means(cells, _ability(cells, measures, used)) for cells in (usual, slow)]
        shared = sorted(set(means[0]) & set(means[1]))
        one, two = ([side[s] for s in shared] for side in means)
        if len(shared) < 4 or np.ptp(one) <= _TINY or np.ptp(two) <= _TINY:
            continue
        h2 = [components(cells, _ability(cells, measures, used))["h2"] for cells in (usual, slow)]
        n = len(usual.runs) / len(shared)
        ceiling = math.sqrt(math.prod(n * x / (1 + (n - 1) * x) for x in h2))
        found[name] = {
            "n_sets": len(shared),
            "agreement": _rounded(float(spearmanr(one, two)[0])),
            "ceiling": _rounded(ceiling),
        }
    return found


def _set_means(cells: Cells, values: Floats) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for set_id, value in zip(cells.sets, values, strict=True):
        if np.isfinite(value):
            found.setdefault(set_id, []).append(float(value))
    return {set_id: float(np.mean(row)) for set_id, row in found.items()}


def _shares(settings: StudySettings, counted: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the exploration's shares where orders and gaps are quiet: paired blocks fall to a fifth of the sets."""
    own = settings.sets.shares.model_dump()
    total = sum(own.values())
    paired = (own["order"] + own["gaps"]) / total
    if not counted or paired <= _FEW_PAIRED or max(row["order_and_gaps_over_seed"] for row in counted) >= _QUIET_SHARE:
        return None
    scale = _FEW_PAIRED / paired
    order, gaps = own["order"] / total * scale, own["gaps"] / total * scale
    seeds = own["seeds"] / total
    return {
        "single": round(1 - order - gaps - seeds, 6),
        "seeds": round(seeds, 6),
        "order": round(order, 6),
        "gaps": round(gaps, 6),
    }


def _rounded(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else value


def _words(settings: StudySettings, found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{name}: {row['h2']:.0%} of the variance between runs of one recipe is the set ({row['h2_low']:.0%} to "
        f"{row['h2_high']:.0%}); orders and gaps make {row['order_and_gaps_over_seed']:.2f} of the seed's variance"
        for name, row in found["abilities"].items()
    ]
    for name, row in found["slow_lr"].items():
        text = f"{name}: at a quarter of the learning rate {row['n_sets']} sets rank alike to {row['agreement']:.2f}"
        flips = row["agreement"] < row["ceiling"] - 2 / math.sqrt(row["n_sets"])
        lines.append(
            f"{text}; seeds alone would allow {row['ceiling']:.2f}" + (": the ranking hangs on it" if flips else "")
        )
    if len(found["recipes"]) > 1:
        each = [f"{name or 'its own'} {row['findings_per_hour']:.0f}" for name, row in found["recipes"].items()]
        chosen = found["recipe"] or "its own settings"
        lines.append(
            f"findings per hour (N x h2 per hour and worker): {', '.join(each)}; the study goes on with {chosen}"
        )
    if found["shares"]:
        lines.append("orders and gaps are quiet: blocks of orders and gaps fall to a fifth of the sets, for more books")
    return [*lines, _verdict(settings, found)]


def _verdict(settings: StudySettings, found: Mapping[str, Any]) -> str:
    """Return go or no-go in words."""
    n_sets = sum(size.n_sets for size in sizes(settings) if size.name == "exploration")
    what = ", ".join(found["counted"]) or "no ability"
    h2 = found["h2"]
    if not found["go"]:
        return (
            f"no-go: {what} tells sets apart by {h2:.0%} only, so {n_sets} sets would rank noise; raise "
            "sets.book_tokens or the items of the eval file, or make sets more different (fewer books in a set)"
        )
    n_books = int(found["n_books"])
    effect = smallest_book_effect(n_sets, settings.sets.books_per_set / n_books, n_books, h2)
    accuracy = expected_accuracy(n_sets, n_books, h2)
    return (
        f"go: at h2 {h2:.2f} ({what}) the {n_sets} sets of the exploration predict new sets of {n_books} books to "
        f"{accuracy:.2f} (correlation) and find a book that is worth {effect:.2f} seed sd four times in five"
    )
