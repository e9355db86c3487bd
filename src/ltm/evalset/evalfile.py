"""The eval file: abilities, their item families, sizes, and the language material of the templates.

Reads: `ltm_eval_set.yaml`, the one that comes with ltm or the user's own. Every problem in it is told at once with
file:line:column.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ltm.config import Section, read_yaml, validate

PACKAGED = Path(__file__).parent.parent / "data" / "ltm_eval_set.yaml"
Builder = Literal["scene_order", "suffix", "name_recall", "coherence", "frames", "two_streams", "passage"]
Rule = Literal["choice", "pair", "contrast", "gain", "bits_per_byte"]
RULE_OF: dict[str, Rule] = {
    "scene_order": "pair",
    "suffix": "choice",
    "name_recall": "choice",
    "coherence": "pair",
    "frames": "contrast",
    "two_streams": "gain",
    "passage": "bits_per_byte",
}
SLOT = re.compile(r"\{(?P<slot>\w+)(?:\.(?P<form>\w+))?(?::(?P<agree>[^{}]*))?\}")
SLOTS = {"a": "b", "b": "a", "o": "p", "p": "o", "x": "y", "y": "x", "u": "v", "v": "u"}  # each with its counterpart
Words = Annotated[int, Field(ge=1, le=10_000)]


class Noun(Section):
    """A thing that people of the templates own: its forms and its gender."""

    nom: str
    """The word as the subject of a sentence."""
    acc: str | None = None
    """The word as an object; the same as `nom` where it is left out."""
    gender: Literal["m", "f", "n"] = "n"
    """What a verb or an adjective agrees with."""


class Language(Section):
    """What the builders need to know of one language."""

    words_scale: Annotated[float, Field(gt=0, le=2)] = 0.8
    """Length of items in this language relative to English, since its words take more tokens."""
    neutral: str = "* * *"
    """A short context that says nothing; options are compared with their probability after it."""
    fillers: list[str] = Field(default_factory=list)
    """Sentences that say nothing about people and things, put between the facts and the question."""
    name_starts: list[str] = Field(default_factory=list)
    """First halves of invented names."""
    name_ends: dict[Literal["m", "f"], list[str]] = Field(default_factory=dict)
    """Second halves of invented names by gender, without the ending of the case."""
    cases: dict[Literal["m", "f"], dict[str, str]] = Field(default_factory=dict)
    """Ending of each case by gender."""
    objects: list[Noun] = Field(default_factory=list)
    """Things of the templates."""


class Frame(Section):
    """One template: facts, a question, and the answer that the facts decide.

    Slots: `{a}` `{b}` people, `{o}` `{p}` things, `{u}` `{v}` `{x}` `{y}` words of the training books; `{o.acc}` a
    case, `{a:he|she}` a word that agrees with the gender (m|f for people, m|f|n for things), `{O}` a capital.
    """

    name: str
    """Name of the template; items of one template are one cluster."""
    facts: list[str]
    """Sentences before the question; the other premise is the same text with the answer and its counterpart swapped."""
    ask: str
    """Beginning of the sentence that the answer ends; it holds neither the answer nor its counterpart."""
    answer: str
    """The slot that is right after the facts, for example `{a.gen}`."""
    order: Literal["any", "fixed"] = "any"
    """Whether half of the items tell the facts in the other order, so that what came last is no hint."""

    @model_validator(mode="after")
    def _valid(self) -> Frame:
        answer = SLOT.fullmatch(self.answer)
        if answer is None:
            raise ValueError(f"`answer` must be one slot such as {{a}}, not {self.answer!r}")
        for text in (*self.facts, self.ask, self.answer):
            for match in SLOT.finditer(text):
                if match["slot"].lower() not in SLOTS:
                    raise ValueError(f"unknown slot {match[0]}; known: {', '.join(sorted(SLOTS))}")
            if re.search(r"[{}]", SLOT.sub("", text)):
                raise ValueError(f"a slot is not closed in {text!r}")
        swapped = {answer["slot"].lower(), SLOTS[answer["slot"].lower()]}
        told = {m["slot"].lower() for m in SLOT.finditer(self.ask) if not m["agree"]}
        if told & swapped:
            raise ValueError("`ask` must not name the answer or its counterpart")
        if not swapped <= {m["slot"].lower() for fact in self.facts for m in SLOT.finditer(fact)}:
            raise ValueError("`facts` must name both the answer and its counterpart")
        return self


class Family(Section):
    """One kind of item."""

    name: str
    """Short name, such as L1."""
    ability: Literal["linking", "transfer", "synthesis", "fluency"]
    """What it is meant to measure."""
    about: str = ""
    """The question in words."""
    builder: Builder
    """How items are made."""
    rule: Rule
    """How the probabilities of an item become one number."""
    items: Annotated[int, Field(ge=0, le=20_000)]
    """Items in each bank; 0 turns the family off."""
    context_words: Words = 100
    """Words of the context in an item of full length."""
    option_words: Words = 40
    """Words of the continuation in an item of full length."""
    options: Annotated[int, Field(ge=2, le=10)] = 4
    """Options of a choice, the right one included."""
    gap_words: Words = 40
    """Words since the answer was last named (name recall)."""
    cut: Literal["sentence", "word"] = "sentence"
    """Where scenes and suffixes are cut: between sentences, or after any word, which is easier: the broken sentence
    helps (scene order, suffix)."""
    frames: dict[str, list[Frame]] = Field(default_factory=dict)
    """Templates by language (frames)."""

    @model_validator(mode="after")
    def _valid(self) -> Family:
        if self.rule != RULE_OF[self.builder]:
            raise ValueError(f"the builder `{self.builder}` goes with the rule `{RULE_OF[self.builder]}`")
        if self.builder == "frames" and not any(self.frames.values()):
            raise ValueError("the builder `frames` needs at least one template below `frames`")
        return self


class EvalFile(Section):
    """An eval file."""

    item_words: Words = 140
    """Words of the longest item that the sizes below are meant for; all sizes shrink and grow with the study's
    `evalset.context_words`."""
    languages: dict[str, Language] = Field(default_factory=dict)
    """Language material by ISO 639-1 code."""
    families: Annotated[list[Family], Field(min_length=1)]
    """The item families."""

    @field_validator("families")
    @classmethod
    def _unique(cls, families: list[Family]) -> list[Family]:
        names = [family.name for family in families]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"family names must differ; named twice: {', '.join(twice)}")
        return families

    @model_validator(mode="after")
    def _material(self) -> EvalFile:
        for family in self.families:
            for code, frames in family.frames.items():
                language = self.language(code)
                used = {m["slot"].lower() for frame in frames for fact in frame.facts for m in SLOT.finditer(fact)}
                if used & {"a", "b"} and not (language.name_starts and language.name_ends and language.cases):
                    raise ValueError(f"family {family.name} needs invented names for language `{code}`")
                if used & {"o", "p"} and len(language.objects) < 2:
                    raise ValueError(f"family {family.name} needs two or more objects for language `{code}`")
        return self

    def language(self, code: str) -> Language:
        """Return the material of a language, or neutral defaults for one that the file does not name."""
        return self.languages.get(code, Language())


def load(path: str | None) -> EvalFile:
    """Read an eval file; None means the one that comes with ltm.

    Raises:
        InputError: it cannot be read.
        ConfigError: it has problems; all are listed with file:line:column.
    """
    return validate(EvalFile, read_yaml(Path(path) if path else PACKAGED))
