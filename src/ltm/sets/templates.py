"""How many blocks of each kind a round has, and which orders and gaps they try.

Reads: the `sets` section. Writes: nothing. Everything is dealt like cards: a level comes again only after all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ltm.sets.section import SetsSection

TEMPLATES = ("single", "seeds", "order", "gaps")


@dataclass(frozen=True)
class Templates:
    """Deals the templates of a round.

    `in_runs`: sizes count runs (a `seeds` block has two), else variants.
    """

    section: SetsSection
    shares: Mapping[str, float]
    in_runs: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Variants or runs in a block of each template."""
        section = self.section
        return {
            "single": 1,
            "seeds": 2 if self.in_runs else 1,
            "order": 1 + section.orders_in_block,
            "gaps": 1 + len(section.gap_arms),
        }

    def counts(self, total: int) -> dict[str, int]:
        """Return the blocks of each template, so that exactly `total` variants or runs come out."""
        sizes = self.sizes
        whole = sum(self.shares[name] for name in TEMPLATES)
        share = {name: self.shares[name] / whole for name in TEMPLATES}
        n_sets = total / sum(share[name] * sizes[name] for name in TEMPLATES)
        counts = {name: round(n_sets * share[name]) for name in TEMPLATES}
        used = sum(counts[name] * sizes[name] for name in TEMPLATES)
        for name in ("gaps", "order", "seeds", "single"):  # rounding may have dealt too many
            while used > total and counts[name]:
                counts[name] -= 1
                used -= sizes[name]
        counts["single"] += total - used
        return counts

    def lacking(self, total: int, there: Mapping[str, int]) -> dict[str, int]:
        """Return the blocks of each template that a design lacks to have exactly `total` variants or runs.

        Args:
            total: Variants or runs of the whole design.
            there: Blocks that it has already.
        """
        sizes = self.sizes
        missing = total - sum(there.get(name, 0) * sizes[name] for name in TEMPLATES)
        counts = {name: max(0, count - there.get(name, 0)) for name, count in self.counts(total).items()}
        used = sum(counts[name] * sizes[name] for name in TEMPLATES)
        for name in ("gaps", "order", "seeds", "single"):
            while used > missing and counts[name]:
                counts[name] -= 1
                used -= sizes[name]
        counts["single"] += missing - used
        return counts

    def deal(self, total: int, rng: np.random.Generator, there: Mapping[str, int] | None = None) -> list[str]:
        """Return the template of each block, beside those that are there, in random order."""
        counts = self.lacking(total, there or {})
        names = [name for name in TEMPLATES for _ in range(counts[name])]
        return [names[i] for i in rng.permutation(len(names))]


def deal_gaps(
    section: SetsSection, count: int, rng: np.random.Generator, there: Iterable[tuple[str, float]] = ()
) -> Iterator[tuple[str, float]]:
    """Deal gap kinds and densities evenly: every combination once before any comes again; `there` was dealt before."""
    grid = [(kind, density) for kind in section.gap_kinds for density in section.densities]
    used = Counter(there)
    rarer = [level for level in grid for _ in range(max(used.values(), default=0) - used[level])]
    dealt: list[tuple[str, float]] = [rarer[i] for i in rng.permutation(len(rarer))] if rarer else []
    while len(dealt) < count:
        dealt += [grid[i] for i in rng.permutation(len(grid))]
    return iter(dealt[:count])


def deal_orders(section: SetsSection, count: int, rng: np.random.Generator) -> Iterator[list[str]]:
    """Deal the contrast orders of each block: all of them, or so many that each comes equally often."""
    orders, wanted = section.contrast_orders, section.orders_in_block
    if wanted == len(orders):
        return iter([list(orders)] * count)
    blocks: list[list[str]] = []
    deck: list[str] = []
    for _ in range(count):
        hand: list[str] = []
        while len(hand) < wanted:
            if not deck:
                fresh = [orders[i] for i in rng.permutation(len(orders))]
                deck = [o for o in fresh if o not in hand] + [o for o in fresh if o in hand]
            hand.append(deck.pop(0))
        blocks.append(hand)
    return iter(blocks)
