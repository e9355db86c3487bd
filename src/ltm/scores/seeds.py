"""Take out what an initialisation does to all runs that share it, so that it counts neither as set nor as noise.

Where a study starts every run from the same weights, and replicates from other ones, a lucky start lifts all its runs
alike. It is estimated from variants that were trained from several common starts, as in a two-way layout without
interaction (Scheffe, The Analysis of Variance, chapter 4), and subtracted everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def without_seed_effects(values: Array, variants: Sequence[str], seeds: Sequence[int]) -> tuple[Array, int]:
    """Return values without the effect of common init seeds, and how many effects were estimated.

    Args:
        values: One per run; may be NaN.
        variants: The variant of each run.
        seeds: Its init seed. A seed that one variant alone has is private: nothing can be said of it.
    """
    users: dict[int, set[str]] = defaultdict(set)
    for variant, seed in zip(variants, seeds, strict=True):
        users[seed].add(variant)
    common = sorted((s for s in users if len(users[s]) > 1), key=lambda s: (-len(users[s]), s))
    if len(common) < 2:
        return values, 0
    place = {seed: i for i, seed in enumerate(common)}
    started: dict[str, list[int]] = defaultdict(list)
    for run, (variant, seed) in enumerate(zip(variants, seeds, strict=True)):
        if seed in place and np.isfinite(values[run]):
            started[variant].append(run)
    rows, targets = [], []
    for runs in started.values():
        if len(runs) < 2:
            continue
        share = np.zeros(len(common))
        for run in runs:
            share[place[seeds[run]]] += 1.0 / len(runs)
        mean = float(np.mean(values[runs]))
        for run in runs:
            row = -share
            row[place[seeds[run]]] += 1.0
            rows.append(row)
            targets.append(values[run] - mean)
    if not rows:
        return values, 0
    design = np.array(rows)[:, 1:]  # effects are differences from the seed that most runs have
    effects, _, rank, _ = np.linalg.lstsq(design, np.array(targets), rcond=None)
    shift = np.concatenate([[0.0], effects])
    moved = np.array([shift[place[seed]] if seed in place else 0.0 for seed in seeds])
    return values - moved, int(rank)
