"""Find where the chapters of a clean text begin.

Headings are found by four signs: marks left by a reader that knew, words (CHAPTER I, Глава 1, Act II), Roman numerals
alone, numbers alone. A sign counts only if the pieces it makes are long enough to be chapters, so that stanza numbers
and tables of contents do not.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable

from ltm.books.readers.base import HEADING

MIN_CHAPTER_CHARS = 800  # median length of what a sign divides; below it the sign means something else
MERGE_CHARS = 300  # headings closer than this (PART I, CHAPTER I, its title) open one chapter
_MAX_HEADING = 120

_NUMBER = (
    r"(?:\d{1,3}|[ivxlc]{1,8}|the (?:first|last|second|third)|first|second|third|fourth|fifth|sixth|seventh|eighth|"
    r"ninth|tenth|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    r"eighteen|nineteen|twenty(?:-\w+)?|thirty(?:-\w+)?|forty(?:-\w+)?)"
)
_WORDS_EN = r"(?:chapter\.?|chap\.|book|part|act|scene|letter|canto|volume|section|stave|lecture)"
_WORDS_RU = r"(?:глава|часть|книга|том|действие|акт|явление|картина|сцена|письмо|песнь|раздел)"
_ORDINAL_RU = r"(?:\d{1,3}(?:-?[а-я]{1,2})?|[ivxlcхі]{1,8}|[а-я]{3,12}(?:ая|ое|ый|ой|ье|ья|ий|ь)(?: [а-я]{3,12})?)"
_SIGNS = (
    re.compile(rf"^\W{{0,3}}{_WORDS_EN} {_NUMBER}\b(?!['’-]\w)", re.IGNORECASE),
    re.compile(rf"^\W{{0,3}}{_WORDS_RU} {_ORDINAL_RU}\b", re.IGNORECASE),
    re.compile(r"^(?=[IVXLCХІ])[IVXLCХІ]{1,8}(?:\.?$|\. [^\W\d_].{0,80}$| - .{1,80}$)"),
    re.compile(r"^\d{1,3}(?:\.?$|\. [^\W\d_a-zа-я].{0,80}$| - .{1,80}$)"),
)
_TITLES = (  # headings without a number, trusted only where no sign above divides the text
    re.compile(r"^(?=.*[^\W\d_]{3})[^a-zа-яё]{4,60}$"),
    re.compile(r"^[A-ZА-ЯЁ][^.!?:;,\"“”«»]{2,60}$"),
)
_MIN_TITLED_CHARS = 4000
_EXTRA = re.compile(
    r"^\W{0,3}(?:prologue|epilogue|preface|introduction|пролог|эпилог|предисловие|введение)\W{0,3}$", re.I
)


def find_chapters(text: str) -> tuple[str, list[int]]:
    """Return the text without chapter marks, and the character offsets at which chapters begin.

    Returns:
        The text, and ascending offsets into it; the first is 0. A text without chapters has the one offset 0.
    """
    text, marked = _take_out_marks(text)
    signs: list[list[int]] = [marked, *([] for _ in _SIGNS)]
    extra = []
    for offset, line in _heading_lines(text):
        for place, pattern in enumerate(_SIGNS, start=1):
            if pattern.match(line):
                signs[place].append(offset)
                break
        else:
            if _EXTRA.match(line):
                extra.append(offset)
    accepted = [offsets for offsets in signs if _divides_into_chapters(offsets, len(text))]
    if not accepted:
        return text, _find_titled(text)
    return text, _merge([*extra, *(offset for offsets in accepted for offset in offsets)], len(text))


def _find_titled(text: str) -> list[int]:
    """Return the starts of stories or essays that have a title on a line of its own, or just [0]."""
    for pattern in _TITLES:
        offsets = []
        for offset, line in _heading_lines(text):
            alone = text.startswith("\n\n", offset + len(line))
            if alone and pattern.match(line.strip()):
                offsets.append(offset)
        if _divides_into_chapters(offsets, len(text), _MIN_TITLED_CHARS):
            return _merge(offsets, len(text))
    return [0]


def _take_out_marks(text: str) -> tuple[str, list[int]]:
    pieces = text.split(HEADING)
    offsets = []
    length = len(pieces[0])
    for piece in pieces[1:]:
        offsets.append(length)
        length += len(piece)
    return "".join(pieces), offsets


def _heading_lines(text: str) -> Iterable[tuple[int, str]]:
    """Yield offset and text of the first line of every paragraph that is short enough to be a heading."""
    offset = 0
    for paragraph in text.split("\n\n"):
        line = paragraph.split("\n", 1)[0]
        if 0 < len(line) <= _MAX_HEADING and (len(paragraph) <= 3 * _MAX_HEADING or len(line) <= 20):
            yield offset, line
        offset += len(paragraph) + 2


def _divides_into_chapters(offsets: list[int], length: int, least: int = MIN_CHAPTER_CHARS) -> bool:
    starts = _merge(offsets, length)[1:] if offsets and offsets[0] > MERGE_CHARS else _merge(offsets, length)
    if len(starts) < 2:
        return False
    lengths = [b - a for a, b in zip(starts, [*starts[1:], length], strict=True)]
    return statistics.median(lengths) >= least


def _merge(offsets: list[int], length: int) -> list[int]:
    """Return sorted starts with 0 in front; of starts that follow each other closely the first stays."""
    starts = [0]
    last = 0
    for offset in sorted(set(offsets)):
        if offset - last > MERGE_CHARS and offset < length:
            starts.append(offset)
        last = offset
    return starts
