"""What an effect is called in each language; books keep their titles.

Reads: Effect rows. Writes: nothing. `ltm.patterns` names a contrast by its sides (`reverse_vs_random`), a position
term by its feature (`late:flesch`); both are put together here from the words of the locale.
"""

from __future__ import annotations

from collections.abc import Iterable

from ltm.dashboard.words import Term, entries, say, show
from ltm.records import Effect

LATE = "late:"
VERSUS = "_vs_"


def effect_name(language: str, kind: str, name: str, label: str) -> str:
    """Return the name of an effect as people read it; `label` stands in where the locale has no words.

    >>> effect_name("en", "order", "reverse_vs_random", ""), effect_name("ru", "gap", "truncated_vs_full", "")
    ('reversed vs random', 'обрезано против полного текста')
    """
    if kind == "book":
        return label or name
    if kind == "feature":
        return _feature(language, name, label)
    if kind == "order" and name.startswith(LATE):
        feature = name.removeprefix(LATE)
        return say(language, "name.late", feature=_feature(language, feature, feature.replace("_", " ")))
    plus, versus, minus = name.partition(VERSUS)
    keys = [f"side.{kind}.{side}" for side in (plus, minus)]
    known = entries(language)
    if versus and f"{keys[0]}.plus" in known and f"{keys[1]}.minus" in known:
        sides = {"plus": Term(f"{keys[0]}.plus"), "minus": Term(f"{keys[1]}.minus")}
        return say(language, "name.versus", **sides)
    return show(language, Term(f"name.{kind}.{name}", label or name))


def _feature(language: str, name: str, label: str) -> str:
    return show(language, Term(f"name.feature.{name}", label or name))


def effect_words(language: str, effects: Iterable[Effect]) -> dict[str, str]:
    """Return the words that the page's script looks up, `name.<kind>.<name>`, for all effects but those of books."""
    return {
        f"name.{effect.kind}.{effect.name}": effect_name(language, effect.kind, effect.name, effect.label)
        for effect in effects
        if effect.kind != "book"
    }
