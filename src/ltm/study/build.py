"""Build what is not up to date: the stages in the order in which data flows.

Writes: `timings.json` (seconds by stage and beside the stages, over all starts), and each stage's files through the
stage. A stage is built when its inputs (settings, code version, what the stages before it made) differ from those its
marker names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from ltm.config import Section
from ltm.errors import LtmError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.runs.queue import Recipe
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.study import budget
from ltm.study.processes import process_age
from ltm.study.settings import StudySettings
from ltm.study.standing import is_missing, stage_inputs, standing
from ltm.study.watch import Watch


class Builder:
    """One pass over the stages; knows what each was made from."""

    def __init__(
        self, settings: StudySettings, work: WorkFolder, progress: Progress, over_budget: bool = False
    ) -> None:
        self.settings, self.work, self.progress, self.over_budget = settings, work, progress, over_budget
        self.built: list[str] = []
        self.outputs: dict[str, str] = {}
        self.jobs: list[queue.Job] = []
        self._stack = contextlib.ExitStack()
        self._pool: Any = None
        self._began = time.time() - process_age()

    def build(self, stages: Sequence[str]) -> dict[str, Any]:
        """Build the stages; returns what was built and which runs failed.

        Raises:
            BudgetError: the budget is reached, or the forecast says that it will not do.
        """
        with self._all_seconds() as before, self._watch(before), self._stack:
            forecast = self._forecast() if "runs" in stages else {}
            for name in stages:
                self.progress.seconds_ahead = self._seconds_after(name, stages)
                if name == "runs":
                    self._runs()
                else:
                    self._stage(name)
        if before == 0.0 and forecast and len(self.built) == len(_all_of(forecast)):
            from ltm.study.plan import record

            record(self.settings, self.work, forecast)  # a study done in one go tells how good the forecast was
        return {"built": self.built, "failed_runs": queue.failures(self.work, self.jobs)}

    def _forecast(self) -> dict[str, Any]:
        """Forecast the study where there is training to do, and hold it against the budget."""
        if "runs" in standing(self.settings, self.work)[0]:
            return {}
        from ltm.study.plan import write_forecast  # torch and scipy come with it: not for a study that is done

        forecast = write_forecast(self.settings, self.work, self._workers, self.progress)
        begun = any(self.work.path("runs").glob("*/run.json"))  # then the watch alone decides
        if not self.over_budget and not begun:
            before = float(forecast.get("spent_seconds", 0.0))  # this start is in the forecast itself
            watts = float(forecast.get("watts", 0.0))
            gone = budget.spent(before, watts, self.settings.forecast, self.work)
            rows = budget.held(self.settings.budget, forecast, gone)
            budget.refuse_if_over(rows)
            if text := budget.warning(rows):
                self.progress.say(text)
        return forecast

    def _watch(self, before: float) -> contextlib.AbstractContextManager[Any]:
        if self.over_budget:
            return contextlib.nullcontext()
        return Watch(self.settings.budget, lambda disk: self._spent(before, disk))

    def _spent(self, before: float, disk: bool) -> dict[str, float]:
        """Return what is spent over all starts."""
        prices = self.settings.forecast
        seconds = before + time.time() - self._began
        return budget.spent(seconds, self._watts(), prices, self.work if disk else None)

    def _watts(self) -> float:
        path = self.work.path("forecast.json")
        if path.exists():
            return float(read_json(path).get("watts", 0.0))
        return self.settings.forecast.watts or 0.0

    @contextlib.contextmanager
    def _all_seconds(self) -> Iterator[float]:
        """Give the seconds of all earlier starts; add those of this one that belong to no stage when it ends."""
        path = self.work.path("timings.json")
        timings = read_json(path) if path.exists() else {"stages": {}}
        _bank_interrupted(self.work, timings)
        before = sum(timings["stages"].values()) + timings.get("other", 0.0)
        in_stages = sum(timings["stages"].values())
        start = {"current": None, "other": timings.get("other", 0.0), "began": self._began, "before": in_stages}
        write_json(path, {**timings, **start})
        try:
            yield float(before)
        finally:
            timings = read_json(path)
            passed = time.time() - self._began - (sum(timings["stages"].values()) - in_stages)
            other = timings.get("other", 0.0) + max(0.0, passed)
            if self.built or before == 0.0:  # a start that found nothing to do costs the study nothing
                timings["other"] = other
            write_json(path, {**timings, "began": None})

    def _seconds_after(self, name: str, stages: Sequence[str]) -> float:
        """Return the forecast of the stages that follow; 0 where there is no forecast."""
        path = self.work.path("forecast.json")
        later = set(stages[list(stages).index(name) + 1 :])
        rows = read_json(path)["stages"] if path.exists() else []
        return float(sum(row["seconds"] for row in rows if row["stage"] in later))

    def _stage(self, name: str) -> None:
        """Build a stage whose marker tells whether it stands."""
        section: Section = getattr(self.settings, name)
        stage: Any = import_module(f"ltm.{name}.stage")
        inputs = stage_inputs(self.settings, name, self.outputs)
        if self.work.output_of(name, inputs) is None or is_missing(self.settings, self.work, name):
            self.work.path(name, "done.json").unlink(missing_ok=True)  # its files are about to be mixed
            with self._timed(name):
                if name == "dashboard":
                    made = str(stage.build(section, self.work, self.progress))
                elif name == "scores":
                    made = stage.build(section, self.work, queue.complete_runs(self.work), self._workers, self.progress)
                else:
                    made = stage.build(section, self.work, self.settings.seed, self.progress)
            self.work.finish(name, inputs, made)
        self.outputs[name] = str(self.work.output_of(name, inputs))

    def _runs(self) -> None:
        """Train the runs that are not complete; each run carries its own marker."""
        recipe = Recipe(self.settings.sets, self.settings.model, self.settings.runs)
        self.jobs = queue.plan_jobs(self.work, recipe)
        if any(queue.read_run(self.work, job.run_id) is None for job in self.jobs):
            from ltm.runs.stage import build

            with self._timed("runs"):
                build(self.work, recipe, self.jobs, self._workers(), self.progress)
        done = [job.run_id for job in self.jobs if queue.read_run(self.work, job.run_id) is not None]
        if not done:
            error = next(iter(queue.failures(self.work, self.jobs).values()), "unknown")
            raise LtmError(f"all {len(self.jobs)} runs failed; the first: {error}", "`ltm status STUDY` lists them")
        self.outputs["runs"] = fingerprint(done)

    def _workers(self) -> Any:
        """Start the worker processes when they are first needed; training and scoring share them."""
        if self._pool is None:
            from ltm.runs.stage import workers

            self._pool = self._stack.enter_context(workers(self.settings.runs))
        return self._pool

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a stage to `timings.json`, also when it is interrupted."""
        path = self.work.path("timings.json")
        timings = read_json(path)
        start = time.time()
        write_json(path, {**timings, "current": {"stage": name, "started": start}})
        try:
            yield
        finally:
            timings["stages"][name] = timings["stages"].get(name, 0.0) + time.time() - start
            write_json(path, {**timings, "current": None})
        self.built.append(name)


def _all_of(forecast: dict[str, Any]) -> list[str]:
    return [row["stage"] for row in forecast["stages"] if row["stage"] != "start"]


def _bank_interrupted(work: WorkFolder, timings: dict[str, Any]) -> None:
    """Count the time of a start that was killed: from its beginning to the last sign of life in the folder.

    What it spent beside its stages counts too.
    """
    current, began = timings.get("current"), timings.get("began")
    if not current and not began:
        return
    signs = [*work.root.glob("runs/*/*.json"), *work.root.glob("scores/*.parquet"), work.path("timings.json")]
    last = max((path.stat().st_mtime for path in signs if path.exists()), default=time.time())
    if current:
        spent = max(0.0, last - current["started"])
        timings["stages"][current["stage"]] = timings["stages"].get(current["stage"], 0.0) + spent
    if began:
        in_stages = sum(timings["stages"].values()) - timings.get("before", 0.0)
        timings["other"] = timings.get("other", 0.0) + max(0.0, last - began - in_stages)
