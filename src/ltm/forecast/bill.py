"""The bill of one study: seconds by stage, disk, memory, energy and money from measured unit costs.

Plain arithmetic, so that a smaller or larger study can be priced from the same measurement. Every stage has a spread
of its own (how well its cost was measured); the speed of the machine at the time is one more uncertainty that all
stages share. Own spreads add in quadrature, the shared one adds as it is: a sum of lows would be a range that no study
can reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ltm.units import format_seconds

STAGES = ("start", "books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dialogue", "dashboard")
Z90 = 1.645  # half width of a 90 % interval in standard deviations
_CPU_WATTS, _GPU_WATTS = 65.0, 350.0


@dataclass(frozen=True)
class Workload:
    """What a study asks of the machine."""

    n_runs: int
    runs_left: float  # a run that is half trained counts one half
    models_to_score: float
    run_tokens: int
    n_params: int
    n_workers: int
    device: str
    file_bytes: float  # of the library's files, as far as they are read
    train_bytes: float  # clean text of the training books
    encoded_bytes: float  # of it, what some variant uses
    held_out_books: float  # that a bank is cut from
    n_variants: int
    models_to_tune: float = 0.0  # that get a dialogue layer
    dialogue_tokens: float = 0.0  # that each of them reads for it
    done: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds that it took; nothing of it is left


@dataclass(frozen=True)
class Costs:
    """What one unit of each stage costs on this machine, in seconds or bytes."""

    start_seconds: float = 1.5  # the program itself, from its start and to its end
    books_seconds: float = 0.3
    books_seconds_per_byte: float = 4e-7
    sets_seconds: float = 0.1
    tokens_seconds: float = 1.0  # the tokenizer
    tokens_seconds_per_byte: float = 2e-7
    evalset_seconds: float = 0.3
    evalset_seconds_per_byte: float = 1e-7  # a training book compared with the held-out ones
    evalset_seconds_per_book: float = 0.1  # a held-out book cut into items
    workers_seconds: float = 6.0  # starting the worker processes, imports and first calls included
    tokens_per_second: float = 10_000.0  # of one worker while all of them train
    run_seconds: float = 0.1  # of each run beyond its steps: stream, weights, rows
    checkpoint_share: float = 0.0  # of training time that goes into checkpoints
    scores_seconds: float = 0.5  # the questions as tokens, once a worker
    score_seconds: float = 1.0  # of one model
    condense_seconds: float = 0.1
    condense_seconds_per_run: float = 0.005
    patterns_seconds: float = 0.1
    patterns_seconds_per_run: float = 0.002
    dashboard_seconds: float = 1.3
    dashboard_seconds_per_run: float = 0.002
    weights_bytes: float = 0.0  # of one run; 0 = four a parameter
    rows_bytes_per_run: float = 150_000.0
    text_bytes_per_byte: float = 1.0  # clean text and its tokens on disk, per byte of clean text
    fixed_bytes: float = 2e6
    worker_bytes: float = 0.0  # peak resident memory of one worker; 0 = from the number of parameters
    driver_bytes: float = 400e6
    spread: Mapping[str, float] = field(default_factory=dict)  # relative standard deviation by stage
    factor: Mapping[str, float] = field(
        default_factory=dict
    )  # by stage: what earlier studies took over what was forecast
    machine_spread: float = 0.045  # of the machine's speed between the measurement and the study
    source: str = "usual rates, not measured here"


_USUAL_SPREAD = {"start": 0.3, "books": 0.1, "sets": 0.3, "tokens": 0.15, "evalset": 0.15, "runs": 0.03}
_SPREAD = 0.15  # of the other stages
_WHY = {
    "runs": "how steadily the machine trains",
    "scores": "how long a model takes over the questions",
    "books": "what the files of the library are like",
}


def stage_seconds(load: Workload, costs: Costs) -> dict[str, float]:
    """Return the seconds that are left of every stage."""
    rounds = _rounds(load.runs_left, load.n_workers)
    train = load.run_tokens / costs.tokens_per_second * (1 + costs.checkpoint_share) + costs.run_seconds
    score_rounds = _rounds(load.models_to_score, load.n_workers)
    workers = costs.workers_seconds if load.runs_left or load.models_to_score else 0.0
    scoring = costs.scores_seconds + score_rounds * costs.score_seconds if load.models_to_score else 0.0
    seconds = {
        "start": costs.start_seconds,
        "books": costs.books_seconds + costs.books_seconds_per_byte * load.file_bytes,
        "sets": costs.sets_seconds,
        "tokens": costs.tokens_seconds + costs.tokens_seconds_per_byte * load.encoded_bytes,
        "evalset": costs.evalset_seconds
        + costs.evalset_seconds_per_byte * load.train_bytes
        + costs.evalset_seconds_per_book * load.held_out_books,
        "runs": workers + rounds * train if load.runs_left else 0.0,
        "scores": scoring
        + (0.0 if load.runs_left else workers)
        + costs.condense_seconds
        + costs.condense_seconds_per_run * load.n_runs,
        "patterns": costs.patterns_seconds + costs.patterns_seconds_per_run * load.n_runs,
        "dialogue": _rounds(load.models_to_tune, load.n_workers)
        * (costs.score_seconds + load.dialogue_tokens / costs.tokens_per_second),
        "dashboard": costs.dashboard_seconds + costs.dashboard_seconds_per_run * load.n_runs,
    }
    return {name: 0.0 if name in load.done else value * costs.factor.get(name, 1.0) for name, value in seconds.items()}


def _rounds(jobs: float, n_workers: int) -> float:
    """Return how many jobs the busiest worker does; one that is begun counts by what is left of it."""
    return jobs / n_workers if jobs != int(jobs) else float(-(-int(jobs) // n_workers))


def price(load: Workload, costs: Costs, watts: float | None, usd_per_kwh: float, usd_per_hour: float) -> dict[str, Any]:
    """Return seconds by stage and in all, disk and memory bytes, kWh and USD, each with a 90 % range."""
    seconds = stage_seconds(load, costs)
    spread = {name: costs.spread.get(name, _USUAL_SPREAD.get(name, _SPREAD)) for name in STAGES}
    rows = []
    for name in STAGES:
        low, high = interval(seconds[name], math.hypot(spread[name], costs.machine_spread) * seconds[name])
        row = {"stage": name, "seconds": seconds[name], "low": low, "high": high}
        rows.append({**row, "measured": load.done[name]} if name in load.done else row)
    total = sum(seconds.values())
    own = math.sqrt(sum((spread[name] * seconds[name]) ** 2 for name in STAGES))
    low, high = interval(total, math.hypot(own, costs.machine_spread * total))
    drawn = draw_watts(watts, load.n_workers, load.device)
    money = [energy_and_money(s, drawn, usd_per_kwh, usd_per_hour) for s in (total, low, high)]
    disk = disk_bytes(load, costs)
    memory = memory_bytes(load, costs)
    return {
        "stages": rows,
        "seconds": total,
        "seconds_low": low,
        "seconds_high": high,
        "why": _reason(seconds, spread, costs, total),
        "rate": {"tokens_per_second_per_worker": costs.tokens_per_second, "source": costs.source},
        "disk_bytes": int(disk),
        "disk_bytes_range": [int(0.85 * disk), int(1.2 * disk)],
        "memory_bytes": int(memory),
        "memory_bytes_range": [int(0.85 * memory), int(1.2 * memory)],
        "watts": drawn,
        "energy_kwh": money[0][0],
        "energy_kwh_range": [money[1][0], money[2][0]],
        "cost_usd": money[0][1],
        "cost_usd_range": [money[1][1], money[2][1]],
        "n_runs": load.n_runs,
        "runs_left": load.runs_left,
        "run_tokens": load.run_tokens,
        "n_params": load.n_params,
        "n_workers": load.n_workers,
        "device": load.device,
    }


def interval(middle: float, sd: float) -> tuple[float, float]:
    """Return a 90 % interval about a positive number: as much longer as shorter, in ratio.

    >>> [round(x, 1) for x in interval(100.0, 10.0)]
    [84.8, 117.9]
    """
    if middle <= 0:
        return 0.0, 0.0
    ratio = math.exp(Z90 * sd / middle)
    return middle / ratio, middle * ratio


def draw_watts(watts: float | None, n_workers: int, device: str) -> float:
    """Return the power that the study draws: as given, or a usual figure for each worker's processor."""
    return watts if watts is not None else n_workers * (_GPU_WATTS if device == "cuda" else _CPU_WATTS)


