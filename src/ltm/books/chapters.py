"""Find where the chapters and scenes of a clean text begin.

Headings are known by signs: marks left by a reader that knew, words with a number (CHAPTER I, Letter the Second, Глава
1, Act 2), numerals alone that count up, titles on lines of their own. A sign counts only if the pieces it makes are
long enough to be chapters, so that stanza numbers, signatures and tables of contents do not. Scenes begin at chapters
and after rows of stars.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ltm.books.readers.base import HEADING

MIN_CHAPTER_CHARS = 800  # median length of what a sign divides; below it the sign means something else
MERGE_CHARS = 300  # headings closer than this (PART I, CHAPTER I, its title) open one chapter
FRONT_CHARS = 1500  # a title page so long belongs to the first chapter
_MIN_WORDED_CHARS = 300  # `Letter the Fifth` is a heading beyond doubt, and letters are short
_MIN_TITLED_CHARS = 4000
_MIN_ADDED_CHARS = 2000  # of titles beside numerals
_MAX_HEADING = 120
_MAX_WORDED = 600  # `CHAPTER V. IN WHICH ...`

_ONES = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|"
    "nineteen"
)
_ORDINALS = (
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth|fourteenth|fifteenth|"
    "sixteenth|seventeenth|eighteenth|nineteenth|last"
)
_TENS = r"(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)(?:y|ieth)(?:[- ]\w+)?"
_NUMBER = rf"(?:\d{{1,3}}(?:st|nd|rd|th)?|[ivxlc]{{1,9}}|{_ONES}|{_ORDINALS}|{_TENS})"
_WORDS_EN = (
    r"(?:chapter\.?|chap\.|book|part|act|actus|scene|scena|scoe\.|letter|canto|volume|vol\.|section|sect?\.|stave|lecture|"
    r"essay|case|fable|tale|story|epistle|sermon|satire|idyll|night|day|number|no\.|chapitre|livre|partie|kapitel|buch|"
    r"teil|cap[ií]tulo|capitolo|libro|parte)"
)
_WORDS_RU = (
    r"(?:глава|часть|книга|том|действие|акт|явление|картина|сцена|письмо|песнь|песня|раздел|очерк|рассказ|отделение|"
    r"выход|тетрадь|вечер|ночь|день|лекция|беседа)"
)
_ORDINAL_RU = (
    r"(?:\d{1,3}(?:-?[а-я]{1,2})?|[ivxlcхі]{1,9}|[а-яѣіѳ]{2,12}(?:ая|ое|ый|ой|ье|ья|ий|ь|ие|ые)"
    r"(?: [а-я]{3,12}(?:ая|ое|ый|ой|ье|ья|ий))?)"
)
_WORDED = re.compile(
    rf"^[^\w\n]{{0,4}}(?:the )?(?:{_WORDS_EN} (?:the )?{_NUMBER}|(?:the )?(?:{_ORDINALS}) (?:book|part|chapter|act|"
    rf"letter|canto|day|night|lecture|scene|fable|volume)|{_WORDS_RU} {_ORDINAL_RU}|{_ORDINAL_RU} (?:глава|"
    rf"часть|книга|действие))"
    r"(?![\w’']|-\w)",
    re.IGNORECASE,
)
_AFTER = r"(?:\.?\W{0,3}$|(?:[.:)] ?[-–—]{0,2} ?| ?[-–—]{1,2} ?)[^\W\d_].{0,90}$| (?=[^\W\d_])[^a-zа-яё]{4,90}$)"
_LEAD = r"[^\w\n\"“”«'‘(*]{0,2}"
_ROMAN = re.compile(rf"^{_LEAD}(?P<n>(?=[IVXLCХІ])[IVXLCХІ]{{1,9}}){_AFTER}")
_ARABIC = re.compile(rf"^{_LEAD}(?P<n>\d{{1,3}}){_AFTER}")
_SPELLED = re.compile(rf"^{_LEAD}(?P<n>{_ONES}|{_TENS}){_AFTER}", re.IGNORECASE)
_CAPITALS = re.compile(r"^[^\w\"“«'‘—-]{0,2}(?=.*[^\W\d_]{3})[^a-zа-яё\"“”]{4,90}$")
_TITLE = re.compile(r"^(?:[A-ZА-ЯЁ][^.!?:;,\"“”«»]{2,60}|[\"“«][A-ZА-ЯЁ][^.!?:;,\"“”«»]{2,40}[\"”»])$")
_EXTRA = re.compile(
    r"^\W{0,3}(?:prologue|epilogue|preface|introduction|foreword|afterword|conclusion|advertisement|postscript|appendix|"
    r"пролог|эпилог|предисловие|введение|послесловие|заключение|вместо предисловия|от автора)\W{0,3}$",
    re.IGNORECASE,
)
_BREAK = re.compile(r"^(?:[ \t]*[*·•⁂†#~=_—–-][ \t]*){1,15}$")
_WORD_END = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a text begin."""

    text: str  # without chapter marks
    chapters: list[int]  # ascending character offsets, the first is 0
    scenes: list[int]  # likewise; every chapter opens one


def find_layout(text: str) -> Layout:
    """Take the chapter marks out of a text and find its chapters and scenes."""
    text, marked = _take_out_marks(text)
    lines = _Lines(text)
    chapters = _merge(_find(lines, marked, len(text)), len(text))
    return Layout(text, chapters, sorted({*chapters, *lines.after_breaks(len(text))}))


def find_chapters(text: str) -> tuple[str, list[int]]:
    """Return the text without chapter marks, and the character offsets at which chapters begin.

    Returns:
        The text, and ascending offsets into it; the first is 0. A text without chapters has the one offset 0.
    """
    layout = find_layout(text)
    return layout.text, layout.chapters


