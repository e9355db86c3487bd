"""Every visible word of the page, in each language, with numbers and plurals as that language writes them.

Reads: locales/en.json, locales/ru.json (package data). A sentence is written once per language into the page and the
reader's choice hides the others, so that prose needs no script and a screen reader knows the language of each sentence.
"""

from __future__ import annotations

import functools
import html
import json
import math
from dataclasses import dataclass
from importlib import resources

LANGUAGES = ("en", "ru")


@dataclass(frozen=True)
class Term:
    """A word that is looked up in the language of the sentence; `fallback` is shown where it has no entry."""

    key: str
    fallback: str = ""


@dataclass(frozen=True)
class Signed:
    """A number that is printed with its sign."""

    value: float | None
    digits: int = 2


@dataclass(frozen=True)
class Fixed:
    """A number with so many decimal places."""

    value: float | None
    digits: int = 2


@dataclass(frozen=True)
class Percent:
    """A fraction that is printed as a percentage."""

    value: float | None


@dataclass(frozen=True)
class Duration:
    """Seconds, printed with at most two units."""

    seconds: float | None


@dataclass(frozen=True)
class Several:
    """A list of values, joined with commas."""

    values: tuple[Argument, ...]


@dataclass(frozen=True)
class Capital:
    """A value that begins a sentence."""

    value: Argument


@dataclass(frozen=True)
class Quoted:
    """A text of the data itself, in the quotation marks of the language and set apart from its direction."""

    text: str


Argument = str | int | float | None | Term | Signed | Fixed | Percent | Duration | Several | Capital | Quoted


@functools.cache
def entries(language: str) -> dict[str, str | dict[str, str]]:
    """Return all entries of a language: plain text, or one text per plural form."""
    text = resources.files("ltm.dashboard").joinpath("locales", f"{language}.json").read_text(encoding="utf-8")
    loaded: dict[str, str | dict[str, str]] = json.loads(text)
    return loaded


def plural(language: str, n: float) -> str:
    """Return the plural form of a count, by the rules of Unicode CLDR.

    >>> [plural("ru", n) for n in (1, 3, 5, 11, 21, 1.5)], [plural("en", n) for n in (1, 2)]
    (['one', 'few', 'many', 'many', 'one', 'other'], ['one', 'other'])
    """
    if language != "ru":
        return "one" if n == 1 else "other"
    if n != int(n):
        return "other"
    last, last_two = int(n) % 10, int(n) % 100
    if last == 1 and last_two != 11:
        return "one"
    return "few" if 2 <= last <= 4 and not 12 <= last_two <= 14 else "many"


def say(language: str, key: str, **values: Argument) -> str:
    """Return a sentence in plain text (not escaped).

    Raises:
        KeyError: the key or a value of the sentence is unknown; locales are tested to agree.
    """
    entry = entries(language)[key]
    if isinstance(entry, dict):
        count = values.get("n", 0)
        entry = entry[plural(language, float(count) if isinstance(count, (int, float)) else 0)]
    return entry.format(**{name: show(language, value) for name, value in values.items()}) if values else entry


def show(language: str, value: Argument) -> str:
    """Return one value as the language writes it; what is unknown is a dash."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, Term):
        entry = entries(language).get(value.key, value.fallback or value.key)
        return entry if isinstance(entry, str) else entry["other"]
    if isinstance(value, Several):
        return ", ".join(show(language, inner) for inner in value.values)
    if isinstance(value, Capital):
        inner = show(language, value.value)
        return inner[:1].upper() + inner[1:]
    if isinstance(value, Quoted):
        marks = "“”" if language == "en" else "«»"
        return f"{marks[0]}\u2068{value.text}\u2069{marks[1]}"
    if isinstance(value, Percent):
        percent = _decimal(language, None if value.value is None else value.value * 100, 0)
        return f"{percent}%" if language == "en" else f"{percent}\u00a0%"
    if isinstance(value, Duration):
        return _duration(language, value.seconds)
    if isinstance(value, Signed):
        return _decimal(language, value.value, value.digits, sign=True)
    if isinstance(value, Fixed):
        return _decimal(language, value.value, value.digits)
    return _decimal(language, value, 0 if float(value).is_integer() else 2)


def both(key: str, **values: Argument) -> str:
    """Return a sentence as HTML in every language, escaped; the style sheet shows one of them."""
    return spans(texts(key, **values))


def texts(key: str, **values: Argument) -> dict[str, str]:
    """Return a sentence in every language, plain text by language."""
    return {language: say(language, key, **values) for language in LANGUAGES}


def joined(*parts: dict[str, str]) -> dict[str, str]:
    """Return sentences put one behind the other, by language; a language that lacks one gets the English.

    >>> joined({"en": "One.", "ru": "Один."}, {"en": "Two."})
    {'en': 'One. Two.', 'ru': 'Один. Two.'}
    """
    return {language: " ".join(p.get(language) or p["en"] for p in parts if p) for language in LANGUAGES}


def spans(given: dict[str, str]) -> str:
    """Return given texts, one per language, as escaped HTML spans; a language that lacks one gets the English."""
    fallback = given.get("en") or next(iter(given.values()), "")
    return "".join(
        f'<span lang="{language}">{html.escape(given.get(language) or fallback)}</span>' for language in LANGUAGES
    )


def same(text: str) -> str:
    """Return a text of the data itself (a title, a reason), escaped and set apart from the direction of the page."""
    return f"<bdi>{html.escape(text)}</bdi>"


def _decimal(language: str, value: float | None, digits: int, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    if language == "ru":
        text = text.replace(",", "\u00a0").replace(".", ",")
    return text.replace("-", "\u2212")


def _duration(language: str, seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "–"
    unit = {name: show(language, Term(f"unit.{name}")) for name in ("s", "min", "h", "d")}
    if seconds < 59.95:
        return f"{_decimal(language, seconds, 1)}\u00a0{unit['s']}"
    whole = round(seconds)
    for size, name, part, part_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (0, "min", 1, "s")):
        if whole >= size:
            first, rest = divmod(whole, size or 60)
            tail = f" {rest // part}\u00a0{unit[part_name]}" if rest // part else ""
            return f"{first}\u00a0{unit[name]}{tail}"
    return "–"
