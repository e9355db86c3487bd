"""Markdown and AsciiDoc: headings become chapter marks, emphasis and links their plain words."""

from __future__ import annotations

import re

from ltm.books.readers.base import HEADING, RawBook
from ltm.books.readers.txt import decode

_HEADING = re.compile(r"^(?:#{1,6}|={1,6})[ \t]+(.*?)[ \t]*#*$")
_FIELD = re.compile(r"^(title|author|authors|creator|year|date|language|lang|genre|rights|licen[sc]e):\s*(.*)$", re.I)
_SAME = {
    "authors": "author",
    "creator": "author",
    "lang": "language",
    "license": "rights",
    "licence": "rights",
    "date": "year",
}
_SETEXT = re.compile(r"^(?P<head>[^\s#>=*-][^\n]{0,100})\n(?:={3,}|-{3,})[ \t]*$", re.MULTILINE)
_LIST_ITEM = re.compile(r"^\s+-\s+(?:name:\s*)?(.+)$|^-\s+(?:name:\s*)?(.+)$")
_RULE = re.compile(r"^\s*(?:-{3,}|\*{3,}|_{3,}|={4,}|'{3,}|<{3,}|\+)\s*$")
_ATTRIBUTE = re.compile(r"^(?::[\w-]+:.*|\[[\w\s,=\"'.#%-]*\]|v\d+(?:\.\d+)+)$")  # AsciiDoc attributes and block names
_INLINE = (
    (re.compile(r"<br\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(r"<sup>\s*\[?(?:\d{1,3}|[*†‡])\]?\s*</sup>", re.IGNORECASE), ""),
    (
        re.compile(r"</?(?:a|b|i|u|em|strong|small|sup|sub|span|div|p|center|font|blockquote|hr)\b[^<>]{0,300}>", re.I),
        "",
    ),
    (re.compile(r"!\[[^\[\]\n]{0,300}\]\([^()\n]{0,500}\)"), ""),
    (re.compile(r"\[([^\[\]\n]{1,500})\]\((?:[^()\n]|\([^()\n]{0,200}\)){0,500}\)(?:\{[^{}\n]{0,200}\})?"), r"\1"),
    (re.compile(r"\[\^[^\[\]\n]{1,30}\](?!:)"), ""),
    (re.compile(r"^[ ]{0,3}\[[^\]\n]{1,60}\]:[ \t]*<?(?:https?:|#|/|\.)\S*.*\n?", re.MULTILINE), ""),
    (re.compile(r"(?<![\w*])\*{1,3}(?=\S)([^*\n]{1,2000}?)(?<=\S)\*{1,3}(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_{1,2}(?=\S)([^_\n]{1,2000}?)(?<=\S)_{1,2}(?![\w_])"), r"\1"),
    (re.compile(r"\\$", re.MULTILINE), ""),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!>~|-])"), r"\1"),
)
_MAX_HEADING = 500
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
            _read_front(front[1], fields)
        text = _SETEXT.sub(r"\n# \g<head>\n", text)
        lines = []
        text = text.lstrip("\n ")
        for number, line in enumerate(text.split("\n")):
            converted = _convert(line, fields if number < 20 else None)
            if converted is not None:
                lines.append(converted)
        body = _without_comments("\n".join(lines))
        for pattern, replacement in _INLINE:
            body = pattern.sub(replacement, body)
        return RawBook(text=body, **fields)


def _without_comments(text: str) -> str:
    """Return a text without `<!-- ... -->`, in one walk: a pattern would try every opening to the end."""
    kept = []
    position = 0
    while (begin := text.find("<!--", position)) >= 0 and (end := text.find("-->", begin)) >= 0:
        kept.append(text[position:begin])
        position = end + 3
    return "".join([*kept, text[position:]])


def _read_front(front: str, fields: dict[str, str]) -> None:
    """Read the front matter: YAML in its simplest form, values on the line or in a list below it."""
    name = ""
    for line in front.split("\n"):
        item = _LIST_ITEM.match(line)
        if item and name:
            value = (item[1] or item[2]).strip().strip("\"'")
            fields[name] = f"{fields[name]}; {value}" if fields.get(name) else value
            continue
        match = _FIELD.match(line)
        name = ""
        if match and not match[2].strip():
            name = _SAME.get(match[1].lower(), match[1].lower())
        elif match:
            _keep_field(line, fields)


def _convert(line: str, fields: dict[str, str] | None) -> str | None:
    """Return a line as plain text, or None for a line that is markup only."""
    heading = _HEADING.match(line) if len(line) <= _MAX_HEADING else None
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
    name = match[1].lower()
    value = match[2].strip().strip("[]").strip("\"'")
    if not value:
        return False
    fields.setdefault(_SAME.get(name, name), value)
    return True
