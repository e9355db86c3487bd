"""Turn the timings of a probe into a machine's constants, corrections and ranges.

Three fits, all in relative error and never negative. Constants come from pieces timed alone. Whole steps then correct
one factor per class, drawn towards their common factor, since a step is a little slower than the sum of its pieces:
its activations are colder. Compiled steps and steps with all workers busy give one more factor per class each; few
shapes are compiled, so theirs are drawn towards what compiling usually does. Each probed shape is left out in turn to
learn how far off a forecast is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ltm.errors import DataError
from ltm.forecast.machine_work import (
    CLASSES,
    CONSTANTS,
    Case,
    class_seconds,
    compiled_constants,
    memory_parts,
    piece,
    step_terms,
)

Array = npt.NDArray[np.float64]
_CONSTANT_RIDGE = 0.02  # draws constants that a probe cannot tell apart towards small ones
_STEP_RIDGE = 0.2  # noise of a timed step (3 %) over what classes differ from their common factor (15 %)
_COMPILED_RIDGE = 0.6  # four shapes cannot tell six classes apart
_MEMORY_RIDGE = 0.1
_REWEIGHTINGS, _TOLERATED_DEVIATIONS, _NOISE_FRACTION = 4, 2.0, 0.02  # of the robust fit (Huber's weights)


@dataclass(frozen=True, slots=True)
class PieceTiming:
    """Seconds of one forward and backward pass of a piece; see `ltm.forecast.machine_work.piece`."""

    name: str
    dtype: str
    sizes: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Seconds of a whole training step on one worker, alone or with all of them busy."""

    case: Case
    seconds: float


@dataclass(frozen=True, slots=True)
class MemoryPeak:
    """Peak memory of one worker that trained a case."""

    case: Case
    n_bytes: float


@dataclass(frozen=True)
class Fit:
    """What the timings say; the fields of `ltm.forecast.machine.Machine`."""

    constants: dict[str, dict[str, float]]
    multipliers: dict[str, dict[str, float]]
    contention: dict[str, float]
    memory: dict[str, float]
    compiled: dict[str, dict[str, float]] = field(default_factory=dict)
    residuals: dict[str, list[float]] = field(default_factory=dict)


def fit_machine(
    pieces: Sequence[PieceTiming],
    steps: Sequence[StepTiming],
    busy: Sequence[StepTiming],
    peaks: Sequence[MemoryPeak],
    compiled: Sequence[StepTiming] = (),
) -> Fit:
    """Return a machine's numbers from what a probe timed.

    Args:
        pieces: Timed alone.
        steps: Whole steps on one worker.
        busy: Some of the same cases with all workers busy; empty where there is one worker.
        peaks: Peak memory of a few cases.
        compiled: Steps of compiled code on one worker; empty where nothing compiles.

    Raises:
        DataError: there are no timings to fit.
    """
    if not pieces or not steps:
        raise DataError("the probe timed nothing", "give it more time: --seconds 60")
    constants = fit_constants(pieces)
    multipliers: dict[str, dict[str, float]] = {}
    left_out: list[tuple[Case, float]] = []
    for dtype in sorted({step.case.dtype for step in steps}):
        timed = [step for step in steps if step.case.dtype == dtype]
        shares = np.array([_shares(step, constants) for step in timed])
        factors, residuals = _corrections(shares, _STEP_RIDGE)
        multipliers[dtype] = dict(zip(CLASSES, factors.tolist(), strict=True))
        left_out += _by_case(timed, residuals)
    contention, slowed = fit_contention(constants, multipliers, steps, busy)
    alone = dict(left_out)
    busy_residuals = [alone.get(case, 0.0) + residual for case, residual in slowed]
    faster, compiled_residuals = fit_compiled(constants, multipliers, compiled)
    memory, memory_residuals = fit_memory(peaks)
    residuals_by_kind = {
        "step": [residual for _, residual in left_out],
        "busy": busy_residuals,
        "memory": memory_residuals,
        "compiled": compiled_residuals,
    }
    return Fit(constants, multipliers, contention, memory, faster, residuals_by_kind)


def fit_constants(pieces: Sequence[PieceTiming]) -> dict[str, dict[str, float]]:
    """Return seconds per FLOP, element, row and call by precision, from pieces timed alone."""
    constants: dict[str, dict[str, float]] = {}
    for dtype in sorted({p.dtype for p in pieces}):
        timed = [p for p in pieces if p.dtype == dtype]
        terms = [piece(p.name, **p.sizes) for p in timed]
        rows = np.array([[amounts.get(name, 0.0) for name in CONSTANTS] for amounts in terms])
        amounts = rows / np.array([p.seconds for p in timed])[:, None]
        scale = amounts.max(axis=0)
        scale[scale == 0] = 1.0
        fitted = _nonnegative(amounts / scale, np.ones(len(timed)), _CONSTANT_RIDGE, 0.0) / scale
        constants[dtype] = dict(zip(CONSTANTS, fitted.tolist(), strict=True))
    return constants


