"""Find tables of contents and page numbers: lines that point at other lines and tell nothing.

Both are taken out only where the text itself proves them: an entry of a table of contents comes back later as a
heading; page numbers count up by one at even distances.
"""

from __future__ import annotations

import itertools
import re
import statistics

_TITLE = re.compile(
    r"^\ue000?\W{0,3}(?:table of contents|contents|list of contents|содержание|оглавление)\W{0,3}$", re.IGNORECASE
)
_TAIL = re.compile(r"[\s.…·_-]*(?:\d{1,4}|[ivxlc]{1,7})?\W*$", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")
_PAGE_MARK = re.compile(r"[ \t]?[\[{(](?:pg|page|p\.)\s?\d{1,4}[\]})]", re.IGNORECASE)
_NUMBER_LINE = re.compile(r"^[ \t]*[-–—\[(]{0,2}[ \t]?(\d{1,4})[ \t]?[-–—\])]{0,2}[ \t]*$", re.MULTILINE)
_MAX_ENTRY = 120
_MAX_ENTRIES = 400
_MIN_ENTRIES = 3


def drop_contents(text: str) -> str:
    """Return the text without its table of contents, where one is beyond doubt."""
    lines = text.split("\n")
    for start, line in enumerate(lines):
        if len(line) < 40 and _TITLE.match(line.strip()):
            end = _end_of_table(lines, start)
            if end is not None:
                return "\n".join(lines[:start] + lines[end:])
    return text


def _end_of_table(lines: list[str], start: int) -> int | None:
    """Return the line after the last entry of a table that starts here, or None if this is no table."""
    entries: list[tuple[int, str]] = []
    for index in range(start + 1, len(lines)):
        line = lines[index].strip()
        if len(line) > _MAX_ENTRY or len(entries) >= _MAX_ENTRIES or _TITLE.match(line):
            break
        if line:
            entries.append((index, _key(line)))
    keys: list[str] = [key for _, key in entries]
    # a short line that repeats an entry is the first heading of the book itself: the table ended before it
    seen: set[str] = set()
    for place, key in enumerate(keys):
        if key and key in seen and place >= _MIN_ENTRIES and len(key) > 3:
            entries = entries[:place]
            break
        seen.add(key)
    if len(entries) < _MIN_ENTRIES:
        return None
    stop = entries[-1][0] + 1
    later = {_key(line) for line in lines[stop:] if 0 < len(line.strip()) <= _MAX_ENTRY}
    matched = [index for index, key in entries if key and key in later]
    if len(matched) < max(_MIN_ENTRIES, 0.6 * len(entries)):
        return None
    return matched[-1] + 1


def _key(line: str) -> str:
    plain = line.strip().lstrip("\ue000").casefold()
    numbered = _NOT_WORD.sub(" ", _TAIL.sub("", plain)).strip()
    return numbered or _NOT_WORD.sub(" ", plain).strip()


def drop_page_numbers(text: str) -> str:
    """Return the text without page marks such as `[Pg 12]`, and without lone page numbers that count up evenly."""
    text = _PAGE_MARK.sub("", text)
    matches = list(_NUMBER_LINE.finditer(text))
    if not _count_like_pages(matches):
        return text
    kept = []
    position = 0
    for match in matches:
        kept.append(text[position : match.start()])
        position = match.end()
    return "".join([*kept, text[position:]])


def _count_like_pages(matches: list[re.Match[str]]) -> bool:
    if len(matches) < 10:
        return False
    pairs = list(itertools.pairwise(matches))
    steps = [int(b[1]) - int(a[1]) for a, b in pairs]
    distances = [b.start() - a.start() for a, b in pairs]
    if sum(step == 1 for step in steps) < 0.8 * len(steps):
        return False
    mean = statistics.fmean(distances)
    # chapters of one length do not exist; pages all hold about as much
    return 500 < mean < 6000 and statistics.pstdev(distances) < 0.5 * mean
