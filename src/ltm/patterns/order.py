"""Terms for the order of books: one order against another, and which kinds of books had better come late.

A random order and its exact reverse are equally random, so they do not differ on average. What their difference can
tell is position: if books of a kind are better late, then the one of the two orders that has them later wins. The
difference between both is therefore regressed on the difference of the position-weighted feature (linear kernel from
-1, first, to +1, last), which the pair maximises at equal cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ltm.patterns.layout import Layout
from ltm.patterns.table import Floats
from ltm.patterns.terms import Part, Term, difference
from ltm.records import Variant

LATE = "late:"
_RANDOM = ("random", "reverse")


def order_terms(layout: Layout, features: Mapping[str, Mapping[str, float]]) -> list[Term]:
    """Return the contrasts between orders, and one position term per feature.

    Args:
        layout: Runs of one ability.
        features: feature -> book_id -> value, standardised over the library.
    """
    blocks = _blocks(layout)
    return [*_contrasts(blocks), *_late_terms(blocks, layout, features)]


def _blocks(layout: Layout) -> list[dict[str, list[int]]]:
    """Return, per block and init seed, the places in the layout of the full-text runs of each order."""
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


def _late_terms(
    blocks: Sequence[Mapping[str, list[int]]], layout: Layout, features: Mapping[str, Mapping[str, float]]
) -> list[Term]:
    pairs = [(block["random"], block["reverse"]) for block in blocks if "random" in block and "reverse" in block]
    terms = []
    for feature in sorted(features):
        lateness = {
            i: late_weight(layout.variants[i], features[feature]) for pair in pairs for i in (*pair[0], *pair[1])
        }
        spread = float(np.std(list(lateness.values()))) if lateness else 0.0
        if spread <= 1e-12:
            continue
        parts = []
        for plus, minus in pairs:
            dose = np.mean([lateness[i] for i in plus]) - np.mean([lateness[i] for i in minus])
            base = difference(plus, minus)
            parts.append(Part(base.runs, base.weights, float(dose) / spread))
        terms.append(Term(LATE + feature, f"{feature} late in the order", tuple(parts)))
    return terms


def late_weight(variant: Variant, values: Mapping[str, float]) -> float:
    """Return the mean over books of feature x position, position from -1 (first) to +1 (last)."""
    positions = positions_of(len(variant.book_ids))
    return float(np.mean(positions * np.array([values.get(book_id, 0.0) for book_id in variant.book_ids])))


def positions_of(n_books: int) -> Floats:
    """Return the place of each book in the stream, from -1 to +1, at the middle of the book."""
    return (2.0 * np.arange(n_books) + 1.0) / n_books - 1.0
