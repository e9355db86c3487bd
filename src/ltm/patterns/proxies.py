"""`ltm proxies`: tables of mixtures and scores from elsewhere (RegMix, Olmix): which mixture is best?

Reads: a CSV of weights (one row per trained proxy, one column per domain) and a CSV of scores (one column per measure),
joined by a key column where both have one, else by row. Writes: nothing.

The form is the data mixing law, log(score - c) linear in the weights, by ridge; a smooth bend beyond it (a Gaussian
kernel) enters only where leaving one proxy out at a time says that it predicts better. With 32 proxies the law alone
ranks mixtures as well as boosted trees with 512.

Sources: Ye et al. 2024 (data mixing laws); Liu et al. 2025 (RegMix); Olmix 2026 (log-linear regression).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltm.errors import InputError
from ltm.patterns.prediction import spearman
from ltm.patterns.table import Floats

_FEWEST = 8
_LARGEST_BYTES = 1 << 30
_FLOORS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)  # c as a share of the way from 0 (or one range below) to the lowest score
_BENDS = (0.0, 0.1, 0.3, 1.0)  # variance of the bend / variance of the linear part
_LENGTHS = (0.5, 1.0, 2.0)  # of the Gaussian kernel / median distance of the mixtures
_RIDGES = np.geomspace(1e-5, 1e2, 29)
_BEND_FROM = 48  # proxies


@dataclass(frozen=True)
class Columns:
    """A table of numbers with the names of its columns and rows."""

    names: tuple[str, ...]
    keys: tuple[str, ...]  # of the rows; empty where the table has no key column
    values: Floats  # (n, K)


@dataclass(frozen=True)
class ProxyFit:
    """A regression of scores on mixtures."""

    form: str  # linear, or log(score - c) or log(c - score)
    floor: float  # c
    bend: float
    length: float
    ridge: float
    weights: Floats  # (n, m) of the proxies
    dual: Floats  # (n,)
    centre: Floats  # (m,) mean weights
    mean: float  # of the transformed scores
    left_out: Floats  # (n,) each proxy predicted from the others
    rank_correlation: float  # Spearman of `left_out` with the scores
    half_width: float  # 90 % conformal, from leaving out

    def predict(self, weights: Floats) -> Floats:
        """Return predicted scores of mixtures, shape (k, m) -> (k,)."""
        kernel = _kernel(weights - self.centre, self.weights - self.centre, self.bend, self.length)
        return _back(self.mean + kernel @ self.dual, self.form, self.floor)


def read_columns(path: Path) -> Columns:
    """Read a table of numbers; a first column of names, or called index, key, name, run or id, is its key.

    Raises:
        InputError: it is missing, empty, ragged or not numbers.
    """
    if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
        raise InputError(f"there is no file {path} of at most 1 GiB", "give a CSV with a header")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    rows = [row for row in csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count)) if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path} has no rows", "one row per trained proxy")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise InputError(f"{path}:{line}: {len(row)} columns, not {len(header)}", "mend this line")
    keyed = header[0].lower() in ("", "index", "key", "name", "run", "run_id", "id") or not _is_number(body[0][0])
    start = 1 if keyed else 0
    values = np.empty((len(body), len(header) - start))
    for line, row in enumerate(body, start=2):
        for k, cell in enumerate(row[start:]):
            if not _is_number(cell):
                raise InputError(f"{path}:{line}: `{cell.strip()}` is not a number", "mend or remove this row")
            values[line - 2, k] = float(cell)
    return Columns(tuple(header[start:]), tuple(row[0].strip() for row in body) if keyed else (), values)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def joined(weights: Columns, scores: Columns, target: str) -> tuple[Floats, Floats, str]:
    """Return (weights (n, m), scores (n,), name of the measure) of the rows that both tables have.

    Raises:
        InputError: the tables do not fit together, or the measure is not there.
    """
    name = target or scores.names[0]
    if name not in scores.names:
        raise InputError(f"the scores have no column {name}", f"columns: {', '.join(scores.names)}")
    column = scores.values[:, scores.names.index(name)]
    if weights.keys and scores.keys and set(weights.keys) & set(scores.keys):
        at = {key: i for i, key in enumerate(scores.keys)}
        both = [(i, at[key]) for i, key in enumerate(weights.keys) if key in at]
        return weights.values[[i for i, _ in both]], column[[j for _, j in both]], name
    if len(weights.values) != len(column):
        raise InputError(
            f"{len(weights.values)} rows of weights and {len(column)} of scores, and no key in common",
            "give both tables a first column with the same names",
        )
    return weights.values, column, name


def fit_proxies(weights: Floats, scores: Floats) -> ProxyFit:
    """Fit scores on mixtures; the form and all constants are chosen by leaving one proxy out at a time.

    Args:
        weights: Shape (n, m); rows need not sum to 1.
        scores: Shape (n,); losses or scores, any polarity.

    Raises:
        InputError: there are too few proxies, or they do not vary.
    """
    if len(scores) < _FEWEST:
        raise InputError(f"{len(scores)} proxies are too few to learn a mixture from", f"give {_FEWEST} or more")
    if np.std(scores) <= 1e-12 * max(1.0, float(np.abs(scores).max())):
        raise InputError("all proxies have the same score, so nothing can be compared", "give another measure")
    centre = weights.mean(axis=0)
    centred = weights - centre
    best: tuple[float, ProxyFit] | None = None
    bends = [(b, s) for b in _BENDS for s in (_LENGTHS if b else (1.0,))] if len(scores) >= _BEND_FROM else [(0.0, 1.0)]
    for bend, length in bends:
        kernel = _kernel(centred, centred, bend, length)
        values, vectors = np.linalg.eigh(kernel)
        for form, floor in _forms(scores):
            y = _forth(scores, form, floor)
            for ridge in _RIDGES * max(float(values[-1]), 1e-300):
                found = _left_out(y, values, vectors, float(ridge))
                guess = _back(found, form, floor)
                error = float(np.mean((guess - scores) ** 2))
                if best is None or error < best[0] * (1.0 - 1e-9):
                    dual = vectors @ ((vectors.T @ (y - y.mean())) / (np.maximum(values, 0.0) + ridge))
                    best = error, ProxyFit(
                        form, floor, bend, length, float(ridge), weights, dual, centre, float(y.mean()), guess,
                        spearman(guess, scores), _half_width(guess - scores),
                    )  # fmt: skip
    assert best is not None  # there is always the linear form
    return best[1]


def _forms(scores: Floats) -> list[tuple[str, float]]:
    low, high = float(scores.min()), float(scores.max())
    spread = high - low
    below = [low - spread * (1.0 / (1.0 - f) - 1.0 + 0.02) for f in _FLOORS] + (
        [f * low for f in _FLOORS] if low > 0 else []
    )
    above = [high + spread * (1.0 / (1.0 - f) - 1.0 + 0.02) for f in _FLOORS]
    rises = [("log(score - c)", c) for c in below if c < low - 1e-9 * max(1.0, abs(low))]
    return [("linear", 0.0), *rises, *(("log(c - score)", c) for c in above)]


def _forth(scores: Floats, form: str, floor: float) -> Floats:
    if form == "linear":
        return scores
    return np.asarray(np.log(scores - floor) if form == "log(score - c)" else -np.log(floor - scores))


def _back(values: Floats, form: str, floor: float) -> Floats:
    if form == "linear":
        return values
    clipped = np.clip(values, -50.0, 50.0)
    return np.asarray(floor + np.exp(clipped) if form == "log(score - c)" else floor - np.exp(-clipped))


def _kernel(a: Floats, b: Floats, bend: float, length: float) -> Floats:
    """Return the linear kernel plus a Gaussian one, on centred weights."""
    linear = a @ b.T
    scale = float(np.mean(np.sum(b**2, axis=1)))
    if bend <= 0:
        return np.asarray(linear)
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :] - 2.0 * linear
    return np.asarray(linear + bend * scale * np.exp(-np.maximum(squares, 0.0) / (2.0 * length**2 * 2.0 * scale)))


def _left_out(y: Floats, values: Floats, vectors: Floats, ridge: float) -> Floats:
    """Return each value predicted from the others: kernel ridge with a free mean, in closed form."""
    weight = 1.0 / (np.maximum(values, 0.0) + ridge)
    inverse_y, inverse_1 = vectors @ (weight * (vectors.T @ y)), vectors @ (weight * vectors.sum(axis=0))
    total = float(inverse_1.sum())
    residual = inverse_y - inverse_1 * float(inverse_1 @ y) / total
    leverage = np.sum(vectors**2 * weight, axis=1) - inverse_1**2 / total
    return np.asarray(y - residual / np.maximum(leverage, 1e-300))


def _half_width(errors: Floats) -> float:
    rank = min(len(errors), math.ceil((len(errors) + 1) * 0.9))
    return float(np.sort(np.abs(errors))[rank - 1])


def report(
    weights: Columns, scores: Columns, target: str = "", unseen: Columns | None = None, truth: Columns | None = None
) -> dict[str, Any]:
    """Return what the proxies say as plain values: the fit, each domain's pull, and predictions of unseen mixtures."""
    x, y, name = joined(weights, scores, target)
    fitted = fit_proxies(x, y)
    step = np.eye(x.shape[1]) * float(np.mean(np.abs(x).sum(axis=1))) * 0.1
    middle = fitted.predict(fitted.centre[None, :])[0]
    pulls = [float(fitted.predict((0.9 * fitted.centre + row)[None, :])[0] - middle) for row in step]
    value: dict[str, Any] = {
        "measure": name,
        "n_proxies": len(y),
        "form": fitted.form,
        "c": fitted.floor,
        "bend": fitted.bend,
        "rank_correlation_left_out": fitted.rank_correlation,
        "half_width": fitted.half_width,
        "domains": [
            {"name": n, "more_of_it": p} for n, p in sorted(zip(weights.names, pulls, strict=True), key=lambda r: -r[1])
        ],
    }
    if unseen is not None:
        value |= _unseen(fitted, unseen, truth, target, weights)
    return value


