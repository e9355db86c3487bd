"""Write `docs/forecast_errors.md`: errors on runs that took no part in the fit, source by source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ltm.forecast import formulas
from ltm.forecast.constants import Constants

Array = np.ndarray
_WORST = 25
_SMALL = 12


def write_report(
    path: Path,
    time: Any,
    memory: Any,
    x: Array,
    m: Array,
    errors: dict[tuple[str, str], Array],
    skipped: list[tuple[str, str]],
) -> None:
    """Write the tables; the numbers of the README come from here."""
    import json

    shipped = json.loads(
        (Path(__file__).parents[2] / "src/ltm/forecast/data/constants.json").read_text(encoding="utf-8")
    )
    k = Constants({n: e["value"] for group in ("time", "memory", "spread") for n, e in shipped[group].items()})
    lines = [
        "# How wrong the forecaster is",
        "",
        "Made by `python bench/forecast/fit.py`. *Source left out*: the whole source took no part in the fit, and",
        "nothing is known of its framework unless another source used it. *Rows left out*: a fifth of the rows at a",
        "time; their source took part. The priors were set by people who had seen the table, so these errors are a",
        "little kind. Time errors are `forecast time / measured time - 1`.",
        "",
        "| | rows | median | p90 | within the 90 % range |",
        "|---|---|---|---|---|",
    ]
    for which, model, start in (("time", time, x), ("memory", memory, m)):
        small = np.bincount(model.t.si)[model.t.si] <= _SMALL
        every = np.ones(len(model.t), bool)
        for kind, words, rows in (
            ("source", "source left out", every),
            ("source", f"source left out, sources of at most {_SMALL} rows", small),
            ("framework", "framework left out", every),
            ("framework", f"framework left out, sources of at most {_SMALL} rows", small),
            ("row", "rows left out", every),
        ):
            e = errors[which, kind]
            covered = _covered(model, start, e, k, kind == "row", which)[rows].mean()
            lines.append(
                f"| {which}, {words} | {rows.sum()} | {_median(e[rows])} | {_p90(e[rows])} | {100 * covered:.0f} % |"
            )
    lines += [
        "",
        "## Time by source, each left out of the fit",
        "",
        *_by_source(time, x, errors["time", "source"], k, "time"),
    ]
    lines += [
        "",
        "## Memory by source, each left out of the fit",
        "",
        *_by_source(memory, m, errors["memory", "source"], k, "memory"),
    ]
    lines += ["", "## Time by method and by card, sources left out", "", *_by_group(time, errors["time", "source"])]
    lines += ["", "## The rows that fail most, and why", "", *_worst(time, x, errors["time", "source"])]
    lines += ["", "## Rows without a forecast", "", *(f"- {row}: {reason}" for row, reason in skipped), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines[9:21]))


def _covered(model: Any, x: Array, e: Array, k: Constants, known: bool, which: str) -> Array:
    table = model.t
    model.predict(x)
    table.c.known = np.full(len(table), float(known))
    spread = formulas.spread(table.c, table.d, k)
    low, high = (np.broadcast_to(np.log(spread[f"{which}_{end}"]), e.shape) for end in ("low", "high"))
    # measured = forecast * exp(-e); for time the error of a rate has the other sign
    off = e if which == "time" else -e
    return (low <= off) & (off <= high)


def _by_source(model: Any, x: Array, e: Array, k: Constants, which: str) -> list[str]:
    covered = _covered(model, x, e, k, False, which)
    lines = ["| source | rows | median | p90 | median bias | within range |", "|---|---|---|---|---|---|"]
    for j in np.argsort(-np.bincount(model.t.si)):
        rows = model.t.si == j
        bias = np.expm1(np.median(-e[rows] if which == "time" else e[rows]))
        name = str(model.t.source[j]).replace("|", "/")
        lines.append(
            f"| {name} | {rows.sum()} | {_median(e[rows])} | {_p90(e[rows])} | {100 * bias:+.0f} % "
            f"| {100 * covered[rows].mean():.0f} % |"
        )
    return lines


def _by_group(model: Any, e: Array) -> list[str]:
    groups = [(r["method"], s.device.name) for r, s in zip(model.t.rows, model.t.setups, strict=True)]
    lines = ["| method | card | rows | median | p90 |", "|---|---|---|---|---|"]
    for group in sorted(set(groups), key=lambda g: (g[0], -groups.count(g))):
        rows = np.array([g == group for g in groups])
        lines.append(f"| {group[0]} | {group[1]} | {rows.sum()} | {_median(e[rows])} | {_p90(e[rows])} |")
    return lines


def _worst(model: Any, x: Array, e: Array) -> list[str]:
    model.predict(x)
    k = Constants(dict(zip(model.names, np.exp(x[: len(model.names)]).tolist(), strict=True)))
    step = formulas.step_seconds(model.t.c, model.t.d, k)
    lines = ["| row | source | model, card | time error | mostly | likely reason |", "|---|---|---|---|---|---|"]
    for i in np.argsort(-np.abs(e))[:_WORST]:
        row, made = model.t.rows[i], model.t.setups[i]
        parts = {
            n: float(np.broadcast_to(step[n], e.shape)[i])
            for n in ("matmul", "attention", "elementwise", "launch", "network", "bubble")
        }
        most = max(parts, key=lambda n: parts[n])
        lines.append(
            f"| {row['id']} | {row['source'][:44]} | "
            f"{row['model_name'][:24]}, {made.device.name[:22]} x{row['n_gpu'] or '?'} | "
            f"{100 * np.expm1(-e[i]):+.0f} % | {most} | {_reason(row, made, most)} |"
        )
    return lines


def _reason(row: dict[str, str], made: Any, most: str) -> str:
    if made.guesses:
        return "batch, length or shape is not told"
    if "estimate" in row["note"].lower() or "rounded" in row["note"].lower():
        return "the row itself is an estimate"
    if most == "launch":
        return "bound by the host, which the row does not name"
    if made.case.method > 0:
        return "adapter libraries differ; padding is not told"
    if most in ("network", "bubble"):
        return "links and pipeline schedule are not told"
    return "the program is slower or faster than its kind"


def _median(e: Array) -> str:
    return f"{100 * np.median(np.abs(np.expm1(-e))):.1f} %"


def _p90(e: Array) -> str:
    return f"{100 * np.quantile(np.abs(np.expm1(-e)), 0.9):.0f} %"
