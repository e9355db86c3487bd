"""Score tables from a planted model: studies whose truth is known, to check that the patterns find it and nothing else.

The layout is that of a real study: near-balanced random sets, blocks that share books and initial weights, and the
three templates seeds, order and gaps. Noise has three parts: the seed (one unit), the luck of the initial weights that
a block shares, and what a set is beyond the sum of its books.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ltm.patterns.order import late_weight
from ltm.patterns.table import Floats, Rows
from ltm.records import Book, Measure, Reliability, Run, Variant
from ltm.store import fingerprint

_KINDS = ("scattered", "blocks", "chapters", "head")
_DENSITIES = (0.75, 0.5, 0.25)
_SEED_SD = 0.02  # of the raw measure: the estimates must not depend on its scale


@dataclass(frozen=True)
class Planted:
    """What is true in a simulated study; effects are in seed standard deviations."""

    n_books: int = 60
    set_size: int = 30
    n_single: int = 0  # sets with one run
    n_seeds: int = 20  # sets whose base variant is trained with several seeds
    n_order: int = 20
    n_gaps: int = 20
    replicates: int = 2  # seeds of the base variant in the seeds template
    book_effects: Mapping[int, float] = field(default_factory=dict)  # place of the book -> with minus without
    feature_effects: Mapping[str, float] = field(
        default_factory=dict
    )  # per standard deviation of a book's feature, summed over the set
    late_effects: Mapping[str, float] = field(
        default_factory=dict
    )  # per standard deviation of lateness, in ordered streams only
    gap_effects: Mapping[str, float] = field(
        default_factory=dict
    )  # kind -> per share left out, against the truncated control
    less_text: float = 0.0  # per share left out, gaps or not
    shuffled: float = 0.0  # shuffled against any order
    set_sd: float = 0.5  # of a set beyond its books
    block_sd: float = 0.5  # shared initial weights
    n_features: int = 4
    abilities: tuple[str, ...] = ("linking",)
    not_admitted: tuple[str, ...] = ()


def simulate(planted: Planted, seed: int) -> Rows:
    """Draw a study and its scores; every planted effect is the same in every ability, noise is not."""
    rng = np.random.default_rng(seed)
    books = _books(planted, rng)
    variants = list(_variants(planted, sorted(books), rng))
    runs = [run_row(variant, init_seed) for variant in variants for init_seed in variant.init_seeds]
    by_id = {variant.variant_id: variant for variant in variants}
    means = {variant.variant_id: true_mean(planted, books, variant) for variant in variants}
    measures = []
    for ability in planted.abilities:
        set_luck = planted.set_sd * rng.standard_normal(len(variants))
        block_luck: dict[tuple[int, int], float] = {}
        for run in runs:
            variant = by_id[run.variant_id]
            luck = block_luck.setdefault((variant.block, run.init_seed), planted.block_sd * rng.standard_normal())
            value = means[run.variant_id] + set_luck[variant.set_id] + luck + rng.standard_normal()
            measures.append(measure_row(run.run_id, ability, 0.1 + _SEED_SD * float(value)))
    reliability = [reliability_row(a, a not in planted.not_admitted, len(runs)) for a in planted.abilities]
    return Rows(variants, runs, measures, reliability, books)


def true_mean(planted: Planted, books: Mapping[str, Book], variant: Variant) -> float:
    """Return what a variant scores without noise."""
    place = {book_id: i for i, book_id in enumerate(sorted(books))}
    mean = sum(planted.book_effects.get(place[b], 0.0) for b in variant.book_ids)
    for name, effect in planted.feature_effects.items():
        mean += effect * sum(books[b].features[name] for b in variant.book_ids)
    if variant.order == "shuffled":
        mean += planted.shuffled
    else:
        # A random order's mean of feature x position has this standard deviation, for a feature of unit variance.
        spread = float(np.sqrt(1.0 / (3.0 * len(variant.book_ids))))
        for name, effect in planted.late_effects.items():
            mean += effect * late_weight(variant, {b: books[b].features[name] for b in books}) / spread
    left_out = 1.0 - variant.density
    return mean + planted.less_text * left_out + planted.gap_effects.get(variant.gap_kind, 0.0) * left_out


def true_book_effects(planted: Planted, books: Mapping[str, Book]) -> dict[str, float]:
    """Return each book's effect against the average of the others, which is all that sets of one size can show."""
    own = {
        b: planted.book_effects.get(i, 0.0) + sum(w * books[b].features[f] for f, w in planted.feature_effects.items())
        for i, b in enumerate(sorted(books))
    }
    total, n = sum(own.values()), len(own)
    return {b: value - (total - value) / (n - 1) for b, value in own.items()}


