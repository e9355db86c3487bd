"""Time, disk, memory, energy and money of a study before they are spent: plain arithmetic on a measured rate.

Training is forecast as tokens / (tokens per second of one worker) / workers. The rate comes from complete runs of the
same study where there are any, otherwise from a probe of a few steps of the very model on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Rates of the stages around training on one 2.5 GHz core, from this project's own studies (LOG.md).
_BOOKS_BYTES_PER_SECOND = 1.5e6
_TOKENS_BYTES_PER_SECOND = 1.0e6
_EVALSET_SECONDS = 8.0
_EVALSET_SECONDS_PER_MB = 0.5
_SCORE_SPEEDUP = 2.5  # scored tokens per second over trained tokens per second: forward only
_PATTERNS_SECONDS, _PATTERNS_SECONDS_PER_RUN = 3.0, 0.01
_DASHBOARD_SECONDS, _DASHBOARD_SECONDS_PER_RUN = 3.0, 0.005
_WORKER_START_SECONDS = 6.0
_RUN_OVERHEAD_SECONDS = 0.15  # opening the stream, saving weights and rows


@dataclass(frozen=True)
class Workload:
    """What a study asks of the machine."""

    n_runs: int
    runs_left: int
    run_tokens: int
    n_params: int
    score_tokens: int  # tokens of one scoring pass over the bank
    library_bytes: int
    n_workers: int
    device: str


@dataclass(frozen=True)
class Rate:
    """Tokens per second of one worker with all workers busy, and how far off it may be either way."""

    tokens_per_second: float
    low: float
    high: float
    source: str


def estimate(
    load: Workload, rate: Rate, watts: float | None, usd_per_kwh: float, usd_per_hour: float
) -> dict[str, Any]:
    """Return seconds by stage and in all, disk and memory bytes, kWh and USD, each with a low and a high value."""
    stages = _stages(load, rate)
    total = {key: sum(stage[key] for stage in stages) for key in ("seconds", "low", "high")}
    power = watts if watts is not None else load.n_workers * (350.0 if load.device == "cuda" else 65.0)
    bill = {}
    for key, seconds in total.items():
        kwh = power * seconds / 3.6e6
        bill[key] = {"kwh": kwh, "usd": kwh * usd_per_kwh + usd_per_hour * seconds / 3600}
    return {
        "stages": stages,
        "seconds": total["seconds"],
        "seconds_low": total["low"],
        "seconds_high": total["high"],
        "rate": {"tokens_per_second_per_worker": rate.tokens_per_second, "source": rate.source},
        "disk_bytes": _disk_bytes(load),
        "memory_bytes": _memory_bytes(load),
        "energy_kwh": bill["seconds"]["kwh"],
        "energy_kwh_range": [bill["low"]["kwh"], bill["high"]["kwh"]],
        "cost_usd": bill["seconds"]["usd"],
        "cost_usd_range": [bill["low"]["usd"], bill["high"]["usd"]],
        "n_runs": load.n_runs,
        "runs_left": load.runs_left,
        "run_tokens": load.run_tokens,
        "n_params": load.n_params,
        "n_workers": load.n_workers,
        "device": load.device,
    }


def _stages(load: Workload, rate: Rate) -> list[dict[str, Any]]:
    megabytes = load.library_bytes / 1e6
    fixed = {
        "books": load.library_bytes / _BOOKS_BYTES_PER_SECOND,
        "sets": 0.5,
        "tokens": load.library_bytes / _TOKENS_BYTES_PER_SECOND,
        "evalset": _EVALSET_SECONDS + _EVALSET_SECONDS_PER_MB * megabytes,
    }
    rows = [{"stage": name, "seconds": s, "low": 0.4 * s, "high": 2.5 * s} for name, s in fixed.items()]
    rounds = -(-load.runs_left // load.n_workers)  # the last round may be half empty
    for name, tokens, overhead in (
        ("runs", load.run_tokens, _RUN_OVERHEAD_SECONDS),
        ("scores", load.score_tokens / _SCORE_SPEEDUP, _RUN_OVERHEAD_SECONDS),
    ):
        start = _WORKER_START_SECONDS if name == "runs" else 0.0
        seconds, low, high = (
            start + rounds * (tokens / r + overhead) for r in (rate.tokens_per_second, rate.high, rate.low)
        )
        rows.append({"stage": name, "seconds": seconds, "low": low, "high": high})
    after = {
        "patterns": _PATTERNS_SECONDS + _PATTERNS_SECONDS_PER_RUN * load.n_runs,
        "dashboard": _DASHBOARD_SECONDS + _DASHBOARD_SECONDS_PER_RUN * load.n_runs,
    }
    return rows + [{"stage": name, "seconds": s, "low": 0.4 * s, "high": 2.5 * s} for name, s in after.items()]


def _disk_bytes(load: Workload) -> int:
    weights = load.n_runs * load.n_params * 4
    text_and_tokens = 2 * load.library_bytes
    rows = load.n_runs * 150_000
    return int(weights + text_and_tokens + rows)


def _memory_bytes(load: Workload) -> int:
    """Per worker: the interpreter with PyTorch, five float32 copies of the weights, and activations."""
    return int(load.n_workers * (400e6 + 5 * 4 * load.n_params + 100e6) + 500e6)
