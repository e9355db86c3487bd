"""Propose sets that should score well, from draws of what each book brings; knows no scores.

Reads: plain arrays. Writes: nothing. A proposal takes one draw from the posterior of the books' worth as if it were the
truth and looks for the best set under it (Thompson 1933): books that are surely good are in nearly every proposal,
doubtful ones in some, so that every proposal also learns. Half of the proposals start from a child of two good sets
(crossover) and only improve it by some greedy swaps, so that what makes these sets good beyond the sum of their books
is kept. No proposal may be too much like another, nor be of one kind of books alone.

Legend: P proposals, U units (works), K books in a set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ltm.sets.shelf import Floats, Ints

THOMPSON, CROSSOVER = "thompson", "crossover"
_SWAP_SHARE = 0.25  # of a child's books may be swapped: more would make it the same as a plain proposal
_SORTED_FIRST = 2000
_ROUNDS = 50  # of making a proposal different from the others


@dataclass(frozen=True)
class Rules:
    """What proposals have to keep to."""

    set_size: int
    most_shared: float = 0.8  # of the books of two proposals
    most_of_a_kind: float = 1.0  # share of one cluster in a set


def propose(
    worth_PU: Floats, rules: Rules, good: Sequence[Ints], rng: np.random.Generator, cluster_U: Ints | None = None
) -> tuple[list[Ints], list[str]]:
    """Return one set per draw and how it was made, `thompson` or `crossover`.

    Args:
        worth_PU: Draws of what each unit's presence brings, one row a proposal.
        rules: Size and diversity.
        good: Sets that scored well, best first, for crossover; with fewer than two all are plain draws.
        rng: For crossover and ties.
        cluster_U: The kind of each unit.

    Raises:
        ValueError: there are fewer units than a set needs.
    """
    n_units = worth_PU.shape[1]
    if rules.set_size > n_units:
        raise ValueError(f"a set of {rules.set_size} books cannot be drawn from {n_units}")
    search = _Search(rules, n_units, cluster_U)
    found: list[Ints] = []
    made: list[str] = []
    for place, worth in enumerate(worth_PU):
        crossed = place % 2 == 1 and len(good) > 1
        if crossed:
            one, two = rng.choice(len(good), 2, replace=False)
            start = search.repaired(child(good[one], good[two], rules.set_size, rng), worth)
            chosen = search.improved(start, worth, max(1, round(_SWAP_SHARE * rules.set_size)))
        else:
            chosen = search.best(worth)
        found.append(np.sort(search.apart(chosen, worth, found)))
        made.append(CROSSOVER if crossed else THOMPSON)
    return found, made


def child(one: Ints, two: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Return what two sets share, filled up with random books of either."""
    shared = np.intersect1d(one, two)
    rest = np.setxor1d(one, two)
    return np.concatenate([shared, rng.permutation(rest)])[:size]


class _Search:
    """Looks for sets of high worth that keep to the rules."""

    def __init__(self, rules: Rules, n_units: int, cluster_U: Ints | None) -> None:
        self.rules, self.n_units = rules, n_units
        self.cluster_U = np.zeros(n_units, dtype=np.int64) if cluster_U is None else cluster_U
        sizes = np.bincount(self.cluster_U)
        cap = max(1, int(np.ceil(rules.most_of_a_kind * rules.set_size)))
        if np.minimum(sizes, cap).sum() < rules.set_size:  # the rule cannot be kept with these kinds
            cap = rules.set_size
        self.cap = rules.set_size if cluster_U is None else cap

    def best(self, worth: Floats, banned: Ints | None = None, kept: Ints | None = None) -> Ints:
        """Return the set of the highest worth that holds `kept` and nothing `banned`; exact for additive worth."""
        chosen = [] if kept is None else kept.tolist()
        held = set(chosen)
        counts = np.bincount(self.cluster_U[chosen], minlength=int(self.cluster_U.max()) + 1)
        open_ = np.ones(self.n_units, dtype=np.bool_)
        if banned is not None:
            open_[banned] = False
        for unit in self._by_worth(worth):
            if len(chosen) == self.rules.set_size:
                break
            if unit in held or not open_[unit] or counts[self.cluster_U[unit]] >= self.cap:
                continue
            chosen.append(unit)
            counts[self.cluster_U[unit]] += 1
        return np.array(chosen, dtype=np.int64)

    def _by_worth(self, worth: Floats) -> Iterator[int]:
        """Give units from the best on; the many that are hardly ever reached are sorted only when they are."""
        many = min(self.n_units, _SORTED_FIRST + 20 * self.rules.set_size)
        top = np.argpartition(-worth, many - 1)[:many]
        yield from top[np.lexsort((top, -worth[top]))].tolist()
        if many < self.n_units:
            rest = np.setdiff1d(np.arange(self.n_units), top)
            yield from rest[np.lexsort((rest, -worth[rest]))].tolist()

    def repaired(self, units: Ints, worth: Floats) -> Ints:
        """Return a set of the right size that keeps the rule on kinds, with as many of these units as can be."""
        kept: list[int] = []
        counts = np.zeros(int(self.cluster_U.max()) + 1, dtype=np.int64)
        for unit in units.tolist():
            if counts[self.cluster_U[unit]] < self.cap and len(kept) < self.rules.set_size:
                kept.append(unit)
                counts[self.cluster_U[unit]] += 1
        return self.best(worth, kept=np.array(kept, dtype=np.int64))

    def improved(self, units: Ints, worth: Floats, n_swaps: int) -> Ints:
        """Return the set after some swaps of its worst book for the best other one that the rule on kinds allows."""
        chosen = units.copy()
        counts = np.bincount(self.cluster_U[chosen], minlength=int(self.cluster_U.max()) + 1)
        for _ in range(n_swaps):
            out = int(np.argmin(worth[chosen]))
            kind = self.cluster_U[chosen[out]]
            inside = np.zeros(self.n_units, dtype=np.bool_)
            inside[chosen] = True
            room = counts < self.cap
            room[kind] = True
            into = next((u for u in self._by_worth(worth) if not inside[u] and room[self.cluster_U[u]]), None)
            if into is None or worth[into] <= worth[chosen[out]]:
                break
            counts[kind] -= 1
            counts[self.cluster_U[into]] += 1
            chosen[out] = into
        return chosen

    def apart(self, units: Ints, worth: Floats, others: Sequence[Ints]) -> Ints:
        """Return the set changed, at the least loss, until it shares no more than allowed with any other.

        Where the library is too small for that, the one that shares least is returned.
        """
        most = int(self.rules.most_shared * self.rules.set_size)
        chosen, best, least = units, units, self.rules.set_size + 1
        banned = np.zeros(0, dtype=np.int64)
        for _ in range(_ROUNDS):
            shared = [np.intersect1d(chosen, other) for other in others]
            worst = max(shared, key=len, default=banned[:0])
            if len(worst) < least:
                best, least = chosen, len(worst)
            if len(worst) <= most:
                return chosen
            surplus = worst[np.argsort(worth[worst], kind="stable")][: len(worst) - most]
            banned = np.union1d(banned, surplus)
            if self.n_units - len(banned) < self.rules.set_size:
                break
            kept = np.setdiff1d(chosen, banned)
            other = max(others, key=lambda o: len(np.intersect1d(chosen, o)))
            fresh = self.best(worth, np.union1d(banned, other[~np.isin(other, kept)]), kept)
            chosen = fresh if len(fresh) == self.rules.set_size else self.best(worth, banned, kept)
            if len(chosen) < self.rules.set_size:
                break
        return best
