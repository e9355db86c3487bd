"""EPUB 2 and 3: the documents of the spine in order, metadata from the package file.

Title pages, tables of contents, colophons and licence pages are left out where the book marks them as such.
"""

from __future__ import annotations

import posixpath
import re
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
    "loa index endnotes footnotes rearnotes bibliography doc-toc doc-endnotes doc-cover doc-colophon"
)
_GUIDE_NOT_TEXT = names("cover title-page toc index copyright-page colophon loi lot bibliography other.copyright")
_ABOUT_BOOK = re.compile(  # pages about the electronic edition that no mark tells from the book
    r"\A\ue000?\s*(?:about this (?:digital |electronic )?edition|colophon|uncopyright|imprint|copyright|"
    r"table of contents|contents|оглавление|содержание|об этой (?:электронной )?книге|о данной электронной книге)"
    r"\s*(?:\n|\Z)",
    re.IGNORECASE,
)
_ABOUT_CHARS = 6000
_LATEST_YEAR = 1970  # of dates without a meaning: later ones are the file's, not the work's


class EpubReader:
    """Reads EPUB."""

    suffixes = (".epub",)

    def read(self, data: bytes) -> RawBook:
        """Return the text of the spine."""
        with open_archive(data) as archive:
            members = {info.filename: info for info in archive.members}
            package_path = _package_path(archive, members)
            package = parse_xml(_member(archive, members, package_path))
            spine = _spine(package, posixpath.dirname(package_path), members)
            locked = _encrypted(archive, members)
            if locked.intersection(spine):
                raise BookError("the book is locked by copy protection (DRM)")
            documents = [_document_text(_member(archive, members, path)) for path in spine]
        documents = [part for part in documents if part and not _is_about_book(part)]
        text = "\n\n".join(_with_marks(documents))
        if not text:
            raise BookError("the book's spine holds no text")
        return RawBook(
            text=text,
            title=_title(package),
            author="; ".join(_authors(package)[:3]),
            year=_year(package),
            language=_first(package, "language")[:2].lower(),
            genre=_genre(package),
            rights=_first(package, "rights"),
        )


def _package_path(archive: Archive, members: dict[str, zipfile.ZipInfo]) -> str:
    if "META-INF/container.xml" in members:
        container = parse_xml(_member(archive, members, "META-INF/container.xml"))
        for element in find_all(container, "rootfile"):
            path = element.get("full-path")
            if path in members:
                return str(path)
    packages = sorted(path for path in members if path.lower().endswith(".opf"))
    if not packages:
        raise BookError("the EPUB names no package file")
    return packages[0]


def _member(archive: Archive, members: dict[str, zipfile.ZipInfo], path: str) -> bytes:
    if path not in members:
        raise BookError(f"the EPUB lacks {path}")
    return read_member(archive, members[path])


def _spine(package: Any, folder: str, members: dict[str, zipfile.ZipInfo]) -> list[str]:
    """Return the documents in reading order, without those that the guide calls a cover, a table of contents, ..."""
    known = {path.casefold(): path for path in members}

    def resolve(href: str) -> str | None:
        path = posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
        return known.get(path.casefold()) or known.get(posixpath.normpath(posixpath.join(folder, href)).casefold())

    paths = {}
    for item in find_all(package, "item"):
        properties = (item.get("properties") or "").split()
        kind = (item.get("media-type") or "html").lower()
        if ("html" in kind or kind.rpartition("/")[2] == "xml") and "nav" not in properties:
            path = resolve(item.get("href") or "")
            if path is not None:
                paths[item.get("id")] = path
    references = [ref for ref in find_all(package, "itemref") if ref.get("linear") != "no"]
    spine = [paths[ref.get("idref")] for ref in references if ref.get("idref") in paths]
    apart = {
        resolve(ref.get("href") or "")
        for guide in find_all(package, "guide")
        for ref in find_all(guide, "reference")
        if (ref.get("type") or "").lower() in _GUIDE_NOT_TEXT and "#" not in (ref.get("href") or "")
    }
    # a guide that calls everything a cover is a bad guide
    return [path for path in spine if path not in apart] or spine or sorted(paths.values())


def _is_about_book(text: str) -> bool:
    return len(text) < _ABOUT_CHARS and _ABOUT_BOOK.match(text) is not None


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
    return text_of(body, RULES)


def _with_marks(documents: list[str]) -> list[str]:
    """Let every document of the spine open a chapter where most have no heading of their own (a picture, a class)."""
    without = [part for part in documents if HEADING not in part]
    if 2 * len(without) < len(documents):
        return documents
    return [part if part.startswith(HEADING) else HEADING + part for part in documents]


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


def _refinements(package: Any, of: str) -> dict[str, str]:
    """Return what EPUB 3 says apart: by the id of an element, its `of` (`role`, `title-type`)."""
    return {
        (meta.get("refines") or "").lstrip("#"): words_of(meta).lower()
        for meta in find_all(package, "meta")
        if meta.get("property") == of
    }


def _title(package: Any) -> str:
    kinds = _refinements(package, "title-type")
    titles = find_all(package, "title")
    main = [element for element in titles if kinds.get(element.get("id") or "-") == "main"]
    return words_of((main or titles)[0]) if titles else ""


def _authors(package: Any) -> list[str]:
    roles = _refinements(package, "role")
    found = []
    for element in find_all(package, "creator"):
        role = next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == "role"), "")
        role = role or roles.get(element.get("id") or "-", "aut")
        if role.lower() in ("aut", "author", "cre") and words_of(element):
            found.append(words_of(element))
    return found or [words_of(element) for element in find_all(package, "creator")]


def _year(package: Any) -> str:
    """Return the year of the work where the package tells it; the date of the file itself says nothing."""
    dates = find_all(package, "date")
    for element in dates:
        event = next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == "event"), "")
        if event in ("original-publication", "creation"):
            return words_of(element)
    years = [int(match[0]) for element in dates if (match := re.search(r"\b\d{4}\b", words_of(element)))]
    old = [year for year in years if year < _LATEST_YEAR]
    return str(min(old)) if old else ""


def _genre(package: Any) -> str:
    for element in find_all(package, "meta"):
        if element.get("property") == "schema:genre" or element.get("property") == "se:subject":
            return words_of(element).lower()
    return ""
