"""A study bound to its work folder: what `ltm.load` returns and what the command line calls.

Writes: `study.json`, the resolved settings and the overrides they were made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltm import config
from ltm.config import Document
from ltm.errors import ConfigError, InputError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.runs.queue import Recipe
from ltm.store import WorkFolder, read_json, write_json
from ltm.study.notes import Notes
from ltm.study.settings import STAGES, StudySettings, differences, find_study

# Sections that change how results are shown or what they cost, never what was trained or drawn.
_FREE_TO_CHANGE = ("budget", "dashboard", "forecast", "patterns", "scores", "question")


# Where files lie and how fast runs are trained; what the files hold is noticed by the stages themselves.
_WITHOUT_EFFECT = ("runs.workers:", "runs.retries:", "runs.checkpoint_seconds:", "books.path:", "books.manifest:")


class Study:
    """A study file bound to its work folder."""

    def __init__(
        self, settings: StudySettings, document: Document, work: WorkFolder, overrides: dict[str, Any]
    ) -> None:
        self.settings = settings
        self.document = document
        self.work = work
        self.overrides = overrides

    @property
    def recipe(self) -> Recipe:
        """What all runs of the study share."""
        return Recipe(self.settings.sets, self.settings.model, self.settings.runs)

    def check(self) -> list[str]:
        """Return everything that would stop the study, found without training anything; empty = fine."""
        return self.notes().problems

    def notes(self) -> Notes:
        """Return what would stop the study, and what is allowed but hardly meant."""
        from ltm.study.check import findings

        return findings(self.settings, self.document)

    def plan(self, progress: Progress | None = None) -> dict[str, Any]:
        """Return the bill before the meal: time, disk, memory, energy, money, and what the study can find out."""
        from ltm.study.plan import plan

        return plan(self.settings, self.work, progress or Progress(quiet=True))

    def status(self) -> dict[str, Any]:
        """Return states, time left and time spent, from the work folder alone."""
        from ltm.study.status import status

        return status(self.settings, self.work)

    def run(
        self,
        until: str = "dashboard",
        progress: Progress | None = None,
        accept_changes: bool = False,
        over_budget: bool = False,
    ) -> dict[str, Any]:
        """Build every stage that is not up to date, as far as `until`; a finished study is left as it is.

        Args:
            until: The last stage.
            progress: Told what happens.
            accept_changes: Go on in a work folder that was made with other settings.
            over_budget: Do not hold the study to its budget.

        Returns:
            `built`: the stages that had to be built; `failed_runs`: run id -> its error.

        Raises:
            BudgetError: the budget is reached, or the forecast is above it; what was complete stays.
            LtmError: a stage cannot be built; what was complete stays.
        """
        from ltm.study.build import Builder

        progress = progress or Progress()
        notes = self.notes()
        if notes.problems:
            raise ConfigError(notes.problems, "`ltm check STUDY` lists the same")
        for warning in notes.warnings:
            progress.say(f"warning: {warning}")
        with self.work.lock():
            self._record(accept_changes)
            builder = Builder(self.settings, self.work, progress, over_budget)
            return builder.build(STAGES[: STAGES.index(until) + 1])

    def jobs(self) -> list[queue.Job]:
        """Return the runs that the study asks for, once its design stands."""
        return queue.read_jobs(self.work)[1]

    def _record(self, accept_changes: bool) -> None:
        path = self.work.path("study.json")
        value = {**json.loads(self.settings.model_dump_json()), "overrides": self.overrides}
        old = read_json(path) if path.exists() else value
        skipped = {*_FREE_TO_CHANGE, "overrides", "work"}
        before, after = ({k: v for k, v in side.items() if k not in skipped} for side in (old, value))
        changed = differences(before, after)
        changed = [line for line in changed if not line.startswith(_WITHOUT_EFFECT)]
        if changed and not accept_changes and self.work.path("runs", "jobs.json").exists():
            raise InputError(
                f"{self.work.root} was made with other settings:\n  " + "\n  ".join(changed),
                "give the same --set again, choose another --work, or add --accept-changes "
                "(what the change does not touch is kept)",
            )
        if not path.exists() or old != value:
            write_json(path, value)


def load(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    work: str | None = None,
    recorded: bool = False,
) -> Study:
    """Return the study that a file describes.

    Args:
        path: A YAML file, or the name of a study that comes with ltm (`demo`).
        overrides: Settings laid over the file: a mapping, or `section.key=value` texts.
        work: Work folder, in place of the study's own.
        recorded: Without overrides, take those that the work folder was made with.

    Raises:
        InputError: there is no such file.
        ConfigError: lists everything wrong with it.
    """
    original = config.read_yaml(find_study(path))
    given = config.parse_overrides(overrides)
    document = config.apply_overrides(original, given)
    settings = _validated(document)
    folder = _work_folder(settings, work)
    if recorded and not given and folder.path("study.json").exists():
        given = dict(read_json(folder.path("study.json")).get("overrides", {}))
        document = config.apply_overrides(original, given)
        settings = _validated(document)
    return Study(settings, document, folder, given)


def _validated(document: Document) -> StudySettings:
    try:
        return config.validate(StudySettings, document)
    except ConfigError as error:
        from ltm.study.check_file import everything_wrong

        raise ConfigError(everything_wrong(document), error.hint) from None


def _work_folder(settings: StudySettings, work: str | None) -> WorkFolder:
    return WorkFolder(Path(work or settings.work or Path("work") / settings.name))
