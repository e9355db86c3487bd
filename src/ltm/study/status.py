"""How far a study is: states of its runs, time left, time spent. Reads the work folder alone, from any terminal."""

from __future__ import annotations

import statistics
import time
from typing import Any

from ltm.errors import StoreError
from ltm.forecast.bill import Z90, energy_and_money, interval
from ltm.forecast.reforecast import RunDone, RunUnderWay, reforecast
from ltm.forecast.workers import Range
from ltm.runs import queue
from ltm.store import WorkFolder, read_json
from ltm.study.budget import held, is_held, spent
from ltm.study.settings import STAGES, StudySettings

_BEFORE_RUNS = ("books", "sets", "tokens", "evalset")
_SPREAD = 0.15  # of a stage that has not begun, where the forecast does not say


def status(settings: StudySettings, work: WorkFolder) -> dict[str, Any]:
    """Return `stages`, `runs` (a count per state), `failed`, `eta_seconds`, `elapsed_seconds` and the cost so far.

    `eta_seconds` (with `eta_low` and `eta_high`, a 90 % range) is None while nothing tells how long the rest takes.
    """
    timings = _read(work, "timings.json") or {"stages": {}}
    current = timings.get("current")
    elapsed = dict(timings["stages"])
    running = is_held(work)
    if current and running:
        elapsed[current["stage"]] = elapsed.get(current["stage"], 0.0) + time.time() - current["started"]
    counts = dict.fromkeys(queue.STATES, 0)
    jobs: list[queue.Job] = []
    if work.path("runs", "jobs.json").exists():
        jobs = queue.read_jobs(work)[1]
        for job in jobs:
            counts[queue.state_of(work, job.run_id)] += 1
    done: list[str] = []
    for name in STAGES:  # what was made from runs that are not all there is not done
        if name in _BEFORE_RUNS or name == "runs" or "runs" in done:
            done += [name] if _stage_done(work, name, counts, len(jobs)) else []
    seconds = sum(elapsed.values()) + _other_seconds(timings, elapsed, running)
    forecast = _read(work, "forecast.json") or {}
    left = _left(work, jobs, done, forecast, elapsed)
    gone = spent(seconds, float(forecast.get("watts", 0.0)), settings.forecast, work)
    return {
        "study": settings.name,
        "work": str(work.root),
        "stages": {name: "complete" if name in done else "waiting" for name in STAGES},
        "working_on": current["stage"] if current and running else None,
        "runs": counts,
        "failed": queue.failures(work, jobs),
        "eta_seconds": left["seconds"] if left else None,
        "eta_low": left["low"] if left else None,
        "eta_high": left["high"] if left else None,
        "eta_from": left["from"] if left else "",
        "elapsed_seconds": seconds,
        "elapsed_by_stage": elapsed,
        "forecast_seconds": forecast.get("seconds"),
        "energy_kwh": gone["kwh"],
        "cost_usd": gone["usd"],
        "disk_bytes": int(gone["disk"]),
        "budget": held(settings.budget, _as_bill(left, forecast, settings), gone) if left and forecast else [],
    }


def _other_seconds(timings: dict[str, Any], elapsed: dict[str, float], running: bool) -> float:
    """Return the seconds beside the stages: of earlier starts, and of the present one."""
    other = float(timings.get("other", 0.0))
    began = timings.get("began")
    if began and running:
        other += max(0.0, time.time() - began - (sum(elapsed.values()) - float(timings.get("before", 0.0))))
    return other


def _stage_done(work: WorkFolder, name: str, counts: dict[str, int], n_jobs: int) -> bool:
    if name == "runs":
        return n_jobs > 0 and counts["complete"] + counts["failed"] == n_jobs
    return work.output_of(name) is not None


