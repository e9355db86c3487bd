"""The `sets` section of a study: how many training sets, how large, in which orders and with which gaps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltm.config import Count, Section

Order = Literal[
    "random",
    "reverse",
    "shuffled",
    "readability_up",
    "readability_down",
    "chronological",
    "genre_blocked",
    "genre_interleaved",
    "similarity_chain",
    "anti_chain",
    "given",
    "in_turns",
    "repetition",
]
GapKind = Literal["scattered", "blocks", "chapters", "head"]
Share = Annotated[float, Field(ge=0, le=1)]


class SharesSection(Section):
    """How the sets are divided among the four kinds of block; the numbers are normalised to one."""

    single: Share = 0.4
    """One run a set: most sets per hour, for the effects of books."""
    seeds: Share = 0.15
    """The same variant trained with two seeds: how loud the noise is."""
    order: Share = 0.2
    """The same books in the base order and in every contrast order."""
    gaps: Share = 0.25
    """The same books whole, with gaps, and truncated to the same unique tokens (the control)."""

    @model_validator(mode="after")
    def _some(self) -> SharesSection:
        if self.single + self.seeds + self.order + self.gaps <= 0:
            raise ValueError("needs at least one share above 0")
        return self


class SetsSection(Section):
    """Which training sets are drawn."""

    count: Annotated[Count, Field(ge=1)] = 96
    """Variants in all; a variant of a `seeds` block is trained twice. With `rounds`: the runs of all rounds."""
    books_per_set: Annotated[int, Field(ge=1)] = 20
    """Books in one set."""
    book_tokens: Annotated[Count, Field(ge=16)] = 10_000
    """Tokens that each book gives in one epoch; a shorter book is repeated, so that long books do not win."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Times the whole set is read; all runs have books_per_set x book_tokens x epochs tokens."""
    design: Literal["auto", "balanced", "dispersed"] = "auto"
    """`balanced`: every book, and every pair of books, as often as any other. `dispersed`: sets that lean towards a few
    kinds of books, for libraries in which single books are too many to tell apart. `auto`: dispersed from 1,000
    books on."""
    clusters: Annotated[int, Field(ge=0)] = 0
    """Kinds of books that dispersed sets lean towards, found by the books' features; 0 = 64 to 256 by library size."""
    concentrations: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [0.02, 0.1, 0.5]
    """Of the Dirichlet draws behind dispersed sets, dealt evenly; the smaller, the fewer kinds of books in a set."""
    uniform_share: Share = 0.2
    """Share of dispersed sets that are drawn evenly from all books instead, to check that the same laws hold there."""
    editions: Literal["one", "apart"] = "one"
    """`one`: books of one author with one title count as one book, and a set holds one of them, drawn at random.
    `apart`: they are books like any other."""
    among: str | None = None
    """A text file of book ids, one a line: sets are drawn from these books alone."""
    base_order: Literal["random", "shuffled"] = "random"
    """`random`: book after book in random order; `shuffled`: all passages of the set mixed (no order)."""
    contrast_orders: list[Order] = ["reverse", "shuffled"]
    """What `order` blocks compare with the base order; `reverse` is the exact reverse of the block's random order."""
    orders_per_block: Annotated[int, Field(ge=0)] = 0
    """Contrast orders in one block, dealt evenly over the blocks; 0 = all of them in every block."""
    turns: Annotated[int, Field(ge=2)] = 4
    """Books that the order `in_turns` reads by turns, passage by passage."""
    gap_kinds: Annotated[list[GapKind], Field(min_length=1)] = ["scattered", "blocks", "chapters", "head"]
    """Which gaps are tried."""
    densities: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [0.75, 0.5, 0.25]
    """Shares of each book that gap arms keep; 1 is the base."""
    gap_arms: Annotated[list[Literal["gap", "filled", "truncated"]], Field(min_length=1)] = ["gap", "truncated"]
    """What `gaps` blocks compare with the whole text: `gap` (less text, read more often), `filled` (the room is filled
    with more books that have gaps too), `truncated` (as much of each book without gaps: the control)."""
    passage_tokens: Annotated[int, Field(ge=8)] = 128
    """Length of the passages that are dropped, mixed or taken in turns."""
    spacing: Annotated[int, Field(ge=0)] = 1
    """Books read in turns, passage by passage; 1 = each book whole; 0 = spaced repetition: a book comes back after
    1, 3, 7, ... other books, in place of whole epochs one after another."""
    common_init: bool = True
    """Start all runs from the same weights, and second runs of `seeds` blocks from other ones: most seed noise is the
    start, and what all runs share does not blur their comparison. What is found holds for these starts. false: another
    start for every block."""
    shares: SharesSection = SharesSection()
    """How the sets are divided among the kinds of block."""

    @property
    def run_tokens(self) -> int:
        """Tokens that every run is trained on."""
        return self.books_per_set * self.book_tokens * self.epochs

    @property
    def orders_in_block(self) -> int:
        """Contrast orders that one `order` block holds."""
        return min(self.orders_per_block, len(self.contrast_orders)) or len(self.contrast_orders)

    @model_validator(mode="after")
    def _orders_differ(self) -> SetsSection:
        if self.base_order in self.contrast_orders:
            raise ValueError(f"contrast_orders contains the base order `{self.base_order}`: nothing to compare")
        if len(set(self.contrast_orders)) != len(self.contrast_orders):
            raise ValueError("contrast_orders names an order twice")
        if self.shares.order > 0 and not self.contrast_orders:
            raise ValueError("shares.order is above 0 but contrast_orders is empty")
        return self

    @model_validator(mode="after")
    def _arms_differ(self) -> SetsSection:
        for name in ("gap_kinds", "densities", "gap_arms", "concentrations"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names a value twice")
        if "gap" not in self.gap_arms and "filled" not in self.gap_arms:
            raise ValueError("gap_arms has no arm with gaps: nothing to compare the control with")
        return self
