"""`ltm simulate`: scores with a known truth for the stored design of a study, as a CSV and a JSON.

Reads: `sets/`, `books/catalogue.parquet`, the recipe. Writes: `scores.csv` (columns of `ltm patterns --scores`) and
`truth.json` (what was planted, in the words and units in which `ltm patterns` reports it).

Every planted effect is the same in every ability; noise is drawn anew for each. Effects of features, places and
diversity are per standard deviation over the design, as they are reported.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ltm.errors import InputError
from ltm.patterns.context import Context, read_context
from ltm.patterns.describe import Described, describe
from ltm.patterns.interactions import set_columns
from ltm.patterns.layout import Layout, make_layout
from ltm.patterns.order import position_weights, run_doses
from ltm.patterns.table import Ability, Floats, Table
from ltm.records import Variant
from ltm.store import WorkFolder, read_json, read_rows, write_json, write_text


@dataclass(frozen=True)
class Truth:
    """What is true of the scores, in seed standard deviations."""

    books: Mapping[str, float] = field(default_factory=dict)  # book_id -> what its presence adds
    features: Mapping[str, float] = field(default_factory=dict)  # feature -> per sd of the set's mean
    sets: Mapping[str, float] = field(default_factory=dict)  # set:diversity, set:likeness -> per sd
    places: Mapping[str, float] = field(default_factory=dict)  # `kernel:flesch`, `late:flesch`, `A before B` -> per sd
    orders: Mapping[str, float] = field(default_factory=dict)  # shuffled, readability_up, ... -> against random
    gaps: Mapping[str, float] = field(default_factory=dict)  # kind, or `*` -> per share left out, against truncated
    less_text: float = 0.0  # per share left out, gaps or not
    interactions: Mapping[str, float] = field(default_factory=dict)  # `ID x ID` -> what both together add beyond both
    seed_sd: float = 1.0
    set_sd: float = 0.0  # of a set beyond everything above
    abilities: Sequence[str] = ("linking",)
    scale: float = 1.0  # of the written scores
    offset: float = 0.0


def read_truth(path: Path) -> Truth:
    """Read a planted truth.

    Raises:
        InputError: it is no JSON object with these keys.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", "give a JSON object such as truth.json of an earlier simulation")
    value = read_json(path)
    value = value.get("planted", value) if isinstance(value, dict) else value
    known = {f.name for f in fields(Truth)}
    if not isinstance(value, dict) or not value.keys() <= known:
        unknown = sorted(value.keys() - known) if isinstance(value, dict) else []
        raise InputError(
            f"{path} is no planted truth; unknown: {', '.join(unknown)}", f"keys: {', '.join(sorted(known))}"
        )
    return Truth(**value)


def random_truth(work: WorkFolder, n_books: int, effect: float, seed: int, **more: Any) -> Truth:
    """Return a truth with some books of the design planted, half of them harmful."""
    variants = read_rows(work.path("sets", "variants.parquet"), Variant)
    ids = sorted({b for variant in variants for b in variant.book_ids})
    if n_books > len(ids):
        raise InputError(f"{n_books} books cannot be planted among the {len(ids)} of the design", "plant fewer")
    rng = np.random.default_rng([seed, 0x7121])
    chosen = rng.permutation(len(ids))[:n_books]
    return Truth(books={ids[i]: effect * (1 if k % 2 else -1) for k, i in enumerate(chosen)}, **more)


def write_simulation(work: WorkFolder, truth: Truth, seed: int, folder: Path) -> dict[str, Any]:
    """Write `scores.csv` and `truth.json` for the stored design; returns what was written.

    Raises:
        StoreError: the study has no design yet.
        InputError: the truth names something that the design does not have.
    """
    variants = read_rows(work.path("sets", "variants.parquet"), Variant)
    context = read_context(work, variants)
    runs, means = true_means(variants, context, truth)
    rng = np.random.default_rng([seed, 0x51A1])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run_id", "ability", "score"])
    for ability in truth.abilities:
        luck = {s: truth.set_sd * rng.standard_normal() for s in sorted({v.set_id for v in variants})}
        for (variant, number), mean in zip(runs, means.tolist(), strict=True):
            value = mean + luck[variant.set_id] + truth.seed_sd * rng.standard_normal()
            writer.writerow(
                [f"{variant.variant_id}/{number}", ability, repr(truth.offset + truth.scale * float(value))]
            )
    write_text(folder / "scores.csv", out.getvalue())
    of_variant = {variant.variant_id: float(mean) for (variant, _), mean in zip(runs, means.tolist(), strict=True)}
    effects = true_effects(variants, context, truth)
    found = {"planted": asdict(truth), "effects": effects, "variants": of_variant, "seed": seed}
    write_json(folder / "truth.json", found)
    return {"scores": str(folder / "scores.csv"), "truth": str(folder / "truth.json"), "runs": len(runs)}


def true_means(variants: Sequence[Variant], context: Context, truth: Truth) -> tuple[list[tuple[Variant, int]], Floats]:
    """Return the runs of a design, as (variant, number of the seed), and what each scores without noise."""
    runs = [(v, k) for v in variants for k in range(len(v.init_seeds))]
    layout = _layout(variants, runs)
    known = describe(layout.book_ids, context.books, context.clusters)
    mean = np.asarray(layout.membership @ _of_books(layout, truth))[layout.set_of]
    mean = mean + (_set_part(layout, known, truth))[layout.set_of]
    mean = mean + _place_part(layout, known, context.kernel, truth)
    for row, (variant, _) in enumerate(runs):
        left_out = 1.0 - variant.density
        mean[row] += truth.orders.get(variant.order, 0.0) + truth.less_text * left_out
        if variant.gap_kind not in ("none", "truncated"):
            mean[row] += left_out * truth.gaps.get(variant.gap_kind, truth.gaps.get("*", 0.0))
        held = set(variant.book_ids)
        for pair, effect in truth.interactions.items():
            one, _, two = pair.partition(" x ")
            mean[row] += effect * (one in held and two in held)
    return runs, np.asarray(mean)


