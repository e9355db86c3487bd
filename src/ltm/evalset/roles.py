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
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ltm.evalset.language import Gender, Language, Noun
from ltm.evalset.passages import Draft, EvalBook, Sizes
from ltm.evalset.synthesis import unrelated

_MOST_TRIES = 24  # pairs of passages of B looked at for one setting
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
    genders = [
        gender
        for gender in sorted(language.persons)
        if language.role_things.get(gender) and _known_verbs(language, gender, book.vocabulary)
    ]
    strange = unrelated(book, others)
    half = sizes.context // 2
    if not strange or not genders or not language.role_lines:
        return
    turn = int(rng.integers(4))
    for first in book.tiles(half, rng):
        gender = genders[int(rng.integers(len(genders)))]
        span = book.span(first, half)
        found = _content(strange, gender, language, half, counts, turn, rng)
        if span is None or found is None:
            continue
        setting = book.slice(span)
        passage, person, thing = found
        here = _known_verbs(language, gender, frozenset(_WORD.findall(setting.lower())))
        verbs = here or _known_verbs(language, gender, book.vocabulary)
        verb = verbs[int(rng.integers(len(verbs)))]
        line = language.role_lines[int(rng.integers(len(language.role_lines)))]
        right, wrong = (_told(line, verb, *pair, language) for pair in ((person, thing), (thing, person)))
        gold = int(rng.integers(2))
        options = [f"\n\n{text}" for text in ((wrong, right) if gold else (right, wrong))]
        yield Draft(book.book.book_id, book.book.language, [f"{passage}\n\n{setting}"] * 2, options, gold)
        turn += 1


def _known_verbs(language: Language, gender: Gender, words: frozenset[str]) -> list[str]:
    return [verb for verb in language.person_verbs.get(gender, []) if verb.partition(" ")[0] in words]


def _content(
    strange: Sequence[EvalBook],
    gender: Gender,
    language: Language,
    n_words: int,
    counts: Mapping[str, int],
    turn: int,
    rng: np.random.Generator,
) -> tuple[str, Noun, Noun] | None:
    """Return two passages of an unrelated book that name a person and a thing; None where none is found."""
    people, things = _by_form(language.persons[gender]), _by_form(language.role_things[gender])
    for _ in range(_MOST_TRIES):
        other = strange[int(rng.integers(len(strange)))]
        one, two = (_span_with(other, frozenset(table), n_words // 2, rng) for table in (people, things))
        if one is None or two is None or one == two:
            continue
        said = set(_WORD.findall(f"{one} {two}"))
        pairs = [
            (people[person], things[thing])
            for person in sorted(set(_WORD.findall(one)) & people.keys())
            for thing in sorted(set(_WORD.findall(two)) & things.keys())
            if _fits(people[person], things[thing], counts, said, turn)
        ]
        if pairs:
            return f"{one}\n\n{two}", *pairs[int(rng.integers(len(pairs)))]
    return None


def _by_form(nouns: Sequence[Noun]) -> dict[str, Noun]:
    return {form: noun for noun in nouns for form in (noun.nom, noun.acc or noun.nom)}


def _span_with(book: EvalBook, words: frozenset[str], n_words: int, rng: np.random.Generator) -> str | None:
    """Return a passage from a sentence that holds one of the words."""
    places = book.places_of(words)
    if not places:
        return None
    offset = places[int(rng.integers(len(places)))]
    span = book.span(bisect.bisect_right(book.starts, offset) - 1, n_words)
    return book.slice(span) if span and offset < span.end else None


def _fits(person: Noun, thing: Noun, counts: Mapping[str, int], said: set[str], turn: int) -> bool:
    """Say whether forms give the right sentence away in some turns and the wrong one in as many others.

    Two things are balanced: how frequent the forms of either sentence are in training books, and which of them the
    passages of B have said.
    """
    right, wrong = (person.nom, thing.acc or thing.nom), (thing.nom, person.acc or person.nom)
    odds = sum(_log(word, counts) for word in right) - sum(_log(word, counts) for word in wrong)
    more = sum(word in said for word in right) - sum(word in said for word in wrong)
    return (odds == 0 or (odds > 0) == (turn % 2 == 0)) and (more == 0 or (more > 0) == (turn // 2 % 2 == 0))


def _log(word: str, counts: Mapping[str, int]) -> float:
    return math.log(counts.get(word, 0) + 0.5)


def _told(line: str, verb: str, subject: Noun, thing: Noun, language: Language) -> str:
    return line.format(who=f"{language.the}{subject.nom}", did=verb, what=f"{language.the}{thing.acc or thing.nom}")
