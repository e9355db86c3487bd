"""Where more seeds decide most: which variants to train again when the best few are wanted and runs are scarce.

Optimal computing budget allocation for selecting the best m of n (Chen, He, Fu & Lee 2008, INFORMS J. Computing 20):
runs go to variants in proportion to (spread / distance to the border between chosen and not chosen) squared, so that a
clear winner and a clear loser get few, and those that could be either get many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEAST_DISTANCE = 0.1  # of a spread: a variant on the border would else take all runs


def allocate(means: Sequence[float], spreads: Sequence[float], best: int, total: int, fewest: int = 1) -> list[int]:
    """Return how many runs each variant gets; they add up to `total`.

    Args:
        means: Posterior mean of each variant, more is better.
        spreads: Posterior standard deviation of each.
        best: How many are to be chosen; the border lies between the last of them and the next.
        total: Runs to give out.
        fewest: Runs that every variant gets.

    Raises:
        ValueError: there are fewer runs than `fewest` for each.

    >>> allocate([3.0, 1.1, 0.9, -2.0], [0.5] * 4, best=2, total=16, fewest=2)
    [2, 6, 6, 2]
    """
    count = len(means)
    if total < fewest * count:
        raise ValueError(f"{total} runs are too few for {count} variants with {fewest} each")
    if not count:
        return []
    mean_N, spread_N = np.asarray(means, dtype=float), np.maximum(np.asarray(spreads, dtype=float), 1e-12)
    ranked = np.sort(mean_N)[::-1]
    at = min(max(best, 1), count)
    border = ranked[-1] - spread_N.mean() if at == count else (ranked[at - 1] + ranked[at]) / 2
    distance_N = np.maximum(np.abs(mean_N - border), _LEAST_DISTANCE * spread_N)
    weight_N = (spread_N / distance_N) ** 2
    wanted_N = (total - fewest * count) * weight_N / weight_N.sum()
    given_N = np.floor(wanted_N).astype(int)
    left = total - fewest * count - int(given_N.sum())
    first = np.lexsort((np.arange(count), -(wanted_N - given_N)))[:left]  # largest remainders, then design order
    given_N[first] += 1
    return [fewest + int(more) for more in given_N]
