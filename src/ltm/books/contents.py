"""Find tables of contents: lines that point at other lines and tell nothing.

A table goes only where the text itself proves it: most of its entries come back as headings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ltm.books.words import lowered

_TITLE = re.compile(
    r"^\ue000?\W{0,3}(?:(?:table of |the |list of )?contents(?: of [^\n]{1,30})?|table of chapters|содержание|"
    r"оглавление|inhalt(?:sverzeichnis)?|table des mati[eè]res|[ií]ndice|indice)\W{0,3}$",
    re.IGNORECASE,
)
_HINTS = ("contents", "chapters", "содержание", "оглавление", "inhalt", "table des", "indice", "índice")
_TAIL = re.compile(r"[\s.…·_-]*(?:\d{1,4}|[ivxlc]{1,7})?\W*$", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")
_COLUMN_HEAD = re.compile(r"^\W*(?:chap(?:ter|\.)?|page|стр|глава|seite)?\W*(?:page|стр|pp?)?\W*$", re.IGNORECASE)
_MAX_ENTRY = 120
_MAX_ENTRIES = 400
_MIN_ENTRIES = 3


def drop_contents(text: str) -> str:
    """Return the text without its tables of contents, where they are beyond doubt."""
    if not any(_TITLE.match(line.strip()) for line in _lines_with_hint(text)):
        return text
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        if len(lines[start]) < 50 and _TITLE.match(lines[start].strip()):
            end = _end_of_table(lines, start)
            if end is not None:
                del lines[start:end]
                continue
        start += 1
    return "\n".join(lines)


def _lines_with_hint(text: str) -> Iterator[str]:
    """Yield the short lines that have a word for a table of contents; a plain search is faster than any pattern."""
    lower = lowered(text)
    for hint in _HINTS:
        at = lower.find(hint)
        while at >= 0:
            begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            line = text[begin : end if end >= 0 else len(text)]
            if len(line) < 50:
                yield line
            at = lower.find(hint, at + len(hint))


def _end_of_table(lines: list[str], start: int) -> int | None:
    """Return the line after the last entry of a table that starts here, or None if this is no table."""
    entries: list[tuple[int, str]] = []
    for index in range(start + 1, len(lines)):
        line = lines[index].strip()
        if len(line) > _MAX_ENTRY or len(entries) >= _MAX_ENTRIES or _TITLE.match(line):
            break
        if line and not _COLUMN_HEAD.match(line):
            entries.append((index, _key(line)))
    entries = _before_repetition(entries)
    if len(entries) < _MIN_ENTRIES:
        return None
    stop = entries[-1][0] + 1
    others = [*lines[stop:], *lines[:start]]  # a table can stand at the end of a book too
    elsewhere = {_key(line) for line in others if 0 < len(line.strip()) <= _MAX_ENTRY}
    matched = [index for index, key in entries if key and key in elsewhere]
    if len(matched) < max(_MIN_ENTRIES, 0.6 * len(entries)):
        return None
    return matched[-1] + 1


def _before_repetition(entries: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the entries before the first heading of the book itself, which is a short line that repeats an entry."""
    seen: set[str] = set()
    for place, (_, key) in enumerate(entries):
        if key and key in seen and place >= _MIN_ENTRIES and (len(key) > 3 or key == entries[0][1]):
            return entries[:place]
        seen.add(key)
    return entries


def _key(line: str) -> str:
    plain = line.strip().lstrip("\ue000").casefold()
    numbered = _NOT_WORD.sub(" ", _TAIL.sub("", plain)).strip()
    return numbered or _NOT_WORD.sub(" ", plain).strip()
