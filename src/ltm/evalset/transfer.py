"""Logical transfer: templates with invented names, as 2 x 2 contrasts.

An item has two premises that differ only in who has what, and two conclusions; the right fact must help the right
conclusion: m = {log p(c|P) - log p(c|P')} - {log p(c'|P) - log p(c'|P')}. Both premises hold the same words, so word
frequency and length cancel, and names occur in no book of the library. Source: minimal-pair contrasts (BLiMP, EWoK).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from ltm.evalset.evalfile import SLOT, SLOTS, Frame, Language, Noun
from ltm.evalset.passages import Draft
from ltm.store import fingerprint

_WORD_RANKS = (120, 1200)  # library words of the templates: neither the commonest nor rare
_WORD_LETTERS = (4, 8)


class Material:
    """Names, things and words of one language, for one bank."""

    def __init__(self, language: Language, taken: Collection[str], counts: Mapping[str, int], bank: str) -> None:
        """Invent names; those that occur in `taken` (small letters) are left out, and the banks share none."""
        self.cases, self.objects = language.cases, language.objects
        self.fillers = language.fillers
        self.names = {
            gender: [
                stem
                for stem in (f"{start}{end}" for start in language.name_starts for end in ends)
                if _bank_of(stem) == bank and not _known(stem, language.cases.get(gender, {}), taken)
            ]
            for gender, ends in language.name_ends.items()
        }
        self.words = _middle_words(counts)

    def usable(self, frame: Frame) -> bool:
        """Say whether there are names, things and words enough for a template."""
        used = {m["slot"].lower() for text in (*frame.facts, frame.ask) for m in SLOT.finditer(text)}
        enough_names = any(len(names) >= 2 for names in self.names.values())
        return not (
            (used & {"a", "b"} and not enough_names)
            or (used & {"o", "p"} and len(self.objects) < 2)
            or (used & {"u", "v", "x", "y"} and len(self.words) < 8)
        )

    def draw(self, rng: np.random.Generator) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return a filling of every slot that the material allows: slot -> (gender, forms)."""
        filling: dict[str, tuple[str, Mapping[str, str]]] = {}
        genders = sorted(gender for gender, names in self.names.items() if len(names) >= 2)
        if genders:
            gender = genders[int(rng.integers(len(genders)))]  # one gender, so that verbs give nothing away
            for slot, stem in zip("ab", _two_names(self.names[gender], rng), strict=True):
                filling[slot] = (gender, {case: stem + ending for case, ending in self.cases[gender].items()})
        if len(self.objects) >= 2:
            for slot, noun in zip("op", _pick(self.objects, 2, rng), strict=True):
                filling[slot] = (noun.gender, _noun_forms(noun))
        if len(self.words) >= 8:
            for slot, word in zip("uvxy", _pick(self.words, 4, rng), strict=True):
                filling[slot] = ("n", {"nom": word})
        return filling


def contrasts(
    frame: Frame, material: Material, language: str, cluster: str, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield items of one template without end; every second one tells the facts in the other order."""
    answer = SLOT.fullmatch(frame.answer)
    assert answer is not None  # the eval file was checked
    slot, other = answer["slot"].lower(), SLOTS[answer["slot"].lower()]
    turn = 0
    while True:
        filling = material.draw(rng)
        swapped = {**filling, slot: filling[other], other: filling[slot]}
        facts = frame.facts[::-1] if frame.order == "any" and turn % 2 else frame.facts
        filler = [str(_pick(material.fillers, 1, rng)[0])] if material.fillers and rng.random() < 0.5 else []
        ask = fill(frame.ask, filling)
        premises = [
            " ".join([*(fill(fact, one) for fact in facts), *(filler if _tells(frame) else []), ask])
            for one in (filling, swapped)
        ]
        conclusions = [" " + fill(frame.answer, one) for one in (filling, swapped)]
        turn += 1
        yield Draft(
            cluster,
            language,
            [premises[0], premises[1], premises[0], premises[1]],
            [conclusions[0], conclusions[0], conclusions[1], conclusions[1]],
        )


def fill(text: str, filling: Mapping[str, tuple[str, Mapping[str, str]]]) -> str:
    """Return a template's text with its slots filled.

    >>> fill("{A} {a:took|took} the {o.acc}.", {"a": ("f", {"nom": "Velda"}), "o": ("n", {"nom": "lamp"})})
    'Velda took the lamp.'
    """

    def one(match: object) -> str:
        slot, form, agree = match["slot"], match["form"], match["agree"]  # type: ignore[index]
        gender, forms = filling[slot.lower()]
        if agree is not None:
            choices = agree.split("|")
            return str(choices[min("mfn".index(gender), len(choices) - 1)])
        word = forms.get(form or "nom") or forms["nom"]
        return word[0].upper() + word[1:] if slot.isupper() else word

    return SLOT.sub(one, text)


def _tells(frame: Frame) -> bool:
    """Say whether a template tells a story; a bare pattern must not be broken by another sentence."""
    used = {m["slot"].lower() for fact in frame.facts for m in SLOT.finditer(fact)}
    return not used & {"u", "v", "x", "y"}


def _bank_of(stem: str) -> str:
    return "ab"[int(fingerprint(stem, 8), 16) % 2]


def _known(stem: str, endings: Mapping[str, str], taken: Collection[str]) -> bool:
    return any((stem + ending).lower() in taken for ending in endings.values())


def _noun_forms(noun: Noun) -> dict[str, str]:
    return {"nom": noun.nom, "acc": noun.acc or noun.nom}


def _middle_words(counts: Mapping[str, int]) -> list[str]:
    """Return words of middling frequency that are usually written small, commonest first."""
    capitals: Counter[str] = Counter()
    for word, count in counts.items():
        if not word.islower():
            capitals[word.lower()] += count
    low, high = _WORD_LETTERS
    small = [
        (-count, word)
        for word, count in counts.items()
        if word.islower() and word.isalpha() and low <= len(word) <= high and capitals[word] < 0.2 * count and count > 2
    ]
    return [word for _, word in sorted(small)][_WORD_RANKS[0] : _WORD_RANKS[1]]


def _two_names(names: list[str], rng: np.random.Generator) -> tuple[str, str]:
    """Return two names that differ from their first letters on, so that their first tokens tell them apart."""
    one = names[int(rng.integers(len(names)))]
    others = [name for name in names if name[:2] != one[:2]] or [name for name in names if name != one]
    return one, others[int(rng.integers(len(others)))]


def _pick(things: Iterable[object], n: int, rng: np.random.Generator) -> list:  # type: ignore[type-arg]
    pool = list(things)
    return [pool[i] for i in rng.choice(len(pool), size=n, replace=False)]