def _unseen(fitted: ProxyFit, unseen: Columns, truth: Columns | None, target: str, weights: Columns) -> dict[str, Any]:
    missing = [name for name in weights.names if name not in unseen.names]
    if missing:
        raise InputError(f"the unseen mixtures have no column {missing[0]}", "name the domains as in the first table")
    at = [unseen.names.index(name) for name in weights.names]
    predicted = fitted.predict(unseen.values[:, at])
    keys = unseen.keys or tuple(str(i) for i in range(len(predicted)))
    found: dict[str, Any] = {
        "predicted": [
            {"key": k, "score": float(p), "low": float(p - fitted.half_width), "high": float(p + fitted.half_width)}
            for k, p in zip(keys, predicted, strict=True)
        ]
    }
    if truth is not None:
        x, y, _ = joined(Columns(unseen.names, unseen.keys, unseen.values), truth, target)
        found["rank_correlation_unseen"] = spearman(fitted.predict(x[:, at]), y)
    return found


def sentences(value: dict[str, Any]) -> Sequence[str]:
    """Return a report in words."""
    lines = [
        f"{value['n_proxies']} proxies, {value['measure']}: {value['form']}"
        + (f" with c = {value['c']:.4g}" if value["form"] != "linear" else "")
        + f"; rank correlation with each proxy left out {value['rank_correlation_left_out']:.3f}, "
        f"90 % of new ones within +-{value['half_width']:.3g}",
        "a tenth of the mixture moved to one domain changes the score by:",
        *(f"  {row['more_of_it']:+.4g}  {row['name']}" for row in value["domains"]),
    ]
    if "rank_correlation_unseen" in value:
        lines.append(f"rank correlation on unseen mixtures: {value['rank_correlation_unseen']:.3f}")
    return lines
