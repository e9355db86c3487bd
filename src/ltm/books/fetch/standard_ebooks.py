"""Standard Ebooks: carefully made editions, by its OPDS feed.

The feed of all books is for members of its Patrons Circle, who name the e-mail address that they are known by
(`--user`); the feed of new releases is open to everyone (`--feed new-releases`). The address of the site is a setting
(`LTM_STANDARD_EBOOKS_URL`).
"""

from __future__ import annotations

import base64
import os
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from ltm.books.fetch.client import Client, SourceError
from ltm.books.fetch.plan import Wanted
from ltm.errors import InputError

SITE = "https://standardebooks.org"
_FEEDS = {"all": "feeds/opds/all", "new-releases": "feeds/atom/new-releases"}
_ATOM = "{http://www.w3.org/2005/Atom}"
_TERMS = "{http://purl.org/dc/terms/}"
_EPUB = "application/epub+zip"
_MEAN_BYTES = 900_000  # of one of its EPUB files
_MOST_PAGES = 500
_LICENCE = "CC0 1.0 (the edition); the text is in the public domain in the USA"


def choose(
    client: Client, feed: str = "all", user: str = "", languages: tuple[str, ...] = (), limit: int | None = None
) -> tuple[list[Wanted], dict[str, str]]:
    """Return the books of a feed, and the headers that are sent with every request.

    Raises:
        InputError: no such feed, or it has no books that fit.
        SourceError: the feed cannot be had, or is not one.
    """
    if feed not in _FEEDS:
        raise InputError(f"Standard Ebooks has no feed {feed!r}", f"known: {', '.join(_FEEDS)}")
    site = os.environ.get("LTM_STANDARD_EBOOKS_URL", SITE).rstrip("/")
    headers = {"authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode()} if user else {}
    wanted: dict[str, Wanted] = {}
    url: str | None = f"{site}/{_FEEDS[feed]}"
    seen: set[str] = set()
    while url and len(seen) < _MOST_PAGES:
        if url in seen:
            break
        seen.add(url)
        page, url = _page(client, url, headers)
        for item in page:
            if not languages or item.fields["language"] in languages:
                wanted.setdefault(item.source, item)
    if not wanted:
        raise InputError("Standard Ebooks has no books that fit", "its books are in English: leave --language out")
    return list(wanted.values())[:limit], headers


def _page(client: Client, url: str, headers: dict[str, str]) -> tuple[list[Wanted], str | None]:
    from lxml import etree

    try:
        answer = client.get(url, headers)
    except SourceError as error:
        if error.status in (401, 403):
            raise SourceError(
                "Standard Ebooks gives this feed to members of its Patrons Circle only",
                "name the e-mail address of a member with --user, or take --feed new-releases",
                error.status,
            ) from None
        raise
    # a stranger's XML: nothing is expanded, nothing is fetched
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(answer.body, parser)
    except etree.XMLSyntaxError as error:
        raise SourceError(f"{url} is no feed ({error.msg})", "check LTM_STANDARD_EBOOKS_URL") from None
    if root.tag != f"{_ATOM}feed":
        raise SourceError(f"{url} is no feed", "check LTM_STANDARD_EBOOKS_URL")
    found = [item for entry in root.iter(f"{_ATOM}entry") if (item := _book(entry, answer.url)) is not None]
    following = [
        urljoin(answer.url, link.get("href", "")) for link in root.findall(f"{_ATOM}link") if link.get("rel") == "next"
    ]
    return found, following[0] if following else None


def _book(entry: Any, base: str) -> Wanted | None:
    links = [
        link
        for link in entry.findall(f"{_ATOM}link")
        if link.get("type", "").split(";")[0] == _EPUB and link.get("href")
    ]
    # of the builds for several reading programs the plain one is best for reading by machine
    links.sort(key=lambda link: ("advanced" in link.get("href"), "kepub" in link.get("href"), link.get("href")))
    if not links:
        return None
    url = urljoin(base, links[0].get("href"))
    identity = _text(entry, f"{_ATOM}id") or url
    parts = [part for part in urlsplit(identity).path.split("/") if part and part != "ebooks"]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", "_".join(parts)).strip("-_")[:120] or "book"
    length = links[0].get("length", "")
    authors = [_text(author, f"{_ATOM}name") for author in entry.findall(f"{_ATOM}author")]
    genres = [c.get("term", "") for c in entry.findall(f"{_ATOM}category") if "subject" in c.get("scheme", "")]
    return Wanted(
        source=f"standard-ebooks:{'/'.join(parts) or url}",
        file=f"standard-ebooks/{name}.epub",
        urls=(url,),
        n_bytes=int(length) if length.isdigit() else _MEAN_BYTES,
        fields={
            "title": _text(entry, f"{_ATOM}title"),
            "author": "; ".join(name for name in authors if name),
            "language": (_text(entry, f"{_TERMS}language") or "en").split("-")[0].lower(),
            "genre": genres[0] if genres else "",
            "licence": _LICENCE,
        },
    )


def _text(node: Any, tag: str) -> str:
    return " ".join((node.findtext(tag) or "").split())
