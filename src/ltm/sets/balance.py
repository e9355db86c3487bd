"""How even a design is: books, pairs of books, kinds of books, places in the order, gaps.

Reads: what was drawn. Writes: nothing; `sets/design.json` keeps what it returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltm.records import Variant
from ltm.sets.choose import BoolArray
from ltm.sets.shelf import Ints

_LARGEST_MATRIX = 2000  # above this many books pairs are counted as they occur: nearly all of them never do


def of_sets(sets: Sequence[Ints], n_books: int) -> dict[str, Any]:
    """Return how evenly books stand in sets, alone and in pairs.

    Args:
        sets: The books of each set, as numbers below `n_books`.
        n_books: Books that could have been drawn.

    Returns:
        `sets_per_book` (least, most), `books_never_drawn`, `sets_per_pair` (least, mean, most), `sets_per_pair_sd`, and
        `largest_correlation` between the columns of two books that each stand in some sets but not in all.
    """
    per_book = np.bincount(np.concatenate([*sets, np.zeros(0, dtype=np.int64)]), minlength=n_books)
    result: dict[str, Any] = {
        "sets_per_book": [int(per_book.min()), int(per_book.max())],
        "books_never_drawn": int((per_book == 0).sum()),
    }
    if n_books <= _LARGEST_MATRIX:
        member = np.zeros((len(sets), n_books), dtype=np.bool_)
        for row, books in enumerate(sets):
            member[row, books] = True
        return {**result, **_of_pairs(member)}
    return {**result, **_of_rare_pairs(sets, n_books)}


def of_matrix(member: BoolArray) -> dict[str, Any]:
    """Return the same for a membership matrix, shape (sets, books)."""
    return of_sets([np.flatnonzero(row).astype(np.int64) for row in member], member.shape[1])


def _of_pairs(member: BoolArray) -> dict[str, Any]:
    n_sets, n_books = member.shape
    if n_books < 2:
        return {}
    columns = member.astype(np.float64)
    pairs = columns.T @ columns
    upper = np.triu_indices(n_books, k=1)
    share = columns.mean(axis=0)
    spread = np.sqrt(share * (1 - share))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (pairs / n_sets - np.outer(share, share)) / np.outer(spread, spread)
    known = np.abs(correlation[upper][np.isfinite(correlation[upper])])
    found = pairs[upper]
    result: dict[str, Any] = {
        "sets_per_pair": [int(found.min()), round(float(found.mean()), 3), int(found.max())],
        "sets_per_pair_sd": round(float(found.std()), 3),
    }
    if known.size:
        result["largest_correlation"] = round(float(known.max()), 3)
    return result


def _of_rare_pairs(sets: Sequence[Ints], n_books: int) -> dict[str, Any]:
    """Return pair counts from the pairs that occur."""
    keys = []
    for books in sets:
        ascending = np.sort(books)
        one, two = np.triu_indices(len(ascending), k=1)
        keys.append(ascending[one] * n_books + ascending[two])
    _, counts = np.unique(np.concatenate([*keys, np.zeros(0, dtype=np.int64)]), return_counts=True)
    mean = float(counts.sum()) / (n_books * (n_books - 1) / 2)
    most = int(counts.max()) if counts.size else 0
    least = int(counts.min()) if counts.size == n_books * (n_books - 1) // 2 else 0
    variance = float((counts.astype(np.float64) ** 2).sum()) / (n_books * (n_books - 1) / 2) - mean**2
    return {"sets_per_pair": [least, round(mean, 6), most], "sets_per_pair_sd": round(max(0.0, variance) ** 0.5, 4)}


def of_kinds(sets: Sequence[Ints], cluster_B: Ints, laws: Sequence[str]) -> dict[str, Any]:
    """Return how far dispersed sets lean towards kinds of books, and whether kinds lean together.

    `spread_over_uniform`: the variance between sets of a kind's share, over that of the uniform sets (what sampling
    evenly would give where there are none): the signal that dispersal buys. `largest_correlation` is between two kinds.
    """
    n_kinds = int(cluster_B.max()) + 1
    share = np.stack([np.bincount(cluster_B[books], minlength=n_kinds) / max(1, len(books)) for books in sets])
    even = np.bincount(cluster_B, minlength=n_kinds) / len(cluster_B)
    size = float(np.mean([len(books) for books in sets]))
    sampling = float(np.mean(even * (1 - even))) / max(1.0, size)
    dispersed = np.array([law.startswith("dirichlet") for law in laws])
    spread = float(share[dispersed].var(axis=0).mean()) if dispersed.any() else 0.0
    effective = 1.0 / (share**2).sum(axis=1)
    result: dict[str, Any] = {
        "n_kinds": n_kinds,
        "books_per_kind": _least_and_most(np.bincount(cluster_B, minlength=n_kinds)),
        "sets_led_by_a_kind": _least_and_most(np.bincount(share[dispersed].argmax(axis=1), minlength=n_kinds)),
        "spread_over_uniform": round(spread / sampling, 2) if sampling > 0 else None,
        "kinds_in_a_set": {
            law: round(float(np.mean([e for e, own in zip(effective, laws, strict=True) if own == law])), 1)
            for law in sorted(set(laws))
        },
    }
    varying = share[:, share.std(axis=0) > 0]
    if varying.shape[1] > 1 and len(sets) > 2:
        correlation = np.atleast_2d(np.corrcoef(varying.T))
        upper = np.triu_indices(len(correlation), 1)
        result["largest_correlation"] = round(float(np.abs(correlation[upper]).max()), 3)
    return result


def of_orders(variants: Sequence[Variant], n_books: int) -> dict[str, Any]:
    """Return the variants of each order, and how far the mean place of any book is from the middle (places -1 .. 1).

    Only random orders and their reverses count for places: other orders put books where their content says.
    """
    by_order = Counter(v.order for v in variants)
    total: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for variant in variants:
        if variant.order in ("random", "reverse") and len(variant.book_ids) > 1:
            last = len(variant.book_ids) - 1
            for place, book_id in enumerate(variant.book_ids):
                total[book_id] += int(2 * place - last)
                times[book_id] += last
    mean = np.array([total[book] / times[book] for book in times])
    result: dict[str, Any] = {"variants": dict(sorted(by_order.items()))}
    if mean.size:
        result["mean_place_of_a_book"] = [round(float(mean.min()), 3), round(float(mean.max()), 3)]
        result["mean_place_sd"] = round(float(mean.std()), 4)
        result["books_with_a_place"] = [int(mean.size), n_books]
    return result


def of_gaps(variants: Sequence[Variant]) -> dict[str, Any]:
    """Return the variants of each gap arm, and of each kind and density of the arm `gap`."""
    arms = Counter(v.arm for v in variants if v.template == "gaps")
    cells = Counter(f"{v.gap_kind} {v.density:g}" for v in variants if v.arm in ("gap", "order+gap"))
    result: dict[str, Any] = {"variants": dict(sorted(arms.items())), "cells": dict(sorted(cells.items()))}
    if cells:
        result["variants_per_cell"] = [min(cells.values()), max(cells.values())]
    return result


def _least_and_most(values: Ints) -> list[int]:
    return [int(values.min()), int(values.max())]
