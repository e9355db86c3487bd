"""What the builders need to know of a language: words with their forms, invented names, signs of nouns and verbs.

Reads: `data/languages/<code>.yaml` for the languages that come with ltm; an eval file may bring its own. Every form
that a template can ask for is written out - no rule of grammar is applied to a word - so that a reader of the file can
see and mend whatever will be printed. The Russian forms were made with pymorphy3 and read over.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ltm.config import Section, read_yaml, validate

FOLDER = Path(__file__).parent.parent / "data" / "languages"
Gender = Literal["m", "f", "n"]
Forms = dict[str, str]


class Noun(Section):
    """A thing, a place, an animal: its forms and its gender."""

    nom: str
    """The word as the subject of a sentence."""
    gender: Gender = "n"
    """What a verb or an adjective agrees with."""
    acc: str | None = None
    """As an object; the same as `nom` where it is left out."""
    gen: str | None = None
    """Genitive."""
    dat: str | None = None
    """Dative."""
    ind: str | None = None
    """With an indefinite article, in languages that have one: `an axe`."""
    loc: str | None = None
    """Where, with its preposition: `in the tower`."""
    to: str | None = None
    """Where to, with its preposition: `to the tower`."""

    def forms(self) -> Forms:
        """Return the forms that are known, by name."""
        known = {"nom": self.nom, "acc": self.acc or self.nom}
        extra = {name: getattr(self, name) for name in ("gen", "dat", "ind", "loc", "to")}
        return {**known, **{name: form for name, form in extra.items() if form}}


def _as_noun(value: Any) -> Any:
    return {"nom": value} if isinstance(value, str) else value


Nouns = list[Annotated[Noun, BeforeValidator(_as_noun)]]
Pair = Annotated[Nouns, Field(min_length=2, max_length=2)]


class Relation(Section):
    """Words that each have two relatives, for analogies: great - greater, great - small."""

    kinds: Annotated[list[str], Field(min_length=2, max_length=2)]
    """Names of the two relations."""
    words: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]
    """For each word its two relatives, in the order of `kinds`."""


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
    cases: dict[Literal["m", "f"], Forms] = Field(default_factory=dict)
    """Ending of each case of an invented name by gender."""
    label_starts: list[str] = Field(default_factory=list)
    """First halves of invented words that are no names."""
    label_ends: list[str] = Field(default_factory=list)
    """Second halves of invented words."""
    articles: tuple[str, str] | None = None
    """Indefinite article before a consonant and before a vowel letter, where the language has one."""
    things: Nouns = Field(default_factory=list)
    """What people of the templates own, carry and lose."""
    places: Nouns = Field(default_factory=list)
    """Where they are; with the forms `loc` and `to`."""
    gender_pairs: list[Pair] = Field(default_factory=list)
    """A man and a woman each: king, queen."""
    number_pairs: list[Pair] = Field(default_factory=list)
    """One man and many each: king, kings."""
    kinds: dict[str, list[str]] = Field(default_factory=dict)
    """Nouns by kind (animals, foods), to tell kinds apart; only the form that names them."""
    persons: dict[Gender, Nouns] = Field(default_factory=dict)
    """Words for people by gender (roles)."""
    person_verbs: dict[Gender, list[str]] = Field(default_factory=dict)
    """Verbs, as they follow a subject of that gender in a story, of which only people can be the subject (roles)."""
    role_things: dict[Gender, Nouns] = Field(default_factory=dict)
    """Things that may trade places with a person of that gender, no other word changing (roles)."""
    role_lines: list[str] = Field(default_factory=list)
    """Sentences with `{who}`, `{did}` and `{what}` (roles)."""
    the: str = ""
    """The definite article with the space after it, where the language has one (roles)."""
    relations: list[Relation] = Field(default_factory=list)
    """Words and their relatives (analogies)."""
    function_words: list[str] = Field(default_factory=list)
    """Words that are no nouns, for the control that keeps nouns only."""
    not_noun_ends: list[str] = Field(default_factory=list)
    """Endings that nouns of the language hardly have, for the same control."""

    @field_validator("role_lines")
    @classmethod
    def _places(cls, lines: list[str]) -> list[str]:
        for line in lines:
            if sorted(re.findall(r"\{(.*?)\}", line)) != ["did", "what", "who"]:
                raise ValueError(f"must hold {{who}}, {{did}} and {{what}} once each: {line!r}")
        return lines

    @model_validator(mode="after")
    def _articles(self) -> Language:
        if self.articles:
            for noun in (*self.things, *self.places):
                if noun.ind is None:
                    article = self.articles[noun.nom[0].lower() in "aeiou"]
                    object.__setattr__(noun, "ind", f"{article} {noun.nom}")  # derived once, when the file is read
        return self

    def not_a_noun(self) -> re.Pattern[str]:
        """Return a pattern that matches a whole word, in small letters, which is hardly a noun."""
        words = [re.escape(word) for word in self.function_words]
        ends = [rf"\w{{2,}}{re.escape(end)}" for end in self.not_noun_ends]
        return re.compile(rf"(?:{'|'.join([*words, *ends]) or '(?!)'})\Z")


@cache
def packaged(code: str) -> Language:
    """Return the language that comes with ltm, or neutral defaults for one that does not.

    Raises:
        ConfigError: its file has problems.
    """
    path = FOLDER / f"{code}.yaml"
    return validate(Language, read_yaml(path)) if path.exists() else Language()


def packaged_codes() -> list[str]:
    """Return the languages that come with ltm."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
