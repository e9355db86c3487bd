"""Take out what belongs to a printed page and not to the text: page numbers and running heads.

Both go only where they prove themselves: numbers that count up by one at even distances, and a line that comes back
with a number that counts up.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import defaultdict

from ltm.books.words import lowered

# in brackets only: `(page 92)` is how authors point at their own pages
_PAGE_MARK = re.compile(r"[ \t]?[\[{](?:pg|page|p\.|стр\.)\s?\d{1,4}[\]}]", re.IGNORECASE)
_PAGE_HINTS = [bracket + word for bracket in "[{" for word in ("pg", "page", "p.", "стр.")]
# both begin with a line end, which is found without trying every character
_NUMBER_LINE = re.compile(r"\n[ \t]*[-–—\[(]{0,2}[ \t]?(\d{1,4})[ \t]?[-–—\])]{0,2}[ \t]*(?=\n|\Z)")
_HEAD_LINE = re.compile(
    r"\n[ \t]*(?:(?P<before>\d{1,4})[ \t]+(?P<text>[^\W\d][^\n]{2,60})|"
    r"(?P<title>[^\W\d][^\n\d]{2,60}?)[ \t]+(?P<after>\d{1,4}))[ \t]*(?=\n|\Z)"
)
_MIN_PAGES = 10
_MIN_HEADS = 8


def drop_page_numbers(text: str) -> str:
    """Return the text without page marks such as `[Pg 12]`, and without lone page numbers that count up evenly."""
    lower = lowered(text)
    if any(mark in lower for mark in _PAGE_HINTS):
        text = _PAGE_MARK.sub("", text)
    matches = list(_NUMBER_LINE.finditer(f"\n{text}"))
    return _without(text, matches) if _count_like_pages(matches) else text


def drop_running_heads(text: str) -> str:
    """Return the text without lines such as `THE OLD MILL  57` that stand on top of every other page."""
    by_text: dict[str, list[tuple[int, re.Match[str]]]] = defaultdict(list)
    for match in _HEAD_LINE.finditer(f"\n{text}"):
        words = (match["text"] or match["title"]).casefold().strip(" .")
        by_text[words].append((int(match["before"] or match["after"]), match))
    found: list[re.Match[str]] = []
    for heads in by_text.values():
        if len(heads) < _MIN_HEADS:
            continue
        steps = [b - a for (a, _), (b, _) in itertools.pairwise(heads)]
        distance = [b.start() - a.start() for (_, a), (_, b) in itertools.pairwise(heads)]
        # `Chapter 12` counts up by one too, so heads must stand on every page or every other one, a page apart
        if sum(1 <= step <= 4 for step in steps) >= 0.9 * len(steps) and 800 < statistics.median(distance) < 9000:
            even = statistics.pstdev(sorted(distance)[: int(0.9 * len(distance)) + 1]) < 0.35 * statistics.fmean(
                distance
            )
            if even:
                found.extend(match for _, match in heads)
    return _without(text, sorted(found, key=lambda match: match.start()))


def _without(text: str, matches: list[re.Match[str]]) -> str:
    """Return a text without lines; they were found in the text with one more line end in front."""
    kept = []
    position = 0
    for match in matches:
        kept.append(text[position : match.start()])
        position = match.end() - 1
    return "".join([*kept, text[position:]])


def _count_like_pages(matches: list[re.Match[str]]) -> bool:
    if len(matches) < _MIN_PAGES:
        return False
    pairs = list(itertools.pairwise(matches))
    steps = [int(b[1]) - int(a[1]) for a, b in pairs]
    distances = [b.start() - a.start() for a, b in pairs]
    if sum(step == 1 for step in steps) < 0.8 * len(steps):
        return False
    mean = statistics.fmean(distances)
    # chapters of one length do not exist; pages all hold about as much
    return 500 < mean < 6000 and statistics.pstdev(distances) < 0.5 * mean
