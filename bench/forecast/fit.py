"""Fit the forecaster's constants on published runs; write `data/constants.json` and the report of errors.

    python bench/forecast/fit.py               constants and ranges (half a minute on two cores)
    python bench/forecast/fit.py --check       the same, compared byte for byte with what is shipped

The constants are the maximum a posteriori of a hierarchical model: log(rate) = formulas(constants) + speed of the
framework + speed of the source + speed of the card's architecture + noise, with the priors of `priors.py`, a robust
loss, and at most 15 rows' weight for any one source. Ranges are conformal: errors of forecasts for frameworks left out
of the fit (for sources that are known: of rows left out), scaled by what is known to make forecasts wide.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from scipy.optimize import least_squares, nnls

sys.path.insert(0, str(Path(__file__).parent))
from priors import MEMORY, TIME, Prior

from ltm.errors import LtmError
from ltm.forecast import formulas
from ltm.forecast.case import case_columns, device_columns
from ltm.forecast.constants import Constants
from ltm.forecast.rows import Setup, setup

ROOT = Path(__file__).parents[2]
DATA = ROOT / "src/ltm/forecast/data"
REPORT = ROOT / "docs/forecast_errors.md"
SPEED_SD, LAUNCH_SD, SOURCE_SD, ARCH_SD, NOISE_SD = 0.12, 0.30, 0.15, 0.10, 0.15
MEMORY_NOISE, MEMORY_EXTRA_SD = 0.08, 0.8e9
ROWS_PER_SOURCE, GUESSED_WEIGHT = 15.0, 0.4
Array = np.ndarray


class Table:
    """Rows that can be forecast, with their measured logarithms; sources, frameworks and architectures as indices."""

    def __init__(self, rows: list[dict[str, str]], setups: list[Setup], measured: Array) -> None:
        self.rows, self.setups, self.y = rows, setups, np.log(measured)
        self.c = case_columns([s.case for s in setups])
        self.d = device_columns([s.device for s in setups])
        self.source, self.si = np.unique([r["source"] for r in rows], return_inverse=True)
        self.framework, self.fi = np.unique([s.framework for s in setups], return_inverse=True)
        self.arch, self.ai = np.unique([s.device.arch.split()[0] for s in setups], return_inverse=True)
        self.c.guesses = np.array([float(s.guesses) for s in setups])
        counts = np.bincount(self.si)
        guessed = np.where(self.c.guesses > 0, GUESSED_WEIGHT, 1.0)
        self.weight = np.sqrt(np.minimum(1.0, ROWS_PER_SOURCE / counts))[self.si] * guessed

    def __len__(self) -> int:
        return len(self.y)


def load() -> tuple[Table, Table, list[tuple[str, str]]]:
    """Return the rows with a rate, those with a peak memory, and (id, reason) of the rest."""
    fast: list[tuple[dict[str, str], Setup, float]] = []
    big: list[tuple[dict[str, str], Setup, float]] = []
    left_out = []
    with open(DATA / "throughput.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                found = setup(row)
            except LtmError as error:
                left_out.append((row["id"], f"{row['model_name']}: {error.message}"))
                continue
            if "SUSPECT" in row["note"]:
                left_out.append((row["id"], f"{row['model_name']}: marked SUSPECT in the table"))
                continue
            per_card = row["tokens_per_s_per_gpu"] or (
                str(float(row["tokens_per_s_total"]) / float(row["n_gpu"]))
                if row["tokens_per_s_total"] and row["n_gpu"]
                else ""
            )
            if per_card:
                fast.append((row, found, float(per_card)))
            if row["peak_mem_gib"] and (
                row["micro_batch"] or found.case.seq_len > 32_000
            ):  # memory is about the micro batch
                big.append((row, found, float(row["peak_mem_gib"]) * 1024**3))
    tables = [
        Table([r for r, _, _ in part], [s for _, s, _ in part], np.array([m for _, _, m in part]))
        for part in (fast, big)
    ]
    return tables[0], tables[1], left_out


class TimeModel:
    """Logarithms of constants, speeds and launch scales of frameworks, speeds of architectures and of sources."""

    def __init__(self, table: Table) -> None:
        self.t, self.names = table, list(TIME)
        n, f, a, s = len(TIME), len(table.framework), len(table.arch), len(table.source)
        self.cut = np.cumsum([n, f, f, a, s])
        self.start = np.concatenate([np.log([p.value for p in TIME.values()]), np.zeros(2 * f + a + s)])
        spreads = [p.spread for p in TIME.values()]
        self.sd = np.concatenate(
            [spreads, np.full(f, SPEED_SD), np.full(f, LAUNCH_SD), np.full(a, ARCH_SD), np.full(s, SOURCE_SD)]
        )

    def split(self, x: Array) -> list[Array]:
        """Return the groups of parameters."""
        return np.split(x, self.cut[:-1])

    def predict(self, x: Array, trained: Array | None = None, sources: bool = True) -> Array:
        """Return log tokens/s per device; effects of groups without a trained row are zero, as for a stranger."""
        t = self.t
        base, speed, launch, arch, source = (part.copy() for part in self.split(x))
        if trained is not None:
            known = np.isin(np.arange(len(t.framework)), np.unique(t.fi[trained]))
            speed[~known], launch[~known] = 0.0, 0.0
            arch[~np.isin(np.arange(len(t.arch)), np.unique(t.ai[trained]))] = 0.0
            source[~np.isin(np.arange(len(t.source)), np.unique(t.si[trained]))] = 0.0
        if not sources:
            source[:] = 0.0
        k = Constants(dict(zip(self.names, np.exp(base).tolist(), strict=True)))
        t.c.speed_scale = np.exp(speed[t.fi] + source[t.si])
        t.c.launch_scale = np.exp(launch[t.fi])
        t.d.speed_scale = np.exp(arch[t.ai])
        return np.log(formulas.tokens_per_second(t.c, t.d, k) / t.c.n_devices)

    def fit(self, mask: Array, start: Array | None = None) -> Array:
        """Return the most probable parameters given the rows of a mask."""
        return _map_fit(self.predict, self.t, mask, self.start, self.sd, NOISE_SD, start)


class MemoryModel:
    """Constants (logarithms) and an extra of each framework in units of 1 GB."""

    def __init__(self, table: Table) -> None:
        self.t, self.names = table, list(MEMORY)
        f = len(table.framework)
        self.start = np.concatenate([np.log([p.value for p in MEMORY.values()]), np.zeros(f)])
        self.sd = np.concatenate([[p.spread for p in MEMORY.values()], np.full(f, MEMORY_EXTRA_SD / 1e9)])

    def predict(self, x: Array, trained: Array | None = None) -> Array:
        """Return log bytes at the peak."""
        extra = x[len(self.names) :].copy()
        if trained is not None:
            extra[~np.isin(np.arange(len(extra)), np.unique(self.t.fi[trained]))] = 0.0
        k = Constants(dict(zip(self.names, np.exp(x[: len(self.names)]).tolist(), strict=True)))
        self.t.c.memory_extra = 1e9 * extra[self.t.fi]
        return np.log(np.maximum(formulas.memory_bytes(self.t.c, self.t.d, k)["total"], 1e6))

    def fit(self, mask: Array, start: Array | None = None) -> Array:
        """Return the most probable parameters given the rows of a mask."""
        return _map_fit(self.predict, self.t, mask, self.start, self.sd, MEMORY_NOISE, start)


def _map_fit(
    predict: Any, table: Table, mask: Array, prior: Array, sd: Array, noise: float, start: Array | None
) -> Array:
    def residuals(x: Array) -> Array:
        error = (predict(x) - table.y)[mask] * table.weight[mask] / noise
        robust = np.sign(error) * np.sqrt(2.0 * (np.sqrt(1.0 + error * error) - 1.0))
        return np.concatenate([robust, (x - prior) / sd])

    first = prior if start is None else start
    return least_squares(residuals, first, method="trf", max_nfev=40, x_scale=sd, xtol=1e-7, ftol=1e-7).x


_MODELS: dict[str, Any] = {}


def _left_out_errors(job: tuple[str, str, int, Array]) -> tuple[str, str, Array, Array]:
    """Return errors (log forecast - log measured) on the rows left out of one fit."""
    which, kind, fold, start = job
    model = _MODELS[which]
    groups = {"source": model.t.si, "framework": model.t.fi, "row": _folds(model.t)}
    out = groups[kind] == fold
    x = model.fit(~out, start)
    trained = np.flatnonzero(~out)
    return which, kind, np.flatnonzero(out), (model.predict(x, trained) - model.t.y)[out]


def _folds(table: Table) -> Array:
    """Return a fold 0-4 for each row, spread over sources."""
    return (np.arange(len(table)) + table.si) % 5


def left_out(fits: dict[str, Array]) -> dict[tuple[str, str], Array]:
    """Return errors of rows whose source (or whose fold) took no part in the fit."""
    jobs = []
    for which, x in fits.items():
        table = _MODELS[which].t
        jobs += [(which, "source", j, x) for j in range(len(table.source))]
        jobs += [(which, "framework", j, x) for j in range(len(table.framework))]
        jobs += [(which, "row", j, x) for j in range(5)]
    found = {(w, kind): np.zeros(len(_MODELS[w].t)) for w in fits for kind in ("source", "framework", "row")}
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        for which, kind, rows, errors in pool.imap_unordered(_left_out_errors, jobs, chunksize=1):
            found[which, kind][rows] = errors
    return found


def spread_constants(model: TimeModel, x: Array, strangers: Array, known: Array) -> dict[str, dict[str, Any]]:
    """Return the constants of `formulas.spread` for time: how wide, by what, and the conformal factors.

    The scale is a non-negative regression of absolute errors on what makes forecasts uncertain; the factors are
    quantiles of scaled errors, sources weighted by the square root of their rows.
    """
    table = model.t
    model.predict(x, sources=False)
    k = Constants(dict(zip(model.names, np.exp(x[: len(model.names)]).tolist(), strict=True)))
    step = formulas.step_seconds(table.c, table.d, k)
    features = np.column_stack(
        [
            np.ones(len(table)),
            np.minimum(1.0, step["launch"] / step["total"]),
            np.minimum(1.0, (step["network"] + step["bubble"]) / step["total"]),
            (table.c.method > 0).astype(float),
            (table.c.attention == 0) * np.minimum(1.0, step["attention"] / step["total"]),
            table.c.guesses,
        ]
    )
    weight = 1.0 / np.sqrt(np.bincount(table.si))[table.si]
    size = np.minimum(np.abs(strangers), 1.0)
    shares, _ = nnls(features * weight[:, None] ** 0.5, size * weight**0.5)
    shares[0] = max(shares[0], 0.04)
    scale = features @ shares
    names = ("base", "launch", "network", "adapters", "plain", "guess")
    what = "of the width of the range of time: "
    made = {f"spread_{n}": _entry(v, "log", what + n) for n, v in zip(names, shares, strict=True)}
    for kind, errors in (("", strangers), ("known_", known)):
        weight = weight if not kind else np.ones(len(table))  # within a source every row counts
        # a rate forecast too high (error > 0) is a time forecast too low
        made[f"spread_{kind}slow"] = _entry(_quantile(errors / scale, weight, 0.95), "times", "scale to the slow end")
        made[f"spread_{kind}fast"] = _entry(-_quantile(errors / scale, weight, 0.05), "times", "scale to the fast end")
    return made


def memory_spread(table: Table, strangers: Array, known: Array) -> dict[str, dict[str, Any]]:
    """Return the same for the peak memory."""
    features = np.column_stack(
        [np.ones(len(table)), (table.c.method > 0).astype(float), np.minimum(table.c.guesses, 2.0)]
    )
    weight = 1.0 / np.sqrt(np.bincount(table.si))[table.si]
    shares, _ = nnls(features * weight[:, None] ** 0.5, np.minimum(np.abs(strangers), 1.0) * weight**0.5)
    shares[0] = max(shares[0], 0.04)
    scale = features @ shares
    names = ("base", "adapters", "guess")
    made = {
        f"memory_spread_{n}": _entry(v, "log", f"of the width of the range of memory: {n}")
        for n, v in zip(names, shares, strict=True)
    }
    for kind, errors in (("", strangers), ("known_", known)):
        weight = weight if not kind else np.ones(len(table))
        made[f"memory_spread_{kind}more"] = _entry(
            -_quantile(errors / scale, weight, 0.05), "times", "scale to the large end"
        )
        made[f"memory_spread_{kind}less"] = _entry(
            _quantile(errors / scale, weight, 0.95), "times", "scale to the small end"
        )
    return made


def _quantile(values: Array, weight: Array, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(len(values) - 1, int(np.searchsorted(reached, share)))])


def _entry(value: float, unit: str, what: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "unit": unit, "what": what}


def _named(priors: dict[str, Prior], values: Array) -> dict[str, dict[str, Any]]:
    return {
        n: {**_entry(v, p.unit, p.what), "prior": p.value} for (n, p), v in zip(priors.items(), values, strict=True)
    }


def document(
    time: TimeModel, x: Array, memory: MemoryModel, m: Array, errors: dict[tuple[str, str], Array]
) -> dict[str, Any]:
    """Return what `constants.json` holds."""
    base, speed, launch, arch, source = time.split(x)
    extra = dict(zip(memory.t.framework, m[len(memory.names) :], strict=True))
    frameworks = {}
    for name in sorted({*time.t.framework, *memory.t.framework}):
        j = np.flatnonzero(time.t.framework == name)
        frameworks[str(name)] = {
            "speed": round(float(np.exp(speed[j[0]])), 3) if len(j) else 1.0,
            "launch": round(float(np.exp(launch[j[0]])), 3) if len(j) else 1.0,
            "memory_gb": round(float(extra.get(name, 0.0)), 2),
        }
    return {
        "made_by": "bench/forecast/fit.py from throughput.csv and gpus.csv",
        "rows": {"time": len(time.t), "memory": len(memory.t), "sources": len(time.t.source)},
        "time": _named(TIME, np.exp(base)),
        "memory": _named(MEMORY, np.exp(m[: len(memory.names)])),
        "spread": {
            **spread_constants(time, x, errors["time", "framework"], errors["time", "row"]),
            **memory_spread(memory.t, errors["memory", "framework"], errors["memory", "row"]),
        },
        "frameworks": frameworks,
        "sources": {
            str(name): {
                "speed": round(float(np.exp(value)), 3),
                "frameworks": sorted({str(time.t.framework[i]) for i in time.t.fi[time.t.si == j]}),
            }
            for j, (name, value) in enumerate(zip(time.t.source, source, strict=True))
        },
        "architectures": {str(n): round(float(np.exp(v)), 3) for n, v in zip(time.t.arch, arch, strict=True)},
    }


def main() -> int:
    """Fit, write and report; with --check compare only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped file, write nothing")
    options = parser.parse_args()
    time_table, memory_table, skipped = load()
    time, memory = TimeModel(time_table), MemoryModel(memory_table)
    _MODELS.update(time=time, memory=memory)
    x, m = (model.fit(np.ones(len(model.t), bool)) for model in (time, memory))
    errors = left_out({"time": x, "memory": m})
    text = json.dumps(document(time, x, memory, m, errors), indent=1, ensure_ascii=False) + "\n"
    target = DATA / "constants.json"
    if options.check:
        same = target.read_text(encoding="utf-8") == text
        print("the shipped constants are what this fit makes" if same else "DIFFERENT from the shipped constants")
        return 0 if same else 1
    target.write_text(text, encoding="utf-8")
    from report import write_report

    write_report(REPORT, time, memory, x, m, errors, skipped)
    print(f"wrote {target.relative_to(ROOT)} and {REPORT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
