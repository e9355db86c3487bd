"""Find who answers whom in a book: quoted speech in English, speech after a dash in Russian.

Both rest on a printer's rule: another speaker begins another paragraph. An exchange is two paragraphs in a row that
are mostly speech; what the narrator says between ("said he", "- сказал он. -") is left out. A quotation that is not
closed at the end of its paragraph goes on in the next one, in the same voice: no exchange.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST_WORDS = 60  # of one utterance: beyond it people tell stories
_LEAST_SPEECH = 0.45  # share of a paragraph's letters that is speech
_FEW_NARRATION_WORDS, _MOST_NARRATION_WORDS = 6, 25
_LONGEST_VERSE = 50  # characters of a line; a paragraph of shorter ones is verse or a table
_PARAGRAPH = re.compile(r"[^\n]+(?:\n(?!\s*\n)[^\n]+)*")
_DASH = re.compile(r"^\s*[—–―-]\s*(?=\S)")
# The narrator comes in after a mark and a dash, and leaves the same way; a dash without a mark belongs to the speech.
_TURN = re.compile(r"(?<=[,.!?…:;»”>\])])\s*[—–―]\s*|(?<=[,.!?…:;»”>\])])\s+-\s+")
_PAIRS = {"“": "”", "‘": "’", "«": "»", '"': '"', "„": "“"}
_SPEAKER_EN = re.compile(
    r"\b(?:said|cried|asked|replied|answered|returned|exclaimed|whispered|observed|added|continued|muttered|remarked|"
    r"shouted|repeated|inquired|demanded|rejoined)\s+((?:the\s+\w+|(?:Mr|Mrs|Miss|Dr|Sir|Lady|Captain|Monsieur)\.?\s+)?"
    r"[A-Z][\w’'-]+(?:\s+[A-Z][\w’'-]+)?)|\b([A-Z][\w’'-]+)\s+(?:said|cried|asked|replied|answered|exclaimed|whispered)\b"
)
_SPEAKER_RU = re.compile(
    r"\b(?:сказал|спросил|отвечал|ответил|проговорил|закричал|крикнул|воскликнул|прошептал|заметил|прибавил|возразил|"
    r"произнес|произнёс|продолжал|подумал)а?\s+([А-ЯЁ][а-яё]+(?:\s+[А-ЯЁ][а-яё]+)?)|"
    r"\b([А-ЯЁ][а-яё]+)\s+(?:сказал|спросил|отвечал|ответил|проговорил|закричал|воскликнул)а?\b"
)
_NO_NAMES = frozenset(
    ["He", "She", "It", "They", "We", "You", "And", "But", "Then", "Он", "Она", "Они", "Вы", "Мы", "И"]
)


@dataclass(frozen=True)
class Utterance:
    """What one person says in one paragraph."""

    start: int  # of the paragraph, characters into the clean text
    end: int
    text: str  # the speech alone
    speaker: str  # as the narrator names it, or empty


def conversations(text: str, language: str) -> Iterator[list[Utterance]]:
    """Yield the runs of two or more paragraphs in which people answer each other, in the order of the book.

    Args:
        text: A clean text; paragraphs are divided by empty lines (or each is a line of its own).
        language: `ru` reads speech after a dash; all others quoted speech.
    """
    running: list[Utterance] = []
    for start, end, paragraph in _paragraphs(text):
        found = _dashed(paragraph) if language == "ru" else _quoted(paragraph)
        if found is None or (running and not _answers(running[-1], found[0])):
            if len(running) > 1:
                yield running
            running = []
        if found is not None:
            speaker = _speaker(found[1], language)
            running.append(Utterance(start, end, found[0], speaker))
            if found[2]:  # still open: the next paragraph is the same voice
                if len(running) > 2:
                    yield running[:-1]
                running = []
    if len(running) > 1:
        yield running


def exchanges(text: str, language: str) -> Iterator[tuple[Utterance, Utterance]]:
    """Yield every utterance with the one that answers it."""
    for running in conversations(text, language):
        yield from itertools.pairwise(running)


def messages(running: Iterable[Utterance]) -> list[dict[str, str]]:
    """Return a conversation in the messages format: the first speaker is the user; it ends with an answer."""
    turns = [utterance.text for utterance in running]
    turns = turns[: len(turns) // 2 * 2]
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def _paragraphs(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _PARAGRAPH.finditer(text):
        lines = match.group().split("\n")
        verse = len(lines) > 1 and max(map(len, lines)) < _LONGEST_VERSE
        yield match.start(), match.end(), "" if verse else " ".join(match.group().split())


def _answers(one: Utterance, two: str) -> bool:
    return one.text != two  # an echo is a refrain or a misprint more often than an answer


def _quoted(paragraph: str) -> tuple[str, str, bool] | None:
    """Return speech, narration and whether the last quotation is open; None where it is not mostly speech."""
    opening = next((mark for mark in _PAIRS if paragraph.startswith(mark)), None)
    if opening is None:
        return None
    spoken, told, place, is_open = [], [], 0, False
    while place < len(paragraph):
        begin = paragraph.find(opening, place)
        if begin < 0:
            told.append(paragraph[place:])
            break
        told.append(paragraph[place:begin])
        stop = _closing(paragraph, begin + 1, _PAIRS[opening])
        if stop < 0:
            spoken.append(paragraph[begin + 1 :])
            is_open = True
            break
        spoken.append(paragraph[begin + 1 : stop])
        place = stop + 1
    return _judged(spoken, told, is_open)


def _closing(paragraph: str, start: int, mark: str) -> int:
    """Return where a quotation closes; a mark inside a word (don’t) is an apostrophe."""
    place = paragraph.find(mark, start)
    while place >= 0 and mark == "’" and paragraph[place + 1 : place + 2].isalpha():
        place = paragraph.find(mark, place + 1)
    return place


def _dashed(paragraph: str) -> tuple[str, str, bool] | None:
    """Return speech, narration and False; None where the paragraph does not begin with a dash, or with two."""
    match = _DASH.match(paragraph)
    if match is None or _DASH.match(paragraph[match.end() :]):
        return None
    pieces = _TURN.split(paragraph[match.end() :])
    return _judged(pieces[0::2], pieces[1::2], False)


def _judged(spoken: list[str], told: list[str], is_open: bool) -> tuple[str, str, bool] | None:
    speech = _joined(spoken)
    narration = " ".join(" ".join(told).split())
    speech = speech.removesuffix(",").strip()
    letters, others = (sum(c.isalpha() for c in text) for text in (speech, narration))
    n_words = len(speech.split())
    if not letters or n_words > MOST_WORDS or len(narration.split()) > _MOST_NARRATION_WORDS:
        return None
    if letters < _LEAST_SPEECH * (letters + others) and len(narration.split()) > _FEW_NARRATION_WORDS:
        return None
    if speech[-1].isalpha():
        speech += "."
    return speech[0].upper() + speech[1:], narration, is_open


def _joined(spoken: list[str]) -> str:
    """Return the pieces of one speech; where the narrator stood between two sentences, the comma becomes a stop."""
    speech = ""
    for piece in (" ".join(piece.split()) for piece in spoken):
        if speech.endswith(",") and piece[:1].isupper():
            speech = f"{speech[:-1]}."
        speech = f"{speech} {piece}" if speech and piece else speech or piece
    return speech


def _speaker(narration: str, language: str) -> str:
    match = (_SPEAKER_RU if language == "ru" else _SPEAKER_EN).search(narration)
    if match is None:
        return ""
    name = next(group for group in match.groups() if group)
    return "" if name.split()[0] in _NO_NAMES else name
