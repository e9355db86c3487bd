"""Trackio: a local SQLite file that `trackio show` draws.

Writes: `trackers/trackio/<project>.db`. Points carry ids of their own, so that a run that is handed over again adds
what is new and doubles nothing. Its storage class is used in place of `trackio.init`, which watches the machine and
cannot be told when a point was made.
"""

from __future__ import annotations

import datetime
import os
import shutil
from pathlib import Path
from typing import Any

from ltm.runs.trackers.base import TrackedRun, TrackedStudy, Tracker


class TrackioTracker:
    """Writes runs into Trackio's storage."""

    def __init__(self, settings: dict[str, Any], study: str, folder: Path) -> None:
        self.project, self.folder = settings["project"] or study, folder
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TRACKIO_DIR"] = str(folder.resolve())  # read when trackio is imported
        from trackio.sqlite_storage import SQLiteStorage

        self.storage = SQLiteStorage
        self.storage.validate_project_name(self.project)

    def write_run(self, run: TrackedRun) -> None:
        """Keep a run: its curve, then its scores at its last step."""
        points: list[dict[str, Any]] = [{"tokens": tokens, "loss": loss} for tokens, loss in run.curve]
        steps = [tokens for tokens, _ in run.curve]
        last = steps[-1] if steps else 0
        for name, value in run.summary.items():
            points.append({name: value})
            steps.append(last)
        names = [f"{run.key}/{step}" for step, _ in run.curve] + [
            f"{run.key}/{name}/{v}" for name, v in run.summary.items()
        ]
        times = [_time(run, step, last) for step in steps]
        config = {**run.config, "_Group": run.group, "tags": run.tags, "kind": run.kind}
        config |= {"_Created": _iso(run.started), "_Username": None}
        self.storage.bulk_log(self.project, run.name, points, steps, times, config, names, run_id=run.key)

    def write_study(self, study: TrackedStudy) -> None:
        """Keep the study's counts and settings; the page is copied beside the database."""
        config = {**study.config, "_Group": study.name, "question": study.question, "_Created": _iso(study.at)}
        names = [f"{study.key}/{study.at}/{name}/{value}" for name, value in study.summary.items()]
        points = [{name: value} for name, value in study.summary.items()]
        times = [_iso(study.at)] * len(points)
        self.storage.bulk_log(
            self.project, study.name, points, [0] * len(points), times, config, names, run_id=study.key
        )
        if study.page is not None:
            files = self.folder / "media" / self.project / "files"
            files.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(study.page, files / study.page.name)

    def close(self) -> None:
        """Do nothing: every call is whole."""


def _time(run: TrackedRun, step: int, last: int) -> str:
    """Return when a point was made, to the run's own clock."""
    return _iso(run.started + (run.finished - run.started) * (step / last if last else 1.0))


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def open_tracker(settings: dict[str, Any], study: str, folder: Path) -> Tracker:
    """Return the tracker."""
    return TrackioTracker(settings, study, folder)
