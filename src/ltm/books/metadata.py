"""Title, author, year and genre from whatever says something about a book, most trusted first.

Order of trust: manifest, the file's own metadata, a Project Gutenberg header, the file's name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

UNKNOWN = "unknown"
_NAMELESS = frozenset(
    ("", UNKNOWN, "anonymous", "anon", "various", "неизвестен", "неизвестный автор", "автор неизвестен")
)
_BEFORE_CHRIST = re.compile(r"\b(?:b\.?\s?c\.?(?:\s?e\.?)?|до\s+н\.?\s?э\.?)", re.IGNORECASE)
_YEAR = re.compile(r"(?<![\d.])-?\d{1,4}(?!\d)")
_SUFFIXES = re.compile(r"(\.(?:fb2|txt|html|epub|md|tei))?\.[A-Za-z0-9]{2,8}$")
_LIBRARY_NUMBER = re.compile(r"^(?:[a-z]{0,3}\d{1,7}|[a-z]{2})$", re.IGNORECASE)
_LATEST_YEAR = 2100


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
    return {"title": _words(stem)}


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


def author_keys(author: str) -> list[tuple[str, str]]:
    """Return a key (last name, first initial) for each author that a name field names; empty if unknown.

    Different spellings of one name (`H.G. Wells`, `Wells, Herbert George (1866-1946)`) get the same key. Two people
    may share one: that only makes the unit which is held out larger, never lets a held-out author into training.

    >>> author_keys("H.G. Wells") == author_keys("Wells, Herbert George (1866-1946)")
    True
    """
    keys = []
    for name in re.split(r"\s*(?:;|&|/|\band\b|\bwith\b|(?<=\w)\s+и\s+(?=\w))\s*", author):
        plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).casefold()
        plain = re.sub(r"\([^)]*\)?|\bq\d+\b|\d{3,4}\??(?:\s*-\s*\d{0,4})?", " ", plain)
        if plain.strip(" .,") in _NAMELESS:
            continue
        last, comma, first = plain.partition(",")
        words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", f"{first} {last}" if comma else plain)
        words = [
            word for word in words if word not in ("sir", "dr", "st", "mr", "mrs", "jr", "sr", "de", "von", "graf")
        ]
        if words:
            keys.append((words[-1], words[0][0]))
    return keys
