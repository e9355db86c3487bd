"""Terms for the order of books: one order against another, and which kinds of books had better come when.

A random order and its exact reverse are equally random, so they do not differ on average. What their difference can
tell is position. A position's weight comes first from the schedule: the share of each step in the final weights of
AdamW (learning rate x what weight decay leaves of it until the end), since an order matters only as far as the end
still remembers it. What a straight line, a curve or the first and last tenth of the stream tell beyond that kernel is
asked second. Which class of books stands before which is asked for at most eight classes, never for single books.

Two sources are joined, each with a randomisation test of its own: runs of one block that differ in their order, and
sets that differ in their random order.

Sources: Bergsma et al. (training re-evaluation curves follow AdamW's averaging coefficients); order-of-addition designs
(pairwise order); Stouffer for the joint p.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ltm.patterns import mixed
from ltm.patterns.books import Contrast, set_contrasts
from ltm.patterns.describe import Described
from ltm.patterns.layout import Layout, interval
from ltm.patterns.table import Floats
from ltm.patterns.terms import MIN_BLOCKS, Estimate, Part, Term, difference, evaluate, usable
from ltm.records import Variant

KERNEL, LATE, MIDDLE, FIRST, LAST = "kernel:", "late:", "middle:", "first:", "last:"
BEFORE, ADJACENCY = " before ", "adjacency"
_RANDOM = ("random", "reverse")
_GRID = 1000  # points of the stream at which weights of positions are compared
_MIN_BETWEEN_SETS = 20  # sets whose random orders are compared with each other
_STANDS_OUT = 0.05  # p over the number of terms, from which a term is fixed beside the others
_MOST_FIXED = 12
_SAME = 0.1  # share of a term's information that is its own, below which it is not told from those that are fixed
_TINY = 1e-9


def schedule_kernel(rates: Floats, weight_decay: float) -> Floats:
    """Return the weight of each training step in the final weights, mean 1, shape of `rates`.

    AdamW adds rate x update and multiplies what is there by (1 - rate x decay) at every step.
    """
    left = np.concatenate([np.cumsum(np.log1p(-np.minimum(rates * weight_decay, 0.999999))[::-1])[::-1][1:], [0.0]])
    weight = rates * np.exp(left)
    return np.asarray(weight / max(float(weight.mean()), 1e-300), dtype=np.float64)


def position_weights(kernel: Floats | None) -> dict[str, Floats]:
    """Return prefix -> weight of each point of the stream, mean 0; each beyond those before it.

    Args:
        kernel: Weight of each part of the stream; None or constant = unknown, then the straight line comes first.
    """
    place = (np.arange(_GRID) + 0.5) / _GRID
    found: dict[str, Floats] = {}
    shapes = {LATE: 2.0 * place - 1.0, MIDDLE: -((2.0 * place - 1.0) ** 2)}
    if kernel is not None and len(kernel) and np.std(kernel) > 1e-3 * abs(float(np.mean(kernel))):
        shapes = {KERNEL: np.interp(place, (np.arange(len(kernel)) + 0.5) / len(kernel), kernel), **shapes}
    shapes |= {FIRST: (place < 0.1).astype(np.float64), LAST: (place >= 0.9).astype(np.float64)}
    before: list[Floats] = []
    for name, shape in shapes.items():
        weight = shape - shape.mean()
        for other in before:
            weight = weight - other * (weight @ other) / (other @ other)
        if np.sqrt(np.mean(weight**2)) < 0.02 * float(np.std(shape)):
            continue  # the kernel is nearly this shape itself
        before.append(weight)
        found[name] = weight
    return found


def primary(name: str, has_kernel: bool) -> bool:
    """Return whether a term is asked first; shapes beyond the first are a family of their own."""
    return not name.startswith((LATE, MIDDLE, FIRST, LAST) if has_kernel else (MIDDLE, FIRST, LAST))


def order_estimates(
    layout: Layout,
    score: Floats,
    known: Described,
    kernel: Floats | None,
    solved: mixed.Solved | None,
    redraws: int,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Return the contrasts between orders and the terms of position, precedence and adjacency.

    Args:
        layout: Runs of one ability.
        score: Shape (n,).
        known: Features and classes of the layout's books.
        kernel: See `position_weights`.
        solved: The mixed model, for comparing sets with each other; None = blocks only.
        redraws: Redraws behind a p-value.
        rng: Frozen stream.
    """
    blocks = ordered_blocks(layout)
    ready = [term for term in _contrasts(blocks) if usable(term)]
    found = evaluate("order", ready, score, redraws, rng) if ready else []
    names, labels, doses = run_doses(layout, known, position_weights(kernel))
    if names:
        found += _of_doses(layout, score, blocks, (names, labels, doses), solved, redraws, rng)
    return found


