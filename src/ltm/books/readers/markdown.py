"""Markdown and AsciiDoc: headings become chapter marks, emphasis and links their plain words."""

from __future__ import annotations

import re

from ltm.books.readers.base import HEADING, RawBook
from ltm.books.readers.txt import decode

_HEADING = re.compile(r"^(?:#{1,6}|={1,6})[ \t]+(.*?)[ \t]*#*$")
_FIELD = re.compile(r"^(title|author|year|date|language|genre):\s*(.+)$", re.IGNORECASE)
_RULE = re.compile(r"^\s*(?:-{3,}|\*{3,}|_{3,}|={4,}|'{3,}|<{3,}|\+)\s*$")
_ATTRIBUTE = re.compile(r"^(?::[\w-]+:.*|\[[\w\s,=\"'.#%-]*\]|v\d+(?:\.\d+)+)$")  # AsciiDoc attributes and block names
_INLINE = (
    (re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)"), ""),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(?<![\w*])\*{1,3}(?=\S)([^*\n]+?)(?<=\S)\*{1,3}(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_{1,2}(?=\S)([^_\n]+?)(?<=\S)_{1,2}(?![\w_])"), r"\1"),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!>-])"), r"\1"),
    (re.compile(r"<!--.*?-->"), ""),
)
_FRONT = re.compile(r"\A---[ \t]*\n(.{0,5000}?)\n---[ \t]*\n", re.DOTALL)


class MarkdownReader:
    """Reads Markdown and AsciiDoc."""

    suffixes = (".md", ".markdown", ".asciidoc", ".adoc")

    def read(self, data: bytes) -> RawBook:
        """Return the text; `Title:`, `Author:` and `Year:` lines on top become metadata."""
        text = decode(data).replace("\r\n", "\n").replace("\r", "\n")
        fields: dict[str, str] = {}
        front = _FRONT.match(text)
        if front:
            text = text[front.end() :]
            for line in front[1].split("\n"):
                _keep_field(line, fields)
        lines = []
        for number, line in enumerate(text.split("\n")):
            converted = _convert(line, fields if number < 20 else None)
            if converted is not None:
                lines.append(converted)
        body = "\n".join(lines)
        for pattern, replacement in _INLINE:
            body = pattern.sub(replacement, body)
        year = fields.get("year", "") or fields.get("date", "")
        return RawBook(
            body,
            fields.get("title", ""),
            fields.get("author", ""),
            year,
            fields.get("language", ""),
            fields.get("genre", ""),
        )


def _convert(line: str, fields: dict[str, str] | None) -> str | None:
    """Return a line as plain text, or None for a line that is markup only."""
    heading = _HEADING.match(line)
    content = heading[1].strip() if heading else line
    if fields is not None and heading and _keep_field(content, fields):
        return None
    if heading:
        return f"\n{HEADING}{content}\n" if content else None
    if _RULE.match(line):
        return ""
    if _ATTRIBUTE.match(line.strip()):
        return None
    return re.sub(r"^\s{0,3}>\s?", "", line)


def _keep_field(line: str, fields: dict[str, str]) -> bool:
    match = _FIELD.match(line.strip())
    if match is None:
        return False
    fields.setdefault(match[1].lower(), match[2].strip().strip("\"'"))
    return True
