"""The algebra of the split-plot layout: arms beside the scores, and sets as the units of books.

Books are given to whole sets, so a set is one observation however many runs it holds; treating its runs as independent
rows finds false books in nearly every study. Arms (order, gap kind, density, spacing) differ inside a set and are
fitted beside the books, so that the contrasts of books stay unbiased where cells are small or runs are missing.

Legend: n runs, S sets, B books, q columns of arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.patterns.table import Floats, Ints, Table
from ltm.records import Variant

_RANK_TOLERANCE = 1e-9
Sparse = Any  # scipy.sparse.csr_array; scipy has no types


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
    membership: Sparse  # (S, B) where the set holds the book: usual size of a set / size of this set

    def set_means(self, values: Floats) -> Floats:
        """Return the mean over each set's runs; shape (n, ...) -> (S, ...)."""
        total = np.zeros((len(self.set_ids), *values.shape[1:]))
        np.add.at(total, self.set_of, values)
        return np.asarray((total.T / self.runs_per_set).T, dtype=np.float64)

    def without_arms(self, values: Floats) -> Floats:
        """Return values per run, shape (n, ...), with the arms regressed out."""
        return np.asarray(values - self.arms @ (self.arms.T @ values), dtype=np.float64)

    @property
    def holders(self) -> Ints:
        """Return the number of sets that hold each book, shape (B,)."""
        return np.bincount(self.membership.indices, minlength=len(self.book_ids)).astype(np.int64)

    def n_arm_sets(self) -> float:
        """Return how many degrees of freedom between sets the arms use up."""
        singular = np.linalg.svd(self.set_means(self.arms) * np.sqrt(self.runs_per_set)[:, None], compute_uv=False)
        return float(np.sum(singular**2))


def make_layout(table: Table, score: Floats) -> Layout:
    """Return the layout of the runs whose score is a number."""
    rows = np.flatnonzero(np.isfinite(score)).astype(np.int64)
    variants = tuple(table.variant(int(row)) for row in rows)
    set_ids, set_of = np.unique(np.array([v.set_id for v in variants], dtype=np.int64), return_inverse=True)
    templates: list[set[str]] = [set() for _ in set_ids]
    first: dict[int, Variant] = {}
    for variant, place in zip(variants, set_of.tolist(), strict=True):
        first.setdefault(place, variant)  # variants of one set have the same books
        templates[place].add(f"{variant.round}/{variant.template}/{variant.law}")
    book_ids, membership = _membership([first[i].book_ids for i in range(len(set_ids))])
    labels = ["+".join(sorted(t)) for t in templates]
    strata = np.unique(labels, return_inverse=True)[1].astype(np.int64) if labels else np.zeros(0, dtype=np.int64)
    return Layout(
        rows, variants, set_ids, set_of.astype(np.int64), np.bincount(set_of).astype(np.float64), strata,
        _basis(_arm_columns(variants, strata[set_of])), book_ids, membership,
    )  # fmt: skip


def _membership(books: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], Sparse]:
    """Return the books of all sets, ascending, and the (S, B) matrix of their shares.

    All runs have one budget of tokens, so in a set of more books each gets less: its entry is smaller in proportion.
    """
    from scipy import sparse

    members = [sorted(set(held)) for held in books]
    book_ids = tuple(sorted(set().union(*members))) if members else ()
    column = {book_id: i for i, book_id in enumerate(book_ids)}
    sizes = np.array([len(held) for held in members], dtype=np.int64)
    usual = float(np.median(sizes)) if len(sizes) else 0.0
    indices = np.fromiter((column[b] for held in members for b in held), dtype=np.int64, count=int(sizes.sum()))
    values = np.repeat(usual / np.maximum(sizes, 1), sizes)
    pointers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return book_ids, sparse.csr_array((values, indices, pointers), shape=(len(members), len(book_ids)))


def _arm_columns(variants: Sequence[Variant], strata: Ints) -> Floats:
    """Return columns for the mean of every arm, and for kind and dose inside the sparse arms.

    Kind and dose enter additively: a mean per (kind, density) cell would swallow the sets of small cells whole.
    """
    labels = [f"{int(s)}\t{v.arm}\t{v.order}\t{v.spacing}" for s, v in zip(strata, variants, strict=True)]
    names, cell = np.unique(labels, return_inverse=True) if labels else (np.zeros(0), np.zeros(0, dtype=np.int64))
    cells = np.zeros((len(variants), len(names)))
    cells[np.arange(len(variants)), cell] = 1.0
    sparse = np.array([v.density < 1.0 for v in variants], dtype=bool)
    control = np.array([v.gap_kind == "truncated" for v in variants], dtype=bool)
    dose = np.array([1.0 - v.density for v in variants])
    kinds = sorted({v.gap_kind for v, s in zip(variants, sparse, strict=True) if s})
    columns = [np.array([v.gap_kind == kind for v in variants], dtype=np.float64) * sparse for kind in kinds]
    columns += [dose * (sparse & control), dose * (sparse & ~control)]
    return np.column_stack([cells, *columns])


def _basis(columns: Floats) -> Floats:
    """Return orthonormal columns with the same span."""
    if not columns.size:
        return columns
    u, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, singular > _RANK_TOLERANCE * max(1.0, singular[0])], dtype=np.float64)


def with_column(arms: Floats, column: Floats) -> Floats:
    """Return an orthonormal basis of the arms and one more column of runs."""
    return _basis(np.column_stack([arms, (column - column.mean()) / max(float(column.std()), 1e-300)]))


def interval(estimate: npt.ArrayLike, se: npt.ArrayLike, df: float) -> tuple[Floats, Floats]:
    """Return the ends of 90 % t intervals."""
    from scipy.special import stdtrit

    half = float(stdtrit(df, 0.95)) * np.asarray(se, dtype=np.float64)
    centre = np.asarray(estimate, dtype=np.float64)
    return centre - half, centre + half