def _layout(variants: Sequence[Variant], runs: Sequence[tuple[Variant, int]]) -> Layout:
    place = {v.variant_id: i for i, v in enumerate(variants)}
    of = np.array([place[v.variant_id] for v, _ in runs], dtype=np.int64)
    facts = Ability("", True, "", (), "score", 1.0, len(runs), 0, False)
    table = Table(tuple(str(i) for i in range(len(runs))), tuple(variants), of, {"": np.zeros(len(runs))}, {"": facts})
    return make_layout(table, table.scores[""])


def _of_books(layout: Layout, truth: Truth) -> Floats:
    unknown = sorted(set(truth.books) - set(layout.book_ids))
    if unknown:
        raise InputError(f"no set of the design holds book {unknown[0]}", "plant books of the design: `ltm sql STUDY`")
    return np.array([truth.books.get(b, 0.0) for b in layout.book_ids])


def _set_part(layout: Layout, known: Described, truth: Truth) -> Floats:
    total = np.zeros(len(layout.set_ids))
    held = layout.membership
    for name, effect in truth.features.items():
        if name not in known.names:
            raise InputError(f"no feature of the books is called {name}", f"features: {', '.join(known.names)}")
        means = np.asarray(held @ known.values[:, known.names.index(name)]) / np.asarray(held.sum(axis=1))
        total += effect * (means - means.mean()) / means.std()
    if truth.sets:
        names, _, columns = set_columns(layout, known)
        for name, effect in truth.sets.items():
            if name not in names:
                raise InputError(f"no term of sets is called {name}", f"terms: {', '.join(names)}")
            total += effect * columns[:, names.index(name)]
    return total


def _place_part(layout: Layout, known: Described, kernel: Floats | None, truth: Truth) -> Floats:
    if not truth.places:
        return np.zeros(len(layout.rows))
    names, _, doses = run_doses(layout, known, position_weights(kernel))
    random = np.array([v.order in ("random", "reverse") and v.spacing == 1 for v in layout.variants])
    total = np.zeros(len(layout.rows))
    for name, effect in truth.places.items():
        if name not in names:
            raise InputError(f"no term of place is called {name}", f"for example: {', '.join(names[:5])}")
        dose = doses[:, names.index(name)]
        total += effect * dose / max(float(dose[random].std()), 1e-12)
    return total


def books_of(truth: Truth, variants: Sequence[Variant], context: Context) -> dict[str, float]:
    """Return what each book of a design adds, by itself and through the planted features."""
    layout, own = _with_features(truth, variants, context)
    return dict(zip(layout.book_ids, own.tolist(), strict=True))


def _with_features(truth: Truth, variants: Sequence[Variant], context: Context) -> tuple[Layout, Floats]:
    layout = _layout(variants, [(v, k) for v in variants for k in range(len(v.init_seeds))])
    known = describe(layout.book_ids, context.books, context.clusters)
    own = _of_books(layout, truth)
    size = np.asarray(layout.membership.sum(axis=1))
    for name, effect in truth.features.items():
        if name not in known.names:
            raise InputError(f"no feature of the books is called {name}", f"features: {', '.join(known.names)}")
        values = known.values[:, known.names.index(name)]
        means = np.asarray(layout.membership @ values) / size
        own = own + effect * values / float(np.median(size)) / means.std()
    return layout, own


def true_effects(variants: Sequence[Variant], context: Context, truth: Truth) -> list[dict[str, Any]]:
    """Return the planted effects in the words of `ltm patterns`; all that is not named is zero.

    What a planted feature adds through a book is part of that book's effect.
    """
    layout, own = _with_features(truth, variants, context)
    n = len(own)
    against = (own - own.mean()) * n / max(1, n - 1)
    found: list[dict[str, Any]] = [
        {"kind": "book", "name": b, "value": float(v)} for b, v in zip(layout.book_ids, against, strict=True)
    ]
    found += [{"kind": "feature", "name": n, "value": v} for n, v in [*truth.features.items(), *truth.sets.items()]]
    found += [{"kind": "order", "name": n, "value": v} for n, v in truth.places.items()]
    found += [{"kind": "order", "name": f"{n}_vs_random", "value": v} for n, v in truth.orders.items()]
    found += [{"kind": "interaction", "name": n, "value": v} for n, v in truth.interactions.items()]
    dosed = [
        v for v in variants if v.gap_kind not in ("none", "truncated", "head") and v.density < 1 and v.arm == "gap"
    ]
    if dosed and set(truth.gaps) <= {"*"}:
        mean = float(np.mean([1.0 - v.density for v in dosed]))
        slope = truth.gaps.get("*", 0.0)
        found += [
            {"kind": "gap", "name": "gaps_vs_truncated", "value": slope * mean},
            {"kind": "gap", "name": "gap_dose", "value": slope},
        ]
    return [{**row, "value": row["value"] * truth.scale} for row in found]
