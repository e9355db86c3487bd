"""Title, author, year and genre from whatever says something about a book, most trusted first.

Order of trust: manifest, a Project Gutenberg header, the file's own metadata, a title page that proves itself, the
file's name, a guess from the first lines. Gutenberg's headers are written by hand; the titles of its web pages are
not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

_BEFORE_CHRIST = re.compile(r"\b(?:b\.?\s?c\.?(?:\s?e\.?)?|до\s+н\.?\s?э\.?)", re.IGNORECASE)
_YEAR = re.compile(r"(?<![\d.])-?\d{1,4}(?!\d)")
_SUFFIXES = re.compile(r"(\.(?:fb2|txt|html|epub|md|tei|tar))?\.[A-Za-z0-9]{2,8}$")
_LIBRARY_NUMBER = re.compile(r"^(?:[a-z]{0,3}\d{1,7}|[a-z]{2})$", re.IGNORECASE)
_LATEST_YEAR = 2100
_LANGUAGE_NAMES = {
    "eng": "en", "english": "en", "rus": "ru", "russian": "ru", "русский": "ru", "fre": "fr", "fra": "fr",
    "french": "fr",
    "ger": "de", "deu": "de", "german": "de", "spa": "es", "spanish": "es", "ita": "it", "italian": "it", "lat": "la",
    "latin": "la", "ukr": "uk", "pol": "pl", "dut": "nl", "nld": "nl", "por": "pt", "swe": "sv", "fin": "fi",
    "cze": "cs",
}  # fmt: skip


def parse_year(text: str) -> int | None:
    """Return a year; before Christ is negative; of a range the first; None if there is none.

    >>> parse_year("600 BC"), parse_year("1833-1836"), parse_year("-380"), parse_year("c. 1850"), parse_year("")
    (-600, 1833, -380, 1850, None)
    """
    match = _YEAR.search(text)
    if match is None:
        return None
    year = int(match[0])
    if year > 0 and _BEFORE_CHRIST.search(text):
        year = -year
    return year if year <= _LATEST_YEAR else None


def from_file_name(source: str) -> dict[str, str]:
    """Return title and author as a file's name gives them.

    >>> from_file_name("en/Jane Austen - Emma.txt")
    {'author': 'Jane Austen', 'title': 'Emma'}
    >>> from_file_name("en0026_anne-bronte_agnes-grey.txt")
    {'author': 'Anne Bronte', 'title': 'Agnes Grey'}
    """
    stem = _SUFFIXES.sub("", PurePosixPath(source).name)
    if " - " in stem:
        author, _, title = stem.partition(" - ")
        return {"author": author.strip(), "title": title.strip()}
    parts = [part for part in stem.split("_") if part]
    numbered = len(parts) > 2 and _LIBRARY_NUMBER.match(parts[0]) is not None
    if numbered:
        parts = parts[1:]
    if (numbered or len(parts) == 2) and not _LIBRARY_NUMBER.match(parts[1]):
        return {"author": _words(parts[0]), "title": _words(parts[1])}
    # `pg1342`, `book 12`, `00017` name nothing
    named = not _LIBRARY_NUMBER.match(stem) and re.search(
        r"[^\W\d_]{2}", re.sub(r"^(?:book|text|file|novel)\b", "", stem)
    )
    return {"title": _words(stem)} if named else {}


def _words(slug: str) -> str:
    text = re.sub(r"[-_]+", " ", slug).strip()
    return text.title() if text == text.lower() else text


def choose(*sources: Mapping[str, str]) -> dict[str, str]:
    """Return for each field the first non-empty value; sources come most trusted first."""
    chosen: dict[str, str] = {}
    for source in sources:
        for key, value in source.items():
            if value and value.strip() and key not in chosen:
                chosen[key] = re.sub(r"\s+", " ", value).strip()[:300]
    return chosen


def parse_rating(text: str) -> float | None:
    """Return a number as people write it, or None: `4.5`, `4,5`, `1 234`, `12k`.

    >>> parse_rating("4,5"), parse_rating("1,234,567"), parse_rating("12k"), parse_rating("n/a")
    (4.5, 1234567.0, 12000.0, None)
    """
    plain = re.sub(r"[\s\u00a0_]", "", text).lower()
    factor = {"k": 1e3, "m": 1e6}.get(plain[-1:], 1.0)
    plain = plain.rstrip("km")
    if plain.count(",") == 1 and "." not in plain and not re.search(r",\d{3}$", plain):
        plain = plain.replace(",", ".")
    try:
        value = float(plain.replace(",", "")) * factor
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def language_code(named: str) -> str:
    """Return the ISO 639-1 code of a language as a file or manifest names it (`eng`, `en-GB`, `Russian`, `ru`).

    >>> language_code("eng"), language_code("en-GB"), language_code("Russian")
    ('en', 'en', 'ru')
    """
    code = named.strip().lower()
    return _LANGUAGE_NAMES.get(code, code.replace("_", "-").split("-")[0])
