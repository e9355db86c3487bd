"""What differs inside sets, in one picture each: the dose curve of gaps, and how much of the order the kernel explains.

The monotone test asks whether gaps do more harm (or good) the more is left out, whatever the shape: the statistic is
the share of the variance of the differences that the best rising or falling curve explains, and doses are permuted over
blocks.

Source: isotonic regression by pooling adjacent violators (Barlow, Bartholomew, Bremner and Brunk 1972).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.describe import Described
from ltm.patterns.gaps import dosed_differences
from ltm.patterns.inference import stream
from ltm.patterns.layout import Layout, interval
from ltm.patterns.order import KERNEL, LATE, ordered_blocks, position_weights, run_doses
from ltm.patterns.table import Floats

_FEWEST_BLOCKS = 6
_REDRAWS = 1999
_ORDERS = ("random", "reverse")


@dataclass(frozen=True)
class DoseCurve:
    """Gaps against as much text without gaps, by the share of text left out; in the unit of the score."""

    left_out: list[float]
    mean: list[float]
    low: list[float]  # 90 % intervals
    high: list[float]
    n: list[int]  # blocks
    monotone_p: float  # of the best rising or falling curve; NaN = one dose only, or too few blocks
    best_left_out: float  # where the curve is highest, 0 where no gaps at all are best


@dataclass(frozen=True)
class OrderShare:
    """How far a set's score moves with the order of its books, and how much of that the terms of place explain."""

    n_blocks: int
    variance: float  # of one order against another of the same books, seed noise taken out; squared seed sd
    by_kernel: float  # share of it that place by the schedule's kernel explains (a straight line where it is unknown)


def dose_curve(layout: Layout, score: Floats, seed: int, name: str) -> DoseCurve | None:
    """Return the dose curve of one ability, or None where no block has gaps beside their control."""
    dose, difference = dosed_differences(layout, score)
    if len(dose) < 2:
        return None
    left_out = sorted({round(float(d), 6) for d in dose})
    groups = [difference[np.abs(dose - d) < 1e-6] for d in left_out]
    spread = float(np.sqrt(sum(float(np.sum((g - g.mean()) ** 2)) for g in groups) / max(1, len(dose) - len(groups))))
    mean = np.array([float(g.mean()) for g in groups])
    df = max(1, len(dose) - len(groups))
    low, high = interval(mean, spread / np.sqrt([len(g) for g in groups]), df)
    p = float("nan")
    if len(left_out) > 1 and len(dose) >= _FEWEST_BLOCKS:
        p = _monotone_p(dose, difference, stream(seed, name, "monotone"))
    best = int(np.argmax(mean))
    return DoseCurve(
        left_out, mean.tolist(), low.tolist(), high.tolist(), [len(g) for g in groups], p,
        left_out[best] if mean[best] > 0 else 0.0,
    )  # fmt: skip


def _monotone_p(dose: Floats, difference: Floats, rng: np.random.Generator) -> float:
    observed = _explained(dose, difference)
    hits = sum(_explained(rng.permutation(dose), difference) >= observed * (1 - 1e-9) for _ in range(_REDRAWS))
    return float((1 + hits) / (1 + _REDRAWS))


def _explained(dose: Floats, values: Floats) -> float:
    """Return the sum of squares of the better of the rising and the falling curve about the mean."""
    _, at = np.unique(np.round(dose, 6), return_inverse=True)
    n = np.bincount(at).astype(np.float64)
    mean = np.bincount(at, weights=values) / n
    centre = float(values.mean())
    return max(float(np.sum(n * (_rising(sign * mean, n) - sign * centre) ** 2)) for sign in (1.0, -1.0))


def _rising(mean: Floats, weight: Floats) -> Floats:
    """Return the nearest values that never fall, by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for value, w in zip(mean.tolist(), weight.tolist(), strict=True):
        blocks.append([value, w, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            b, a = blocks.pop(), blocks.pop()
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / (a[1] + b[1]), a[1] + b[1], a[2] + b[2]])
    return np.array([value for value, _, count in blocks for _ in range(int(count))])


def order_share(
    layout: Layout, score: Floats, known: Described, kernel: Floats | None, solved: mixed.Solved
) -> OrderShare | None:
    """Return how much of the order's variance inside sets the terms of place explain, or None with too few blocks.

    The terms' coefficients are fitted together with a variance of their own (REML), so that many of them explain
    nothing where there is nothing. Their noise is taken out of the share: it is the estimated variance of the terms
    over that of the order.
    """
    pairs = [
        (np.mean(score[block["random"]]) - np.mean(score[block["reverse"]]), block["random"], block["reverse"])
        for block in ordered_blocks(layout)
        if all(order in block for order in _ORDERS)
    ]
    if len(pairs) < _FEWEST_BLOCKS:
        return None
    difference = np.array([d for d, _, _ in pairs])
    noise = float(np.mean([1.0 / len(a) + 1.0 / len(b) for _, a, b in pairs]))
    between = max(0.0, float(np.mean(difference**2)) - noise * solved.seed_variance)
    names, _, doses = run_doses(layout, known, position_weights(kernel))
    first = KERNEL if any(n.startswith(KERNEL) for n in names) else LATE
    at = [k for k, n in enumerate(names) if n.startswith(first)]
    if not at or between <= 0:
        return OrderShare(len(pairs), between / 2.0, 0.0)
    columns = np.array([doses[a].mean(axis=0) - doses[b].mean(axis=0) for _, a, b in pairs])[:, at]
    columns = columns / np.maximum(np.sqrt(np.mean(columns**2, axis=0)), 1e-12)
    values, vectors = np.linalg.eigh(columns @ columns.T / len(at))
    rotated = (vectors.T @ difference) ** 2
    best, explained = -np.inf, 0.0
    for of_terms in between * np.linspace(0.0, 1.0, 41):
        variance = of_terms * np.maximum(values, 0.0) + between - of_terms + noise * solved.seed_variance
        likelihood = -0.5 * float(np.sum(np.log(variance) + rotated / variance))
        if likelihood > best + 1e-9:
            best, explained = likelihood, float(of_terms)
    return OrderShare(len(pairs), between / 2.0, explained / between)
