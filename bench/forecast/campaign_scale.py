"""Time the campaign simulator, judge the re-forecast: python bench/forecast/campaign_scale.py [speed] [paper] [left]

Prints Markdown tables: speed of the simulator, campaigns on paper from one card to 1,000 GPUs and a million books, and
the error of the re-forecast at 10, 20 and 50 % of the runs beside the rule of three. Everything is simulated.
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
import time

import numpy as np

from ltm.forecast.campaign import simulate
from ltm.forecast.reforecast import RunDone, RunUnderWay, reforecast
from ltm.forecast.workers import Phase, Range, WorkerKind, study_phases
from ltm.units import format_seconds

HOUR = 3600.0
TROUBLE = {
    "straggler_fraction": 0.02, "straggler_slowdown": 1.5, "hours_between_failures": 2000.0, "repair_seconds": HOUR,
    "preemptions_per_hour": 0.01, "preempted_seconds": 600.0, "checkpoint_every_seconds": 600.0,
    "checkpoint_seconds": 3.0, "restart_seconds": 30.0,
}  # fmt: skip


def card(count: int, seconds: float, **more: float) -> WorkerKind:
    values = {"jitter_fraction": 0.05, "startup_seconds": 60.0, **more}
    return WorkerKind("card", count, seconds, 0.75 * seconds, 1.4 * seconds, **values)


def speed() -> None:
    print("| workers | runs | what happens | replicates | seconds | with reasons: replicates | seconds |")
    print("|---|---|---|---|---|---|---|")
    scales = ((1, 1000), (8, 10_000), (1000, 100_000), (1000, 1_000_000))
    for (count, runs), name in itertools.product(scales, ("calm", "trouble")):
        kind = card(count, HOUR, **(TROUBLE if name == "trouble" else {}))
        cells = []
        for explain in (False, True):
            started = time.perf_counter()
            result = simulate([kind], [Phase("runs", runs)], explain=explain)
            cells += [str(result.replicates), f"{time.perf_counter() - started:.2f}"]
        print(f"| {count:,} | {runs:,} | {name} | {' | '.join(cells)} |", flush=True)


def on_paper() -> None:
    """125M parameters, 100 books of 250K tokens, 3 epochs: 75M tokens, 375 s at 200k tokens/s; books of 1.5 MB."""
    prepare = Range(600.0, 300.0, 1500.0)
    report = Range(60.0, 30.0, 120.0)
    run, price = 375.0, {"watts": 600.0, "idle_watts": 80.0, "usd_per_hour": 2.0}
    small = {"run_overhead_seconds": 25.0, "score_size": 0.05, "score_seconds": 5.0, "prepare_seconds": prepare,
             "report_seconds": report, "tuned_models": 10, "tune_size": 0.3}  # fmt: skip
    million = 1e6 * 1.5e6 / 1.5e6  # seconds of one core to clean and encode a million books at 1.5 MB/s
    sharded = [Phase("books in 10,000 shards", 10_000, 0.0, million / 1e4, 0.4 * million / 1e4, 2.5 * million / 1e4)]
    whole = [Phase("books, one driver", 1, 0.0, million, 0.4 * million, 2.5 * million, one_per="campaign")]
    large = study_phases(pilot_runs=1000, exploration_runs=100_000, confirmation_runs=2000, **small)
    campaigns = {
        "1 card, 200 runs": ([card(1, run, **price)], study_phases(exploration_runs=200, **small)),
        "1 card, 1,000 runs": ([card(1, run, **price)], study_phases(exploration_runs=1000, **small)),
        "8 cards, 1,000 runs": (
            [card(8, run, **price)],
            study_phases(pilot_runs=50, exploration_runs=850, confirmation_runs=100, **small),
        ),
        "8 cards and 8 half as fast": (
            [card(8, run, **price), card(8, 2 * run, **price)],
            study_phases(pilot_runs=50, exploration_runs=850, confirmation_runs=100, **small),
        ),
        "64 spot cards, 10,000 runs": (
            [card(64, run, **price, **{**TROUBLE, "preemptions_per_hour": 0.1, "checkpoint_every_seconds": 120.0})],
            study_phases(pilot_runs=200, exploration_runs=9000, confirmation_runs=800, **small),
        ),
        "1,000 GPUs, 103,000 runs, 1M books by one driver": ([card(1000, run, **price, **TROUBLE)], whole + large),
        "1,000 GPUs, 103,000 runs, 1M books in shards": ([card(1000, run, **price, **TROUBLE)], sharded + large),
    }
    print("| campaign | makespan | 90 % range | USD | useful | idle | failures | the range is wide because |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (kinds, phases) in campaigns.items():
        result = simulate(kinds, phases, usd_per_kwh=0.2)
        low, high = format_seconds(result.seconds.low), format_seconds(result.seconds.high)
        shares = f"{100 * result.shares['useful']:.0f} % | {100 * result.shares['idle']:.0f} %"
        stops = f"{result.failures:.0f} + {result.preemptions:.0f}"
        print(f"| {name} | {format_seconds(result.seconds.median)} | {low} to {high} | {result.usd.median:,.0f} |"
              f" {shares} | {stops} | {result.main_reason} |", flush=True)  # fmt: skip


def left(campaigns: int = 300) -> None:
    shapes = {"30 runs, 1 worker": (30, 1), "60 runs, 4 workers": (60, 4), "100 runs, 8 workers": (100, 8),
              "1,000 runs, 32 workers": (1000, 32)}  # fmt: skip
    trouble = {"jitter 5 %": (0.05, 0.0), "jitter 20 %": (0.2, 0.0), "5 %, every tenth run twice as long": (0.05, 0.1)}
    print("| campaign | runs differ by | finished | within 5 % | median error | worst | range holds", end=" ")
    print("| rule of three within 5 % | its median error | ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for shape, (n_runs, workers) in shapes.items():
        for name, (jitter, slow) in trouble.items():
            for at in (0.1, 0.2, 0.5):
                rows = np.array([_one(seed, n_runs, workers, jitter, slow, at) for seed in range(campaigns)])
                error, naive, inside, seconds = np.abs(rows[:, 0]), np.abs(rows[:, 1]), rows[:, 2], rows[:, 3]
                print(f"| {shape} | {name} | {100 * at:.0f} % | {100 * np.mean(error < 0.05):.0f} % |"
                      f" {100 * np.median(error):.1f} % | {100 * error.max():.1f} % | {100 * inside.mean():.0f} % |"
                      f" {100 * np.mean(naive < 0.05):.0f} % | {100 * np.median(naive):.1f} % |"
                      f" {1000 * seconds.mean():.1f} |", flush=True)  # fmt: skip


def _one(seed: int, n_runs: int, workers: int, jitter: float, slow: float, at: float) -> tuple[float, ...]:
    """Return the errors of both forecasts in one campaign, whether the range holds the truth, and the time it took."""
    rng = np.random.default_rng(seed)
    seconds = 100 * np.exp(jitter * rng.standard_normal(n_runs)) * np.where(rng.random(n_runs) < slow, 2.0, 1.0)
    off = 100 * np.exp(rng.uniform(-math.log(1.4), math.log(1.4)))
    free, start = [0.0] * workers, np.zeros(n_runs)
    for run in range(n_runs):
        start[run] = free[0]
        heapq.heapreplace(free, free[0] + seconds[run])
    end = start + seconds
    now, total = np.sort(end)[math.ceil(at * n_runs) - 1], end.max()
    done, going = end <= now, (start <= now) & (end > now)
    finished = [RunDone(value) for value in seconds[done]]
    running = [
        RunUnderWay((now - a) / s, elapsed_seconds=now - a) for a, s in zip(start[going], seconds[going], strict=True)
    ]
    began = time.perf_counter()
    plan = Range(off, off / 1.4, off * 1.4)
    value = reforecast(plan, workers, finished, int((start > now).sum()), running=running, elapsed_seconds=now)
    took = time.perf_counter() - began
    whole = value.total_seconds
    return whole.median / total - 1, now / done.sum() * n_runs / total - 1, whole.low <= total <= whole.high, took


if __name__ == "__main__":
    parts = {"speed": speed, "paper": on_paper, "left": left}
    for part in sys.argv[1:] or parts:
        parts[part]()
        print()
