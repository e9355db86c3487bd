"""Sets that lean towards kinds of books: Dirichlet draws over clusters, for libraries too large for single books.

Reads: the cluster of every book. Writes: nothing. The mean of 100 books out of a million hardly varies from set to set;
a set that is mostly of a few kinds does, and what raises scores can then be told by kind (RegMix draws its mixtures the
same way; SCIENCE 0.2 and 2.2). The law: the share of the kinds is Dirichlet with one concentration for all, the kind
with the largest share is dealt like cards, so that every kind leads equally many sets; of some ways to give the other
shares to kinds, the one is taken that puts kinds together which have been together least. Which books of a kind are
taken is dealt like cards too. Given how many books of each kind a set has, the books of one kind are exchangeable: that
is what p-values of single books redraw; whole sets of one law are exchangeable: that is what those of kinds redraw.

Legend: S sets, C kinds, n books.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ltm.sets.shelf import Floats, Ints

UNIFORM = "uniform"
_CANDIDATES = 16


def laws(n_sets: int, uniform_share: float, concentrations: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Return the law of each set in random order: the share of uniform ones, the concentrations dealt evenly."""
    n_uniform = round(uniform_share * n_sets)
    names = [UNIFORM] * n_uniform
    names += [law_name(concentrations[i % len(concentrations)]) for i in range(n_sets - n_uniform)]
    return [names[i] for i in rng.permutation(n_sets)]


def law_name(concentration: float) -> str:
    """Return how a law is called in the design."""
    return f"dirichlet {concentration:g}"


def shares(names: Sequence[str], n_kinds: int, rng: np.random.Generator, before_SC: Floats | None = None) -> Floats:
    """Return the shares of the kinds that each set aims at, shape (S, C); rows of uniform sets are NaN.

    Args:
        names: The law of each set.
        n_kinds: Kinds of books.
        rng: The drawing's stream.
        before_SC: Shares of dispersed sets that there are already: kinds lead, and meet, evenly together with those.
    """
    result = np.full((len(names), n_kinds), np.nan)
    earlier = np.zeros((0, n_kinds)) if before_SC is None else before_SC
    dealt = _Deck(n_kinds, rng, used=np.bincount(earlier.argmax(axis=1), minlength=n_kinds))
    met_CC = earlier.T @ earlier  # how much kinds have been together so far
    np.fill_diagonal(met_CC, 0.0)
    for row in rng.permutation(len(names)):
        name = names[row]
        if name == UNIFORM:
            continue
        concentration = float(name.split()[1])
        # the logarithm of a gamma draw: at concentrations of 0.02 the draw itself underflows (Marsaglia and Tsang)
        log_gamma = np.log(rng.gamma(concentration + 1.0, size=n_kinds)) + np.log(rng.random(n_kinds)) / concentration
        weights = np.exp(log_gamma - log_gamma.max())
        candidates = np.stack([rng.permutation(weights) for _ in range(_CANDIDATES)])
        leader = dealt.take(1)[0]
        for weights in candidates:
            largest = int(weights.argmax())
            weights[[leader, largest]] = weights[[largest, leader]]
        candidates /= candidates.sum(axis=1, keepdims=True)
        # sums without BLAS: a product this small is dearer to share among threads than to make
        together = np.einsum("kc,kc->k", np.einsum("kc,cd->kd", candidates, met_CC), candidates)
        chosen = candidates[int(together.argmin())]
        met_CC += np.outer(chosen, chosen)
        np.fill_diagonal(met_CC, 0.0)
        result[row] = chosen
    return result


def counts(share_C: Floats, size: int, capacity_C: Ints, rng: np.random.Generator) -> Ints:
    """Return how many books of each kind a set takes: multinomial, no kind beyond what it has; sums to `size`.

    Raises:
        ValueError: all kinds together have fewer books.
    """
    if size > int(capacity_C.sum()):
        raise ValueError(f"a set of {size} books cannot be drawn from {int(capacity_C.sum())}")
    taken = np.zeros(len(share_C), dtype=np.int64)
    weights = share_C.copy()
    while (missing := size - int(taken.sum())) > 0:
        room = capacity_C - taken
        open_weights = np.where(room > 0, weights, 0.0)
        total = open_weights.sum()
        if total < 1e-9:  # what the set leans towards is used up: the rest comes from all other books evenly
            open_weights = room.astype(np.float64)
            total = open_weights.sum()
        taken += np.minimum(rng.multinomial(missing, open_weights / total), room)
    return taken


class Dealer:
    """Takes units out of kinds like cards: every unit of a kind once before any comes again."""

    def __init__(self, cluster_U: Ints, rng: np.random.Generator, used_U: Ints | None = None) -> None:
        """Make the decks; `used_U`: how often each unit was taken before, the least used come first."""
        self.rng = rng
        used_U = np.zeros(len(cluster_U), dtype=np.int64) if used_U is None else used_U
        n_kinds = int(cluster_U.max()) + 1
        by_kind = np.argsort(cluster_U, kind="stable")
        bounds = np.searchsorted(cluster_U[by_kind], np.arange(n_kinds + 1))
        self.capacity_C = np.diff(bounds).astype(np.int64)
        self._decks = [
            _Deck(int(n), rng, by_kind[a : a + n].astype(np.int64), used_U[by_kind[a : a + n]])
            for a, n in zip(bounds[:-1], self.capacity_C, strict=True)
        ]
        self._all = _Deck(len(cluster_U), rng, used=used_U)

    def dispersed(self, share_C: Floats, size: int) -> Ints:
        """Return the units of one set that leans towards kinds."""
        number = counts(share_C, size, self.capacity_C, self.rng)
        return np.concatenate([self._decks[kind].take(int(number[kind])) for kind in np.flatnonzero(number)])

    def uniform(self, size: int) -> Ints:
        """Return the units of one set that is drawn evenly from all."""
        return self._all.take(size)


class _Deck:
    """Cards in random order, shuffled anew when they are used up; one hand never holds a card twice."""

    def __init__(
        self, n: int, rng: np.random.Generator, cards: npt.NDArray[np.int64] | None = None, used: Ints | None = None
    ) -> None:
        self._cards = np.arange(n, dtype=np.int64) if cards is None else cards
        self._rng, self._order, self._next = rng, np.zeros(0, dtype=np.int64), 0
        if used is not None and used.any():
            shuffled = rng.permutation(n)
            self._order = self._cards[shuffled[np.argsort(used[shuffled], kind="stable")]]

    def take(self, count: int) -> Ints:
        hand = self._order[self._next : self._next + count]
        self._next += len(hand)
        if len(hand) == count:
            return hand
        shuffled = self._cards[self._rng.permutation(len(self._cards))]
        held = np.isin(shuffled, hand)
        self._order, self._next = np.concatenate([shuffled[~held], shuffled[held]]), 0
        more = self._order[: count - len(hand)]
        self._next = len(more)
        return np.concatenate([hand, more])
