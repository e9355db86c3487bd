"""Choose which books stand in which set: as balanced as possible, and random in a way that can be redrawn.

Source: near-balanced incomplete blocks from concatenated random permutations (SCIENCE 2.2), evened out by swaps.
The last step permutes rows and columns uniformly at random: those permutations are the randomisation that the
p-values of `patterns` redraw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

_SWAPS_PER_SET = 100  # enough for pair counts to stop improving at 50-500 books (tests/sets)
_LARGEST_EVENED = 2000  # above this many books pair counts are mostly 0 or 1 and evening them is pointless


def incidence(n_sets: int, n_books: int, set_size: int, rng: np.random.Generator) -> BoolArray:
    """Return which book stands in which set, shape (n_sets, n_books).

    Every row has `set_size` ones; columns differ by at most one.

    Raises:
        ValueError: a set would need more books than there are.
    """
    if set_size > n_books:
        raise ValueError(f"a set of {set_size} books cannot be drawn from {n_books}")
    member = _deal(n_sets, n_books, set_size, rng)
    if n_books <= _LARGEST_EVENED and set_size < n_books:
        _even_pairs(member, rng, _SWAPS_PER_SET * n_sets)
    rows, columns = rng.permutation(n_sets), rng.permutation(n_books)
    return member[rows][:, columns]


def balance(member: BoolArray) -> dict[str, Any]:
    """Return how even a design is: sets per book and sets per pair of books."""
    per_book = member.sum(axis=0)
    pairs = (member.T.astype(np.float32) @ member.astype(np.float32)).astype(np.int64)
    upper = pairs[np.triu_indices(len(pairs), k=1)] if len(pairs) <= _LARGEST_EVENED else np.zeros(0)
    result: dict[str, Any] = {"sets_per_book": [int(per_book.min()), int(per_book.max())]}
    if upper.size:
        result["sets_per_pair"] = [int(upper.min()), round(float(upper.mean()), 3), int(upper.max())]
        result["sets_per_pair_sd"] = round(float(upper.std()), 3)
    return result


def _deal(n_sets: int, n_books: int, set_size: int, rng: np.random.Generator) -> BoolArray:
    """Deal books like cards: each set takes the books that were used least, ties broken at random."""
    member = np.zeros((n_sets, n_books), dtype=np.bool_)
    used = np.zeros(n_books, dtype=np.int64)
    for row in range(n_sets):
        order = np.lexsort((rng.random(n_books), used))
        member[row, order[:set_size]] = True
        used[order[:set_size]] += 1
    return member


def _even_pairs(member: BoolArray, rng: np.random.Generator, n_swaps: int) -> None:
    """Swap books between two sets while that lowers the sum of squared pair counts; column sums stay."""
    n_sets = len(member)
    if n_sets < 2:
        return
    stands = member.astype(np.int64)
    pairs = stands.T @ stands
    for one, two in rng.integers(0, n_sets, size=(n_swaps, 2)):
        difference = stands[one] - stands[two]
        only_one, only_two = np.flatnonzero(difference > 0), np.flatnonzero(difference < 0)
        if not only_one.size:
            continue
        a, b = only_one[int(rng.random() * only_one.size)], only_two[int(rng.random() * only_two.size)]
        lead = pairs[a] - pairs[b]
        # a leaves set one and b leaves set two: each lowers its pair counts with the rest, the other raises them;
        # books that both sets have cancel out; squares fall by 2 x gain and rise by 2 for every pair that moves
        gain = int(lead @ difference) - int(lead[a]) + int(lead[b])
        if gain <= only_one.size + only_two.size - 2:
            continue
        rest_one, rest_two = member[one].copy(), member[two].copy()
        rest_one[a] = rest_two[b] = False
        for book, other, rest in ((a, b, rest_one), (b, a, rest_two)):
            pairs[book][rest] -= 1
            pairs[rest, book] -= 1
            pairs[other][rest] += 1
            pairs[rest, other] += 1
        for row, gone, come in ((one, a, b), (two, b, a)):
            member[row, gone], member[row, come] = False, True
            stands[row, gone], stands[row, come] = 0, 1
