"""Sentences that the patterns wrote: what is said of single findings, the ideal set, the confirmation, kinds of books.

Reads: parts of `patterns/findings.json`. Writes: nothing. They are said there once and only set here.
"""

from __future__ import annotations

import re
from typing import Any

from ltm.dashboard.inputs import plain


def texts_of(entry: Any) -> dict[str, str]:
    """Return a part's text by language, from `{"text": {...}}`, `{"en": ...}` or plain text; empty without any."""
    if isinstance(entry, str):
        return {"en": plain(entry)}
    if not isinstance(entry, dict):
        return {}
    inner = entry.get("text", entry)
    if isinstance(inner, str):
        return {"en": plain(inner)}
    found = {k: plain(v) for k, v in inner.items() if isinstance(v, str)} if isinstance(inner, dict) else {}
    return {language: _one_style(language, text) for language, text in found.items()}


def entries_of(value: Any) -> list[dict[str, Any]]:
    """Return the entries of a list that have a text."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and texts_of(entry)]


def told(entry: Any) -> dict[str, str]:
    """Return the text that a part of the findings brings along, by language; empty where it brings none."""
    return texts_of(entry) if isinstance(entry, dict) and "text" in entry else {}


def _one_style(language: str, text: str) -> str:
    """Return a sentence with percentages as the rest of the page writes them."""
    if language == "ru":
        return re.sub(r"(\d) %", "\\1\u00a0%", text.replace("90 %-й", "90-процентный"))
    return re.sub(r"(\d) %", r"\1%", text)
