"""XML files: TEI (ELTeC novels, DraCor plays), and FictionBooks that are named `.xml`."""

from __future__ import annotations

import re
from typing import Any

from ltm.books.readers import fb2
from ltm.books.readers.base import RawBook
from ltm.books.readers.markup import Rules, find_all, local_name, names, parse_xml, text_of, words_of
from ltm.errors import BookError

RULES = Rules(
    block=names(
        "text front body back p ab lg sp stage q quote list item argument epigraph castlist castitem label table"
    ),
    line=frozenset(("l", "lb", "speaker", "row")),
    heading=frozenset(),
    section=frozenset(("div", "div1", "div2", "div3")),
    skip=names("teiheader note fw pb gap figure graphic titlepage idno"),
    skip_marks=names("titlepage toc contents notes footnotes advert advertisement colophon index imprint"),
    footnote=frozenset(("ref",)),
)


class XmlReader:
    """Reads TEI, and whatever other reader knows the root element."""

    suffixes = (".xml", ".tei")

    def read(self, data: bytes) -> RawBook:
        """Return the text and the metadata of the header."""
        root = parse_xml(data)
        if local_name(root) == "fictionbook":
            return fb2.read_tree(root)
        if local_name(root) not in ("tei", "teicorpus"):
            raise BookError("the XML is neither TEI nor a FictionBook")
        texts = [child for child in root.iter() if local_name(child) == "text" and not _inside_text(child)]
        text = "\n\n".join(text_of(part, RULES) for part in texts)
        if not text.strip():
            raise BookError("the TEI file holds no text")
        statement = next(iter(find_all(root, "titlestmt")), None)
        title = "" if statement is None else _first(statement, "title")
        authors = [] if statement is None else [_name(element) for element in find_all(statement, "author")[:3]]
        rights = next(iter(find_all(root, "licence")), None)
        return RawBook(
            text=text,
            title=re.sub(r"\s*:\s*[^:]*edition$", "", title, flags=re.IGNORECASE),
            author="; ".join(filter(None, authors)),
            year=_year(root),
            language=_language(root),
            rights="" if rights is None else words_of(rights) or (rights.get("target") or ""),
        )


def _inside_text(element: Any) -> bool:
    return any(local_name(parent) == "text" for parent in element.iterancestors())


def _name(element: Any) -> str:
    """Return an author's name without catalogue numbers and years of life."""
    for number in find_all(element, "idno"):
        number.text = ""
    return re.sub(r"\s*\([^)]*\)?\.?$", "", words_of(element))


def _year(root: Any) -> str:
    for source in find_all(root, "sourcedesc"):
        dates = [date.get("when") or words_of(date) for date in find_all(source, "date")]
        years = [match[0] for date in dates if (match := re.search(r"\b1[0-9]{3}\b", date))]
        if years:
            return min(years)  # the first edition, where several are named
    return ""


def _language(root: Any) -> str:
    value = root.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
    return value[:2].lower()


def _first(element: Any, name: str) -> str:
    found = find_all(element, name)
    return words_of(found[0]) if found else ""
