"""EPUB 2 and 3: the documents of the spine in order, metadata from the package file.

Title pages, tables of contents, colophons and licence pages are left out where the book marks them as such.
"""

from __future__ import annotations

import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from ltm.books.readers.archive import Archive, open_archive, read_member
from ltm.books.readers.base import HEADING, RawBook
from ltm.books.readers.html import RULES, parse_html
from ltm.books.readers.markup import find_all, local_name, names, parse_xml, text_of, words_of
from ltm.errors import BookError

_NOT_TEXT = names(
    "cover titlepage halftitlepage copyright-page imprint colophon uncopyright toc landmarks loi "
    "loa index endnotes footnotes rearnotes bibliography"
)


class EpubReader:
    """Reads EPUB."""

    suffixes = (".epub",)

    def read(self, data: bytes) -> RawBook:
        """Return the text of the spine."""
        with open_archive(data) as archive:
            members = {info.filename: info for info in archive.members}
            package_path = _package_path(archive, members)
            package = parse_xml(_member(archive, members, package_path))
            spine = _spine(package, posixpath.dirname(package_path))
            locked = _encrypted(archive, members)
            if locked.intersection(spine):
                raise BookError("the book is locked by copy protection (DRM)")
            parts = [_document_text(_member(archive, members, path)) for path in spine if path in members]
        text = "\n\n".join(part for part in parts if part)
        if not text:
            raise BookError("the book's spine holds no text")
        return RawBook(
            text=text,
            title=_first(package, "title"),
            author="; ".join(words_of(e) for e in find_all(package, "creator")[:3]),
            language=_first(package, "language")[:2].lower(),
            genre=_genre(package),
        )


def _package_path(archive: Archive, members: dict[str, zipfile.ZipInfo]) -> str:
    container = parse_xml(_member(archive, members, "META-INF/container.xml"))
    for element in find_all(container, "rootfile"):
        path = element.get("full-path")
        if path in members:
            return str(path)
    raise BookError("the EPUB names no package file")


def _member(archive: Archive, members: dict[str, zipfile.ZipInfo], path: str) -> bytes:
    if path not in members:
        raise BookError(f"the EPUB lacks {path}")
    return read_member(archive, members[path])


def _spine(package: Any, folder: str) -> list[str]:
    paths = {}
    for item in find_all(package, "item"):
        properties = (item.get("properties") or "").split()
        if "html" in (item.get("media-type") or "html") and "nav" not in properties:
            paths[item.get("id")] = posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or "")))
    references = [ref for ref in find_all(package, "itemref") if ref.get("linear") != "no"]
    return [paths[ref.get("idref")] for ref in references if ref.get("idref") in paths]


def _encrypted(archive: Archive, members: dict[str, zipfile.ZipInfo]) -> set[str]:
    if "META-INF/encryption.xml" not in members:
        return set()
    root = parse_xml(_member(archive, members, "META-INF/encryption.xml"))
    return {unquote(element.get("URI") or "") for element in find_all(root, "cipherreference")}


def _document_text(data: bytes) -> str:
    root = parse_html(data)
    bodies = find_all(root, "body")
    if not bodies:
        return ""
    body = bodies[0]
    outer = [body, *[child for child in body if local_name(child) in ("section", "div", "article")]]
    if any(_NOT_TEXT.intersection(_types(element)) for element in outer[:2]):
        return ""
    text = text_of(body, RULES)
    # a document of the spine is a chapter even where its heading is a picture
    return text if not text or text.startswith(HEADING) else HEADING + text


def _types(element: Any) -> set[str]:
    return {
        word
        for key, value in element.attrib.items()
        if key.rpartition("}")[2] == "type" or key == "epub:type"
        for word in value.lower().split()
    }


def _first(package: Any, name: str) -> str:
    elements = find_all(package, name)
    return words_of(elements[0]) if elements else ""


def _genre(package: Any) -> str:
    for element in find_all(package, "meta"):
        if element.get("property") == "schema:genre" or element.get("property") == "se:subject":
            return words_of(element).lower()
    return ""
