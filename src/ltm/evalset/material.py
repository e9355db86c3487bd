"""Names, things, places and words that the templates of one language are filled with, for one bank.

Invented names and words are checked against every training book; the two banks share none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ltm.evalset.frames import GENDER, NUMBER, PEOPLE, PLACES, THINGS, WORDS, Frame, slots_of
from ltm.evalset.language import Language, Noun
from ltm.store import fingerprint

Entry = tuple[str, Mapping[str, str]]  # gender, forms
Thing = TypeVar("Thing")
_LEAST_KNOWN = 8  # with fewer nouns that training books contain, all nouns of the language are taken


class Material:
    """What slots of one language are filled with, for one bank."""

    def __init__(self, language: Language, taken: Collection[str], bank: str) -> None:
        """Invent names and labels; those of which a form occurs in `taken` (small letters) are left out."""
        self.language = language
        self.cases: dict[str, dict[str, str]] = {gender: forms for gender, forms in language.cases.items()}  # noqa: C416
        self.fillers = language.fillers
        self.names: dict[str, list[str]] = {
            gender: [
                stem
                for stem in _joined(language.name_starts, ends)
                if _bank_of(stem) == bank and not _known(stem, language.cases.get(gender, {}).values(), taken)
            ]
            for gender, ends in language.name_ends.items()
        }
        self.labels = [
            word
            for word in _joined(language.label_starts, language.label_ends)
            if _bank_of(word) == bank and word not in taken
        ]
        self.things = _seen(language.things, taken, lambda noun: noun.nom)
        self.places = _seen(language.places, taken, lambda noun: noun.nom)
        self.kinds = {kind: _seen(words, taken, str) for kind, words in language.kinds.items()}
        self.pairs = {
            slots: _seen(pairs, taken, lambda pair: pair[0].nom)
            for slots, pairs in ((GENDER, language.gender_pairs), (NUMBER, language.number_pairs))
        }
        self.words = list(dict.fromkeys(word for words in self.kinds.values() for word in words))

    def usable(self, frame: Frame) -> bool:
        """Say whether there are names, things, places and words enough for a template."""
        used = slots_of(*frame.facts, frame.ask)
        return not (
            (used & set(PEOPLE) and min((len(names) for names in self.names.values()), default=0) < 6)
            or (used & set(THINGS) and len(self.things) < 4)
            or (used & set(PLACES) and len(self.places) < 2)
            or (used & set(WORDS) and len(self.words) < 8)
            or any(used & set(slots) and len(pairs) < 4 for slots, pairs in self.pairs.items())
        )

    def draw(self, frame: Frame, rng: np.random.Generator) -> dict[str, Entry]:
        """Return a filling of every slot that a template uses."""
        used = slots_of(*frame.facts, frame.ask, frame.answer)
        filling: dict[str, Entry] = {}
        if used & set(PEOPLE):
            genders = sorted(self.names)
            first = genders[int(rng.integers(len(genders)))]
            other = next((g for g in genders if g != first), first) if frame.people == "mixed" else first
            if used & set(GENDER):  # a title says the gender, the name must not
                first = other = "m"
            filling.update(zip(PEOPLE, self.people((first, other, first), rng), strict=True))
        if used & set(THINGS):
            filling.update((slot, _entry(noun)) for slot, noun in zip(THINGS, pick(self.things, 3, rng), strict=True))
        if used & set(PLACES):
            filling.update((slot, _entry(noun)) for slot, noun in zip(PLACES, pick(self.places, 2, rng), strict=True))
        if used & set(WORDS):
            filling.update(
                (slot, ("n", {"nom": word})) for slot, word in zip(WORDS, pick(self.words, 4, rng), strict=True)
            )
        for slots, codes in ((GENDER, "mf"), (NUMBER, "sp")):
            if used & set(slots):
                both = [
                    (code, noun.forms()) for code, noun in zip(codes, pick(self.pairs[slots], 1, rng)[0], strict=True)
                ]
                filling.update(zip(slots, both[:: -1 if rng.integers(2) else 1], strict=True))
        return filling

    def people(self, genders: Sequence[str], rng: np.random.Generator, avoid: Collection[str] = ()) -> list[Entry]:
        """Return people of the given genders whose names begin differently, so that first tokens tell them apart."""
        begun = {name[:2].lower() for name in avoid}
        found: list[Entry] = []
        for gender in genders:
            names = [name for name in self.names[gender] if name[:2].lower() not in begun] or self.names[gender]
            stem = names[int(rng.integers(len(names)))]
            begun.add(stem[:2].lower())
            found.append((gender, {case: stem + ending for case, ending in self.cases[gender].items()}))
        return found

    def other(self, slot: str, gender: str, held: Collection[str], rng: np.random.Generator) -> Entry:
        """Return something of a slot's kind, of a gender where there is one, that is not among `held` (nominatives)."""
        if slot in PEOPLE:
            return self.people((gender,), rng, held)[0]
        left = [noun for noun in (self.things if slot in THINGS else self.places) if noun.nom not in held]
        same = [noun for noun in left if noun.gender == gender]
        return _entry(pick(same or left, 1, rng)[0])


def pick(things: Sequence[Thing], n: int, rng: np.random.Generator) -> list[Thing]:
    """Return `n` different things in random order."""
    return [things[int(i)] for i in rng.choice(len(things), size=n, replace=False)]


def _entry(noun: Noun) -> Entry:
    return noun.gender, noun.forms()


def _joined(starts: Sequence[str], ends: Sequence[str]) -> list[str]:
    return [f"{start}{end}" for start in starts for end in ends if start[-1:] != end[:1]]


def _bank_of(stem: str) -> str:
    return "ab"[int(fingerprint(stem, 8), 16) % 2]


def _known(stem: str, endings: Collection[str], taken: Collection[str]) -> bool:
    return any((stem + ending).lower() in taken for ending in endings)


def _seen(nouns: list[Thing], taken: Collection[str], name: Callable[[Thing], str]) -> list[Thing]:
    """Return the nouns that training books contain, or all where those are too few."""
    known = [noun for noun in nouns if name(noun) in taken]
    return known if len(known) >= min(_LEAST_KNOWN, len(nouns)) else list(nouns)