def energy_and_money(seconds: float, watts: float, usd_per_kwh: float, usd_per_hour: float) -> tuple[float, float]:
    """Return (kWh, USD) of a time.

    >>> energy_and_money(3600.0, 500.0, 0.2, 1.0)
    (0.5, 1.1)
    """
    kwh = watts * seconds / 3.6e6
    return kwh, kwh * usd_per_kwh + usd_per_hour * seconds / 3600


def disk_bytes(load: Workload, costs: Costs) -> float:
    """Return what the work folder holds at the end: weights and rows of all runs, texts, tokens, the page."""
    weights = costs.weights_bytes or 4.0 * load.n_params
    text = costs.text_bytes_per_byte * load.train_bytes
    return load.n_runs * (weights + costs.rows_bytes_per_run) + text + costs.fixed_bytes


def memory_bytes(load: Workload, costs: Costs) -> float:
    """Return the peak resident memory of the program and all its workers."""
    worker = costs.worker_bytes or 350e6 + 5 * 4.0 * load.n_params
    return costs.driver_bytes + load.n_workers * worker


def _reason(seconds: Mapping[str, float], spread: Mapping[str, float], costs: Costs, total: float) -> str:
    """Return in words what makes the range as wide as it is."""
    widest = max(STAGES, key=lambda name: spread[name] * seconds[name])
    own, shared = spread[widest] * seconds[widest], costs.machine_spread * total
    if own < shared:
        return "mainly because the machine may be more or less busy than when it was measured"
    about = _WHY.get(widest, f"how long the stage `{widest}` takes")
    return f"mainly because of {about} ({format_seconds(seconds[widest])} of it)"
