"""What an effect is called in each language, and what a trait of books means; books keep their titles.

Reads: Effect rows. Writes: nothing. `ltm.patterns` names a contrast by its sides (`reverse_vs_random`), a term of place
by its feature (`late:flesch`), a combination by both parts (`law x poetry`); all are put together here from the words
of the locale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ltm.dashboard.words import Term, entries, say, show
from ltm.records import Effect

PLACES = ("kernel", "late", "middle", "first", "last")
VERSUS, BEFORE, WITH = "_vs_", " before ", " x "
_DOSE = "_dose"
_VECTOR = re.compile(r"vector_(\d+)$")
_CLASS = re.compile(r"(?:class|cluster) (\d+)$")
_TOGETHER = " together with "  # in the label of a combination


def effect_name(language: str, kind: str, name: str, label: str) -> str:
    """Return the name of an effect as people read it; `label` stands in where the locale has no words.

    >>> effect_name("en", "order", "reverse_vs_random", ""), effect_name("ru", "gap", "truncated_vs_full", "")
    ('reversed vs random', 'обрезано против полного текста')
    >>> effect_name("en", "order", "class 1 before class 2", "")
    'kind 1 before kind 2'
    """
    if kind == "book":
        return label or name
    if kind == "feature":
        return feature_name(language, name, label)
    if kind == "interaction":
        return _together(language, name, label)
    place, _, feature = name.partition(":")
    if kind == "order" and feature and place in PLACES:
        return say(language, f"name.{place}", feature=feature_name(language, feature, feature.replace("_", " ")))
    if kind == "order" and BEFORE in name:
        one, two = name.split(BEFORE, 1)
        return say(language, "name.before", one=class_name(language, one), two=class_name(language, two))
    if VERSUS in name and (found := _versus(language, kind, name)):
        return found
    if kind == "gap" and name.endswith(_DOSE):
        side = f"side.gap.{name.removesuffix(_DOSE)}.plus"
        if side in entries(language):
            return say(language, "name.dose", kind=Term(side))
    return show(language, Term(f"name.{kind}.{name}", label or name))


def _versus(language: str, kind: str, name: str) -> str:
    plus, _, minus = name.partition(VERSUS)
    keys = (f"side.{kind}.{plus}.plus", f"side.{kind}.{minus}.minus")
    if not all(key in entries(language) for key in keys):
        return ""
    return say(language, "name.versus", plus=Term(keys[0]), minus=Term(keys[1]))


def feature_name(language: str, name: str, label: str = "") -> str:
    """Return the name of a trait of books.

    >>> feature_name("en", "vector_03"), feature_name("ru", "flesch"), feature_name("ru", "own_idea", "own idea")
    ('direction of meaning 3', 'лёгкость чтения (Флеш)', 'own idea')
    """
    if vector := _VECTOR.match(name):
        return say(language, "name.vector", number=str(int(vector[1])))
    return show(language, Term(f"name.feature.{name}", label or name))


def class_name(language: str, name: str) -> str:
    """Return the name of a kind of books: a genre, or a number where kinds come from the features."""
    if found := _CLASS.match(name):
        return say(language, "name.class", number=found[1])
    return show(language, Term(f"term.{name}", name))


def _together(language: str, name: str, label: str) -> str:
    one, with_, two = name.partition(WITH)
    titles = label.split(_TOGETHER)
    known = _CLASS.match(one) or f"term.{one}" in entries(language)
    if with_ and not known and len(titles) == 2:
        one, two = titles
    if not with_:
        return label or name
    return say(language, "name.together", one=class_name(language, one), two=class_name(language, two))


def meaning(language: str, feature: str) -> str:
    """Return what a trait of books is, in one sentence."""
    if _VECTOR.match(feature):
        return say(language, "feature.vector")
    return show(language, Term(f"feature.{feature}", say(language, "feature.own")))


def effect_words(language: str, effects: Iterable[Effect]) -> dict[str, str]:
    """Return the words that the page's script looks up, `name.<kind>.<name>` and `feature.<name>`, but for books."""
    words = {}
    for effect in effects:
        if effect.kind != "book":
            words[f"name.{effect.kind}.{effect.name}"] = effect_name(language, effect.kind, effect.name, effect.label)
        if effect.kind == "feature":
            words[f"feature.{effect.name}"] = meaning(language, effect.name)
    return words
