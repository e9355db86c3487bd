"""Choose which books stand in which set: as balanced as possible, and random in a way that can be redrawn.

Source: near-balanced incomplete blocks from concatenated random permutations, evened out by swaps: first the sum of
squared pair counts, then that of their fourth powers, which is what the largest correlation between two books hangs on
(all books stand equally often, so the correlation of two is linear in how often they meet). The last step permutes
rows and columns uniformly at random: those permutations are the randomisation that the p-values of `patterns` redraw.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_SWAPS_PER_SET = 100  # enough for pair counts to stop improving at 50-500 books (tests/sets)
_PEAK_SWAPS_PER_SET = 40
_LARGEST_EVENED = 2000  # above this many books pair counts are mostly 0 or 1 and evening them is pointless


def incidence(
    n_sets: int, n_books: int, set_size: int, rng: np.random.Generator, before: BoolArray | None = None
) -> BoolArray:
    """Return which book stands in which set, shape (n_sets, n_books).

    Every row has `set_size` ones; columns differ by at most one.

    Args:
        n_sets: Sets to draw.
        n_books: Books to draw from.
        set_size: Books in a set.
        rng: The drawing's stream.
        before: Sets that there are already, shape (m, n_books): columns and pairs are evened together with theirs. The
            books are then no longer interchangeable, so only rows are permuted at the end.

    Raises:
        ValueError: a set would need more books than there are.
    """
    if set_size > n_books:
        raise ValueError(f"a set of {set_size} books cannot be drawn from {n_books}")
    there = np.zeros((0, n_books), dtype=np.bool_) if before is None else before
    member = _deal(n_sets, set_size, rng, there)
    if n_books <= _LARGEST_EVENED and set_size < n_books:
        _even_pairs(member, rng, _SWAPS_PER_SET * n_sets, there)
        _cut_peaks(member, rng, _PEAK_SWAPS_PER_SET * n_sets, there)
    rows = rng.permutation(n_sets)
    return member[rows] if len(there) else member[rows][:, rng.permutation(n_books)]


def _deal(n_sets: int, set_size: int, rng: np.random.Generator, before: BoolArray) -> BoolArray:
    """Deal books like cards: each set takes the books that were used least, ties broken at random."""
    n_books = before.shape[1]
    member = np.zeros((n_sets, n_books), dtype=np.bool_)
    used = before.sum(axis=0, dtype=np.int64)
    for row in range(n_sets):
        order = np.lexsort((rng.random(n_books), used))
        member[row, order[:set_size]] = True
        used[order[:set_size]] += 1
    return member


def _pairs(member: BoolArray, before: BoolArray) -> IntArray:
    both = np.concatenate([before, member]).astype(np.float32)  # counts below 2^24 are exact
    return np.asarray(both.T @ both).astype(np.int64)


def _even_pairs(member: BoolArray, rng: np.random.Generator, n_swaps: int, before: BoolArray) -> None:
    """Swap books between two sets while that lowers the sum of squared pair counts; column sums stay."""
    n_sets = len(member)
    if n_sets < 2:
        return
    stands = member.astype(np.int64)
    pairs = _pairs(member, before)
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
        _swap(member, pairs, (int(one), int(two)), (a, b))
        for row, gone, come in ((one, a, b), (two, b, a)):
            stands[row, gone], stands[row, come] = 0, 1


def _cut_peaks(member: BoolArray, rng: np.random.Generator, n_swaps: int, before: BoolArray) -> None:
    """Swap books between two sets while that lowers the sum of fourth powers of pair counts about their mean.

    Each try takes a set that holds one of the pairs that stand out most, so that tries are not spent where all is even.
    """
    n_sets, n_books = member.shape
    if n_sets < 2 or n_books < 3:
        return
    pairs = _pairs(member, before)
    mean = (pairs.sum() - np.trace(pairs)) / (n_books * (n_books - 1))
    peaks: list[tuple[int, int]] = []
    for _ in range(n_swaps):
        if not peaks:
            peaks = _peaks(pairs, mean, rng)
        a, other = peaks.pop()
        together = np.flatnonzero(member[:, a] & member[:, other])
        apart = np.flatnonzero(~member[:, a])
        if not together.size or not apart.size:
            continue
        one, two = (int(rows[int(rng.random() * rows.size)]) for rows in (together, apart))
        only_one, only_two = member[one] & ~member[two], member[two] & ~member[one]
        candidates = np.flatnonzero(only_two)
        if not candidates.size:
            continue
        b = int(candidates[int(rng.random() * candidates.size)])
        only_one[a] = only_two[b] = False
        lead_a, lead_b = pairs[a] - mean, pairs[b] - mean
        change = _fourth(lead_a, lead_b, only_one) + _fourth(lead_b, lead_a, only_two)
        if change < 0:
            _swap(member, pairs, (one, two), (a, b))


def _peaks(pairs: IntArray, mean: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the pairs of books that meet most often beyond the mean, each both ways, in random order."""
    n_books = len(pairs)
    above = np.triu(pairs - mean, k=1).ravel()
    count = min(max(8, n_books), above.size - 1)
    most = np.argpartition(above, above.size - count)[above.size - count :]
    found = [(int(i) // n_books, int(i) % n_books) for i in rng.permutation(most)]
    return [pair for one, two in found for pair in ((one, two), (two, one))]


def _fourth(leaving: npt.NDArray[np.float64], coming: npt.NDArray[np.float64], rest: BoolArray) -> float:
    """Return by how much the fourth powers grow where `leaving` meets `rest` once less and `coming` once more."""
    less, more = leaving[rest], coming[rest]
    return float(((less - 1) ** 4 - less**4 + (more + 1) ** 4 - more**4).sum())


def _swap(member: BoolArray, pairs: IntArray, sets: tuple[int, int], books: tuple[int, int]) -> None:
    """Move book a from set one to set two and book b back, in membership and pair counts."""
    (one, two), (a, b) = sets, books
    rest_one, rest_two = member[one].copy(), member[two].copy()
    rest_one[a] = rest_two[b] = False
    for book, other, rest in ((a, b, rest_one), (b, a, rest_two)):
        pairs[book][rest] -= 1
        pairs[rest, book] -= 1
        pairs[other][rest] += 1
        pairs[rest, other] += 1
    for row, gone, come in ((one, a, b), (two, b, a)):
        member[row, gone], member[row, come] = False, True
