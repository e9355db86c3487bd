"""Turn the text of a file into the text of a book, in named steps that count what they take away.

Writes: nothing; `ltm.books.stage` stores the result. Each step is a pure function from text to text, so that a step
can be added, tested and deleted alone. The rule for all: rather leave rubbish in than lose prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ltm.books import contents, gutenberg, notes, pages
from ltm.books.changes import Edit, find_edits
from ltm.books.paragraphs import to_paragraphs
from ltm.books.readers.base import HEADING

_CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe"
    r"\ue001-\uf8ff\ud800-\udfff]"
)
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_LINE_BREAKS = "\x0b\x0c\x85\u2028\u2029"
_SPACES = "\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_HYPHEN = re.compile(r"[-\u00ac\u2010][ \t]*\n[ \t]*")
_LAST_WORD = re.compile(r"\w+\Z")
_FIRST_WORD = re.compile(r"\w+")
_MAX_WORD = 40
_ILLUSTRATION = re.compile(
    r"\[(?:[Ii]llustrations?|ILLUSTRATIONS?|[Ff]rontispiece|FRONTISPIECE|[Ии]ллюстрация|ИЛЛЮСТРАЦИЯ)\b[^\[\]]{0,1500}\]"
)
_EMPHASIS = re.compile(r"(?<![\w_])_([^_\n]{1,400})_(?![\w_])")
_MOJIBAKE_HINT = re.compile(  # UTF-8 read as latin-1 or cp1252, or as cp1251
    "[\u00c2\u00c3\u00d0\u00d1\u00e2][\u0080-\u00bf\u2010-\u2122]"
    "|\u0432\u0402|[\u0420\u0421][\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf\u0402-\u040f\u0452-\u045f\u2020-\u2122]"
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A clean text and how many characters each step took away (negative = added)."""

    text: str
    removed: dict[str, int]


def normalise_line_ends(text: str) -> str:
    """Make every line end a single newline and every odd space a plain one."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for breaks in _LINE_BREAKS:  # finding one character is far faster than a pattern, and most books have none
        if breaks in text:
            text = text.replace(breaks, "\n")
    for space in _SPACES if not text.isascii() else ():
        if space in text:
            text = text.replace(space, " ")
    return text


def drop_control_characters(text: str) -> str:
    """Take out byte-order marks, control, invisible and private-use characters."""
    pattern = _ASCII_CONTROL if text.isascii() else _CONTROL
    return pattern.sub("", text) if pattern.search(text) else text


def mend_mojibake(text: str) -> str:
    """Mend UTF-8 that was once read in another encoding (`вЂ”` for a dash); quotes and spelling stay."""
    if text.isascii() or not _MOJIBAKE_HINT.search(text):
        return text
    import ftfy
    from ftfy.badness import is_bad

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization=None,
    )
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if _MOJIBAKE_HINT.search(line) and is_bad(line):
            lines[place] = ftfy.fix_encoding(line, config)
    return "\n".join(lines)


def drop_illustration_notes(text: str) -> str:
    """Take out `[Illustration: ...]` and its kin."""
    return _ILLUSTRATION.sub("", text) if "[" in text else text


def mend_hyphenation(text: str) -> str:
    """Join words that were divided at a line end.

    `well-` + `known` may be one word or two: the form that the book uses elsewhere wins; where it uses neither, the
    majority of the decided cases does, and the hyphen stays in doubt.
    """
    divided = [match for match in _HYPHEN.finditer(text) if _joins_letters(text, match)]
    if not divided:
        return text
    words = set(re.findall(r"\w+(?:-\w+)*", text.casefold()))
    verdicts = [_is_one_word(text, match, words) for match in divided]
    default = verdicts.count(True) > verdicts.count(False)
    pieces = []
    position = 0
    for match, verdict in zip(divided, verdicts, strict=True):
        joined = default if verdict is None else verdict
        pieces.append(text[position : match.start()] + ("" if joined else "-"))
        position = match.end()
    return "".join([*pieces, text[position:]])


def _joins_letters(text: str, match: re.Match[str]) -> bool:
    return text[match.start() - 1 : match.start()].isalpha() and text[match.end() : match.end() + 1].isalpha()


def _is_one_word(text: str, match: re.Match[str], words: set[str]) -> bool | None:
    """Tell whether the book itself writes a divided word as one; None if it does neither or both."""
    left = _LAST_WORD.search(text[max(0, match.start() - _MAX_WORD) : match.start()])
    right = _FIRST_WORD.match(text, match.end())
    if left is None or right is None or right[0][0].isupper():
        return False
    first, second = left[0].casefold(), right[0].casefold()
    one, two = first + second in words, f"{first}-{second}" in words
    return None if one == two else one


def drop_emphasis_marks(text: str) -> str:
    """Turn `_so_` into `so`: plain-text books write italics that way."""
    return _EMPHASIS.sub(r"\1", text) if "_" in text else text


STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line ends", normalise_line_ends),
    ("control characters", drop_control_characters),
    ("mojibake", mend_mojibake),
    ("Gutenberg header and licence", gutenberg.strip),
    ("licence sentences", gutenberg.drop_licence_sentences),
    ("transcriber's notes", notes.drop_transcribers_notes),
    ("credits", notes.drop_credits),
    ("library notes", notes.drop_library_notes),
    ("illustration notes", drop_illustration_notes),
    ("page numbers", pages.drop_page_numbers),
    ("running heads", pages.drop_running_heads),
    ("table of contents", contents.drop_contents),
    ("footnote marks", notes.drop_footnote_marks),
    ("hyphenation", mend_hyphenation),
    ("paragraphs", to_paragraphs),
    ("emphasis marks", drop_emphasis_marks),
)


def clean(text: str) -> Cleaned:
    """Return the clean text of a book: paragraphs separated by one blank line, chapter marks (`HEADING`) kept."""
    removed = {}
    for name, step in STEPS:
        before = len(text)
        text = step(text)
        removed[name] = before - len(text)
    text = text.strip()
    return Cleaned("" if text == HEADING else text, removed)


def trace(text: str) -> list[tuple[str, list[Edit]]]:
    """Return every step with its edits; undone from the last to the first they give the text back as it was."""
    found = []
    for name, step in STEPS:
        cleaned = step(text)
        found.append((name, find_edits(text, cleaned)))
        text = cleaned
    return found