def fit_contention(
    constants: dict[str, dict[str, float]],
    multipliers: dict[str, dict[str, float]],
    steps: Sequence[StepTiming],
    busy: Sequence[StepTiming],
) -> tuple[dict[str, float], list[tuple[Case, float]]]:
    """Return by how much each class is slower when all workers are busy, and the residual of each case left out."""
    alone = {step.case: step.seconds for step in steps}
    pairs = [step for step in busy if step.case in alone]
    if not pairs:
        return dict.fromkeys(CLASSES, 1.0), []
    rows = []
    for step in pairs:
        factors = multipliers[step.case.dtype]
        parts = class_seconds(step_terms(step.case), constants[step.case.dtype])
        corrected = np.array([parts[name] * factors[name] for name in CLASSES])
        rows.append(corrected / corrected.sum() * alone[step.case] / step.seconds)
    contention, residuals = _corrections(np.array(rows), _STEP_RIDGE)
    return dict(zip(CLASSES, contention.tolist(), strict=True)), _by_case(pairs, residuals)


def fit_compiled(
    constants: dict[str, dict[str, float]],
    multipliers: dict[str, dict[str, float]],
    compiled: Sequence[StepTiming],
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """Return factors by precision and class on what compiled code usually takes, and residuals of shapes left out."""
    faster: dict[str, dict[str, float]] = {}
    residuals: list[float] = []
    for dtype in sorted({step.case.dtype for step in compiled} & set(multipliers)):
        timed = [step for step in compiled if step.case.dtype == dtype]
        rows = []
        for step in timed:
            parts = class_seconds(step_terms(step.case), compiled_constants(constants[dtype]))
            rows.append([parts[name] * multipliers[dtype][name] / step.seconds for name in CLASSES])
        factors, left_out = _corrections(np.array(rows), _COMPILED_RIDGE)
        faster[dtype] = dict(zip(CLASSES, factors.tolist(), strict=True))
        residuals += left_out
    return faster, residuals


def fit_memory(peaks: Sequence[MemoryPeak]) -> tuple[dict[str, float], list[float]]:
    """Return the framework's bytes and a factor for each counted part, and residuals of cases left out."""
    if not peaks:
        return {"framework_bytes": 0.5e9}, []
    names = list(memory_parts(peaks[0].case))
    smallest = min(p.n_bytes for p in peaks)
    sizes = np.array([[smallest, *memory_parts(p.case).values()] for p in peaks])
    shares = sizes / np.array([p.n_bytes for p in peaks])[:, None]
    residuals = []
    for index in range(len(peaks) if len(peaks) > len(names) else 0):
        kept = np.delete(shares, index, 0)
        factors = _nonnegative(kept, np.ones(len(kept)), _MEMORY_RIDGE, 1.0)
        residuals.append(-float(np.log(shares[index] @ factors)))
    factors = _nonnegative(shares, np.ones(len(shares)), _MEMORY_RIDGE, 1.0)
    memory = {"framework_bytes": float(factors[0] * smallest)}
    return memory | dict(zip(names, factors[1:].tolist(), strict=True)), residuals


def _shares(step: StepTiming, constants: dict[str, dict[str, float]]) -> list[float]:
    parts = class_seconds(step_terms(step.case), constants[step.case.dtype])
    return [parts[name] / step.seconds for name in CLASSES]


def _by_case(timed: Sequence[StepTiming], residuals: Sequence[float]) -> list[tuple[Case, float]]:
    """Return each residual with its case; a single step cannot be left out and has none."""
    cases = [step.case for step in timed] if len(timed) > 1 else []
    return list(zip(cases, residuals, strict=True))


def _corrections(shares: Array, ridge: float) -> tuple[Array, list[float]]:
    """Return factors that make every row of shares sum to 1, and ln(measured / forecast) of each row left out."""
    residuals = []
    for index in range(len(shares) if len(shares) > 1 else 0):
        factors = _drawn_to_common(np.delete(shares, index, 0), ridge)
        residuals.append(-float(np.log(shares[index] @ factors)))
    return _drawn_to_common(shares, ridge), residuals


def _drawn_to_common(shares: Array, ridge: float) -> Array:
    """Return the factors; a row far off the others, timed while the machine was busy with else, counts little."""
    common = 1 / float(np.median(shares.sum(axis=1)))
    weights = np.ones(len(shares))
    for _ in range(_REWEIGHTINGS):
        factors = _nonnegative(shares * common * weights[:, None], weights, ridge, 1.0)
        off = np.abs(shares @ factors * common - 1)
        tolerated = _TOLERATED_DEVIATIONS * max(_NOISE_FRACTION, 1.48 * float(np.median(off)))
        weights = np.minimum(1.0, tolerated / np.maximum(off, 1e-12))
    return common * factors


def _nonnegative(matrix: Array, target: Array, ridge: float, towards: float) -> Array:
    """Return the non-negative least-squares solution, drawn `towards` a value with weight `ridge`."""
    from scipy.optimize import nnls

    n = matrix.shape[1]
    stacked = np.vstack([matrix, ridge * np.eye(n)])
    solution: Array = nnls(stacked, np.concatenate([target, np.full(n, ridge * towards)]))[0]
    return solution
