"""FictionBook 2: sections are chapters, stanzas keep their lines, notes and pictures are left out."""

from __future__ import annotations

import re
from typing import Any

from ltm.books.readers.base import RawBook
from ltm.books.readers.markup import Rules, find_all, local_name, names, parse_xml, text_of, words_of
from ltm.errors import BookError

RULES = Rules(
    block=names("body p title subtitle epigraph cite text-author stanza poem annotation empty-line table"),
    line=frozenset(("v", "tr", "date")),
    heading=frozenset(),
    section=frozenset(("section",)),
    skip=frozenset(("binary", "image", "stylesheet", "description")),
    skip_marks=frozenset(("note",)),
)
_BINARY = re.compile(rb"<binary\b[^>]*>[^<]*</binary\s*>", re.IGNORECASE)
_GENRES = (  # beginnings of the format's genre codes
    ("poet", "poetry"),
    ("dram", "play"),
    ("theatre", "play"),
    ("sci_philosophy", "philosophy"),
    ("sci_history", "history"),
    ("sci_", "science"),
    ("religion", "religion"),
    ("nonf_biography", "biography"),
    ("nonf", "essays"),
    ("antique", "folklore"),
    ("child", "children"),
    ("humor", "satire"),
    ("prose", "fiction"),
    ("sf", "fiction"),
    ("det", "fiction"),
    ("love", "fiction"),
    ("adv", "fiction"),
)


class Fb2Reader:
    """Reads FictionBook 2."""

    suffixes = (".fb2",)

    def read(self, data: bytes) -> RawBook:
        """Return the text and the metadata of the title info."""
        # covers are most of a file's bytes, and one text of 10 MB is more than the parser takes
        return read_tree(parse_xml(_BINARY.sub(b"", data)))


def read_tree(root: Any) -> RawBook:
    """Return the book of a parsed FictionBook.

    Raises:
        BookError: it is not a FictionBook or has no text.
    """
    if local_name(root) != "fictionbook":
        raise BookError("the XML is not a FictionBook")
    bodies = [child for child in root if local_name(child) == "body" and child.get("name") not in ("notes", "comments")]
    text = "\n\n".join(text_of(body, RULES) for body in bodies)
    if not text.strip():
        raise BookError("the FictionBook holds no text")
    info = next(iter(find_all(root, "title-info")), None)
    if info is None:
        return RawBook(text)
    code = _first(info, "genre").lower()
    genre = next((word for prefix, word in _GENRES if code.startswith(prefix)), "")
    year = next((date.get("value") or words_of(date) for date in find_all(info, "date")), "")
    authors = [_author(element) for element in info if local_name(element) == "author"]
    return RawBook(
        text,
        _first(info, "book-title"),
        "; ".join(filter(None, authors)),
        year,
        _first(info, "lang")[:2].lower(),
        genre,
    )


def _author(element: Any) -> str:
    parts = [_first(element, name) for name in ("first-name", "middle-name", "last-name")]
    return " ".join(filter(None, parts)) or _first(element, "nickname")


def _first(element: Any, name: str) -> str:
    found = find_all(element, name)
    return words_of(found[0]) if found else ""
