"""Terms for sparsity: text with gaps, against the same amount of text without gaps, and against the full text.

Gaps also leave less unique text, so a plain comparison with the full text cannot tell the two apart. The control arm is
a contiguous excerpt with the same unique tokens: gaps against it is the effect of the gaps, and it against the full
text is the effect of having less. Heads of books are themselves one contiguous stretch: they have no gaps, so they
stand apart and enter no term about gaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ltm.patterns.layout import Layout
from ltm.patterns.table import Floats
from ltm.patterns.terms import Part, Term, difference
from ltm.records import Variant

HEAD = "head"
DOSE, CURVE = "_dose", "gap_curve"
_PLAIN_GAPS = ("gap", "base")  # not those with another order too
_MIN_KIND_BLOCKS = 6  # for a slope of one kind of gaps


class Arms(NamedTuple):
    """The runs of one block by arm, as places in the layout."""

    full: list[int]
    gaps: list[int]
    truncated: list[int]
    filled: list[int]  # with gaps, and with more books in the room that they leave


def gap_terms(layout: Layout) -> list[Term]:
    """Return the contrasts between sparse arms, their control and the full text."""
    blocks = _blocks(layout)
    variants = layout.variants
    kinds = sorted({variants[i].gap_kind for block in blocks for i in block.gaps} - {HEAD})
    same = "the same amount of text without gaps"
    pooled = _same_dose(blocks, variants, kinds)
    terms = [Term("gaps_vs_truncated", f"gaps against {same}", pooled)]
    if len(kinds) > 1:
        terms += [
            Term(f"{kind}_vs_truncated", f"{kind} gaps against {same}", _same_dose(blocks, variants, [kind]))
            for kind in kinds
        ]
    heads = _same_dose(blocks, variants, [HEAD])
    terms.append(Term(f"{HEAD}_vs_truncated", f"heads of books against {same}", heads))
    truncated = tuple(difference(block.truncated, block.full) for block in blocks if block.full and block.truncated)
    gapped = [(block, [i for i in block.gaps if variants[i].gap_kind != HEAD]) for block in blocks]
    terms.append(Term("truncated_vs_full", "less text (no gaps) against the full text", truncated))
    terms.append(
        Term(
            "gaps_vs_full",
            "text with gaps against the full text",
            tuple(difference(gaps, block.full) for block, gaps in gapped if block.full and gaps),
        )
    )
    terms += [
        Term(f"filled_vs_{name}", f"gaps filled with more books against {label}", tuple(parts))
        for name, label, parts in (
            ("gaps", "gaps alone", [difference(b.filled, gaps) for b, gaps in gapped if b.filled and gaps]),
            ("full", "the full text", [difference(b.filled, b.full) for b in blocks if b.filled and b.full]),
        )
    ]
    return [*terms, *_dose_terms(blocks, variants, kinds, pooled, same)]


def dosed_differences(layout: Layout, score: Floats) -> tuple[Floats, Floats]:
    """Return (share left out, gaps minus as much text without gaps) of every block that has both; heads apart."""
    kinds = sorted({v.gap_kind for v in layout.variants} - {HEAD, "none", "truncated"})
    parts = [_with_dose(part, layout.variants) for part in _same_dose(_blocks(layout), layout.variants, kinds)]
    differences = [float(np.dot(part.weights, score[list(part.runs)])) for part in parts]
    return np.array([part.dose for part in parts]), np.array(differences)


def _dose_terms(
    blocks: Sequence[Arms], variants: Sequence[Variant], kinds: Sequence[str], pooled: tuple[Part, ...], same: str
) -> list[Term]:
    """Return the slope over the share left out, its curvature, and the slope of each kind of gaps."""
    dosed = [_with_dose(part, variants) for part in pooled]
    label = f"change of gaps against {same}, per share of text left out"
    terms = [Term("gap_dose", label, tuple(dosed), slope=True)]
    dose = np.array([part.dose for part in dosed])
    if len({round(float(d), 6) for d in dose}) > 2:
        line = np.column_stack([np.ones(len(dose)), dose])
        bend = dose**2 - line @ np.linalg.lstsq(line, dose**2, rcond=None)[0]
        curved = tuple(Part(p.runs, p.weights, float(b)) for p, b in zip(dosed, bend, strict=True))
        terms.append(Term(CURVE, "curvature over the share of text left out", curved, slope=True))
    for kind in kinds if len(kinds) > 1 else []:
        parts = tuple(_with_dose(part, variants) for part in _same_dose(blocks, variants, [kind]))
        if len(parts) >= _MIN_KIND_BLOCKS:
            terms.append(Term(f"{kind}{DOSE}", f"{kind}: {label}", parts, slope=True))
    return terms


def _blocks(layout: Layout) -> list[Arms]:
    found: dict[int, Arms] = defaultdict(lambda: Arms([], [], [], []))
    for place, variant in enumerate(layout.variants):
        arms = found[variant.block]
        if variant.arm == "filled":
            arms.filled.append(place)
        elif variant.gap_kind == "truncated":
            arms.truncated.append(place)
        elif variant.density < 1.0 and variant.arm in _PLAIN_GAPS:
            arms.gaps.append(place)
        elif variant.arm == "base":
            arms.full.append(place)
    return [found[key] for key in sorted(found) if found[key].gaps or found[key].truncated or found[key].filled]


def _same_dose(blocks: Sequence[Arms], variants: Sequence[Variant], kinds: Sequence[str]) -> tuple[Part, ...]:
    """Return gap runs against control runs of the same density, one part per block."""
    parts = []
    for _, gaps, truncated, _ in blocks:
        densities = {variants[i].density for i in truncated}
        plus = [i for i in gaps if variants[i].density in densities and variants[i].gap_kind in kinds]
        matched = {variants[i].density for i in plus}
        minus = [i for i in truncated if variants[i].density in matched]
        if plus and minus:
            parts.append(difference(plus, minus))
    return tuple(parts)


def _with_dose(part: Part, variants: Sequence[Variant]) -> Part:
    left_out = [1.0 - variants[i].density for i, weight in zip(part.runs, part.weights, strict=True) if weight > 0]
    return Part(part.runs, part.weights, float(np.mean(left_out)))
