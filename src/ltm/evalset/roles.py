"""Concepts in a foreign setting: a deed of book A done by a person to a thing of book B, rightly or with roles swapped.

A passage of A gives the setting and its own words the verb; passages of B give a person and a thing. In the right
sentence the person acts on the thing, in the wrong one the thing on the person; both hold the same words. Where a
language shows the role by the form of the word, items alternate between those that the mere frequency of the forms
would get right and those that it would get wrong. Source: role reversal items; tests of selectional preference.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltm.evalset.language import Gender, Language, Noun
from ltm.evalset.passages import Draft, EvalBook, Sizes
from ltm.evalset.synthesis import unrelated

_MOST_TRIES = 40  # pairs of passages of B looked at for one setting
_TIE = 1e-9
_LETTERS = 6  # of a word with the space after it
_MOST_FRUITLESS = 150  # settings in a row for which nothing was found
_WORD = re.compile(r"\w+")


def roles(
    book: EvalBook,
    others: Sequence[EvalBook],
    language: Language,
    counts: Mapping[str, int],
    sizes: Sizes,
    rng: np.random.Generator,
) -> Iterator[Draft]:
    """Yield items whose setting and verb are from this book and whose person and thing are from an unrelated one.

    Args:
        book: A.
        others: Where B is drawn from.
        language: Words for people and things, verbs that only people do, and the wording of the sentence.
        counts: How often words stand in training books, for the balance of forms.
        sizes: Words of the context, half for each book.
        rng: A random stream.
    """
    strange = unrelated(book, others)
    casts = [cast for gender in sorted(language.persons) if (cast := _Cast.of(gender, language, book, strange))]
    half = sizes.context // 2
    if not casts or not language.role_lines:
        return
    owed, fruitless = (1 - 2 * int(rng.integers(2)), 1 - 2 * int(rng.integers(2))), 0
    for first in book.tiles(half, rng):
        cast = casts[int(rng.integers(len(casts)))]
        span = book.span(first, half)
        found = cast.content(half // 2, counts, owed, rng)
        if span is None or found is None:
            fruitless += 1
            if fruitless == _MOST_FRUITLESS:
                return
            continue
        setting, (passage, person, thing, leans) = book.slice(span), found
        owed, fruitless = (-owed[0] if leans[0] else owed[0], -owed[1] if leans[1] else owed[1]), 0
        verbs = cast.verbs_in(frozenset(_WORD.findall(setting.lower()))) or cast.verbs
        verb = verbs[int(rng.integers(len(verbs)))]
        line = language.role_lines[int(rng.integers(len(language.role_lines)))]
        right, wrong = (_told(line, verb, *pair, language) for pair in ((person, thing), (thing, person)))
        gold = int(rng.integers(2))
        options = [f"\n\n{text}" for text in ((wrong, right) if gold else (right, wrong))]
        yield Draft(book.book.book_id, book.book.language, [f"{passage}\n\n{setting}"] * 2, options, gold)


@dataclass(frozen=True)
class _Cast:
    """People, things and deeds of one gender, and the books that have such people and things."""

    people: Mapping[str, Noun]  # by form
    things: Mapping[str, Noun]
    verbs: list[str]  # that book A has
    books: list[EvalBook]
    shares: list[float]  # how often a book is taken: by how often it names people, and things, whichever is less

    @classmethod
    def of(cls, gender: Gender, language: Language, book: EvalBook, strange: Sequence[EvalBook]) -> _Cast | None:
        """Gather a cast; None where one of its parts is empty."""
        people, things = _by_form(language.persons[gender]), _by_form(language.role_things.get(gender, []))
        cast = cls(people, things, language.person_verbs.get(gender, []), [], [])
        verbs = cast.verbs_in(book.vocabulary)
        forms = [frozenset(people), frozenset(things)]
        books = [other for other in strange if all(other.places_of(words) for words in forms)] if verbs else []
        named = [min(len(other.places_of(words)) for words in forms) for other in books]
        return cls(people, things, verbs, books, [n / sum(named) for n in named]) if books else None

    def verbs_in(self, words: Collection[str]) -> list[str]:
        """Return the verbs whose first word is among some words."""
        return [verb for verb in self.verbs if verb.partition(" ")[0] in words]

    def content(
        self, n_words: int, counts: Mapping[str, int], owed: tuple[int, int], rng: np.random.Generator
    ) -> tuple[str, Noun, Noun, tuple[int, int]] | None:
        """Return two passages of a book that name a person and a thing, these, and what their forms say.

        `owed` is what the forms may say: an item of which they say the right answer is followed by one of which they
        say the wrong one, so that they say nothing in the end. Returns None where nothing is found.
        """
        forms = frozenset(self.people), frozenset(self.things)
        for _ in range(_MOST_TRIES):
            other = self.books[int(rng.choice(len(self.books), p=self.shares))]
            one, two = (_span_with(other, words, n_words, rng) for words in forms)
            if one is None or two is None or one == two:
                continue
            said = set(_WORD.findall(f"{one} {two}"))
            pairs = [
                (self.people[person], self.things[thing])
                for person in sorted(set(_WORD.findall(one)) & forms[0])
                for thing in sorted(set(_WORD.findall(two)) & forms[1])
            ]
            for place in rng.permutation(len(pairs)):
                person, thing = pairs[place]
                leans = _leanings(person, thing, counts, said)
                if all(lean in (0, allowed) for lean, allowed in zip(leans, owed, strict=True)):
                    return f"{one}\n\n{two}", person, thing, leans
        return None


def _by_form(nouns: Sequence[Noun]) -> dict[str, Noun]:
    """Return nouns by their forms, those that are as long as an object as they are as a subject.

    Otherwise the sentence with the person as its object would be the longer one, and length would tell the answer.
    """
    even = [noun for noun in nouns if len(noun.acc or noun.nom) == len(noun.nom)]
    return {form: noun for noun in even for form in (noun.nom, noun.acc or noun.nom)}


def _span_with(book: EvalBook, words: frozenset[str], n_words: int, rng: np.random.Generator) -> str | None:
    """Return a passage that holds one of the words, from the nearest place before it where one may begin."""
    places = book.places_of(words)
    if not places:
        return None
    offset = places[int(rng.integers(len(places)))]
    first = bisect.bisect_right(book.starts, offset) - 1
    while first > 0 and not book.opens[first] and offset - book.starts[first - 1] < _LETTERS * n_words:
        first -= 1
    span = book.span(first, n_words)
    return book.slice(span) if span and offset < span.end else None


def _leanings(person: Noun, thing: Noun, counts: Mapping[str, int], said: set[str]) -> tuple[int, int]:
    """Return what forms say of the two sentences: 1 the right one, -1 the wrong one, 0 nothing.

    The first number is about how frequent the forms of either sentence are in training books, the second about which of
    them the passages of B have said.
    """
    right, wrong = (person.nom, thing.acc or thing.nom), (thing.nom, person.acc or person.nom)
    odds = sum(_log(word, counts) for word in right) - sum(_log(word, counts) for word in wrong)
    more = sum(word in said for word in right) - sum(word in said for word in wrong)
    return _sign(odds), _sign(more)


def _sign(value: float) -> int:
    return (value > _TIE) - (value < -_TIE)


def _log(word: str, counts: Mapping[str, int]) -> float:
    return math.log(counts.get(word, 0) + 0.5)


def _told(line: str, verb: str, subject: Noun, thing: Noun, language: Language) -> str:
    return line.format(who=f"{language.the}{subject.nom}", did=verb, what=f"{language.the}{thing.acc or thing.nom}")
