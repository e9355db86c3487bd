"""Terms for sparsity: text with gaps, against the same amount of text without gaps, and against the full text.

Gaps also leave less unique text, so a plain comparison with the full text cannot tell the two apart. The control arm is
a contiguous excerpt with the same unique tokens: gaps against it is the effect of the gaps, and it against the full
text is the effect of having less. Heads of books are themselves one contiguous stretch: they have no gaps, so they
stand apart and enter no term about gaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ltm.patterns.layout import Layout
from ltm.patterns.terms import Part, Term, difference
from ltm.records import Variant

HEAD = "head"
Arms = tuple[list[int], list[int], list[int]]  # full, gaps, truncated: places in the layout


def gap_terms(layout: Layout) -> list[Term]:
    """Return the contrasts between sparse arms, their control and the full text."""
    blocks = _blocks(layout)
    variants = layout.variants
    kinds = sorted({variants[i].gap_kind for _, gaps, _ in blocks for i in gaps} - {HEAD})
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
    truncated = tuple(difference(cut, full) for full, _, cut in blocks if full and cut)
    gapped = [(full, [i for i in gaps if variants[i].gap_kind != HEAD]) for full, gaps, _ in blocks]
    terms.append(Term("truncated_vs_full", "less text (no gaps) against the full text", truncated))
    terms.append(
        Term(
            "gaps_vs_full",
            "text with gaps against the full text",
            tuple(difference(gaps, full) for full, gaps in gapped if full and gaps),
        )
    )
    label = f"change of gaps against {same}, per share of text left out"
    terms.append(Term("gap_dose", label, tuple(_with_dose(part, variants) for part in pooled), slope=True))
    return terms


def _blocks(layout: Layout) -> list[Arms]:
    found: dict[tuple[int, int], Arms] = defaultdict(lambda: ([], [], []))
    for place, variant in enumerate(layout.variants):
        full, gaps, truncated = found[variant.block, variant.set_id]
        if variant.gap_kind == "truncated":
            truncated.append(place)
        elif variant.density < 1.0:
            gaps.append(place)
        elif variant.arm == "base":
            full.append(place)
    return [found[key] for key in sorted(found) if found[key][1] or found[key][2]]


def _same_dose(blocks: Sequence[Arms], variants: Sequence[Variant], kinds: Sequence[str]) -> tuple[Part, ...]:
    """Return gap runs against control runs of the same density, one part per block."""
    parts = []
    for _, gaps, truncated in blocks:
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
