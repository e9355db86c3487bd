"""Take out what people who typed, scanned or shared a book wrote around it, and the marks that point at footnotes.

Such notes are looked for at the head and the tail only, or between brackets of their own: inside a book the same words
can be its prose.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from ltm.books.words import lowered

_EDGE_CHARS = 8000  # of a book's beginning and end, where notes are looked for
_MAX_NOTE = 2500
_BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_WHO_WORDS = ("transcriber", "redactor", "poster", "etext editor", "proofreader", "preparer", "transcription", "typist")
_WHO_HINTS = (
    "transcriber", "redactor", "poster's", "poster’s", "etext editor", "proofreader", "preparer", "transcription note",
    "typist",
)  # fmt: skip
_WHO = f"(?:{'|'.join(_WHO_WORDS)})"
_CREDIT = re.compile(
    r"\A[\ue000\s\[(*_]*(?:(?:e-?(?:text|book)|text|file|html|version|this e-?(?:text|book)|this book|this text|"
    r"this file|this (?:electronic )?edition|html version|text file)\b[^\n]{0,40}?\b)?(?:was |is |were )?"
    r"(?:(?:originally )?(?:produced|prepared|transcribed|scanned|digiti[sz]ed|proofed|proofread|typed|converted|ocred|"
    r"created|contributed|updated|compiled|provided)(?:,? (?:and|&) \w+)? (?:by|from)\b)"
    r"|\A[\ue000\s\[(*_]*(?:credits\s*:|html version by|text by\b[^\n]*@|scanned by|proofed by|e-?text by|"
    r"note: (?:project gutenberg|images (?:of|for))|this text is a combination of etexts|"
    r"\(?this file was produced from images)",
    re.IGNORECASE,
)
_NOTE_HEAD = re.compile(
    rf"\A[\ue000\s\[(*_=+|-]*(?:original )?{_WHO}(?:['’]?s['’]?)?(?: end)? ?notes?\b"
    r"(?:[^\S\n]*(?:on|about|regarding)[^\n]{0,60})?",
    re.I,
)
_BRACKETED = re.compile(rf"[ \t]?\[(?:original )?{_WHO}(?:['’]?s['’]?)? ?notes?\b[^\[\]]{{0,{_MAX_NOTE}}}\]", re.I)
_BOX = re.compile(r"(?:^[ \t]*[+|][^\n]*\n){2,80}", re.MULTILINE)
_LIBRARY = re.compile(
    r"\A[\ue000\s*_=—-]*(?:"
    r"(?:ocr|spell ?check|scan(?:ned)?|вычитка|сканирование|распознавание|корректура|форматирование|подготовка текста|"
    r"набор текста|оцифровка|электронная версия|origin)\b[^\n.]{0,12}[:=—&-]"
    r"|(?:этот |данный )?(?:файл|текст) (?:с сайта|создан|подготовлен для|взят с сайта|из библиотеки)"
    r"|(?:текст )?предоставлен[ао]? (?:ооо|правообладателем|издательством)|текст предоставлен"
    r"|прочитайте эту книгу целиком|купить полную (?:легальную )?версию"
    r"|безопасно оплатить книгу можно|спасибо,? что скачали"
    r"|(?:все|другие) книги автора\b|эта же книга в других форматах|приятного чтения!"
    r"|(?:книга|текст|файл)[^\n]{0,30}(?:скачан[ао]?|взят[ао]?|загружен[ао]?)\b[^\n]{0,30}(?:сайт|библиотек|http|www|\.ru|\.net|\.com)"
    r"|библиотека (?:максима мошкова|альдебаран|royallib)|lib\.ru\b|https?://\S+\Z|www\.\S+\Z"
    r"|оригинал (?:этого )?(?:текста|документа|здесь)|источник\s*:\s*(?:https?:|www\.)"
    r"|(?:date|дата)\s*:\s*\d{1,2}[ ./]\w+[ ./]\d{2,4}\Z)",
    re.IGNORECASE,
)
_MARKS = (re.compile(r"\[(\d{1,4})\](?![\w(:])"), re.compile(r"\{(\d{1,4})\}(?![\w(:])"))  # begin with what is rare
_STAR_MARK = re.compile(r"\[[*†‡§]{1,3}\]")
_MIN_MARKS = 3


def drop_transcribers_notes(text: str) -> str:
    """Return the text without notes of transcribers: in brackets anywhere, and as paragraphs at head and tail."""
    lower = lowered(text)
    if not any(who in lower for who in _WHO_HINTS):
        return text
    text = _BRACKETED.sub("", text)
    text = _BOX.sub(lambda box: "" if re.search(_WHO, box[0], re.IGNORECASE) else box[0], text)
    return _at_edges(text, _drop_notes)


def drop_credits(text: str) -> str:
    """Return the text without the paragraphs that tell who produced the file, at head and tail."""
    return _at_edges(text, lambda edge, _tail: _drop_paragraphs(edge, _CREDIT, 1200))


def drop_library_notes(text: str) -> str:
    """Return the text without the advertisements and scanning notes of internet libraries, at head and tail."""
    return _at_edges(text, lambda edge, _tail: _drop_paragraphs(edge, _LIBRARY, 600))


def drop_footnote_marks(text: str) -> str:
    """Return the text without `[12]` and `{12}` behind a word, where they count up as footnotes do."""
    text = _STAR_MARK.sub("", text) if "[" in text else text
    for pattern in _MARKS:
        if pattern.pattern[1] in text:
            text = _drop_counted(text, [match for match in pattern.finditer(text) if _follows_word(text, match)])
    return text


def _drop_counted(text: str, marks: list[re.Match[str]]) -> str:
    numbers = [int(match[1]) for match in marks]
    if len(numbers) < _MIN_MARKS:
        return text
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    # a new chapter may begin again at 1
    if sum(step in (0, 1) or b == 1 for step, b in zip(steps, numbers[1:], strict=True)) < 0.7 * len(steps):
        return text
    kept = []
    position = 0
    for match in marks:
        kept.append(text[position : match.start()].removesuffix(" "))
        position = match.end()
    return "".join([*kept, text[position:]])


def _follows_word(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 2) : match.start()].rstrip(" ")[-1:]
    return before.isalnum() or before in tuple(".,;:!?»”\"'’)…")


def _at_edges(text: str, drop: Callable[[str, bool], str]) -> str:
    """Apply a rule to the first and the last part of a text, cut at paragraphs."""
    first = _BLANK.search(text, _EDGE_CHARS)
    head_end = first.end() if first else len(text)
    tail_start = text.rfind("\n\n", head_end, max(head_end, len(text) - _EDGE_CHARS))
    tail_start = tail_start + 2 if tail_start >= 0 else max(head_end, len(text) - _EDGE_CHARS)
    head = drop(text[:head_end], False)
    tail = drop(text[tail_start:], True) if tail_start < len(text) else ""
    return head + text[head_end:tail_start] + tail


def _drop_paragraphs(edge: str, pattern: re.Pattern[str], most_chars: int) -> str:
    parts = re.split(r"(\n[ \t]*(?:\n[ \t]*)+)", edge)
    kept = []
    for place, part in enumerate(parts):
        if place % 2 == 0 and len(part) <= most_chars and pattern.match(part):
            continue
        kept.append(part)
    return "".join(kept)


def _drop_notes(edge: str, tail: bool) -> str:
    """Drop a note up to the next larger gap; at the very end, where nothing else follows, up to the end."""
    parts = re.split(r"(\n[ \t]*(?:\n[ \t]*)+)", edge)
    kept: list[str] = []
    place = 0
    while place < len(parts):
        part = parts[place]
        if place % 2 == 0 and _NOTE_HEAD.match(part) and len(part) <= _MAX_NOTE:
            rest = "".join(parts[place:])
            if tail and len(rest) <= _MAX_NOTE:
                break
            place = _end_of_note(parts, place)
            continue
        kept.append(part)
        place += 1
    return "".join(kept)


def _end_of_note(parts: list[str], place: int) -> int:
    """Return the part after a note: one paragraph, or all up to a gap of two blank lines below a heading alone."""
    if len(parts[place].strip()) >= 60 or place + 2 >= len(parts):
        return place + 1
    last = place + 2
    gaps = [gap.count("\n") for gap in parts[place + 1 :: 2]]
    wide = next((number for number, lines in enumerate(gaps[1:], start=1) if lines > 2), None)
    if wide is not None and sum(map(len, parts[place : place + 2 * wide + 1])) <= _MAX_NOTE:
        last = place + 2 * wide
        while last > place + 2 and not re.search(r"[a-zа-я]", parts[last]):
            last -= 2  # a heading or a row of stars belongs to what follows
    return last + 1
