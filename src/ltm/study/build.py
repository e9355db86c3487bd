"""Build what is not up to date: the stages in the order in which data flows.

Writes: `timings.json` (seconds by stage, over all starts), and each stage's files through the stage. A stage is built
when its inputs (settings, code version, what the stages before it made) differ from those its marker names.
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
from ltm.study.plan import write_forecast
from ltm.study.settings import StudySettings

# What each stage reads of the stages before it.
_NEEDS: dict[str, tuple[str, ...]] = {
    "books": (),
    "sets": ("books",),
    "tokens": ("books", "sets"),
    "evalset": ("books",),
    "runs": ("sets", "tokens"),
    "scores": ("evalset", "runs"),
    "patterns": ("books", "sets", "scores"),
    "dashboard": ("books", "sets", "evalset", "runs", "scores", "patterns"),
}


class Builder:
    """One pass over the stages; knows what each was made from."""

    def __init__(self, settings: StudySettings, work: WorkFolder, progress: Progress) -> None:
        self.settings, self.work, self.progress = settings, work, progress
        self.built: list[str] = []
        self.outputs: dict[str, str] = {}
        self.jobs: list[queue.Job] = []
        self._stack = contextlib.ExitStack()
        self._pool: Any = None

    def build(self, stages: Sequence[str]) -> dict[str, Any]:
        """Build the stages; returns what was built and which runs failed."""
        with self._stack:
            if "runs" in stages:
                write_forecast(self.settings, self.work, self._workers, self.progress)
            for name in stages:
                self.progress.seconds_ahead = self._seconds_after(name, stages)
                if name == "runs":
                    self._runs()
                else:
                    self._stage(name)
        return {"built": self.built, "failed_runs": queue.failures(self.work, self.jobs)}

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
        inputs = self._inputs(name, section, stage)
        if self.work.output_of(name, inputs) is None or self._is_missing(name):
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

    def _is_missing(self, name: str) -> bool:
        """Return whether the page was deleted; it is the one thing that a user moves away."""
        if name != "dashboard":
            return False
        from ltm.dashboard.stage import page_path

        return not page_path(self.settings.dashboard, self.work).exists()

    def _inputs(self, name: str, section: Section, stage: Any) -> str:
        own = stage.inputs(section) if hasattr(stage, "inputs") else None
        needs = [self.outputs[key] for key in _NEEDS[name]]
        about = [self.settings.name, self.settings.question] if name == "dashboard" else []
        settings = section.model_dump(exclude={"path", "manifest"})  # what files are matters, not where
        return fingerprint([name, stage.VERSION, settings, self.settings.seed, own, needs, about])

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
        timings = read_json(path) if path.exists() else {"stages": {}}
        _bank_interrupted(self.work, timings)
        start = time.time()
        write_json(path, {"stages": timings["stages"], "current": {"stage": name, "started": start}})
        try:
            yield
        finally:
            timings["stages"][name] = timings["stages"].get(name, 0.0) + time.time() - start
            write_json(path, {"stages": timings["stages"], "current": None})
        self.built.append(name)


def _bank_interrupted(work: WorkFolder, timings: dict[str, Any]) -> None:
    """Count the time of a start that was killed: from its beginning to the last sign of life in the folder."""
    current = timings.get("current")
    if not current:
        return
    signs = [*work.root.glob("runs/*/*.json"), *work.root.glob("scores/*.parquet"), work.path("timings.json")]
    last = max((path.stat().st_mtime for path in signs if path.exists()), default=current["started"])
    spent = max(0.0, last - current["started"])
    timings["stages"][current["stage"]] = timings["stages"].get(current["stage"], 0.0) + spent
