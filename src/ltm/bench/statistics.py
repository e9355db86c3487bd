"""From turns to figures: whose turn it is, medians and quartiles over rounds, ratios inside a round. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltm.errors import DataError


@dataclass(frozen=True)
class Quartiles:
    """The middle of some rounds and where half of them lie."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return the median and the first and third quartile.

    Raises:
        DataError: there are no values.

    >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
    Quartiles(median=3.0, low=2.0, high=4.0)
    """
    if not len(values):
        raise DataError("no rounds to take quartiles of")
    low, median, high = (float(x) for x in np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75)))
    return Quartiles(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours over theirs, round by round: what slows a machine for a while slows both.

    Raises:
        DataError: the numbers of rounds differ.

    >>> ratios([2.0, 6.0], [1.0, 2.0])
    [2.0, 3.0]
    """
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} rounds of one contender and {len(theirs)} of the other cannot be paired")
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def turn_order(names: Sequence[str], round_index: int) -> list[str]:
    """Return whose turn it is in a round: everybody once, each round begun by the next one.

    >>> turn_order(["gemm", "ltm", "hf"], 1)
    ['ltm', 'hf', 'gemm']
    """
    start = round_index % len(names) if names else 0
    return [*names[start:], *names[:start]]
