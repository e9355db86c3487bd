"""What every tracker is: something that keeps a copy of a run, and may be handed the same run again.

A tracker's file is the only place that imports its package.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ltm.errors import MissingPartError

NEEDS = {  # what each needs to be installed; each is an extra of the same name
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


@dataclass(frozen=True)
class TrackedRun:
    """One finished run as trackers keep it.

    Args:
        key: Its id there, derived from the run's id, so that a copy is replaced and never doubled.
        run_id: Its id here.
        name: What people read: arm, order, gaps, seed.
        group: Name of the study.
        kind: The block's template.
        tags: For filters.
        config: Everything that it was made from, and where; flat, by dotted name.
        curve: Tokens seen, and the loss since the point before in nats per token.
        summary: Final loss, speed, time; scores by `ability/family`.
        started: Seconds since 1970.
        finished: The same.
    """

    key: str
    run_id: str
    name: str
    group: str
    kind: str
    tags: list[str]
    config: dict[str, Any]
    curve: list[tuple[int, float]]
    summary: dict[str, float]
    started: float
    finished: float


@dataclass(frozen=True)
class TrackedStudy:
    """The study itself as trackers keep it: one entry beside its runs.

    Args:
        key: Its id there.
        name: Of the study.
        question: What it asks.
        config: Its settings, flat.
        summary: Counts.
        page: The result page, once there is one.
        at: When it was last touched, in seconds since 1970.
    """

    key: str
    name: str
    question: str
    config: dict[str, Any]
    summary: dict[str, float]
    page: Path | None = None
    at: float = 0.0
    tags: list[str] = field(default_factory=lambda: ["study"])


class Tracker(Protocol):
    """Keeps copies; every call may be repeated with the same or a fuller copy."""

    def write_run(self, run: TrackedRun) -> None:
        """Keep a run; an earlier copy of it is replaced or completed."""

    def write_study(self, study: TrackedStudy) -> None:
        """Keep the study and its page."""

    def close(self) -> None:
        """Finish what is still under way."""


def missing(name: str) -> str | None:
    """Return the line that installs what a tracker needs; None where it is there. Imports nothing."""
    if all(importlib.util.find_spec(package) is not None for package in NEEDS[name]):
        return None
    return f"pip install 'ltm[{name}]'"


def open_tracker(name: str, settings: dict[str, Any], study: str, folder: Path) -> Tracker:
    """Return a tracker that is ready.

    Args:
        name: One of `NEEDS`.
        settings: Its section, as plain values.
        study: The study's name, where no project is named.
        folder: Its own folder in the work folder.

    Raises:
        MissingPartError: its package is not installed.
    """
    line = missing(name)
    if line:
        raise MissingPartError(f"the tracker {name} is not installed", line)
    module: Any = importlib.import_module(f"ltm.runs.trackers.{name}")
    tracker: Tracker = module.open_tracker(settings, study, folder)
    return tracker
