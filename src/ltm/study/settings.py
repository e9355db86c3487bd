"""All settings of a study, composed from the sections of the rooms; nothing else knows more than one of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ltm.books.section import BooksSection
from ltm.config import Section
from ltm.dashboard.section import DashboardSection
from ltm.dialogue.section import DialogueSection
from ltm.errors import ConfigError, InputError
from ltm.evalset.section import EvalsetSection
from ltm.forecast.section import BudgetSection, ForecastSection
from ltm.model.base import base_tokenizer
from ltm.model.section import ModelSection
from ltm.patterns.section import PatternsSection
from ltm.runs.section import RunsSection
from ltm.runs.trackers.section import TrackersSection
from ltm.scores.section import ScoresSection
from ltm.sets.section import SetsSection
from ltm.study.rounds_section import RoundsSection
from ltm.tokens.section import TokensSection

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
STAGES = ("books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dialogue", "dashboard")


class RecipeSection(Section):
    """How a study file is read."""

    toy: bool = False
    """Shrink it: the same path, small enough for a minute or two on two CPU cores, with nothing to fetch first."""


class StudySettings(Section):
    """One question, and everything that is done to answer it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Short name: letters, digits, `-`, `_`, `.`; the work folder is called after it."""
    question: str = ""
    """What the study asks, in a sentence; stands on top of the result page."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of everything that is drawn: the same study with the same seed is the same study."""
    work: str | None = None
    """Work folder, from the current directory; by default `work/<name>`."""
    books: BooksSection = BooksSection()
    """The library."""
    sets: SetsSection = SetsSection()
    """The training sets that are drawn from it."""
    rounds: RoundsSection = RoundsSection()
    """Whether the study learns in rounds."""
    tokens: TokensSection = TokensSection()
    """The tokenizer."""
    model: ModelSection = ModelSection()
    """The micro model."""
    runs: RunsSection = RunsSection()
    """How it is trained."""
    evalset: EvalsetSection = EvalsetSection()
    """What it is asked."""
    scores: ScoresSection = ScoresSection()
    """When an ability counts as measured."""
    patterns: PatternsSection = PatternsSection()
    """How sure a finding has to be."""
    recipe: RecipeSection = RecipeSection()
    """How this file is read."""
    dialogue: DialogueSection = DialogueSection()
    """What the best models learn besides."""
    dashboard: DashboardSection = DashboardSection()
    """The result page."""
    forecast: ForecastSection = ForecastSection()
    """What an hour costs."""
    budget: BudgetSection = BudgetSection()
    """What the study may cost."""
    trackers: TrackersSection = TrackersSection()
    """Other programs that get a copy of its runs."""

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_base(cls, data: Any) -> Any:
        """A model that was trained before brings its tokenizer with it."""
        model = data.get("model") if isinstance(data, dict) else None
        base = model.get("base") if isinstance(model, dict) else None
        tokens = data.get("tokens") or {} if isinstance(data, dict) else {}
        if (
            not isinstance(base, str)
            or not Path(base).is_dir()
            or not isinstance(tokens, dict)
            or tokens.get("tokenizer") is not None
        ):
            return data
        return {**data, "tokens": {**tokens, "tokenizer": str(base_tokenizer(Path(base)))}}


def changed_settings(settings: StudySettings, changes: Mapping[str, Any]) -> StudySettings:
    """Return the settings with some `section.key` changed.

    Raises:
        ConfigError: a key is unknown, or a value does not fit.
    """
    from pydantic import ValidationError

    values = settings.model_dump()
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        target: Any = values
        for key in path:
            target = target.get(key) if isinstance(target, dict) else None
        if not isinstance(target, dict) or last not in target:
            raise ConfigError([f"{dotted}: no such setting"], "keys are `section.key`, as for --set")
        target[last] = value
    try:
        return StudySettings.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(problems, "see `ltm schema`") from None


def find_study(path: str | Path) -> Path:
    """Return the file of a study: the path itself, or the study of that name inside the package.

    Raises:
        InputError: there is neither.
    """
    given = Path(path)
    if given.exists() or given.suffix in (".yaml", ".yml"):
        return given
    folder = Path(str(files("ltm"))) / "data" / "studies"
    packaged = folder / f"{given.name}.yaml"
    if given.name == str(path) and packaged.exists():
        return packaged
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
    raise InputError(f"no such study: {path}", f"name a .yaml file, or a study that comes with ltm: {known}")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `section.key: old -> new` for every setting that differs."""
    lines = []
    for key in sorted(set(old) | set(new)):
        one, two = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            lines += differences(one, two, f"{prefix}{key}.")
        elif one != two:
            lines.append(f"{prefix}{key}: {one} -> {two}")
    return lines
