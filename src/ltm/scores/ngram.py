"""Word-order models without a network: what an item gives away to somebody who only counts neighbours.

Interpolated Kneser-Ney (Chen & Goodman 1999; Ney, Essen & Kneser 1994) over the tokens that a run was trained on, in
plain numpy: every gram has a number, made from the number of the gram without its last token and that token, so that
counting is sorting and a query is a binary search per order. Letters: N tokens of the stream, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltm.scores.plan import Plan

ORDER = 5
_UNSEEN = -1

Ints = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """Grams of one length: sorted codes (number of the beginning x vocabulary + last token), and what is known."""

    codes: Ints
    counts: Array  # of the gram in the text, or of what stands before it where the gram is not of the highest order
    mass: Array  # per beginning: sum of the counts of its grams
    kinds: Array  # per beginning: how many different tokens follow
    discount: float


class NgramModel:
    """A model of the next token from the `order` - 1 tokens before it.

    Args:
        tokens_N: The text.
        vocab_size: Tokens there are.
        order: Longest gram; 1 knows how often each token is and nothing else.
    """

    def __init__(self, tokens_N: NDArray[np.integer], vocab_size: int, order: int = ORDER) -> None:
        text = np.asarray(tokens_N, dtype=np.int64)
        self.vocab_size, self.order = vocab_size, order
        ids = np.zeros(len(text), dtype=np.int64)  # number of the gram that ends before each token; the empty one is 0
        raw: list[tuple[Ints, Ints, Ints]] = []  # codes, counts, number of the gram at each place
        for n in range(1, order + 1):
            codes, places, counts = np.unique(
                ids[n - 1 :] * vocab_size + text[n - 1 :], return_inverse=True, return_counts=True
            )
            raw.append((codes, counts, places))
            ids = np.concatenate([np.full(n, _UNSEEN), places[:-1]]) if n < order else ids
        self._orders = [self._counted(n, raw) for n in range(1, order + 1)]

    def _counted(self, n: int, raw: Sequence[tuple[Ints, Ints, Ints]]) -> _Order:
        codes, counts, _ = raw[n - 1]
        value = counts.astype(float)
        if n < self.order:  # how many different tokens stand before the gram, as Kneser and Ney count lower orders
            longer_codes, _, longer_places = raw[n]
            shorter = np.zeros(len(longer_codes), dtype=np.int64)
            shorter[longer_places] = raw[n - 1][2][1:]  # the gram without its first token, where the longer one ends
            value = np.maximum(np.bincount(shorter, minlength=len(codes)).astype(float), 1.0)
        beginnings = codes // self.vocab_size
        n_beginnings = 1 if n == 1 else len(raw[n - 2][0])
        mass: Array = np.bincount(beginnings, weights=value, minlength=n_beginnings).astype(float)
        kinds = np.bincount(beginnings, minlength=n_beginnings).astype(float)
        once, twice = (np.count_nonzero(value == k) for k in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.75
        return _Order(codes, value, mass, kinds, discount if n > 1 else min(discount, 0.5))

    def logprobs(self, plan: Plan, bos_id: int) -> Array:
        """Return the log-probability in nats of every request of a plan."""
        keep = self.order - 1
        pieces, sizes = [], []
        for left, right in plan.requests:
            pieces += [(bos_id, *left)[-keep:] if keep else (), right]
            sizes.append((min(keep, len(left) + 1), len(right)))
        total = np.fromiter((token for piece in pieces for token in piece), dtype=np.int64)
        lengths = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        owner = np.repeat(np.arange(len(lengths)), lengths.sum(1))
        starts = np.concatenate([[0], np.cumsum(lengths.sum(1))])[:-1]
        within = np.arange(len(total)) - starts[owner]
        chosen = np.log(self._probability(total, within)) * (within >= lengths[owner, 0])
        result: Array = np.bincount(owner, weights=chosen, minlength=len(lengths)).astype(float)
        return result

    def _probability(self, text: Ints, within: Ints) -> Array:
        """Return P(token | the tokens before it in its own piece) at every place."""
        result = np.full(len(text), 1.0 / self.vocab_size)
        before = np.zeros(len(text), dtype=np.int64)  # number of the gram before each token
        for n, order in enumerate(self._orders, 1):
            usable = (before >= 0) & (within >= n - 1)
            codes = before * self.vocab_size + text
            at = np.minimum(np.searchsorted(order.codes, codes), len(order.codes) - 1)
            found = usable & (order.codes[at] == codes)
            start = np.where(usable, before, 0)
            mass = order.mass[start]
            good = usable & (mass > 0)
            own = np.maximum(np.where(found, order.counts[at], 0.0) - order.discount, 0.0)
            mixed = (own + order.discount * order.kinds[start] * result) / np.maximum(mass, 1e-300)
            result = np.where(good, mixed, result)
            gram = np.where(found, at, _UNSEEN)
            before = np.concatenate([[_UNSEEN], gram[:-1]]) if len(gram) else gram
            before = np.where(within >= n, before, _UNSEEN)
        return result
