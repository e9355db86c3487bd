"""A study bound to its work folder: what `ltm.load` returns and what the command line calls.

Writes: `study.json`, the resolved settings and the overrides they were made with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm import config
from ltm.config import Document
from ltm.errors import ConfigError, InputError, StoreError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.runs.queue import Recipe
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json, write_json
from ltm.study import edits
from ltm.study.notes import Notes
from ltm.study.rounds import Rounds
from ltm.study.settings import STAGES, StudySettings, find_study
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity

if TYPE_CHECKING:
    from ltm.dashboard.notebook import Figures


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

        self._need_base()
        return plan(self.settings, self.work, progress or Progress(quiet=True))

    def plan_card(self, gpu: str, gpus: int = 1) -> dict[str, Any]:
        """Return what the study takes on cards of one kind that need not be here; see `ltm.study.plan_card`."""
        from ltm.study.plan_card import plan_card

        return plan_card(self.settings, gpu, gpus)

    def _need_base(self) -> None:
        """Complain where the base model is not on this disk.

        Raises:
            InputError: it is not.
        """
        model = self.settings.model
        if model.base is not None and not model.is_here:
            raise InputError(
                f"model.base {model.base} is not on this disk",
                "download it there; `ltm plan STUDY --gpu CARD` needs no base, --set recipe.toy=true makes a small one",
            )

    @property
    def figures(self) -> Figures:
        """The figures of the result page, for notebooks: `study.figures.book_effects()`, `dir(study.figures)`."""
        from ltm.dashboard.notebook import Figures

        return Figures(self.work, self.settings.dashboard.language)

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
        most: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """Build every stage that is not up to date, as far as `until`; a finished study is left as it is.

        Args:
            until: The last stage.
            progress: Told what happens.
            accept_changes: Go on in a work folder that was made with other settings.
            over_budget: Do not hold the study to its budget.
            most: `hours`, `usd` or `kwh` after which this start stops; the next one goes on.

        Returns:
            `built`: the stages that had to be built; `failed_runs`: run id -> its error.

        Raises:
            BudgetError: the budget is reached, or the forecast is above it; what was complete stays.
            LtmError: a stage cannot be built; what was complete stays.
        """
        from ltm.dashboard.stage import page_path
        from ltm.runs.trackers.driver import following
        from ltm.study.build import Builder
        from ltm.study.together import together

        progress = progress or Progress()
        notes = self.notes()
        if notes.problems:
            raise ConfigError(notes.problems, "`ltm check STUDY` lists the same")
        self._need_base()
        for warning in notes.warnings:
            progress.say(f"warning: {warning}")

        def build() -> dict[str, Any]:
            self._record(accept_changes, progress)
            builder = Builder(self.settings, self.work, progress, over_budget, most)
            page = page_path(self.settings.dashboard, self.work)
            with following(self.settings.trackers, self.settings.name, self.work, page, progress):
                return builder.build(STAGES[: STAGES.index(until) + 1])

        def lead() -> dict[str, Any]:
            return self._lead(build, until, progress)

        if self.settings.runs.executor == "crew":
            return together(self.settings.runs, self.work, lead, progress)
        return lead()

    def _lead(self, build: Callable[[], dict[str, Any]], until: str, progress: Progress) -> dict[str, Any]:
        """Build the study with the work folder in hand."""
        from ltm.runs.executors.crew import announce
        from ltm.runs.pause import go_on
        from ltm.study.keep import prune
        from ltm.study.mend import with_mending

        crew = self.settings.runs.executor == "crew"
        with self.work.lock():
            if crew:
                announce(self.work, over=False)
            if go_on(self.work):
                progress.say("the study was paused; it goes on")
            result = with_mending(self.work, progress, build)
            if until == STAGES[-1]:
                prune(self.work, self.settings.runs.keep_weights, progress)
            if crew:
                announce(self.work, over=True)
            return result

    def jobs(self) -> list[queue.Job]:
        """Return the runs that the study asks for, once its design stands."""
        return queue.read_jobs(self.work)[1]

    def jobs_by_settings(self) -> set[str]:
        """Return the ids of the runs that the settings ask for of the stored design, whatever the queue says."""
        variants, shards = read_variants(self.work), read_shards(self.work)
        return {job.run_id for job in Rounds(self.settings, self.work).jobs(variants, identity(self.work), shards)}

    def _record(self, accept_changes: bool, progress: Progress) -> None:
        """Store the settings, unless they would make finished work useless and nobody said that they may."""
        edit = edits.look(self.settings, self.document, self.work)
        edits.allow(edit, accept_changes, self.work)
        if edit.changed or edit.causes:
            edits.keep_earlier(self.work, edit)
            progress.say("\n  ".join(["the study was edited:", *edit.in_words()]))
        path = self.work.path("study.json")
        value = {**json.loads(self.settings.model_dump_json()), "overrides": self.overrides}
        if _stored(self.work) != value:
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
    document = _shrunk(config.apply_overrides(original, given))
    settings = _validated(document)
    folder = _work_folder(settings, work)
    folder.check_version()
    if recorded and not given and (stored := _stored(folder)):
        given = dict(stored.get("overrides", {}))
        document = _shrunk(config.apply_overrides(original, given))
        settings = _validated(document)
    return Study(settings, document, folder, given)


def _shrunk(document: Document) -> Document:
    """Return the document of a toy study where it asks for that."""
    from ltm.study import toy

    if not toy.wanted(document.data):
        return document
    return Document(toy.shrink(document.data), document.positions, document.path)


def recorded(work: WorkFolder) -> Study:
    """Return the study of a work folder alone, with the settings that it was made with.

    Raises:
        StoreError: it has none, or they are damaged.
        ConfigError: they are those of an ltm that cannot be read any more.
    """
    work.check_version()
    data = {key: value for key, value in read_json(work.path("study.json")).items() if key != "overrides"}
    document = Document(data, {}, str(work.path("study.json")))
    return Study(_validated(document), document, work, {})


def _stored(work: WorkFolder) -> dict[str, Any]:
    """Return the settings that the work folder was made with; nothing where there are none, or they are damaged."""
    try:
        value: dict[str, Any] = read_json(work.path("study.json"))
    except StoreError:
        return {}
    return value


def _validated(document: Document) -> StudySettings:
    try:
        return config.validate(StudySettings, document)
    except ConfigError as error:
        from ltm.study.check_file import everything_wrong

        raise ConfigError(everything_wrong(document), error.hint) from None


def _work_folder(settings: StudySettings, work: str | None) -> WorkFolder:
    return WorkFolder(Path(work or settings.work or Path("work") / settings.name))