class _Lines:
    """The lines of a text that may be headings, by sign."""

    def __init__(self, text: str) -> None:
        self.worded: list[int] = []
        self.numbered: list[list[tuple[int, int]]] = [[], [], []]  # offset and value: Roman, Arabic, spelled out
        self.capitals: list[tuple[int, str]] = []
        self.titles: list[tuple[int, str]] = []
        self.extra: list[int] = []
        self._breaks: list[int] = []
        offset = 0
        for paragraph in text.split("\n\n"):
            if len(paragraph) <= _MAX_WORDED or paragraph.find("\n", 0, 30) > 0:
                self._sort(offset, paragraph)
            offset += len(paragraph) + 2

    def _sort(self, offset: int, paragraph: str) -> None:
        line = paragraph.split("\n", 1)[0]
        if not line:
            return
        may_be_long = len(line) <= _MAX_HEADING or line[:8].isupper() or " -- " in line[:20]
        if may_be_long and _WORDED.match(line):
            self.worded.append(offset)
            return
        if len(line) > _MAX_HEADING or (len(paragraph) > 3 * _MAX_HEADING and len(line) > 20):
            return
        for place, pattern in enumerate((_ROMAN, _ARABIC, _SPELLED)):
            match = pattern.match(line)
            if match:
                self.numbered[place].append((offset, _value(match["n"])))
                return
        if _EXTRA.match(line):
            self.extra.append(offset)
        elif _BREAK.match(line):
            self._breaks.append(offset + len(paragraph) + 2)
        elif len(line) == len(paragraph):
            if _CAPITALS.match(line):
                self.capitals.append((offset, line))
            elif _TITLE.match(line):
                self.titles.append((offset, line))

    def after_breaks(self, length: int) -> list[int]:
        return [offset for offset in self._breaks if offset < length]


def _find(lines: _Lines, marked: list[int], length: int) -> list[int]:
    """Return the starts that the signs of a text agree on, in no order."""
    accepted = [marked] if _divides(marked, length, MIN_CHAPTER_CHARS) else []
    worded = _divides(lines.worded, length, _MIN_WORDED_CHARS)
    if worded:
        accepted.append(lines.worded)
    for numbers in lines.numbered:
        # beside worded headings numerals must be flawless: they can be lists, verses of the Bible, answers
        offsets = [offset for offset, _ in numbers]
        flawless = 0.9 if worded else 0.7
        if _counts_up([value for _, value in numbers], flawless) and _divides(offsets, length, MIN_CHAPTER_CHARS):
            accepted.append(offsets)
    if not accepted:
        styles = [_of_one_style(lines.capitals), _of_one_style(lines.titles)]
        fitting = [offsets for offsets in styles if _divides(offsets, length, _MIN_TITLED_CHARS)]
        return max(fitting, key=len) if fitting else []
    found = [offset for offsets in accepted for offset in offsets]
    if not worded and not marked:
        # stories with titles, divided by numerals inside
        titles = _of_one_style(lines.capitals)
        if len(titles) >= 3 and _divides(titles, length, _MIN_ADDED_CHARS):
            found += titles
    return [*found, *lines.extra]


def _of_one_style(candidates: Sequence[tuple[int, str]]) -> list[int]:
    """Return the lines that end as most of them do (with a dot or without), so that signatures and cries drop out."""
    ends = Counter(_WORD_END.match(line[-1]) is not None for _, line in candidates)
    if not ends:
        return []
    usual = ends.most_common(1)[0][0]
    return [offset for offset, line in candidates if (_WORD_END.match(line[-1]) is not None) == usual]


def _counts_up(values: Sequence[int], least: float) -> bool:
    """Tell whether numbers are those of chapters: each the one before plus 1, or 1 again."""
    if len(values) < 2:
        return False
    steps = [b == a + 1 or b == 1 or (b == 2 and a != 1) for a, b in itertools.pairwise(values)]
    return sum(steps) >= least * len(steps) and (values[0] <= 3 or len(values) > 5)


def _value(numeral: str) -> int:
    if numeral.isdigit():
        return int(numeral)
    names = _ONES.split("|")
    if numeral.lower() in names:
        return names.index(numeral.lower()) + 1
    digits = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "Х": 10, "І": 1}.get(c, 0) for c in numeral]
    return sum(-a if a < b else a for a, b in zip(digits, [*digits[1:], 0], strict=True))


def _take_out_marks(text: str) -> tuple[str, list[int]]:
    if HEADING not in text:
        return text, []
    pieces = text.split(HEADING)
    offsets = []
    length = len(pieces[0])
    for piece in pieces[1:]:
        offsets.append(length)
        length += len(piece)
    return "".join(pieces), offsets


def _divides(offsets: Sequence[int], length: int, least: int) -> bool:
    starts = _merge(offsets, length)[1:] if offsets and offsets[0] > FRONT_CHARS else _merge(offsets, length)
    if len(starts) < 2:
        return False
    lengths = [b - a for a, b in zip(starts, [*starts[1:], length], strict=True)]
    return statistics.median(lengths) >= least


def _merge(offsets: Sequence[int], length: int) -> list[int]:
    """Return sorted starts with 0 in front; of starts that follow each other closely the first stays."""
    starts = [0]
    last = 0
    for offset in sorted(set(offsets)):
        near = FRONT_CHARS if len(starts) == 1 and last == 0 else MERGE_CHARS
        if offset - last > near and offset < length:
            starts.append(offset)
        last = offset
    return starts
