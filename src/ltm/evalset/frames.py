"""Templates: how a fact, a question and its answer are written in an eval file, and how slots are filled.

Slots: `{a}` `{b}` `{c}` people, `{o}` `{p}` `{q}` things, `{l}` `{m}` places, `{u}` `{v}` `{x}` `{y}` nouns of any
kind, `{g}` `{h}` a word for a person and that of the other gender, `{i}` `{j}` one and its plural; `{o.acc}` a form,
`{a:he|she}` a word that agrees with the gender (m|f for people, m|f|n for things) or the number (one|many), `{O}` a
capital. In demonstrations `{1}` `{2}` `{3}` are what is shown and `{=}` the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltm.config import Section

SLOT = re.compile(r"\{(?P<slot>\w+|=)(?:\.(?P<form>\w+))?(?::(?P<agree>[^{}]*))?\}")
GENDER, NUMBER = "gh", "ij"  # a word and its counterpart of the other gender, or number: king, queen; king, kings
_COUNTERPARTS = ("ab", "op", "lm", "xy", "uv", GENDER, NUMBER)
SLOTS = {slot: two[1 - two.index(slot)] for two in _COUNTERPARTS for slot in two}
"""Each slot that an answer may stand in, with its counterpart."""
EXTRA = ("c", "q")  # the third person and the third thing: never an answer
PEOPLE, THINGS, PLACES, WORDS = "abc", "opq", "lm", "uvxy"
_CHOICE = {"m": 0, "f": 1, "n": 2, "s": 0, "p": 1}  # which of the words agrees: by gender, or singular and plural
Filling = Mapping[str, tuple[str, Mapping[str, str]]]  # slot -> (gender, forms)


class Frame(Section):
    """One template: facts, a question, and the answer that the facts decide."""

    name: str
    """Name of the template; items of one template are one cluster."""
    facts: list[str]
    """Sentences before the question; the other premise is the same text with the answer and its counterpart swapped.
    For two-source deduction: the fact of the first passage and that of the second."""
    ask: str
    """Beginning of the sentence that the answer ends; it holds neither the answer nor its counterpart."""
    answer: str
    """The slot that is right after the facts, for example `{a.gen}`; or a word that agrees with it: `{g:he|she}`."""
    names: Literal["both", "one"] = "both"
    """Whether the facts name the answer and its counterpart, or the answer alone (what was said comes again)."""
    order: Literal["any", "fixed"] = "any"
    """Whether half of the items tell the facts in the other order, so that what came last is no hint."""
    people: Literal["same", "mixed"] = "same"
    """Whether the people of an item have one gender, or one is a man and the other a woman."""
    level: Annotated[int, Field(ge=0, le=9)] = 0
    """Step on the ladder of difficulty: how many steps of reasoning it takes."""

    @model_validator(mode="after")
    def _valid(self) -> Frame:
        answer = SLOT.fullmatch(self.answer)
        if answer is None or answer["slot"].lower() not in SLOTS:
            raise ValueError(f"`answer` must be one slot such as {{a}}, not {self.answer!r}")
        for text in (*self.facts, self.ask):
            _check_slots(text, {*SLOTS, *EXTRA})
        swapped = {answer["slot"].lower(), SLOTS[answer["slot"].lower()]}
        pair = swapped <= {*GENDER, *NUMBER}
        told = {m["slot"].lower() for m in SLOT.finditer(self.ask) if pair or not m["agree"]}
        if told & swapped:
            raise ValueError("`ask` must not name the answer or its counterpart")
        alone = pair or self.names == "one"
        if alone and swapped & slots_of(*self.facts) != {answer["slot"].lower()}:
            raise ValueError("`facts` must name the answer, and not its counterpart")
        if not alone and not swapped <= slots_of(*self.facts):
            raise ValueError("`facts` must name both the answer and its counterpart (or say `names: one`)")
        return self

    def answer_slots(self) -> tuple[str, str]:
        """Return the slot of the answer and its counterpart."""
        answer = SLOT.fullmatch(self.answer)
        assert answer is not None  # checked above
        return answer["slot"].lower(), SLOTS[answer["slot"].lower()]


class Demonstration(Section):
    """One template of a made-up rule that is shown a few times and then asked for."""

    name: str
    """Name of the template; items of one template are one cluster."""
    rule: Literal["position", "odd", "kind", "gender"]
    """position: the first or the second of two words; odd: of three words, two of them equal, the odd one or the
    doubled one; kind: an invented label for each of two kinds of things; gender: a place for men and one for women."""
    say: str
    """A demonstration; `{=}`, the answer, stands once, and what is before it is the question."""
    level: Annotated[int, Field(ge=0, le=9)] = 0
    """Step on the ladder of difficulty."""

    @model_validator(mode="after")
    def _valid(self) -> Demonstration:
        _check_slots(self.say, {"1", "2", "3", "="})
        needed = {"position": {"1", "2"}, "odd": {"1", "2", "3"}, "kind": {"1"}, "gender": {"1"}}[self.rule]
        if slots_of(self.say) != needed | {"="} or self.say.count("{=") != 1:
            wanted = ", ".join(f"{{{slot}}}" for slot in sorted(needed))
            raise ValueError(f"`say` of the rule `{self.rule}` must hold {wanted} and once {{=}}")
        return self


def slots_of(*texts: str) -> set[str]:
    """Return the slots that texts use, in small letters."""
    return {match["slot"].lower() for text in texts for match in SLOT.finditer(text)}


def forms_of(*texts: str) -> set[tuple[str, str]]:
    """Return the (slot, form) pairs that texts ask for; the plain slot asks for `nom`."""
    return {
        (match["slot"].lower(), match["form"] or "nom")
        for text in texts
        for match in SLOT.finditer(text)
        if match["agree"] is None
    }


def fill(text: str, filling: Filling) -> str:
    """Return a template's text with its slots filled.

    >>> fill("{A} {a:took|took} the {o.acc}.", {"a": ("f", {"nom": "Velda"}), "o": ("n", {"acc": "lamp"})})
    'Velda took the lamp.'
    """

    def one(match: re.Match[str]) -> str:
        slot, form, agree = match["slot"], match["form"], match["agree"]
        gender, forms = filling[slot.lower()]
        if agree is not None:
            choices = agree.split("|")
            return choices[min(_CHOICE[gender], len(choices) - 1)]
        word = forms[form or "nom"]
        return word[0].upper() + word[1:] if slot.isupper() else word

    return SLOT.sub(one, text)


def _check_slots(text: str, known: set[str]) -> None:
    for match in SLOT.finditer(text):
        if match["slot"].lower() not in known:
            raise ValueError(f"unknown slot {match[0]}; known: {', '.join(sorted(known))}")
    if re.search(r"[{}]", SLOT.sub("", text)):
        raise ValueError(f"a slot is not closed in {text!r}")
