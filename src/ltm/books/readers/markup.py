"""Text out of a parsed tree (HTML, XHTML, FB2, TEI): paragraphs, lines of verse, chapter headings.

XML is parsed without external entities, without the network and with libxml2's own size limits; entities that the
file defines itself are never expanded. HTML entities such as `&mdash;` are looked up in the standard table. What an
XML declaration says of the encoding is believed only where the bytes agree.
"""

from __future__ import annotations

import contextlib
import html.entities
import re
from dataclasses import dataclass
from typing import Any

from ltm.books.readers.base import HEADING
from ltm.books.readers.txt import decode
from ltm.errors import BookError

MAX_DEPTH = 200
_SPACES = re.compile(r"[ \t\r\n\x0b\x0c]+")
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]{0,300}\?>")
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_BARE = re.compile(r"&(?!#?\w{1,32};)|<(?![A-Za-zА-Яа-я_/!?])")
_REFERENCE = re.compile(r"\A[\[({*]?\s*(?:\d{1,3}|[*†‡§¶#]{1,3}|[a-z])\s*[\])}*.]?\Z")


@dataclass(frozen=True)
class Rules:
    """What the element names of a format mean, in lower case without namespace."""

    block: frozenset[str]  # begins and ends a paragraph
    line: frozenset[str]  # begins and ends a line inside a paragraph
    heading: frozenset[str]  # a paragraph that opens a chapter
    section: frozenset[str]  # opens a chapter at whatever paragraph comes first
    skip: frozenset[str]  # left out with all that is in it
    skip_marks: frozenset[str] = frozenset()  # left out when a word of class, role, type or id is among these
    footnote: frozenset[str] = frozenset()  # left out when all it holds is the mark of a footnote
    preformatted: frozenset[str] = frozenset()  # line ends count


def names(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


def parse_xml(data: bytes) -> Any:
    """Return the root of an XML document; a stray `&` or `<` in the text is mended, anything worse is not.

    Raises:
        BookError: it is not well-formed or breaks a size limit.
    """
    from lxml import etree

    text = _NOT_XML.sub("", _DECLARATION.sub("", decode(data)))
    try:
        return _parse(text)
    except (etree.XMLSyntaxError, ValueError) as error:
        first = error
    mended = _BARE.sub(lambda match: "&amp;" if match[0] == "&" else "&lt;", text)
    if mended != text:
        with contextlib.suppress(etree.XMLSyntaxError, ValueError):
            return _parse(mended)
    said = str(first).splitlines()[0][:150] if str(first) else "empty"
    raise BookError(f"the XML is damaged: {said}") from None


def _parse(text: str) -> Any:
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
        encoding="utf-8",
    )
    return etree.fromstring(text.encode("utf-8"), parser)


def local_name(element: Any) -> str:
    """Return an element's name in lower case without namespace, or an empty text for comments and entities."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def find_all(root: Any, name: str) -> list[Any]:
    """Return all elements of a name, whatever their namespace, in document order."""
    return [element for element in root.iter() if local_name(element) == name]


def words_of(element: Any) -> str:
    """Return all text inside an element on one line."""
    return _SPACES.sub(" ", "".join(element.itertext(with_tail=False))).strip()


def text_of(root: Any, rules: Rules) -> str:
    """Return the text of a tree: paragraphs separated by a blank line, chapter openings marked with `HEADING`.

    Raises:
        BookError: the tree is nested deeper than any book is.
    """
    writer = _Writer(rules)
    writer.visit(root, 0)
    writer.end_paragraph()
    return "\n\n".join(writer.paragraphs)


class _Writer:
    """Collects paragraphs during one walk over the tree."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.paragraphs: list[str] = []
        self.pieces: list[str] = []
        self.mark_next = False

    def visit(self, element: Any, depth: int, preformatted: bool = False) -> None:
        if depth > MAX_DEPTH:
            raise BookError("the markup is nested too deeply")
        name = local_name(element)
        if not name or name in self.rules.skip or self._is_skipped(element, name):
            return
        preformatted = preformatted or name in self.rules.preformatted
        is_block = name in self.rules.block or name in self.rules.heading or name in self.rules.section
        self._open(name, is_block)
        self._add(element.text, preformatted)
        for child in element:
            if local_name(child):
                self.visit(child, depth + 1, preformatted)
            else:
                self.pieces.append(_entity_text(child))
            self._add(child.tail, preformatted)
        if is_block:
            self.end_paragraph()
        elif name in self.rules.line:
            self.pieces.append("\n")

    def end_paragraph(self) -> None:
        lines = (_SPACES.sub(" ", line).strip() for line in "".join(self.pieces).split("\n"))
        paragraph = "\n".join(line for line in lines if line)
        self.pieces = []
        if not paragraph:
            return
        self.paragraphs.append(f"{HEADING}{paragraph}" if self.mark_next else paragraph)
        self.mark_next = False

    def _open(self, name: str, is_block: bool) -> None:
        if is_block:
            self.end_paragraph()
            self.mark_next = self.mark_next or name in self.rules.heading or name in self.rules.section
        elif name in self.rules.line:
            self.pieces.append("\n")

    def _add(self, text: str | None, preformatted: bool) -> None:
        if text:
            self.pieces.append(text if preformatted else _SPACES.sub(" ", text))

    def _is_skipped(self, element: Any, name: str) -> bool:
        rules = self.rules
        if rules.skip_marks and len(element.attrib) and not rules.skip_marks.isdisjoint(marks_of(element)):
            return True
        return name in rules.footnote and _REFERENCE.match("".join(element.itertext())) is not None


def marks_of(element: Any) -> set[str]:
    """Return the words of an element's class, role, type and id, in lower case."""
    marks: set[str] = set()
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] in ("class", "type", "role", "id") or key == "epub:type":
            marks.update(value.lower().split())
    return marks


def _entity_text(node: Any) -> str:
    name = getattr(node, "name", None)
    return html.entities.html5.get(f"{name};", "") if isinstance(name, str) else ""
