"""Are the abilities more than one? Correlations between them, plain, without fluency, and corrected for their noise.

Sources: attenuation (Spearman 1904): a correlation of two noisy numbers is the true one times the root of both
reliabilities; here the reliability is that of the halves of the eval books, so that what seeds do counts as true.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltm.records import FLUENCY
from ltm.scores.agreement import split_half
from ltm.scores.measures import FamilyTable
from ltm.scores.rules import Array

ONE_FACTOR = 0.95
_LEAST_RUNS = 8
_LEAST_RELIABILITY = 0.2  # below, a corrected correlation is a division by nearly nothing


def correlations(
    tables: Sequence[FamilyTable], admitted: Mapping[str, Sequence[str]], cells: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row per pair of abilities: how they go together over runs.

    Args:
        tables: By the metric of their ability.
        admitted: The families of each ability that count; an ability without any takes all it has.
        cells: Places of the design; reliability compares runs within them.

    Returns:
        `raw`, `without_fluency` (both residuals on held-out bits per byte), `disattenuated` (the second, corrected for
        noise, at most 1), `one_factor` and a sentence.
    """
    abilities = list(dict.fromkeys(table.ability for table in tables))
    values, reliability = {}, {}
    for ability in abilities:
        own = _families(tables, ability, admitted)
        if own:
            scales = [float(np.std(table.values(), ddof=1)) for table in own]
            values[ability] = np.mean([t.values() / s for t, s in zip(own, scales, strict=True)], axis=0)
            reliability[ability] = split_half(own, scales, cells)
    fluency = values.get(FLUENCY)
    rows = []
    for one, two in itertools.combinations([a for a in values if a != FLUENCY], 2):
        raw = correlation(values[one], values[two])
        rest = raw
        if fluency is not None:
            rest = correlation(residual(values[one], fluency), residual(values[two], fluency))
        noise = math.sqrt(max(reliability[one], 0.0) * max(reliability[two], 0.0))
        enough = min(reliability[one], reliability[two]) >= _LEAST_RELIABILITY
        true = min(1.0, max(-1.0, rest / noise)) if enough else math.nan
        rows.append(_row(one, two, raw, rest, true))
    return rows


def residual(values: Array, on: Array) -> Array:
    """Return what a straight line through `on` leaves of the values."""
    x = on - on.mean()
    spread = float(x @ x)
    rest: Array = values - values.mean() - (x * float(x @ values) / spread if spread > 0 else 0.0)
    return rest


def correlation(one: Array, two: Array) -> float:
    """Return Pearson's correlation; NaN without spread."""
    a, b = one - one.mean(), two - two.mean()
    product = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / product if product > 1e-300 else math.nan


def _families(tables: Sequence[FamilyTable], ability: str, admitted: Mapping[str, Sequence[str]]) -> list[FamilyTable]:
    chosen = admitted.get(ability, ())
    own = [t for t in tables if t.ability == ability and (not chosen or t.family in chosen)]
    if not own or len(own[0].num_RI) < _LEAST_RUNS:
        return []
    return [t for t in own if np.isfinite(t.values()).all() and np.std(t.values()) > 0]


def _row(one: str, two: str, raw: float, rest: float, true: float) -> dict[str, Any]:
    together = math.isfinite(true) and true > ONE_FACTOR
    if together:
        text = f"{one} and {two} are one factor here: corrected for noise they correlate {true:.2f} beyond fluency"
    elif math.isnan(true):
        text = f"{one} and {two}: too noisy to say whether they are one factor"
    else:
        text = f"{one} and {two} are told apart: corrected for noise they correlate {true:.2f} beyond fluency"
    return {"one": one, "two": two, "raw": raw, "without_fluency": rest, "disattenuated": true,
            "one_factor": together, "text": text}  # fmt: skip
