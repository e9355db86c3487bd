"""MLflow: one MLflow run for each run, found again by its tag; the result page is an artifact of the study's run.

Writes: by default `trackers/mlflow/mlflow.db` (SQLite) and `trackers/mlflow/artifacts/`; else whatever the tracking
store does. Points carry the run's own clock: MLflow keeps a point that it already has once.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent that the study does not ask for
os.environ.setdefault("DO_NOT_TRACK", "true")

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from ltm.runs.trackers.base import TrackedRun, TrackedStudy, Tracker

_KEY = "ltm.key"
_MOST_PER_CALL = 100  # parameters; MLflow's own limit
_LONGEST_VALUE = 6000  # characters of a parameter; MLflow's own limit
_METRICS_PER_CALL = 1000


class MlflowTracker:
    """Hands runs to MLflow."""

    def __init__(self, settings: dict[str, Any], study: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("alembic", "mlflow"):  # they tell of every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        own = settings["uri"] is None
        self.client = MlflowClient(tracking_uri=settings["uri"] or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        name = settings["experiment"] or study
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            self.experiment_id = experiment.experiment_id
        else:
            artifacts = (folder.resolve() / "artifacts").as_uri() if own else None
            self.experiment_id = self.client.create_experiment(name, artifact_location=artifacts)

    def write_run(self, run: TrackedRun) -> None:
        """Keep a run: parameters, loss by tokens seen, scores at the last step."""
        tags = {"ltm.kind": run.kind, "ltm.study": run.group, "ltm.run_id": run.run_id, "ltm.tags": ", ".join(run.tags)}
        there = self._run(run.key, run.name, run.started, tags)
        last = run.curve[-1][0] if run.curve else 0
        passed = run.finished - run.started
        metrics = [
            Metric("loss", loss, _ms(run.started + passed * tokens / last), tokens) for tokens, loss in run.curve
        ]
        metrics += [Metric(name, value, _ms(run.finished), last) for name, value in run.summary.items()]
        self._params(there, run.config)
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self.client.log_batch(there, metrics=metrics[start : start + _METRICS_PER_CALL])
        self.client.set_terminated(there, "FINISHED", _ms(run.finished))

    def write_study(self, study: TrackedStudy) -> None:
        """Keep the study and its page."""
        tags = {"ltm.kind": "study", "ltm.study": study.name, "mlflow.note.content": study.question}
        there = self._run(study.key, study.name, study.at, tags)
        self._params(there, study.config)
        metrics = [Metric(name, value, _ms(study.at), 0) for name, value in study.summary.items()]
        self.client.log_batch(there, metrics=metrics)
        if study.page is not None:
            self.client.log_artifact(there, str(study.page))
        self.client.set_terminated(there, "FINISHED", _ms(study.at))

    def close(self) -> None:
        """Do nothing: every call is whole."""

    def _run(self, key: str, name: str, started: float, tags: dict[str, str]) -> str:
        """Return MLflow's id of our run; it is made where there is none."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{_KEY}` = '{key}'", max_results=1)
        if found:
            for tag, value in tags.items():
                self.client.set_tag(found[0].info.run_id, tag, value)
            return str(found[0].info.run_id)
        made = self.client.create_run(self.experiment_id, _ms(started), {_KEY: key, **tags}, name)
        return str(made.info.run_id)

    def _params(self, there: str, config: dict[str, Any]) -> None:
        """Keep settings; MLflow refuses to change one, so those that are there stay."""
        known = self.client.get_run(there).data.params
        params = [
            Param(_param_name(key), _text(value)[:_LONGEST_VALUE])
            for key, value in config.items()
            if _param_name(key) not in known
        ]
        for start in range(0, len(params), _MOST_PER_CALL):
            self.client.log_batch(there, params=params[start : start + _MOST_PER_CALL])


def _param_name(key: str) -> str:
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in key)[:250]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def open_tracker(settings: dict[str, Any], study: str, folder: Path) -> Tracker:
    """Return the tracker."""
    return MlflowTracker(settings, study, folder)