def _left(
    work: WorkFolder, jobs: list[queue.Job], done: list[str], forecast: dict[str, Any], elapsed: dict[str, float]
) -> dict[str, Any] | None:
    """Return the seconds left with their range: what complete runs say, and the forecast of stages not begun.

    A machine that trains slower than was forecast also does the rest slower: the stages after training are scaled by
    the root of that ratio, since part of it may be a mistake about training alone.
    """
    if len(done) == len(STAGES):
        return {"seconds": 0.0, "low": 0.0, "high": 0.0, "from": ""}
    if not forecast.get("stages"):
        return None
    rows = {row["stage"]: row for row in forecast["stages"] if row["stage"] not in done and row["stage"] != "start"}
    runs = [run for job in jobs if (run := queue.read_run(work, job.run_id)) is not None]
    middle, variance, pace, source = 0.0, 0.0, 1.0, "the forecast"
    if "runs" in rows and "costs" in forecast:
        left, pace, source = _runs_left(work, jobs, runs, forecast, elapsed.get("runs", 0.0))
        del rows["runs"]
        middle, variance = left.median, (_log_sd(left.median, left.low, left.high) * left.median) ** 2
    elif runs and "costs" in forecast:
        pace = _pace(runs, forecast)
    for name, row in rows.items():
        seconds = row["seconds"] * pace**0.5  # half of an error of the runs' forecast is the machine's, as a rule
        rest = max(min(1.0, 0.1 * seconds), seconds - elapsed.get(name, 0.0))
        middle += rest
        variance += (_log_sd(row["seconds"], row["low"], row["high"]) * seconds) ** 2
    low, high = interval(middle, variance**0.5)
    return {"seconds": middle, "low": low, "high": high, "from": source}


def _log_sd(middle: float, low: float, high: float) -> float:
    """Return the relative standard deviation that a 90 % range stands for."""
    return (high - low) / (2 * Z90 * middle) if middle > 0 else _SPREAD


def _run_seconds(forecast: dict[str, Any]) -> Range:
    """Return what a run was forecast to take, with its range."""
    costs = forecast["costs"]
    steps = forecast["run_tokens"] / costs["tokens_per_second"] * (1 + costs["checkpoint_share"])
    seconds = (steps + costs["run_seconds"]) * costs["factor"].get("runs", 1.0)
    sd = (costs["spread"].get("runs", 0.03) ** 2 + costs["machine_spread"] ** 2) ** 0.5
    low, high = interval(seconds, sd * seconds)
    return Range(seconds, low, high)


def _pace(runs: list[Any], forecast: dict[str, Any]) -> float:
    """Return how many times longer the runs took than was forecast."""
    costs = forecast["costs"]
    planned = forecast["run_tokens"] / costs["tokens_per_second"] * costs["factor"].get("runs", 1.0)
    return float(statistics.median(run.seconds for run in runs) / max(1e-9, planned))


def _runs_left(
    work: WorkFolder, jobs: list[queue.Job], runs: list[Any], forecast: dict[str, Any], elapsed: float
) -> tuple[Range, float, str]:
    """Return the time left of the queue, how much slower than forecast the machine is, and where that comes from."""
    costs, n_workers = forecast["costs"], forecast["n_workers"]
    complete = {run.run_id for run in runs}
    beside = costs["run_seconds"]
    finished = [RunDone(run.seconds * (1 + costs["checkpoint_share"]) + beside) for run in runs]
    n_jobs = len(jobs) or forecast["n_runs"]
    begun = [queue.progress_of(work, job.run_id) for job in jobs if job.run_id not in complete]
    under_way = [RunUnderWay(min(0.99, share)) for share in sorted(begun, reverse=True)[:n_workers] if share > 0]
    waiting = n_jobs - len(runs) - len(under_way)
    found = reforecast(_run_seconds(forecast), n_workers, finished, waiting, running=under_way)
    left = found.seconds_left
    starting = 0.0 if runs or under_way else max(0.0, costs["workers_seconds"] - elapsed)
    left = Range(left.median + starting, left.low + starting, left.high + starting)
    return left, _pace(runs, forecast) if runs else 1.0, found.words


def _as_bill(left: dict[str, Any], forecast: dict[str, Any], settings: StudySettings) -> dict[str, Any]:
    """Return the time left as a bill, to be held against a budget."""
    prices = settings.forecast
    money = [
        energy_and_money(left[key], float(forecast.get("watts", 0.0)), prices.usd_per_kwh, prices.usd_per_hour)
        for key in ("seconds", "low", "high")
    ]
    return {
        "seconds": left["seconds"],
        "seconds_low": left["low"],
        "seconds_high": left["high"],
        "energy_kwh": money[0][0],
        "energy_kwh_range": [money[1][0], money[2][0]],
        "cost_usd": money[0][1],
        "cost_usd_range": [money[1][1], money[2][1]],
        "disk_bytes": forecast["disk_bytes"],
        "disk_bytes_range": forecast["disk_bytes_range"],
    }


def _read(work: WorkFolder, name: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(work.path(name))
    except StoreError:
        return None
    return value
