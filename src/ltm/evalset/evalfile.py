"""The eval file: abilities, their item families and sizes, and a user's own items and tasks beside them.

Reads: `ltm_eval_set.yaml`, the one that comes with ltm or the user's own, or a task of lm-evaluation-harness as it is.
Every problem in it is told at once with file:line:column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ltm.config import Document, Section, read_yaml, validate
from ltm.evalset.frames import GENDER, NUMBER, PEOPLE, PLACES, THINGS, WORDS, Demonstration, Frame, forms_of, slots_of
from ltm.evalset.harness import HarnessTask, as_task
from ltm.evalset.language import Language, Noun, packaged
from ltm.evalset.own import Ability, OwnItems

PACKAGED = Path(__file__).parent.parent / "data" / "ltm_eval_set.yaml"
Builder = Literal[
    "scene_order", "suffix", "chapter_suffix", "name_recall", "coherence",
    "frames", "demonstrations", "rule_system",
    "two_streams", "deduction", "roles", "analogy", "passage", "short_answer",
]  # fmt: skip
Rule = Literal["choice", "pair", "contrast", "gain", "synergy", "likelihood", "bits_per_byte", "adapt", "generate"]
RULE_OF: dict[str, Rule] = {
    "scene_order": "pair",
    "suffix": "choice",
    "chapter_suffix": "choice",
    "name_recall": "choice",
    "coherence": "pair",
    "frames": "contrast",
    "demonstrations": "contrast",
    "rule_system": "adapt",
    "two_streams": "gain",
    "deduction": "synergy",
    "roles": "pair",
    "analogy": "contrast",
    "passage": "bits_per_byte",
    "short_answer": "generate",
}
_OF_FRAMES = ("frames", "deduction", "short_answer")  # builders that are told from `frames`
Words = Annotated[int, Field(ge=1, le=10_000)]


class Step(Section):
    """One step of a ladder of difficulty: what it changes of its family. What is left out stays as it is there."""

    context_words: Words | None = None
    """Words of the context."""
    option_words: Words | None = None
    """Words of the continuation."""
    gap_words: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Words between what must be remembered and where it is needed."""
    shots: Annotated[int, Field(ge=1, le=32)] | None = None
    """Examples that are shown."""


class Family(Section):
    """One kind of item."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
    """Short name, such as L1."""
    ability: Ability
    """What it is meant to measure: linking, transfer, synthesis, fluency, or a name of your own."""
    about: str | dict[str, str] = ""
    """The question in words; a text, or one by language."""
    builder: Builder
    """How items are made."""
    rule: Rule
    """How the probabilities of an item become one number."""
    items: Annotated[int, Field(ge=0, le=20_000)]
    """Items in each bank; 0 turns the family off."""
    level: Annotated[int, Field(ge=0, le=9)] = 0
    """Step on a ladder of difficulty that several families make together."""
    ladder: list[Step] = Field(default_factory=list)
    """Steps of difficulty inside the family, easiest first; items are spread over them evenly."""
    controls: Annotated[int, Field(ge=0, le=20_000)] = 0
    """How many of the items are also asked with a damaged distant context, once with its words shuffled and once with
    its nouns only; they count for no ability."""
    context_words: Words = 100
    """Words of the context in an item of full length."""
    option_words: Words = 40
    """Words of the continuation in an item of full length."""
    options: Annotated[int, Field(ge=2, le=10)] = 4
    """Options of a choice, the right one included."""
    gap_words: Annotated[int, Field(ge=0, le=10_000)] = 40
    """Words between what must be remembered and where it is needed: since the answer was last named (name recall),
    between the facts and the question (frames)."""
    shots: Annotated[int, Field(ge=1, le=32)] = 4
    """Examples that are shown before the question (demonstrations, analogy, rule system)."""
    alike: Literal["names", "words"] = "words"
    """What the wrong pieces share with the context as far as the right one does: names, which is easier, or all words
    (suffix, coherence)."""
    opening: bool = True
    """Whether the same opening, half of the context, stands before the paragraph that is replaced (coherence)."""
    frames: dict[str, list[Frame]] = Field(default_factory=dict)
    """Templates by language (frames, deduction, short answer)."""
    demonstrations: dict[str, list[Demonstration]] = Field(default_factory=dict)
    """Templates by language (demonstrations)."""
    lines: dict[str, list[str]] = Field(default_factory=dict)
    """The wording by language: of an analogy (its demonstration with `{1}` and `{=}`, and its question with `{1}`), of
    a rule system (the question with `{a}` and `{k}`, before a thing)."""
    min_parameters: Annotated[int, Field(ge=0)] = 0
    """Only models with at least so many parameters are asked (short answer)."""

    @model_validator(mode="after")
    def _valid(self) -> Family:
        if self.rule != RULE_OF[self.builder]:
            raise ValueError(f"the builder `{self.builder}` goes with the rule `{RULE_OF[self.builder]}`")
        needs = "demonstrations" if self.builder == "demonstrations" else "frames" if self.builder in _OF_FRAMES else ""
        if needs and not any(getattr(self, needs).values()):
            raise ValueError(f"the builder `{self.builder}` needs at least one template below `{needs}`")
        lines = {"analogy": 2, "rule_system": 1}.get(self.builder, 0)
        if lines and not (self.lines and all(len(texts) == lines for texts in self.lines.values())):
            raise ValueError(f"the builder `{self.builder}` needs {lines} text(s) by language below `lines`")
        if self.builder == "deduction" and any(len(f.facts) != 2 for frames in self.frames.values() for f in frames):
            raise ValueError("two-source deduction needs two facts in every template")
        return self

    def steps(self) -> list[tuple[int, Family]]:
        """Return the steps of the ladder as (level, family with that step's sizes)."""
        if not self.ladder:
            return [(self.level, self)]
        changes = [{k: v for k, v in step.model_dump().items() if v is not None} for step in self.ladder]
        return [(place, self.model_copy(update=change)) for place, change in enumerate(changes, start=1)]


class EvalFile(Section):
    """An eval file."""

    extends: Literal["ltm"] | None = None
    """`ltm`: begin with the families that come with ltm; a family of the same name below replaces one of them."""
    item_words: Words = 140
    """Words of the longest item that the sizes below are meant for; all sizes shrink and grow with the study's
    `evalset.context_words`."""
    fast_items: Annotated[int, Field(ge=0, le=20_000)] = 500
    """Items of each bank that also score checkpoints, spread evenly over families and books."""
    languages: dict[str, Language] = Field(default_factory=dict)
    """Language material by ISO 639-1 code, in place of what comes with ltm for English and Russian."""
    families: list[Family] = Field(default_factory=list)
    """The item families."""
    items: list[OwnItems] = Field(default_factory=list)
    """Items of your own, here or in JSONL or CSV files."""
    tasks: list[Annotated[HarnessTask, BeforeValidator(as_task)]] = Field(default_factory=list)
    """Tasks as lm-evaluation-harness writes them, here or in YAML files, with local data."""

    @field_validator("families")
    @classmethod
    def _unique(cls, families: list[Family]) -> list[Family]:
        names = [family.name for family in families]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"family names must differ; named twice: {', '.join(twice)}")
        return families

    @model_validator(mode="after")
    def _complete(self) -> EvalFile:
        if not (self.families or self.items or self.tasks):
            raise ValueError("holds no question: name `families`, `items` or `tasks`, or say `extends: ltm`")
        for family in self.families:
            for code, frames in family.frames.items():
                for frame in frames:
                    _check_material(f"{family.name}.{frame.name}", frame, self.language(code), code)
        return self

    def language(self, code: str) -> Language:
        """Return the material of a language, or neutral defaults for one that nobody describes."""
        return self.languages.get(code) or packaged(code)


