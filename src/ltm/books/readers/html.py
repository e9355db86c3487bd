"""Web pages and XHTML: running text, with h1 to h6 as chapter marks; no scripts, styles, navigation, page numbers."""

from __future__ import annotations

import re
from typing import Any

from ltm.books.readers.base import HEADING, RawBook
from ltm.books.readers.markup import Rules, find_all, names, parse_xml, text_of, words_of
from ltm.books.readers.txt import decode
from ltm.errors import BookError

RULES = Rules(
    block=names(
        "address article aside blockquote body center dd div dl dt fieldset figure footer form "
        "header hr html li main ol p pre section table ul"
    ),
    line=frozenset(("br", "tr")),
    heading=frozenset(("h1", "h2", "h3", "h4", "h5", "h6")),
    section=frozenset(),
    skip=names(
        "head script style nav noscript template svg math img object iframe audio video canvas "
        "button select input textarea"
    ),
    skip_marks=("pagenum", "pageno", "linenum", "noteref", "doc-noteref", "toc", "pagebreak", "doc-pagebreak"),
    preformatted=frozenset(("pre",)),
)
_CHARSET = re.compile(rb"<(?:\?xml|meta)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{3,30})", re.I)
_PROLOGUE = re.compile(r"\A\s*<\?xml[^>]{0,300}\?>")


class HtmlReader:
    """Reads web pages."""

    suffixes = (".html", ".htm", ".xhtml")

    def read(self, data: bytes) -> RawBook:
        """Return the running text of a page, with the title and author that its head names."""
        root = parse_html(data)
        titles = find_all(root, "title")
        meta = {
            (e.get("name") or e.get("property") or "").lower(): (e.get("content") or "").strip()
            for e in find_all(root, "meta")
        }
        text = text_of(root, RULES)
        if not text.strip():
            raise BookError("the page holds no text")
        return (
            RawBook(
                text=text,
                title=meta.get("dc.title", ""),
                author=meta.get("author", "") or meta.get("dc.creator", ""),
                language=(root.get("lang") or "")[:2].lower(),
                year=meta.get("dc.date", ""),
            )
            if meta.get("dc.title") or not titles
            else _with_page_title(root, titles[0], text, meta)
        )


def _with_page_title(root: Any, title: Any, text: str, meta: dict[str, str]) -> RawBook:
    return RawBook(text, _plain_title(words_of(title)), meta.get("author", ""), language=(root.get("lang") or "")[:2])


def _plain_title(title: str) -> str:
    title = re.sub(r"^The Project Gutenberg e-?(?:book|text) of\s+", "", title, flags=re.IGNORECASE)
    return re.sub(r",? by [^,]+(?:, trans.*)?\.?$", "", title).strip()


def parse_html(data: bytes) -> Any:
    """Return the root of a page, as XML where it is well-formed XHTML, else as a browser would read it.

    XHTML must go first: `<title/>` is an empty element there, but swallows the rest of the page as HTML.

    Raises:
        BookError: there is nothing to parse.
    """
    from lxml import etree

    if b"http://www.w3.org/1999/xhtml" in data[:4096]:
        try:
            return parse_xml(data)
        except BookError:
            pass  # most pages that call themselves XHTML are not
    text = _PROLOGUE.sub("", _decode(data)).replace("\x00", "")
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(text.encode("utf-8", errors="replace"), parser)
    except (etree.XMLSyntaxError, ValueError):
        root = None
    if root is None:
        raise BookError("the page cannot be parsed as HTML")
    return root


def _decode(data: bytes) -> str:
    match = _CHARSET.search(data[:4096])
    if match:
        try:
            return data.decode(match[1].decode("ascii")).replace(HEADING, "")
        except (LookupError, UnicodeDecodeError, ValueError):
            pass  # pages often lie about their encoding
    return decode(data)
