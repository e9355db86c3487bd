"""Loss curves, condensed before they are drawn: median and quartiles by arm, and a few single runs.

Reads: Run and Variant rows. Writes: nothing. Thousands of curves would neither fit the page nor tell more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ltm.dashboard.figures import CURVE_POINTS, DRAWN_CURVES, Record
from ltm.records import Run, Variant

MAX_ARMS = 6  # more lines than this cannot be told apart by colour and dash


def curve_rows(runs: Sequence[Run], variants: Sequence[Variant]) -> list[Record]:
    """Return the median loss by arm with its quartiles, on one grid of training tokens.

    Each curve is interpolated linearly between its points, never beyond its ends; a grid point is kept while at least
    half of an arm's runs reach it.
    """
    by_arm: dict[str, list[Run]] = defaultdict(list)
    arm_of = {variant.variant_id: variant.arm for variant in variants}
    for run in runs:
        if is_drawable(run):
            by_arm[arm_of.get(run.variant_id, "unknown")].append(run)
    grid = grid_of([run for members in by_arm.values() for run in members])
    rows: list[Record] = []
    largest = sorted(by_arm, key=lambda arm: (-len(by_arm[arm]), arm))[:MAX_ARMS]
    for arm in sorted(largest, key=lambda arm: (arm != "base", arm)):
        table = np.array([on_grid(run, grid) for run in by_arm[arm]])
        for column, tokens in enumerate(grid):
            values = table[:, column][np.isfinite(table[:, column])]
            if len(values) * 2 < len(table) or len(values) == 0:
                continue
            low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
            rows.append(
                {
                    "arm": arm,
                    "tokens": int(tokens),
                    "loss": float(median),
                    "low": float(low),
                    "high": float(high),
                    "n": len(values),
                }
            )
    return rows


def sample_rows(runs: Sequence[Run]) -> list[Record]:
    """Return single curves, picked evenly from the runs in the order of their final loss, both ends included."""
    usable = sorted((r for r in runs if is_drawable(r)), key=lambda r: (r.final_loss, r.run_id))
    if not usable:
        return []
    picks = sorted({round(i) for i in np.linspace(0, len(usable) - 1, min(DRAWN_CURVES, len(usable)))})
    grid = grid_of(usable)
    rows: list[Record] = []
    for index in picks:
        values = on_grid(usable[index], grid)
        rows += [
            {"run": usable[index].run_id, "tokens": int(tokens), "loss": float(loss)}
            for tokens, loss in zip(grid, values, strict=True)
            if np.isfinite(loss)
        ]
    return rows


def final_losses(runs: Sequence[Run]) -> tuple[float, float, float] | None:
    """Return the quartiles (25, 50, 75 %) of the final loss over runs, nats per token; None without a finite one."""
    values = [run.final_loss for run in runs if np.isfinite(run.final_loss)]
    if not values:
        return None
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)


def _points(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    length = min(len(run.curve_tokens), len(run.curve_loss))
    tokens = np.array(run.curve_tokens[:length], dtype=np.float64)
    loss = np.array(run.curve_loss[:length], dtype=np.float64)
    finite = np.isfinite(tokens) & np.isfinite(loss)
    return tokens[finite], loss[finite]


def is_drawable(run: Run) -> bool:
    """Tell whether a run's curve has at least two points that are numbers."""
    return len(_points(run)[0]) >= 2


def grid_of(runs: Sequence[Run], n_points: int | None = None) -> NDArray[np.float64]:
    """Return grid points (training tokens) that lie closer at the start, where the loss falls fastest."""
    if not runs:
        return np.array([])
    ends = [_points(run)[0] for run in runs]
    first, last = min(float(e.min()) for e in ends), max(float(e.max()) for e in ends)
    spaced = first + (last - first) * np.linspace(0, 1, n_points or CURVE_POINTS) ** 1.6
    return np.unique(np.round(spaced))


def on_grid(run: Run, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a run's loss (nats per token) at the grid points; NaN beyond the ends of its curve."""
    tokens, loss = _points(run)
    order = np.argsort(tokens, kind="stable")
    values: NDArray[np.float64] = np.interp(grid, tokens[order], loss[order], left=np.nan, right=np.nan)
    return values
