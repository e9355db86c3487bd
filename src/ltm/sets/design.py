"""The design: blocks of variants laid out so that books, order and gaps can be told apart.

Reads: the training books of the catalogue. Writes: nothing (see `stage`). Books are varied between sets, order and
gaps between the variants of one set, which share an init seed (a split-plot with common random numbers; SCIENCE 2.1
and 2.3); with `common_init` all sets share it too. Each gap is paired with a control that has the same unique tokens
without gaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ltm.errors import LibraryError
from ltm.records import Book, Variant
from ltm.sets.choose import balance, incidence
from ltm.sets.order import arrange
from ltm.sets.section import SetsSection
from ltm.store import fingerprint

TEMPLATES = ("single", "seeds", "order", "gaps")
_SEEDS_PER_VARIANT = {"single": 1, "seeds": 2, "order": 1, "gaps": 1}


def draw(section: SetsSection, books: Sequence[Book], seed: int) -> tuple[list[Variant], dict[str, Any]]:
    """Return the variants of a study and a description of their balance; the same input draws the same design.

    Raises:
        LibraryError: there are fewer books than one set needs.
    """
    if len(books) < section.books_per_set:
        raise LibraryError(
            f"a set needs {section.books_per_set} books, but the library has {len(books)} for training",
            f"add books, or use --set sets.books_per_set={max(1, len(books) // 2)}",
        )
    ordered = sorted(books, key=lambda book: book.book_id)  # the catalogue's row order must not matter
    rng = np.random.default_rng([seed, 0x5E75])
    templates = _templates(section, rng)
    member = incidence(len(templates), len(ordered), section.books_per_set, rng)
    levels = _gap_levels(section, templates.count("gaps"), rng)
    common = np.random.default_rng([seed, 0x1417]).integers(1, 2**31, size=max(_SEEDS_PER_VARIANT.values())).tolist()
    variants: list[Variant] = []
    for block, template in enumerate(templates):
        chosen = [ordered[i] for i in rng.permutation(np.flatnonzero(member[block]))]
        seeds = [int(s) for s in rng.integers(1, 2**31, size=1 + _SEEDS_PER_VARIANT[template])]
        if section.common_init:
            seeds[1:] = common[: len(seeds) - 1]
        gap = next(levels) if template == "gaps" else ("none", 1.0)
        variants += _block(section, template, block, chosen, seeds, gap, len(variants))
    description = {
        "n_books": len(ordered),
        "n_sets": len(templates),
        "n_variants": len(variants),
        "n_runs": sum(len(v.init_seeds) for v in variants),
        "templates": {name: templates.count(name) for name in TEMPLATES},
        "seed": seed,
        "balance": balance(member),
    }
    return variants, description


def _templates(section: SetsSection, rng: np.random.Generator) -> list[str]:
    """Return the template of each block in random order, so that exactly `count` variants come out."""
    sizes = {"single": 1, "seeds": 1, "order": 1 + len(section.contrast_orders), "gaps": 3}
    shares = section.shares.model_dump()
    total = sum(shares.values())
    per_set = sum(shares[name] / total * sizes[name] for name in TEMPLATES)
    n_sets = section.count / per_set
    counts = {name: round(n_sets * shares[name] / total) for name in TEMPLATES}
    used = sum(counts[name] * sizes[name] for name in TEMPLATES)
    for name in ("gaps", "order", "seeds", "single"):  # rounding may have dealt too many
        while used > section.count and counts[name]:
            counts[name] -= 1
            used -= sizes[name]
    counts["single"] += section.count - used
    names = [name for name in TEMPLATES for _ in range(counts[name])]
    return [names[i] for i in rng.permutation(len(names))]


def _gap_levels(section: SetsSection, count: int, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Deal gap kinds and densities evenly: every combination once before any comes again."""
    grid = [(kind, density) for kind in section.gap_kinds for density in section.densities]
    dealt: list[tuple[str, float]] = []
    while len(dealt) < count:
        dealt += [grid[i] for i in rng.permutation(len(grid))]
    return iter(dealt[:count])


def _block(
    section: SetsSection,
    template: str,
    block: int,
    shuffled: Sequence[Book],
    seeds: Sequence[int],
    gap: tuple[str, float],
    first_index: int,
) -> list[Variant]:
    # gaps mean nothing where all passages are mixed, so their blocks read book after book, whatever the base order is
    order = "random" if template == "gaps" else section.base_order
    base = Variant(
        variant_id="",
        index=first_index,
        round="exploration",
        block=block,
        set_id=block,
        template=template,
        arm="base",
        book_ids=arrange(order, shuffled),
        order=order,
        gap_kind="none",
        density=1.0,
        spacing=section.spacing,
        stream_seed=seeds[0],
        init_seeds=list(seeds[1:]),
    )
    arms = [base]
    if template == "order":
        arms += [
            dataclasses.replace(base, arm=order, order=order, book_ids=arrange(order, shuffled))
            for order in section.contrast_orders
        ]
    elif template == "gaps":
        kind, density = gap
        arms.append(dataclasses.replace(base, arm="gap", gap_kind=kind, density=density))
        arms.append(dataclasses.replace(base, arm="truncated", gap_kind="truncated", density=density))
    return [_named(dataclasses.replace(arm, index=first_index + i)) for i, arm in enumerate(arms)]


def _named(variant: Variant) -> Variant:
    content = {
        name: getattr(variant, name) for name in ("book_ids", "order", "gap_kind", "density", "spacing", "stream_seed")
    }
    return dataclasses.replace(variant, variant_id=fingerprint(content, 12))