def load(path: str | None) -> EvalFile:
    """Read an eval file; None means the one that comes with ltm.

    Raises:
        InputError: it cannot be read.
        ConfigError: it has problems; all are listed with file:line:column.
    """
    return validate(EvalFile, document(path))


def document(path: str | None) -> Document:
    """Read an eval file without looking at what it means; a bare harness task becomes one below `tasks`."""
    found = read_yaml(Path(path) if path else PACKAGED)
    if {"task", "dataset_path", "output_type"} & found.data.keys() and "families" not in found.data:
        places = {("tasks", 0, *where): at for where, at in found.positions.items()}
        return Document({"tasks": [found.data]}, {(): (1, 1), **places}, found.path)
    if found.data.get("extends") == "ltm":
        return _extended(found)
    return found


def _extended(found: Document) -> Document:
    """Put the packaged families before those of the file, so that its own keep their places."""
    base = read_yaml(PACKAGED).data
    own = list(found.data.get("families") or [])
    named = {family.get("name") for family in own if isinstance(family, dict)}
    kept = [family for family in base["families"] if family["name"] not in named]
    data: dict[str, Any] = {**base, **found.data, "families": [*own, *kept]}
    return Document(data, found.positions, found.path)


def _check_material(where: str, frame: Frame, language: Language, code: str) -> None:
    """Complain about words that a template needs and the language has not, in every form that is asked for."""
    texts = (*frame.facts, frame.ask, frame.answer)
    used = slots_of(*texts)
    if used & set(PEOPLE) and not (language.name_starts and language.name_ends and language.cases):
        raise ValueError(f"template {where} needs invented names for language `{code}`")
    for slots, nouns, key, few in ((THINGS, language.things, "things", 4), (PLACES, language.places, "places", 2)):
        if used & set(slots) and len(nouns) < few:
            raise ValueError(f"template {where} needs {few} or more `{key}` for language `{code}`")
        for slot, form in forms_of(*texts):
            if slot in slots:
                _check_form(where, nouns, form, code)
    _check_pairs(where, texts, language, code)
    if used & set(WORDS) and sum(len(words) for words in language.kinds.values()) < 8:
        raise ValueError(f"template {where} needs eight or more words below `kinds` for language `{code}`")
    for slot, form in forms_of(*texts):
        if slot in PEOPLE and any(form not in endings for endings in language.cases.values()):
            raise ValueError(f"template {where} asks for the case `{form}`, for which names of `{code}` have no ending")


def _check_pairs(where: str, texts: tuple[str, ...], language: Language, code: str) -> None:
    known = {GENDER: language.gender_pairs, NUMBER: language.number_pairs}
    for slots, key in ((GENDER, "gender_pairs"), (NUMBER, "number_pairs")):
        if slots_of(*texts) & set(slots) and len(known[slots]) < 4:
            raise ValueError(f"template {where} needs four or more `{key}` for language `{code}`")
        for slot, form in forms_of(*texts):
            if slot in slots:
                _check_form(where, [noun for pair in known[slots] for noun in pair], form, code)


def _check_form(where: str, nouns: list[Noun], form: str, code: str) -> None:
    lacking = next((noun.nom for noun in nouns if form not in noun.forms()), None)
    if lacking is not None:
        raise ValueError(f"template {where} asks for the form `{form}`, which `{lacking}` ({code}) has not")
