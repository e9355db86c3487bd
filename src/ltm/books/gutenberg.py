"""Take off what Project Gutenberg puts around a book: header, licence, notes of the people who typed it.

The header also says what the book is, so it is read for metadata before it goes.
"""

from __future__ import annotations

import re

_START = re.compile(r"^\s*\*{3}\s*START OF TH(?:E|IS) PROJECT GUTENBERG[^\n]*\n(?:[^\n]+\*{3}[ \t]*\n)?", re.I | re.M)
_OLD_START = re.compile(r"^[^\n]*\*END\*? ?THE SMALL PRINT[^\n]*\n", re.I | re.M)
_END = re.compile(
    r"^\W{0,10}(?:END OF TH(?:E|IS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)[^\n]*"
    r"|^\s*\*{3} ?START: FULL LICENSE",
    re.I | re.M,
)
_CREDIT_CHARS = 6000  # of a book's beginning, where credits are looked for
_CREDIT = re.compile(
    r"\s*\W?(?:Produced by|E-?text prepared by|This e-?(?:text|book) was (?:produced|prepared|typed|scanned)|"
    r"Transcribed (?:by|from)|Prepared by|Typed by|HTML version by|This file was produced|"
    r"Note: (?:Project Gutenberg|Images)|(?:Original )?Transcriber['’]?s['’]? notes?|"
    r"This text is a combination of etexts)",
    re.IGNORECASE,
)
_HEADER_LINE = re.compile(r"project gutenberg|^\s*this e-?(?:book|text) is for the use|^(?:Title|Author):", re.I)
_FIELD = re.compile(r"^(Title|Author|Language|Translator):[ \t]*([^\n]+(?:\n[ \t]{3,}[^\n]+)*)", re.M)
_LANGUAGES = {"english": "en", "russian": "ru", "french": "fr", "german": "de", "spanish": "es", "italian": "it"}
_HEAD_CHARS = 20_000


def read_header(text: str) -> dict[str, str]:
    """Return title, author and language (ISO 639-1) as a Gutenberg header names them; empty for other texts."""
    head = text[:_HEAD_CHARS].replace("\r\n", "\n")
    if "project gutenberg" not in head.lower():
        return {}
    start = _START.search(head)
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(head[: start.start() if start else 4000]):
        fields.setdefault(match[1].lower(), re.sub(r"\s+", " ", match[2]).strip())
    fields["language"] = _LANGUAGES.get(fields.get("language", "").lower(), "")
    return fields


def strip(text: str) -> str:
    """Return the text without Gutenberg's header, licence and credits; other texts come back unchanged."""
    if "project gutenberg" not in (text[:_HEAD_CHARS] + text[-_HEAD_CHARS:]).lower():
        return text
    half = len(text) // 2
    start = _START.search(text, 0, half) or _OLD_START.search(text, 0, half)
    begin = start.end() if start else _end_of_loose_header(text)
    # the licence of a short book can be longer than the book, so the end is looked for in all that follows
    end = _END.search(text, begin)
    body = text[begin : end.start() if end else len(text)]
    return _strip_credits(body)


def _end_of_loose_header(text: str) -> int:
    """Return where a header without a start line ends: after the last head paragraph that speaks of Gutenberg."""
    end = 0
    if "project gutenberg" not in text[:5000].lower():
        return 0
    for match in re.finditer(r"[^\n]+(?:\n[^\n]+)*", text[:5000]):
        if re.search(
            r"project gutenberg|^\s*this e-?(?:book|text) is for the use|^(?:Title|Author|Language):", match[0], re.I
        ):
            end = match.end()
    return end


def _strip_credits(body: str) -> str:
    """Drop the paragraphs in front of a book that tell who typed it."""
    head_end = body.find("\n\n", _CREDIT_CHARS)
    if head_end < 0:
        return body.strip()
    paragraphs = re.split(r"\n{2,}", body[:head_end])
    kept = [p for p in paragraphs if not _CREDIT.match(p) and "project gutenberg" not in p.lower()]
    return ("\n\n".join(kept) + body[head_end:]).strip()
