"""How far a study is: states of its runs, time left, time spent. Reads the work folder alone, from any terminal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from ltm.errors import StoreError
from ltm.forecast.bill import Z90, energy_and_money, interval
from ltm.forecast.reforecast import RunDone, RunUnderWay, reforecast
from ltm.forecast.workers import Range
from ltm.runs import index, queue
from ltm.runs.pause import is_paused
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json
from ltm.study import clock
from ltm.study.budget import held, is_held, spent
from ltm.study.round_sizes import sizes
from ltm.study.settings import STAGES, StudySettings

_SAME_IN_ALL_ROUNDS = ("books", "tokens", "evalset")
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
        elapsed[current["stage"]] = elapsed.get(current["stage"], 0.0) + clock.since(current["started"])
    counts = dict.fromkeys(queue.STATES, 0)
    jobs = _jobs(work)
    states = queue.states(work, [job.run_id for job in jobs])
    for state in states.values():
        counts[state] += 1
    n_ended = len(queue.stopped_for_good(work, states))
    complete = list(index.briefs(work, [run_id for run_id, state in states.items() if state == "complete"]).values())
    rounds = round_states(settings, work, states)
    to_come = sum(row["runs"] for row in rounds if row["state"] == "to come")
    done: list[str] = []
    for name in STAGES:  # what was made from runs that are not all there is not done
        if name in _BEFORE_RUNS or name == "runs" or "runs" in done:
            grows = to_come and name not in _SAME_IN_ALL_ROUNDS
            done += [name] if not grows and _stage_done(work, name, counts, len(jobs), n_ended) else []
    seconds = sum(elapsed.values()) + _other_seconds(timings, elapsed, running)
    forecast = _read(work, "forecast.json") or {}
    left = _left(work, _Queue(states, complete, to_come), done, forecast, elapsed)
    gone = spent(seconds, float(forecast.get("watts", 0.0)), settings.forecast, work)
    return {
        "study": settings.name,
        "work": str(work.root),
        "stages": {name: "complete" if name in done else "waiting" for name in STAGES},
        "working_on": current["stage"] if current and running else None,
        "runs": counts,
        "stopped_for_good": n_ended,
        "rounds": rounds,
        "paused": is_paused(work),
        "failed": queue.failures(work, jobs, states),
        "rate": _rate(complete, elapsed.get("runs", 0.0)),
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


def round_states(settings: StudySettings, work: WorkFolder, states: dict[str, str]) -> list[dict[str, Any]]:
    """Return the rounds with their runs and their state: to come, under way, complete; none for a study without."""
    if not settings.rounds.enabled:
        return []
    by_variant: dict[int, list[str]] = {}
    for job in _jobs(work):
        by_variant.setdefault(job.variant_index, []).append(states[job.run_id])
    try:
        variants = read_variants(work)
    except StoreError:
        variants = []
    found = []
    for size in sizes(settings):
        mine = [state for v in variants if v.round == size.name for state in by_variant.get(v.index, [])]
        ended = sum(state in ("complete", "failed") for state in mine)
        drawn = any(v.round == size.name for v in variants)
        state = "complete" if mine and ended == len(mine) else "under way" if drawn else "to come"
        found.append({"round": size.name, "state": state, "runs": len(mine) or size.n_runs, "complete": ended})
    return found


def _other_seconds(timings: dict[str, Any], elapsed: dict[str, float], running: bool) -> float:
    """Return the seconds beside the stages: of earlier starts, and of the present one."""
    other = float(timings.get("other", 0.0))
    began = timings.get("began")
    if began and running:
        other += max(0.0, clock.since(began) - (sum(elapsed.values()) - float(timings.get("before", 0.0))))
    return other


def _stage_done(work: WorkFolder, name: str, counts: dict[str, int], n_jobs: int, n_ended: int) -> bool:
    if name == "runs":
        return n_jobs > 0 and counts["complete"] + counts["failed"] + n_ended == n_jobs
    return work.output_of(name) is not None


@dataclass(frozen=True)
class _Queue:
    """The state of every run, and the complete ones."""

    states: dict[str, str]
    complete: list[index.Brief]
    to_come: int = 0  # runs of rounds that are not drawn yet


def _jobs(work: WorkFolder) -> list[queue.Job]:
    try:
        return queue.read_jobs(work)[1]
    except StoreError:  # not there yet, or damaged: the next start writes it anew
        return []


def _rate(complete: list[index.Brief], seconds: float) -> dict[str, float]:
    """Return how fast the runs go: runs an hour over all workers, and the tokens a second of one worker."""
    if not complete:
        return {"runs_per_hour": 0.0, "tokens_per_second_per_worker": 0.0}
    tokens = statistics.median(run.tokens_per_second for run in complete)
    return {"runs_per_hour": 3600 * len(complete) / seconds if seconds else 0.0, "tokens_per_second_per_worker": tokens}


def _left(
    work: WorkFolder, runs: _Queue, done: list[str], forecast: dict[str, Any], elapsed: dict[str, float]
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
    middle, variance, pace, source = 0.0, 0.0, 1.0, "the forecast"
    if "runs" in rows and "costs" in forecast:
        left, pace, source = _runs_left(work, runs, forecast, elapsed.get("runs", 0.0))
        del rows["runs"]
        middle, variance = left.median, (_log_sd(left.median, left.low, left.high) * left.median) ** 2
    elif runs.complete and "costs" in forecast:
        pace = _pace(runs.complete, forecast)
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


def _runs_left(work: WorkFolder, queued: _Queue, forecast: dict[str, Any], elapsed: float) -> tuple[Range, float, str]:
    """Return the time left of the queue, how much slower than forecast the machine is, and where that comes from."""
    costs, n_workers = forecast["costs"], forecast["n_workers"]
    runs = queued.complete
    beside = costs["run_seconds"]
    finished = [RunDone(run.seconds * (1 + costs["checkpoint_share"]) + beside) for run in runs]
    n_jobs = len(queued.states) + queued.to_come or forecast["n_runs"]
    begun = [
        queue.progress_of(work, run_id)
        for run_id, state in queued.states.items()
        if state in ("running", "lost", "stopped")
    ]
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
