"""How far a study is: states of its runs, time left, time spent. Reads the work folder alone, from any terminal."""

from __future__ import annotations

import time
from typing import Any

from ltm.errors import StoreError
from ltm.runs import queue
from ltm.store import WorkFolder, read_json
from ltm.study.settings import STAGES, StudySettings

_BEFORE_RUNS = ("books", "sets", "tokens", "evalset")


def status(settings: StudySettings, work: WorkFolder) -> dict[str, Any]:
    """Return `stages`, `runs` (a count per state), `failed`, `eta_seconds`, `elapsed_seconds` and the cost so far.

    `eta_seconds` is None while nothing tells how long the rest takes.
    """
    timings = _read(work, "timings.json") or {"stages": {}}
    current = timings.get("current")
    elapsed = dict(timings["stages"])
    held = _is_held(work)
    if current and held:
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
    spent = sum(elapsed.values())
    forecast = _read(work, "forecast.json") or {}
    per_second = forecast["cost_usd"] / max(1e-9, forecast["seconds"]) if forecast else 0.0
    return {
        "study": settings.name,
        "work": str(work.root),
        "stages": {name: "complete" if name in done else "waiting" for name in STAGES},
        "working_on": current["stage"] if current and held else None,
        "runs": counts,
        "failed": queue.failures(work, jobs),
        "eta_seconds": _eta(work, jobs, done, forecast, elapsed),
        "elapsed_seconds": spent,
        "elapsed_by_stage": elapsed,
        "cost_usd": per_second * spent,
    }


def _stage_done(work: WorkFolder, name: str, counts: dict[str, int], n_jobs: int) -> bool:
    if name == "runs":
        return n_jobs > 0 and counts["complete"] + counts["failed"] == n_jobs
    return work.output_of(name) is not None


def _eta(
    work: WorkFolder, jobs: list[queue.Job], done: list[str], forecast: dict[str, Any], elapsed: dict[str, float]
) -> float | None:
    """Return seconds left: what complete runs say about the rest, and the forecast for stages not begun."""
    if len(done) == len(STAGES):
        return 0.0
    if not forecast:
        return None
    left = {stage["stage"]: stage["seconds"] for stage in forecast["stages"] if stage["stage"] not in done}
    runs = [run for job in jobs if (run := queue.read_run(work, job.run_id)) is not None]
    if "runs" in left and runs:
        begun = {job.run_id: queue.progress_of(work, job.run_id) for job in jobs} if jobs else {}
        complete = {run.run_id for run in runs}
        to_do = sum(1.0 - begun[job.run_id] for job in jobs if job.run_id not in complete)
        mean = sum(run.seconds for run in runs) / len(runs)
        left["runs"] = to_do * mean / forecast["n_workers"]
    for name in left:
        if name != "runs" and name in elapsed:
            left[name] = max(1.0, left[name] - elapsed[name])
    return float(sum(left.values()))


def _is_held(work: WorkFolder) -> bool:
    """Return whether a process holds the work folder now."""
    import fcntl

    try:
        with open(work.path(".lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read(work: WorkFolder, name: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(work.path(name))
    except StoreError:
        return None
    return value
