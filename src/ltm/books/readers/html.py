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
    skip_marks=names(
        "pagenum pageno page-num linenum noteref fnanchor doc-noteref toc doc-toc pagebreak doc-pagebreak tnote "
        "transnote "
        "transcribernote transcriber-note transcribers-note ws-noexport ws-pagenum noprint mw-editsection ws-summary"
    ),
    footnote=frozenset(("sup",)),
    preformatted=frozenset(("pre",)),
)
_CHARSET = re.compile(rb"<(?:\?xml|meta)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{3,30})", re.I)
_GUTENBERG_TITLE = re.compile(
    r"^(?:The |A )?Project Gutenberg(?:'s|’s)?\s+(?:e-?(?:book|text)s?\s+)?(?:of\s+|edition of\s+|,\s*)?"
    r"(?P<title>.+?)(?:,?\s+by\s+(?P<author>[^|]+?))?$",
    re.IGNORECASE,
)
_PROLOGUE = re.compile(r"\A\s*<\?xml[^>]{0,300}\?>")


class HtmlReader:
    """Reads web pages."""

    suffixes = (".html", ".htm", ".xhtml")

    def read(self, data: bytes) -> RawBook:
        """Return the running text of a page, with the title and author that its head names."""
        root = parse_html(data)
        text = text_of(root, RULES)
        if not text.strip():
            raise BookError("the page holds no text")
        meta = {
            (e.get("name") or e.get("property") or "").lower(): (e.get("content") or "").strip()
            for e in find_all(root, "meta")
        }
        titles = find_all(root, "title")
        title, author = _page_title(words_of(titles[0]) if titles else "")
        return RawBook(
            text=text,
            title=_first(meta, "dc.title", "dcterms.title") or title or _first(meta, "og:title"),
            author=author or _first(meta, "author", "dc.creator", "dcterms.creator", "book:author"),
            language=(root.get("lang") or _first(meta, "dc.language", "language"))[:2].lower(),
            year=_first(meta, "dc.date", "dcterms.created", "dc.date.created"),
            rights=_first(meta, "dc.rights", "dcterms.rights"),
        )


def _first(meta: dict[str, str], *keys: str) -> str:
    return next((meta[key] for key in keys if meta.get(key)), "")


def _page_title(title: str) -> tuple[str, str]:
    """Return title and author out of a page's title; only Gutenberg's wording tells an author beyond doubt."""
    plain = re.sub(r"\s*\|\s*Project Gutenberg\s*$", "", title, flags=re.IGNORECASE).strip()
    match = _GUTENBERG_TITLE.match(plain)
    if match is None:
        return plain, ""
    author = re.sub(
        r",?\s+(?:trans|ed|illus|edited|translated|illustrated)\b.*$", "", match["author"] or "", flags=re.I
    )
    return match["title"].strip(" ."), author.strip(" .")


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
