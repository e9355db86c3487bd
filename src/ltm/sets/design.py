"""The design: blocks of variants laid out so that books, order and gaps can be told apart.

Reads: the training books (Shelf). Writes: nothing (see `stage`). Books are varied between sets, order and gaps between
the variants of one set, which share an init seed (a split-plot with common random numbers; SCIENCE 2.1 and 2.3); with
`common_init` all sets share it too. A random order and its exact reverse are antithetic. Each gap is paired with a
control that has the same unique tokens without gaps. How sets are drawn depends on the library (see `choose` and
`disperse`); every round of a study is a drawing of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ltm.errors import LibraryError
from ltm.records import Book, Variant
from ltm.sets import balance, kinds
from ltm.sets.choose import incidence
from ltm.sets.disperse import UNIFORM, Dealer, laws, shares
from ltm.sets.order import Arranger, refuse_if_unknown
from ltm.sets.section import SetsSection
from ltm.sets.shelf import Floats, Ints, Shelf, shelf_of
from ltm.sets.templates import TEMPLATES, Templates, deal_gaps, deal_orders
from ltm.store import fingerprint

DISPERSED_FROM = 1000  # books; below, single books can be told apart and sets are balanced
BALANCED = "balanced"
_MAIN_STREAM, _KIND_STREAM, _SEED_STREAM, _MORE_STREAM = 0x5E75, 0xC1A5, 0x1417, 0x403E
_COMMON_SEEDS = 2


@dataclass(frozen=True)
class Start:
    """Where the numbers of a round begin: after those of the rounds before it."""

    index: int = 0
    block: int = 0
    set_id: int = 0

    @classmethod
    def after(cls, variants: Sequence[Variant]) -> Start:
        """Return the numbers that follow a design."""
        if not variants:
            return cls()
        return cls(len(variants), 1 + max(v.block for v in variants), 1 + max(v.set_id for v in variants))


@dataclass(frozen=True)
class Sets:
    """The books of some sets, each in its own random order, and by which law each was drawn."""

    rows: list[Ints]
    laws: list[str]
    shares: Floats | None  # of kinds, (S, C); None in balanced designs


def draw(section: SetsSection, books: Sequence[Book] | Shelf, seed: int) -> tuple[list[Variant], dict[str, Any]]:
    """Return the variants of a study of one round and a description of their balance.

    The same input draws the same design, whatever the order of the books.

    Raises:
        LibraryError: there are fewer books than one set needs, or an order needs what no book has.
    """
    drawer = Drawer(section, books if isinstance(books, Shelf) else shelf_of(books, section.editions), seed)
    variants = drawer.blocks("exploration", section.count, in_runs=False)
    return variants, drawer.describe(variants)


class Drawer:
    """Draws the rounds of one study.

    Args:
        section: The settings.
        shelf: The books.
        seed: Of the study.

    Raises:
        LibraryError: there are fewer books than one set needs, or an order needs what no book has.
    """

    def __init__(self, section: SetsSection, shelf: Shelf, seed: int) -> None:
        if shelf.n_units < section.books_per_set:
            editions = f" ({len(shelf)} with their editions)" if shelf.n_units < len(shelf) else ""
            raise LibraryError(
                f"a set needs {section.books_per_set} books, but the library has {shelf.n_units}{editions} "
                "for training",
                f"add books, or use --set sets.books_per_set={max(1, shelf.n_units // 2)}",
            )
        for order in section.contrast_orders if section.shares.order > 0 else ():
            refuse_if_unknown(order, shelf)
        self.section, self.shelf, self.seed = section, shelf, seed
        self.arranger = Arranger(shelf, section.turns)
        large = shelf.n_units >= DISPERSED_FROM
        self.dispersed = section.design == "dispersed" or (section.design == "auto" and large)
        common = np.random.default_rng([seed, _SEED_STREAM])
        self.common_seeds: list[int] = common.integers(1, 2**31, size=_COMMON_SEEDS).tolist()

    @cached_property
    def cluster_B(self) -> Ints | None:
        """The kind of every book; None in balanced designs."""
        if not self.dispersed:
            return None
        rng = np.random.default_rng([self.seed, _KIND_STREAM])
        count = kinds.n_clusters(self.section.clusters, len(self.shelf))
        return kinds.clusters(kinds.vectors(self.shelf), count, rng)

    def stream(self, round_name: str) -> np.random.Generator:
        """Return the random stream of a round."""
        more = [] if round_name == "exploration" else [int.from_bytes(round_name.encode()[:4], "big")]
        return np.random.default_rng([self.seed, _MAIN_STREAM, *more])

    def blocks(
        self,
        round_name: str,
        total: int,
        in_runs: bool,
        start: Start | None = None,
        shares: dict[str, float] | None = None,
    ) -> list[Variant]:
        """Return blocks of all templates.

        Args:
            round_name: The round that they belong to.
            total: Variants in all, exactly; or runs, where a variant of a `seeds` block has two.
            in_runs: Which of the two `total` means.
            start: Where numbers begin.
            shares: Of the templates, in place of the section's.
        """
        rng = self.stream(round_name)
        templates = Templates(self.section, shares or self.section.shares.model_dump(), in_runs).deal(total, rng)
        return self._blocks(round_name, templates, start or Start(), rng)

    def more(self, there: Sequence[Variant], total: int) -> list[Variant]:
        """Return the blocks that a design of one round lacks to have `total` variants.

        The blocks that it has stay as they are: templates, books, pairs of books (or kinds), and gaps go on from
        theirs as evenly as they can.
        """
        rng = np.random.default_rng([self.seed, _MAIN_STREAM, _MORE_STREAM, len(there)])
        section, blocks = self.section, {v.block: v.template for v in there}
        have = {name: list(blocks.values()).count(name) for name in TEMPLATES}
        templates = Templates(section, section.shares.model_dump(), False).deal(total, rng, have)
        return self._blocks("exploration", templates, Start.after(there), rng, there)

    def _blocks(
        self,
        round_name: str,
        templates: Sequence[str],
        start: Start,
        rng: np.random.Generator,
        there: Sequence[Variant] = (),
    ) -> list[Variant]:
        sets = self.sets(len(templates), rng, templates, there)
        levels = {v.block: (v.gap_kind, v.density) for v in there if v.arm == "gap" or v.arm == "filled"}
        gaps = deal_gaps(self.section, templates.count("gaps"), rng, levels.values())
        orders = deal_orders(self.section, templates.count("order"), rng)
        variants: list[Variant] = []
        set_id = start.set_id
        for place, template in enumerate(templates):
            rows = sets.rows[place]
            base = self.base(round_name, template, rows, sets.laws[place], start.block + place, set_id, rng)
            arms = [base]
            if template == "order":
                arms += [self.reordered(base, rows, order) for order in next(orders)]
            elif template == "gaps":
                aim = None if sets.shares is None else sets.shares[place]
                arms += self.sparse(base, rows, *next(gaps), aim, rng)
            variants += arms
            set_id += len({arm.set_id for arm in arms})
        return numbered(variants, start.index)

    def sets(
        self, count: int, rng: np.random.Generator, templates: Sequence[str] = (), there: Sequence[Variant] = ()
    ) -> Sets:
        """Return the books of some sets, each in random order.

        Args:
            count: How many sets.
            rng: The round's stream.
            templates: Of each set; laws are dealt evenly inside every template.
            there: Variants whose sets there are already: evenness goes on from them.
        """
        size = self.section.books_per_set
        base = [v for v in there if v.arm == "base"]
        before = [self.shelf.unit_B[rows] for rows in self._rows_of(base)] if base else []
        if self.cluster_B is None:
            stands = np.zeros((len(before), self.shelf.n_units), dtype=np.bool_)
            for row, units in enumerate(before):
                stands[row, units] = True
            member = incidence(count, self.shelf.n_units, size, rng, stands)
            chosen = [rng.permutation(np.flatnonzero(row)) for row in member]
            return Sets([self._editions(units, rng) for units in chosen], [BALANCED] * count, None)
        names, n_kinds = self._laws(count, rng, templates), int(self.cluster_B.max()) + 1
        kind_U = self.cluster_B[self._unit_rows[0][self._unit_rows[1]]]
        leaning = [
            np.bincount(kind_U[units], minlength=n_kinds) / size
            for units, variant in zip(before, base, strict=True)
            if variant.law != UNIFORM
        ]
        aims = shares(names, n_kinds, rng, np.array(leaning).reshape(-1, n_kinds))
        used = np.bincount(np.concatenate([*before, np.zeros(0, dtype=np.int64)]), minlength=len(kind_U))
        dealer = Dealer(kind_U, rng, used)
        drawn = [
            dealer.uniform(size) if name == UNIFORM else dealer.dispersed(aims[row], size)
            for row, name in enumerate(names)
        ]
        return Sets([self._editions(rng.permutation(units), rng) for units in drawn], names, aims)

    def _laws(self, count: int, rng: np.random.Generator, templates: Sequence[str]) -> list[str]:
        names = [""] * count
        labels = list(templates) or [""] * count
        for template in sorted(set(labels)):
            places = [i for i, label in enumerate(labels) if label == template]
            dealt = laws(len(places), self.section.uniform_share, self.section.concentrations, rng)
            for place, name in zip(places, dealt, strict=True):
                names[place] = name
        return names

    @cached_property
    def _unit_rows(self) -> tuple[Ints, Ints, Ints]:
        """Rows sorted by unit, where each unit begins among them, and how many editions it has."""
        order = np.argsort(self.shelf.unit_B, kind="stable").astype(np.int64)
        sizes = np.bincount(self.shelf.unit_B, minlength=self.shelf.n_units).astype(np.int64)
        return order, np.cumsum(sizes) - sizes, sizes

    def _editions(self, units: Ints, rng: np.random.Generator) -> Ints:
        """Return a row for each unit: one of its editions, at random."""
        order, first, sizes = self._unit_rows
        if len(order) == self.shelf.n_units:
            return order[units]
        picked = first[units] + np.floor(rng.random(len(units)) * sizes[units]).astype(np.int64)
        return order[picked]

    def base(
        self,
        round_name: str,
        template: str,
        rows: Ints,
        law: str,
        block: int,
        set_id: int,
        rng: np.random.Generator,
        n_seeds: int = 0,
    ) -> Variant:
        """Return the base variant of a block; `rows` are in the block's random order."""
        n_seeds = n_seeds or (2 if template == "seeds" else 1)
        seeds = [int(s) for s in rng.integers(1, 2**31, size=1 + n_seeds)]
        if self.section.common_init:
            seeds[1:] = self.common_seeds[:n_seeds] + seeds[1 + _COMMON_SEEDS :]
        # gaps mean nothing where all passages are mixed, so their blocks read book after book, whatever the base order
        order = "random" if template == "gaps" else self.section.base_order
        return Variant(
            variant_id="",
            index=0,
            round=round_name,
            block=block,
            set_id=set_id,
            template=template,
            arm="base",
            book_ids=self.shelf.ids(self.arranger.arrange(order, rows)),
            order=order,
            gap_kind="none",
            density=1.0,
            spacing=self.arranger.spacing(order, self.section.spacing),
            stream_seed=seeds[0],
            init_seeds=list(seeds[1:]),
            law=law,
        )

    def reordered(self, base: Variant, rows: Ints, order: str, arm: str = "") -> Variant:
        """Return a variant of the same books in another order."""
        book_ids = self.shelf.ids(self.arranger.arrange(order, rows))
        spacing = self.arranger.spacing(order, self.section.spacing)
        return dataclasses.replace(base, arm=arm or order, order=order, book_ids=book_ids, spacing=spacing)

    def sparse(
        self, base: Variant, rows: Ints, kind: str, density: float, aim: Floats | None, rng: np.random.Generator
    ) -> list[Variant]:
        """Return the gap arms of a block; the one that is filled with more books is a set of its own."""
        arms = []
        for name in self.section.gap_arms:
            if name == "gap":
                arms.append(dataclasses.replace(base, arm="gap", gap_kind=kind, density=density))
            elif name == "truncated":
                arms.append(dataclasses.replace(base, arm="truncated", gap_kind="truncated", density=density))
            elif (filled := self._filled(rows, density, aim, rng)) is not None:
                ids = self.shelf.ids(filled)
                fill = dataclasses.replace(base, arm="filled", gap_kind=kind, density=density, book_ids=ids)
                arms.append(dataclasses.replace(fill, set_id=base.set_id + 1))
        return arms

    def _filled(self, rows: Ints, density: float, aim: Floats | None, rng: np.random.Generator) -> Ints | None:
        """Return the set's books and others like them, so many that gaps leave as much text as the whole set had."""
        wanted = round(len(rows) / density)
        free = np.ones(self.shelf.n_units, dtype=np.bool_)
        free[self.shelf.unit_B[rows]] = False
        others = np.flatnonzero(free)
        if len(others) < wanted - len(rows):
            return None
        weights = None
        if aim is not None and self.cluster_B is not None and np.isfinite(aim).all():
            kind = self.cluster_B[self._unit_rows[0][self._unit_rows[1]]][others]
            weights = aim[kind] / np.maximum(np.bincount(kind, minlength=len(aim))[kind], 1) + 1e-12
            weights /= weights.sum()
        more = rng.choice(others, wanted - len(rows), replace=False, p=weights)
        return rng.permutation(np.concatenate([rows, self._editions(more.astype(np.int64), rng)]))

    def pilot(self, n_sets: int, n_seeds: int = 2) -> list[Variant]:
        """Return the pilot: every set in two orders, with and without gaps, each with two seeds.

        Orders or gaps that the study does not ask about are left out. Where the base mixes all passages, gaps are tried
        in the contrast order, since in mixed passages a gap would mean nothing.
        """
        section, rng = self.section, self.stream("pilot")
        sets = self.sets(n_sets, rng)
        gaps = deal_gaps(section, n_sets, rng)
        ordered = section.contrast_orders[0] if section.shares.order > 0 and section.contrast_orders else ""
        if section.base_order == "shuffled" and section.shares.gaps > 0 and (not ordered or ordered == "shuffled"):
            ordered = "random"
        variants: list[Variant] = []
        for place, rows in enumerate(sets.rows):
            base = self.base("pilot", "pilot", rows, sets.laws[place], place, place, rng, n_seeds)
            cells = [base]
            if ordered:
                cells.append(self.reordered(base, rows, ordered, "order"))
            if section.shares.gaps > 0:
                kind, density = next(gaps)
                whole = [v for v in cells if v.order != "shuffled"]
                cells += [
                    dataclasses.replace(v, arm="gap" if v is base else "order+gap", gap_kind=kind, density=density)
                    for v in whole
                ]
            variants += cells
        return numbered(variants, 0)

    def plain(
        self,
        round_name: str,
        template: str,
        sets: Sequence[Ints] | Sets,
        start: Start,
        rng: np.random.Generator,
        seeds: Sequence[int] = (),
        drawn: bool = True,
    ) -> list[Variant]:
        """Return one base variant per set.

        Args:
            round_name: The round.
            template: What the block is for.
            sets: Their rows, in training order; those that `sets` drew keep their law.
            start: Where numbers begin.
            rng: The round's stream.
            seeds: Init seeds, in place of the study's first.
            drawn: False where the books were chosen because of scores.
        """
        rows, names = (sets.rows, sets.laws) if isinstance(sets, Sets) else (list(sets), [template] * len(sets))
        variants = []
        for place, books in enumerate(rows):
            at = start.block + place, start.set_id + place
            base = self.base(round_name, template, books, names[place], *at, rng, max(1, len(seeds)))
            base = dataclasses.replace(base, init_seeds=list(seeds) or base.init_seeds, drawn=drawn)
            variants.append(base)
        return numbered(variants, start.index)

    def describe(self, variants: Sequence[Variant]) -> dict[str, Any]:
        """Return counts and balance of a design; equal designs have equal descriptions."""
        base = list({v.set_id: v for v in reversed(variants) if v.arm == "base"}.values())[::-1]
        blocks = {v.block: v.template for v in variants}
        rows = self._rows_of(base)
        templates = {name: list(blocks.values()).count(name) for name in TEMPLATES}
        others = sorted(set(blocks.values()) - set(TEMPLATES))
        found: dict[str, Any] = {
            "n_books": len(self.shelf),
            "n_units": self.shelf.n_units,
            "n_sets": len(blocks),
            "n_variants": len(variants),
            "n_runs": sum(len(v.init_seeds) for v in variants),
            "templates": templates | {name: list(blocks.values()).count(name) for name in others},
            "seed": self.seed,
            "design": "dispersed" if self.dispersed else BALANCED,
            "balance": balance.of_sets([self.shelf.unit_B[r] for r in rows], self.shelf.n_units),
            "orders": balance.of_orders(variants, len(self.shelf)),
            "gaps": balance.of_gaps(variants),
            "notes": self._notes(rows, variants),
        }
        if self.cluster_B is not None:
            found["kinds"] = balance.of_kinds(rows, self.cluster_B, [v.law for v in base])
        return found

    def _rows_of(self, variants: Sequence[Variant]) -> list[Ints]:
        """Return the rows of the books of some variants; looked up in one go, since each look reads all ids."""
        found = self.shelf.rows([book for v in variants for book in v.book_ids])
        return np.split(found, np.cumsum([len(v.book_ids) for v in variants])[:-1])

    def _notes(self, rows: Sequence[Ints], variants: Sequence[Variant]) -> list[str]:
        """Return in words what a person should know of the design."""
        notes = []
        distinct = len({np.sort(r).tobytes() for r in rows})
        if distinct < len(rows):
            notes.append(f"{len(rows)} sets were drawn, but only {distinct} of them differ: the library is small")
        if "filled" in self.section.gap_arms:
            wanted = sum(v.template == "gaps" and v.arm == "base" for v in variants)
            missing = wanted - sum(v.arm == "filled" for v in variants)
            if missing:
                notes.append(f"{missing} of {wanted} blocks have no arm `filled`: the library has too few other books")
        return notes


def numbered(variants: Sequence[Variant], first: int) -> list[Variant]:
    """Return variants with their places in the design and their ids."""
    return [named(dataclasses.replace(v, index=first + i)) for i, v in enumerate(variants)]


_STREAM_FIELDS = ("book_ids", "order", "gap_kind", "density", "spacing", "stream_seed")


def named(variant: Variant) -> Variant:
    """Return a variant with its id."""
    return dataclasses.replace(variant, variant_id=content_id(variant))


def content_id(variant: Variant) -> str:
    """Return the id of what a variant is: its token stream, and its recipe where that is not the study's own."""
    content = {name: getattr(variant, name) for name in _STREAM_FIELDS}
    if variant.recipe:
        content["recipe"] = variant.recipe
    return fingerprint(content, 12)
