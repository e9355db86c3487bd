"""How one book sets its punctuation, told once for the whole book.

French puts a space before `; : ! ?` and inside of its quotation marks, German writes »...« and „...“, Swedish and
Finnish ”...” and »...». Elsewhere these are the marks of damage: a space that a scanner put there, a quotation without
beginning. What is usual in a book is therefore decided from all of it, and a book with such a habit is read as if it
were set as English is. Where many letters have accents they lose them: the rules for sentences and hyphens know A to Z
and the Russian letters. Books without such habits, English and Russian ones among them, are left as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

GLUE = "\u2060"  # stands for a space that is no gap between words; clean text never holds it
_SPACED = re.compile(r"(?<=\S)([ \xa0\u202f]?)([;:!?])(?=[\s\"'”’»)\]…!?]|\Z)")
_SPACED_QUOTES = re.compile(r"(?<=«)(?<![^\s('’\[—–-]«)[ \xa0\u202f](?=\S)|(?<=\S)[ \xa0\u202f](?=»(?!\w))")
_QUOTE = re.compile("[«»“”„]")
_MOSTLY = 0.5  # of the places of a mark: so many make a habit
_OFTEN = 0.2  # of them: so many are no misprints
_FEW = 10  # with fewer places a mark says nothing about itself, and goes with the others
_ACCENTED = re.compile("[À-ÖØ-öø-ɏ]")
_ACCENTS = 0.005  # of all characters; of 340 English and Russian books one with a Bébée on each page has 0.003
_BARE = {ord(letter): bare for letter, bare in zip("ßæÆœŒøØłŁđĐðÐþÞı", "saAoOoOlLdDdDtTi", strict=True)}
_BARE |= {
    code: unicodedata.normalize("NFD", chr(code))[0]
    for code in range(0xC0, 0x250)
    if len(unicodedata.normalize("NFD", chr(code))) > 1
}
_INNER = str.maketrans("‚‘›‹", "‘’‘’")  # inside of „...“ and »...«; beside those, ‘ closes


def as_usual(text: str, low: int, high: int) -> str:
    """Return the text with the habits of its book undone, of the same length, so that every offset stays.

    Args:
        text: The book.
        low: First character of the part that tells the habit.
        high: First character that does not.
    """
    if sum(1 for _ in _ACCENTED.finditer(text, low, high)) > _ACCENTS * (high - low):
        text = without_accents(text)
    return _quotes_as_usual(_without_spaces(text, low, high), low, high)


def without_accents(text: str) -> str:
    """Return the text with Latin letters as A to Z, of the same length.

    >>> without_accents("Œuvre, Émile, Łódź, Straße")
    'Ouvre, Emile, Lodz, Strase'
    """
    return text.translate(_BARE)


def _without_spaces(text: str, low: int, high: int) -> str:
    """Put a sign that is no space where the book sets one before a mark or inside of a quotation."""
    every: Counter[str] = Counter()
    spaced: Counter[str] = Counter()
    for match in _SPACED.finditer(text, low, high):
        every[match[2]] += 1
        spaced[match[2]] += bool(match[1])
    together = spaced.total() > _MOSTLY * every.total()
    marks = {mark for mark, n in every.items() if (spaced[mark] > _MOSTLY * n if n >= _FEW else together)}
    if marks:
        text = re.sub(rf"(?<=\S)[ \xa0\u202f](?=[{''.join(sorted(marks))}])", GLUE, text)
    quotes = sum(text.count(mark, low, high) for mark in "«»")
    if quotes and sum(1 for _ in _SPACED_QUOTES.finditer(text, low, high)) > _MOSTLY * quotes:
        text = _SPACED_QUOTES.sub(GLUE, text)
    return text


def _quotes_as_usual(text: str, low: int, high: int) -> str:
    """Write “ and ” for quotation marks that open and close the other way round, or with the same sign."""
    opens, closes = _sides(text, low, high)
    if _often(closes["«"], opens["«"]) and _often(opens["»"], closes["»"]):  # German, Danish
        return text.translate({**_INNER, ord("»"): "“", ord("«"): "”"})
    for sign, usual in ("”", "“"), ("»", "«"):
        both = opens[sign] > _OFTEN * (opens[sign] + closes[sign]) and closes[sign] > 0
        if both and opens[usual] < opens[sign]:  # Swedish, Finnish
            text = re.sub(sign, _by_side, text)
    if opens["„"] > opens["«"] and _often(closes["“"], opens["“"]):  # German, Czech
        text = text.translate({**_INNER, ord("„"): "“", ord("“"): "”"})
    return text


def _often(this: int, that: int) -> bool:
    """Say whether a mark stands on this side, and not on that but by misprint."""
    return this > 0 and that <= _OFTEN * (this + that)


def _sides(text: str, low: int, high: int) -> tuple[Counter[str], Counter[str]]:
    """Count how often each mark stands before a word and how often behind one; places that do not tell are left out."""
    opens: Counter[str] = Counter()
    closes: Counter[str] = Counter()
    for match in _QUOTE.finditer(text, low, high):
        before, after = _stands(match)
        opens[match[0]] += before
        closes[match[0]] += after
    return opens, closes


def _stands(match: re.Match[str]) -> tuple[bool, bool]:
    """Say whether a mark stands before a word, and whether it stands behind one."""
    left, right = match.string[max(0, match.start() - 1) : match.start()], match.string[match.end() : match.end() + 1]
    joined_left = bool(left) and (left.isalnum() or left in ".,;:!?…" + GLUE)
    joined_right = right.isalnum() or right in ("¿", "¡", "…")
    return joined_right and not joined_left, joined_left and not right.isalnum()


def _by_side(match: re.Match[str]) -> str:
    return "“" if _stands(match)[0] else "”"
