"""The algebra of the split-plot layout: arms taken out of the scores, and sets as the units that are left.

Books are given to whole sets, so a set is one observation however many runs it holds; treating its runs as independent
rows finds false books in nearly every study. Arms (order, gap kind, density) differ inside a set and are regressed out
first. The same regression is applied to the membership, so that the contrasts of books stay unbiased where cells are
small or runs are missing (Frisch-Waugh-Lovell).

Legend: n runs, S sets, B books, q columns of arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm.patterns.table import Floats, Ints, Table
from ltm.records import Variant

_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Layout:
    """The runs of one ability that have a score, grouped by set."""

    rows: Ints  # (n,) rows of the table
    variants: tuple[Variant, ...]  # (n,) of each run
    set_ids: Ints  # (S,) ascending
    set_of: Ints  # (n,) place in `set_ids`
    runs_per_set: Floats  # (S,)
    strata: Ints  # (S,) sets with the same number are exchangeable
    arms: Floats  # (n, q) orthonormal columns that span the arms
    book_ids: tuple[str, ...]  # (B,) ascending
    membership: Floats  # (S, B) 1 where the set holds the book

    def set_means(self, values: Floats) -> Floats:
        """Return the mean over each set's runs; shape (n, ...) -> (S, ...)."""
        total = np.zeros((len(self.set_ids), *values.shape[1:]))
        np.add.at(total, self.set_of, values)
        return np.asarray((total.T / self.runs_per_set).T, dtype=np.float64)

    def without_arms(self, values: Floats) -> Floats:
        """Return values per run, shape (n, ...), with the arms regressed out."""
        return np.asarray(values - self.arms @ (self.arms.T @ values), dtype=np.float64)

    def set_scores(self, score: Floats) -> Floats:
        """Return one score per set, shape (S,): the mean of what its runs score beyond their arms."""
        return self.set_means(self.without_arms(score))

    def projector(self) -> Floats:
        """Return G, shape (S, S): what the set scores keep of a quantity that belongs to whole sets."""
        set_arms = self.set_means(self.arms)
        return np.eye(len(self.set_ids)) - set_arms @ (set_arms * self.runs_per_set[:, None]).T


def make_layout(table: Table, score: Floats) -> Layout:
    """Return the layout of the runs whose score is a number."""
    rows = np.flatnonzero(np.isfinite(score)).astype(np.int64)
    variants = tuple(table.variant(int(row)) for row in rows)
    set_ids, set_of = np.unique(np.array([v.set_id for v in variants], dtype=np.int64), return_inverse=True)
    books: list[set[str]] = [set() for _ in set_ids]
    templates: list[set[str]] = [set() for _ in set_ids]
    for variant, place in zip(variants, set_of, strict=True):
        books[place].update(variant.book_ids)
        templates[place].add(variant.template)
    book_ids = tuple(sorted(set().union(*books)))
    column = {book_id: i for i, book_id in enumerate(book_ids)}
    membership = np.zeros((len(set_ids), len(book_ids)))
    for place, members in enumerate(books):
        membership[place, [column[b] for b in members]] = 1.0
    labels = ["+".join(sorted(t)) for t in templates]
    strata = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return Layout(
        rows, variants, set_ids, set_of.astype(np.int64), np.bincount(set_of).astype(np.float64), strata,
        _basis(_arm_columns(variants, strata[set_of])), book_ids, membership,
    )  # fmt: skip


def _arm_columns(variants: Sequence[Variant], strata: Ints) -> Floats:
    """Return columns for the mean of every arm, and for kind and dose inside the sparse arms.

    Kind and dose enter additively: a mean per (kind, density) cell would swallow the sets of small cells whole.
    """
    cells = [(int(s), v.arm, v.order) for s, v in zip(strata, variants, strict=True)]
    columns = [np.array([c == cell for c in cells], dtype=np.float64) for cell in sorted(set(cells))]
    sparse = np.array([v.density < 1.0 for v in variants])
    control = np.array([v.gap_kind == "truncated" for v in variants])
    dose = np.array([1.0 - v.density for v in variants])
    kinds = sorted({v.gap_kind for v, s in zip(variants, sparse, strict=True) if s})
    columns += [np.array([v.gap_kind == kind for v in variants], dtype=np.float64) * sparse for kind in kinds]
    columns += [dose * (sparse & control), dose * (sparse & ~control)]
    return np.column_stack(columns)


def _basis(columns: Floats) -> Floats:
    """Return orthonormal columns with the same span."""
    u, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, singular > _RANK_TOLERANCE * max(1.0, singular[0])], dtype=np.float64)


def interval(estimate: npt.ArrayLike, se: npt.ArrayLike, df: float) -> tuple[Floats, Floats]:
    """Return the ends of 90 % t intervals."""
    from scipy.special import stdtrit

    half = float(stdtrit(df, 0.95)) * np.asarray(se, dtype=np.float64)
    centre = np.asarray(estimate, dtype=np.float64)
    return centre - half, centre + half