def near_balanced_sets(n_sets: int, n_books: int, set_size: int, rng: np.random.Generator) -> Floats:
    """Return a random 0/1 matrix, shape (n_sets, n_books): rows sum to `set_size`, columns differ by at most 1.

    Source: curveball trades (Strona et al. 2014) from a cyclic start; rows and columns are permuted at the end.
    """
    slots = np.arange(n_sets * set_size) % n_books
    members = [set(map(int, row)) for row in slots.reshape(n_sets, set_size)]
    for _ in range(5 * n_sets):
        if n_sets < 2:
            break
        a, b = rng.choice(n_sets, 2, replace=False)
        free = np.array(sorted(members[a] ^ members[b]), dtype=np.int64)
        n_a = len(members[a] - members[b])
        common = members[a] & members[b]
        free = rng.permutation(free)
        members[a], members[b] = common | set(map(int, free[:n_a])), common | set(map(int, free[n_a:]))
    incidence = np.zeros((n_sets, n_books))
    for row, chosen in enumerate(members):
        incidence[row, sorted(chosen)] = 1.0
    return incidence[rng.permutation(n_sets)][:, rng.permutation(n_books)]


def _books(planted: Planted, rng: np.random.Generator) -> dict[str, Book]:
    values = rng.standard_normal((planted.n_books, planted.n_features))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    books = {}
    for i in range(planted.n_books):
        features = {f"feature_{j}": float(values[i, j]) for j in range(planted.n_features)}
        name = f"book{i:05d}"
        books[name] = Book(
            name, f"Book {i}", f"Author {i}", None, "en", "", "", "", i, "train", 1000, 5000, [0], features
        )
    return books


def _variants(planted: Planted, book_ids: list[str], rng: np.random.Generator) -> Iterator[Variant]:
    templates = (
        ["single"] * planted.n_single
        + ["seeds"] * planted.n_seeds
        + ["order"] * planted.n_order
        + ["gaps"] * planted.n_gaps
    )
    sets = near_balanced_sets(len(templates), planted.n_books, planted.set_size, rng)
    index = 0
    for block, template in enumerate(rng.permutation(templates)):
        members = [book_ids[j] for j in rng.permutation(np.flatnonzero(sets[block]))]
        for arm, order, kind, density in _arms(str(template), rng):
            ids = members[::-1] if order == "reverse" else members
            seeds = [2 * block + s for s in range(planted.replicates if template == "seeds" else 1)]
            plain = [block, arm, ids, order, kind, density, seeds]
            yield Variant(
                fingerprint(plain), index, "exploration", block, block, str(template), arm, ids, order, kind, density,
                1, block, seeds,
            )  # fmt: skip
            index += 1


def _arms(template: str, rng: np.random.Generator) -> list[tuple[str, str, str, float]]:
    base = ("base", "random", "none", 1.0)
    if template == "order":
        return [base, ("reverse", "reverse", "none", 1.0), ("shuffled", "shuffled", "none", 1.0)]
    if template == "gaps":
        kind, density = str(rng.choice(_KINDS)), float(rng.choice(_DENSITIES))
        return [base, ("gap", "random", kind, density), ("truncated", "random", "truncated", density)]
    return [base]


def run_row(variant: Variant, init_seed: int) -> Run:
    """Return the row of a run that was never trained."""
    return Run(
        f"run-{fingerprint([variant.variant_id, init_seed], 12)}", variant.variant_id, init_seed, "planted", 1, 1, 1,
        1.0, 1.0, 0.0, "cpu", "float32", 1.0, [1], [1.0], "", "", "",
    )  # fmt: skip


def measure_row(run_id: str, ability: str, value: float) -> Measure:
    """Return the row of one family that stands for a whole ability."""
    return Measure(run_id, ability, f"{ability[0].upper()}1", value, float("nan"), value, value, 100)


def reliability_row(ability: str, admitted: bool, n_runs: int) -> Reliability:
    """Return the row that admits an ability, or says why not."""
    reason = "" if admitted else "split-half 0.31 is below 0.7"
    family = f"{ability[0].upper()}1"
    return Reliability(ability, family, n_runs, 100, 0.1, 0.0, 9.0, 0.7, 0.9, 0.5, 0.4, 0.6, _SEED_SD, admitted, reason)