def ordered_blocks(layout: Layout) -> list[dict[str, list[int]]]:
    """Return, per block and set, the places in the layout of the full-text runs of each order."""
    found: dict[tuple[int, int], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, variant in enumerate(layout.variants):
        if variant.density >= 1.0 and variant.gap_kind == "none":
            found[variant.block, variant.set_id][variant.order].append(place)
    return [found[key] for key in sorted(found)]


def _contrasts(blocks: Sequence[Mapping[str, list[int]]]) -> list[Term]:
    merged: list[dict[str, list[int]]] = []
    for block in blocks:
        groups: dict[str, list[int]] = defaultdict(list)
        for order in sorted(block):
            groups["random" if order in _RANDOM else order] += block[order]
        merged.append(groups)
    orders = sorted({order for groups in merged for order in groups if order != "random"})
    pairs = [(order, "random") for order in orders]
    pairs += [(a, b) for i, a in enumerate(orders) for b in orders[i + 1 :]]
    terms = []
    for plus, minus in pairs:
        parts = tuple(difference(g[plus], g[minus]) for g in merged if plus in g and minus in g)
        terms.append(Term(f"{plus}_vs_{minus}", f"order: {plus} against {minus}", parts))
    return terms


def run_doses(layout: Layout, known: Described, weights: Mapping[str, Floats]) -> tuple[list[str], list[str], Floats]:
    """Return (names, labels, doses (n, K)) of every position term; 0 for runs whose order was not random."""
    place = {book_id: i for i, book_id in enumerate(known.book_ids)}
    pairs = [(a, b) for a in range(len(known.class_names)) for b in range(a + 1, len(known.class_names))]
    names = [prefix + feature for prefix in weights for feature in known.names]
    labels = [_label(prefix, feature.replace("_", " ")) for prefix in weights for feature in known.names]
    names += [f"{known.class_names[a]}{BEFORE}{known.class_names[b]}" for a, b in pairs]
    labels += [f"{known.class_names[a]}{BEFORE}{known.class_names[b]}" for a, b in pairs]
    if len(known.names) > 1:
        names, labels = [*names, ADJACENCY], [*labels, "like books next to each other"]
    doses = np.zeros((len(layout.rows), len(names)))
    made: dict[str, Floats] = {}
    for row, variant in enumerate(layout.variants):
        if variant.order not in _RANDOM or variant.spacing != 1 or len(variant.book_ids) < 2:
            continue
        if variant.variant_id not in made:
            at = np.array([place[b] for b in variant.book_ids])
            made[variant.variant_id] = _doses(known, at, weights, pairs)
        doses[row] = made[variant.variant_id]
    shown = np.flatnonzero(np.ptp(doses, axis=0) > _TINY)
    return [names[k] for k in shown], [labels[k] for k in shown], doses[:, shown]


def claimed_places(layout: Layout, known: Described, kernel: Floats | None, claimed: Collection[str]) -> Floats:
    """Return the doses of the claimed terms of place, shape (n, K), in standard deviations over the random orders."""
    if not claimed:
        return np.zeros((len(layout.rows), 0))
    names, _, doses = run_doses(layout, known, position_weights(kernel))
    random = np.array([v.order in _RANDOM and v.spacing == 1 for v in layout.variants])
    shown = [k for k, name in enumerate(names) if name in claimed]
    return np.asarray(doses[:, shown] / np.maximum(doses[random][:, shown].std(axis=0), _TINY), dtype=np.float64)


def _label(prefix: str, feature: str) -> str:
    return {
        KERNEL: f"{feature} where the schedule remembers most",
        LATE: f"{feature} late in the order",
        MIDDLE: f"{feature} in the middle of the order",
        FIRST: f"{feature} in the first tenth",
        LAST: f"{feature} in the last tenth",
    }[prefix]


def _doses(known: Described, at: Floats, weights: Mapping[str, Floats], pairs: Sequence[tuple[int, int]]) -> Floats:
    """Return the dose of every term for one order; `at` are the places of its books in `known`."""
    n = len(at)
    values = known.values[at]
    edges = np.linspace(0, _GRID, n + 1)
    found = []
    for weight in weights.values():
        total = np.interp(edges, np.arange(_GRID + 1), np.concatenate([[0.0], np.cumsum(weight)]))
        found.append(np.diff(total) / np.diff(edges) @ values / n)  # mean weight of each book's stretch
    classes = known.classes[at]
    if pairs:
        member = classes[:, None] == np.arange(len(known.class_names))[None, :]
        count, seen = member.sum(axis=0), np.cumsum(member, axis=0)
        before = member.astype(np.float64).T @ (seen - member)  # [b, a]: pairs with a in front of b
        several = np.maximum(np.outer(count, count), 1)
        found.append(np.array([(before[b, a] - before[a, b]) / several[a, b] for a, b in pairs]))
    if len(known.names) > 1:
        size = np.sqrt(np.sum(values**2, axis=1))
        unit = values / np.maximum(size, _TINY)[:, None]
        neighbours = float(np.mean(np.sum(unit[1:] * unit[:-1], axis=1)))
        total = np.sum(unit, axis=0)
        everyone = (float(total @ total) - n) / (n * (n - 1))
        found.append(np.array([neighbours - everyone]))
    return np.concatenate(found)


def _of_doses(
    layout: Layout,
    score: Floats,
    blocks: Sequence[Mapping[str, list[int]]],
    terms: tuple[list[str], list[str], Floats],
    solved: mixed.Solved | None,
    redraws: int,
    rng: np.random.Generator,
) -> list[Estimate]:
    names, labels, doses = terms
    random = np.array([v.order in _RANDOM and v.spacing == 1 for v in layout.variants])
    spread = np.maximum(doses[random].std(axis=0), _TINY)
    doses = doses / spread
    groups = [[i for order in _RANDOM for i in block.get(order, [])] for block in blocks]
    inside: dict[str, Estimate] = {}
    ready = [
        Term(name, label, _parts(groups, doses[:, k]))
        for k, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    ready = [term for term in ready if usable(term)]
    if ready:
        inside = {e.name: e for e in evaluate("order", ready, score, redraws, rng)}
    between, where = _between(layout, doses, random, solved, redraws, rng)
    found: dict[int, Estimate] = {}
    for k, (name, label) in enumerate(zip(names, labels, strict=True)):
        joined = _joined(name, label, inside.get(name), between, where.get(k), len(layout.set_ids))
        if joined is not None and joined.se > 0:
            found[k] = joined
    first = any(name.startswith(KERNEL) for name in names)
    families = [[k for k in found if primary(names[k], first)], [k for k in found if not primary(names[k], first)]]
    if solved is None:
        return list(found.values())
    made: list[Estimate] = []
    for ks in families:
        if ks:
            made += beside_each_other([found[k] for k in ks], mixed.run_terms(solved, doses[:, ks]))
    return made


def beside_each_other(found: Sequence[Estimate], terms: mixed.RunTerms) -> list[Estimate]:
    """Return each term with the others beside it: those that stand out by themselves fixed, the rest random.

    Features of books go together, so what one of them does late would be claimed for all its kin. Random effects alone
    leave a part of a strong one to its kin, so the strongest is fixed, then the strongest beside it, while one stands
    out (forward selection at the Bonferroni level). What is nearly the same as a fixed term is not told from it. Where
    the others do nothing their variance is estimated as zero, and the single estimates and their exact p-values stay.
    """
    from dataclasses import replace

    alone = _among_random(terms)
    if alone.ratio == 0.0:
        return list(found)
    fixed: list[int] = []
    now = alone
    while len(fixed) < _MOST_FIXED:
        p = np.where(now.told, now.p, 1.0)
        p[fixed] = 1.0
        best = int(np.argmin(p))
        if p[best] > _STANDS_OUT / len(found):
            break
        fixed.append(best)
        now = _among_random(_given(terms, fixed))
    made = []
    twins = [j for j in range(len(found)) if j not in fixed and not now.told[j]]  # would take half of a fixed one
    for k, e in enumerate(found):
        own = _among_random(_given(terms, [j for j in fixed if j != k], twins)) if k in fixed else now
        if k in twins:  # little of it is its own beside those that are fixed: said by its interval
            rest = [j for j in range(len(found)) if j not in fixed and j != k]
            own = _among_random(_given(terms, fixed, rest, keep_twins=True))
        if not own.told[k]:
            made.append(replace(e, p=1.0, shrunk=0.0))
            continue
        low, high = interval(own.estimate[k], own.se[k], own.df)
        row = (float(own.estimate[k]), float(own.se[k]), float(low), float(high), float(own.p[k]))
        made.append(replace(e, estimate=row[0], se=row[1], low=row[2], high=row[3], p=row[4], shrunk=row[0]))
    return made


class _Beside(NamedTuple):
    """Each term with all others random beside it."""

    estimate: Floats
    se: Floats
    p: Floats
    told: npt.NDArray[np.bool_]  # whether enough of the term is left beside those that are fixed
    ratio: float  # variance of the others to that of the noise
    df: float


def _given(
    terms: mixed.RunTerms, fixed: Sequence[int], without: Sequence[int] = (), keep_twins: bool = False
) -> mixed.RunTerms:
    """Return the equations of all terms with some fixed beside them; theirs, and those left out, are empty."""
    if without:
        information, pull, out = terms.information.copy(), terms.pull.copy(), np.array(without)
        information[out], information[:, out], pull[out] = 0.0, 0.0, 0.0
        terms = mixed.RunTerms(information, pull, terms.squares, terms.df)
    if not fixed:
        return terms
    at = np.array(fixed)
    known = np.linalg.solve(terms.information[np.ix_(at, at)], np.column_stack([terms.information[at], terms.pull[at]]))
    information = terms.information - terms.information[:, at] @ known[:, :-1]
    pull = terms.pull - terms.information[:, at] @ known[:, -1]
    information[at], information[:, at], pull[at] = 0.0, 0.0, 0.0
    left = max(terms.squares - float(terms.pull[at] @ known[:, -1]), 1e-300)
    was = np.diag(terms.information)
    same = np.flatnonzero(
        np.diag(information) <= (_TINY if keep_twins else _SAME) * was
    )  # nearly a sum of the fixed ones
    information[same], information[:, same], pull[same] = 0.0, 0.0, 0.0
    return mixed.RunTerms((information + information.T) / 2.0, pull, left, max(1.0, terms.df - len(at)))


def _among_random(terms: mixed.RunTerms) -> _Beside:
    from scipy.special import stdtr

    values, vectors = np.linalg.eigh(terms.information)
    values = np.maximum(values, 0.0)
    rotated = vectors.T @ terms.pull
    best, ratio, variance = -np.inf, 0.0, terms.squares / terms.df
    for trial in np.concatenate([[0.0], np.geomspace(1e-4, 1e2, 61)]):
        left = (terms.squares - float(np.sum(rotated**2 * trial / (1.0 + trial * values)))) / terms.df
        likelihood = -0.5 * (terms.df * np.log(max(left, 1e-300)) + float(np.sum(np.log1p(trial * values))))
        if likelihood > best + 1e-9:
            best, ratio, variance = likelihood, float(trial), left
    weight = 1.0 / (1.0 + ratio * values)
    told = np.diag(terms.information) > 0.0
    information = np.maximum(np.sum(vectors**2 * (values * weight), axis=1), 1e-12)
    estimate = np.where(told, vectors @ (rotated * weight) / information, 0.0)
    se = np.sqrt(variance * np.maximum(1.0 / information - ratio, 1e-12))
    p = np.where(told, 2.0 * stdtr(terms.df, -np.abs(estimate / se)), 1.0)
    return _Beside(estimate, se, p, told, ratio, terms.df)


def _parts(groups: Sequence[Sequence[int]], dose: Floats) -> tuple[Part, ...]:
    """Return one part per block: its runs weighted by how far their dose lies from the block's mean."""
    parts = []
    for runs in groups:
        if len(runs) < 2:
            continue
        centred = dose[list(runs)] - dose[list(runs)].mean()
        size = float(np.sqrt(np.sum(centred**2)))
        if size > _TINY:
            parts.append(Part(tuple(runs), tuple((centred / size).tolist()), size))
    return tuple(parts)


def _between(
    layout: Layout,
    doses: Floats,
    random: Floats,
    solved: mixed.Solved | None,
    redraws: int,
    rng: np.random.Generator,
) -> tuple[Contrast | None, dict[int, int]]:
    """Return what the random orders of different sets say, and the place of each term in it."""
    if solved is None:
        return None, {}
    columns = layout.set_means(doses * random[:, None])
    scaled = columns * solved.problem.root[:, None]
    information = np.sum(scaled * solved.project(scaled), axis=0)
    wide = np.sum(np.abs(columns - np.median(columns, axis=0)) > _TINY, axis=0)
    shown = np.flatnonzero((information > 1.0) & (wide >= _MIN_BETWEEN_SETS))
    if not len(shown):
        return None, {}
    df = max(2.0, len(layout.set_ids) - layout.n_arm_sets() - 1.0)
    contrast = set_contrasts(solved, columns[:, shown], np.zeros(len(shown)), redraws, rng, df)
    return contrast, {int(k): i for i, k in enumerate(shown)}


def _joined(
    name: str, label: str, inside: Estimate | None, between: Contrast | None, at: int | None, n_sets: int
) -> Estimate | None:
    """Join both sources by their exactness; p by Stouffer, as they are independent."""
    from scipy.special import ndtr, ndtri

    if between is None or at is None:
        return inside
    one = (float(between.estimate[at]), float(between.se[at]), float(between.p[at]))
    if inside is None or inside.n < MIN_BLOCKS or inside.se <= 0:
        low, high = interval(one[0], one[1], between.df)
        return Estimate("order", name, label, *one[:2], float(low), float(high), one[2], one[0], n_sets)
    both = [one, (inside.estimate, inside.se, inside.p)]
    exact = np.array([1.0 / se**2 for _, se, _ in both])
    estimate = float(sum(w * e for w, (e, _, _) in zip(exact, both, strict=True)) / exact.sum())
    z = [float(np.sign(e)) * float(-ndtri(min(1.0, p) / 2.0)) for e, _, p in both]
    p = float(2.0 * ndtr(-abs(np.sqrt(exact) @ np.array(z)) / np.sqrt(exact.sum())))
    se = float(1.0 / np.sqrt(exact.sum()))
    low, high = interval(estimate, se, between.df)
    return Estimate("order", name, label, estimate, se, float(low), float(high), p, estimate, n_sets)


def late_weight(variant: Variant, values: Mapping[str, float]) -> float:
    """Return the mean over books of feature x position, position from -1 (first) to +1 (last)."""
    positions = positions_of(len(variant.book_ids))
    return float(np.mean(positions * np.array([values.get(book_id, 0.0) for book_id in variant.book_ids])))


def positions_of(n_books: int) -> Floats:
    """Return the place of each book in the stream, from -1 to +1, at the middle of the book."""
    return (2.0 * np.arange(n_books) + 1.0) / n_books - 1.0
