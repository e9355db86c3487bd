"""Build what is not up to date: the stages in the order in which data flows.

Writes: `timings.json` (seconds by stage and beside the stages, over all starts), and each stage's files through the
stage. A stage is built when its inputs (settings, code version, what the stages before it made) differ from those its
marker names.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from ltm.config import Section
from ltm.errors import LtmError
from ltm.progress import Progress
from ltm.runs import index, queue
from ltm.sets.stage import read_variants, refuse_if_edited, used_books
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.study import budget, clock
from ltm.study.processes import process_age
from ltm.study.rounds import Rounds, measured_runs, recipe_of
from ltm.study.settings import StudySettings
from ltm.study.standing import AFTER_ROUNDS, is_missing, stage_inputs, standing, walk
from ltm.study.watch import OF_THIS_START, Watch


class Builder:
    """One pass over the stages; knows what each was made from."""

    def __init__(
        self,
        settings: StudySettings,
        work: WorkFolder,
        progress: Progress,
        over_budget: bool = False,
        most: Mapping[str, float] | None = None,
    ) -> None:
        self.settings, self.work, self.progress, self.over_budget = settings, work, progress, over_budget
        self._most = {f"{name}{OF_THIS_START}": limit for name, limit in (most or {}).items()}
        self.built: list[str] = []
        self.outputs: dict[str, str] = {}
        self.jobs: list[queue.Job] = []
        self._stack = contextlib.ExitStack()
        self._pool: Any = None
        self._scored = False
        self._began = clock.now() - process_age()
        self.rounds = Rounds(settings, work)

    def build(self, stages: Sequence[str]) -> dict[str, Any]:
        """Build the stages; returns what was built and which runs failed.

        Raises:
            BudgetError: the budget is reached, or the forecast says that it will not do.
        """
        with self._all_seconds() as before, self._watch(before), self._stack:
            forecast = self._forecast() if "runs" in stages else {}
            if self.rounds.enabled:
                self._in_rounds(stages)
            else:
                for name in stages:
                    self._one(name, stages)
        if before == 0.0 and forecast and len(self.built) == len(_all_of(forecast)):
            from ltm.study.plan import record

            record(self.settings, self.work, forecast)  # a study done in one go tells how good the forecast was
        return {"built": self.built, "failed_runs": queue.failures(self.work, self.jobs)}

    def _one(self, name: str, stages: Sequence[str]) -> None:
        self.progress.seconds_ahead = self._seconds_after(name, stages)
        if name == "runs":
            self._runs()
        elif name == "sets" and self.rounds.enabled:
            self._sets_of_rounds()
        else:
            self._stage(name)

    def _in_rounds(self, stages: Sequence[str]) -> None:
        """Go through the stages once for every round; the next round is drawn when all runs so far have scores."""
        in_every_round = [name for name in stages if name not in AFTER_ROUNDS]
        self._scored = "scores" in walk(self.settings, self.work)[0]
        while True:
            for name in in_every_round:
                self._one(name, stages)
            self._scored = "scores" in in_every_round
            if not self._scored or self.rounds.is_last(self.outputs["books"]):
                break
        for name in stages:
            if name in AFTER_ROUNDS:
                self._one(name, stages)

    def _sets_of_rounds(self) -> None:
        """Draw the next round if it is its turn."""
        books = self.outputs["books"]
        found = self.rounds.output(books)
        if found is None or (self._scored and not self.rounds.is_last(books)):
            with self._timed("sets"):
                found = self.rounds.advance(books, self._scored, self.progress)
        else:
            refuse_if_edited(self.work)
        self.outputs["sets"], self.outputs["used"] = found, used_books(self.work)
        self._scored = False

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
        limits = {} if self.over_budget else self.settings.budget.limits()
        return Watch({**limits, **self._most}, lambda disk: self._spent(before, disk))

    def _spent(self, before: float, disk: bool) -> dict[str, float]:
        """Return what is spent over all starts."""
        prices = self.settings.forecast
        here = clock.now() - self._began
        now = budget.spent(here, self._watts(), prices, None)
        whole = budget.spent(before + here, self._watts(), prices, self.work if disk else None)
        return {**whole, **{f"{name}{OF_THIS_START}": amount for name, amount in now.items()}}

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
        bank_interrupted(self.work, timings)
        before = sum(timings["stages"].values()) + timings.get("other", 0.0)
        in_stages = sum(timings["stages"].values())
        start = {
            "current": None,
            "other": timings.get("other", 0.0),
            "began": clock.stamp(self._began),
            "before": in_stages,
        }
        write_json(path, {**timings, **start})
        try:
            yield float(before)
        finally:
            timings = read_json(path)
            passed = clock.now() - self._began - (sum(timings["stages"].values()) - in_stages)
            other = timings.get("other", 0.0) + max(0.0, passed)
            if self.built or before == 0.0:  # a start that found nothing to do costs the study nothing
                timings["other"] = other
            write_json(path, {**timings, "began": None})

    def _seconds_after(self, name: str, stages: Sequence[str]) -> float:
        """Return the forecast of the stages that follow; 0 where there is no forecast."""
        path = self.work.path("forecast.json")
        later = set(stages[list(stages).index(name) + 1 :])
        rows = read_json(path)["stages"] if path.exists() else []
        seconds = {row["stage"]: float(row["seconds"]) for row in rows}
        ahead = sum(amount for stage, amount in seconds.items() if stage in later)
        if (
            self.rounds.enabled and name not in AFTER_ROUNDS and "scores" in stages
        ):  # the rounds to come take their share
            to_come = self.rounds.runs_to_come(self.outputs.get("books")) / self.settings.sets.count
            ahead += to_come * seconds.get("runs", 0.0) * (name in ("runs", "scores"))
            ahead += to_come * seconds.get("scores", 0.0) * (name == "scores")
        return ahead

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
                    made = self._scores(stage, section)
                elif name == "dialogue":
                    made = stage.build(section, self.work, self.settings.seed, self._workers, self.progress)
                else:
                    made = stage.build(section, self.work, self.settings.seed, self.progress)
            self.work.finish(name, inputs, made)
        elif name == "sets":
            refuse_if_edited(self.work)
        self.outputs[name] = str(self.work.output_of(name, inputs))

    def _scores(self, stage: Any, section: Section) -> Any:
        """Ask the models; those of the confirmation are asked the questions of bank B, and no others."""
        if not self.rounds.enabled:
            return stage.build(section, self.work, queue.complete_runs(self.work), self._workers, self.progress)
        from ltm.scores import apart

        runs, aside, confirming = measured_runs(self.work, read_variants(self.work))
        return [
            stage.build(section, self.work, runs, self._workers, self.progress),
            apart.build(self.work, aside, "a", apart.ASIDE, self._workers, self.progress),
            apart.build(self.work, confirming, "b", apart.CONFIRMED, self._workers, self.progress),
        ]

    def _runs(self) -> None:
        """Train the runs that are not complete; each run carries its own marker."""
        recipe, recipes = recipe_of(self.rounds.effective()), self.rounds.recipes()
        self.jobs = queue.plan_jobs(self.work, recipe, recipes)
        if queue.missing(self.work, self.jobs):
            from ltm.runs.stage import build
            from ltm.scores.rungs import scores_at
            from ltm.scores.snapshots import plan_moments

            plan_moments(self.work, self.settings.scores, recipe.sets.run_tokens, recipe.runs.batch_tokens)
            with self._timed("runs"):
                for name, own in (recipes or {"": recipe}).items():  # workers keep one shape of model warm at a time
                    if jobs := [job for job in self.jobs if job.recipe == name]:
                        judge = functools.partial(scores_at, self.work, bank=self.settings.scores.bank)
                        build(self.work, own, jobs, self._workers(), self.progress, judge)
        done = list(index.complete(self.work, [job.run_id for job in self.jobs]))
        if not done:
            error = next(iter(queue.failures(self.work, self.jobs).values()), "unknown")
            raise LtmError(f"all {len(self.jobs)} runs failed; the first: {error}", "`ltm status STUDY` lists them")
        self.outputs["runs"] = fingerprint(done)

    def _workers(self) -> Any:
        """Start the worker processes when they are first needed; training and scoring share them."""
        if self._pool is None:
            from ltm.runs.stage import workers

            self._pool = self._stack.enter_context(workers(self.settings.runs, self.work))
        return self._pool

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a stage to `timings.json`, also when it is interrupted."""
        path = self.work.path("timings.json")
        timings = read_json(path)
        start = clock.now()
        write_json(path, {**timings, "current": {"stage": name, "started": clock.stamp(start)}})
        try:
            yield
        finally:
            timings["stages"][name] = timings["stages"].get(name, 0.0) + clock.now() - start
            write_json(path, {**timings, "current": None})
        if name not in self.built:
            self.built.append(name)


def _all_of(forecast: dict[str, Any]) -> list[str]:
    return [row["stage"] for row in forecast["stages"] if row["stage"] != "start"]


def bank_interrupted(work: WorkFolder, timings: dict[str, Any]) -> None:
    """Count the time of a start that was killed: from its beginning to the last sign of life in the folder.

    What it spent beside its stages counts too.
    """
    current, began = timings.get("current"), timings.get("began")
    if not current and not began:
        return
    signs = [*work.root.glob("runs/*/*.json"), *work.root.glob("scores/*.parquet"), work.path("timings.json")]
    last = max((path.stat().st_mtime for path in signs if path.exists()), default=0.0)
    if current:
        spent = clock.between(current["started"], last)
        timings["stages"][current["stage"]] = timings["stages"].get(current["stage"], 0.0) + spent
    if began:
        in_stages = sum(timings["stages"].values()) - timings.get("before", 0.0)
        timings["other"] = timings.get("other", 0.0) + max(0.0, clock.between(began, last) - in_stages)
