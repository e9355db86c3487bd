"""Project Gutenberg: which books there are (its weekly catalogue), which are read most (its RDF files), their texts.

Catalogues come from the main site, which offers them to programs; texts come from mirrors, as its robot rules ask.
The addresses are settings (`LTM_GUTENBERG_URL`, `LTM_GUTENBERG_MIRRORS`, both with several addresses parted by commas
for the latter), so that another mirror, or a copy on one's own disk behind a web server, does as well.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltm.books.fetch.client import Client, SourceError
from ltm.books.fetch.download import Expected, download
from ltm.books.fetch.plan import Wanted
from ltm.errors import InputError

SITE = "https://www.gutenberg.org"
MIRRORS = ("https://aleph.gutenberg.org", "https://gutenberg.pglaf.org")
CATALOGUE = "cache/epub/feeds/pg_catalog.csv.gz"
RDF = "cache/epub/feeds/rdf-files.tar.bz2"
_MEAN_BYTES = 400_000  # of a text, over the whole of Project Gutenberg
_MOST_CATALOGUE_BYTES = 200 * 1024**2
_MOST_RDF_BYTES = 600 * 1024**2
_RDF_NAME = re.compile(r"(?:^|/)pg(\d+)\.rdf$")
_DOWNLOADS = re.compile(rb"<pgterms:downloads[^>]*>\s*(\d+)")
_RIGHTS = re.compile(rb"<dcterms:rights[^>]*>([^<]*)")
_FILE = re.compile(rb"<pgterms:file [^>]*rdf:about=\"([^\"]*)\"(.*?)</pgterms:file>", re.DOTALL)
_EXTENT = re.compile(rb"<dcterms:extent[^>]*>\s*(\d+)")
_LIFE = re.compile(r",?\s*(?:\d{1,4}\??\s*(?:BCE?)?)?\s*-\s*(?:\d{1,4}\??\s*(?:BCE?)?)?\s*$")
_ROLE = re.compile(r"\s*\[[^\]]*\]\s*$")
_SAFE = re.compile(r"[^a-z0-9]+")
_PUBLIC = "public domain in the usa"


@dataclass(frozen=True)
class Entry:
    """One text of the catalogue."""

    number: int
    title: str
    authors: str  # as people write them, joined by `; `
    languages: tuple[str, ...]
    subjects: str


@dataclass(frozen=True)
class Popularity:
    """What the RDF file of a text says beyond the catalogue."""

    downloads: int  # in the last thirty days
    rights: str
    text_bytes: int  # 0 = not said


@dataclass(frozen=True)
class Question:
    """What is wanted of Project Gutenberg."""

    languages: tuple[str, ...] = ()
    top: int | None = None  # the most read ones
    limit: int | None = None  # the first ones in the order of the catalogue
    author: str = ""  # part of a name
    subject: str = ""  # part of a subject or bookshelf
    any_rights: bool = False  # also what is in copyright and may be read but not passed on


def addresses() -> tuple[str, tuple[str, ...]]:
    """Return the address of the catalogue's site and those of the mirrors, best first."""
    site = os.environ.get("LTM_GUTENBERG_URL", SITE).rstrip("/")
    named = os.environ.get("LTM_GUTENBERG_MIRRORS", "")
    mirrors = tuple(m.strip().rstrip("/") for m in named.split(",") if m.strip())
    if not mirrors:
        mirrors = (site,) if "LTM_GUTENBERG_URL" in os.environ else MIRRORS
    return site, mirrors


def choose(client: Client, question: Question, cache: Path, say: Callable[[str], None]) -> list[Wanted]:
    """Return the files that a question means, in the order in which they are fetched.

    Args:
        client: Asks for the catalogue and, for `top`, for the RDF files.
        question: What is wanted.
        cache: Folder that keeps the large catalogue of RDF files for the next question.
        say: Told what is being waited for.

    Raises:
        InputError: no such language, or nothing fits.
        SourceError: the catalogue cannot be had, or is not one.
    """
    site, mirrors = addresses()
    say(f"asking {site} for its catalogue")
    entries = read_catalogue(client.get(f"{site}/{CATALOGUE}", most_bytes=_MOST_CATALOGUE_BYTES).body)
    fitting = _fitting(entries, question)
    popularity: dict[int, Popularity] = {}
    if question.top is not None:
        say("asking for the RDF files, which say how often each text is read (over 100 MB; kept for a week)")
        path = _kept(client, f"{site}/{RDF}", cache / "gutenberg-rdf-files.tar.bz2")
        popularity = read_popularity(path, {entry.number for entry in fitting})
        fitting.sort(key=lambda entry: (-_downloads(popularity, entry.number), entry.number))
    if not question.any_rights:
        fitting = [e for e in fitting if e.number not in popularity or _is_free(popularity[e.number])]
    wanted = [_wanted(entry, popularity.get(entry.number), mirrors) for entry in fitting]
    return wanted[: question.top or question.limit]


def read_catalogue(data: bytes) -> list[Entry]:
    """Return the texts of `pg_catalog.csv`, packed or not; sound, pictures and data sets are left out.

    Raises:
        SourceError: it is no such catalogue.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = _unpack(data)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"the catalogue of Project Gutenberg came damaged ({error})", "try again later") from None
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "replace")))
    missing = {"Text#", "Type", "Title", "Language", "Authors"} - set(reader.fieldnames or [])
    if missing:
        raise SourceError("what came is not the catalogue of Project Gutenberg", "check LTM_GUTENBERG_URL")
    entries = []
    for row in reader:
        if row["Type"] != "Text" or not (row["Text#"] or "").isdigit():
            continue
        entries.append(
            Entry(
                int(row["Text#"]),
                " ".join((row["Title"] or "").split()),
                "; ".join(_names(row["Authors"] or "")),
                tuple(code.strip().lower() for code in (row["Language"] or "").split(";") if code.strip()),
                "; ".join(filter(None, (row.get("Subjects"), row.get("Bookshelves")))),
            )
        )
    return entries


def read_popularity(path: Path, numbers: set[int]) -> dict[int, Popularity]:
    """Return what the tar of RDF files says of some texts; a file in it that says nothing is passed over.

    Raises:
        SourceError: it is no tar, or cut off.
    """
    found: dict[int, Popularity] = {}
    try:
        with tarfile.open(path, mode="r|*") as tar:
            for member in tar:
                match = _RDF_NAME.search(member.name)
                if match is None or int(match[1]) not in numbers or not member.isfile() or member.size > 8 * 1024**2:
                    continue
                file = tar.extractfile(member)
                if file is not None:
                    found[int(match[1])] = parse_rdf(file.read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        path.unlink(missing_ok=True)
        raise SourceError(f"the RDF files of Project Gutenberg came damaged ({error})", "run it again") from None
    return found


def parse_rdf(data: bytes) -> Popularity:
    """Return what one RDF file says; by its fixed wording, since 75,000 of them are read."""
    downloads, rights = _DOWNLOADS.search(data), _RIGHTS.search(data)
    sizes = [
        int(extent[1])
        for match in _FILE.finditer(data)
        if b".txt" in match[1] and b".zip" not in match[1] and (extent := _EXTENT.search(match[2]))
    ]
    return Popularity(
        int(downloads[1]) if downloads else 0,
        rights[1].decode("utf-8", "replace").strip() if rights else "",
        max(sizes, default=0),
    )


def check_text(path: Path) -> None:
    """Check that a text of Project Gutenberg came whole: what has a header has a footer.

    Raises:
        SourceError: it broke off.
    """
    data = path.read_bytes()
    head, tail = data[:30_000].upper(), data[-60_000:].upper()
    if b"*** START OF TH" in head and b"*** END OF TH" not in tail and b"END OF PROJECT GUTENBERG" not in tail:
        raise SourceError(f"{path.name} breaks off before its end", "try again later, or another mirror")


def _fitting(entries: Sequence[Entry], question: Question) -> list[Entry]:
    known = Counter(code for entry in entries for code in entry.languages)
    for language in question.languages:
        if language not in known:
            most = ", ".join(code for code, _ in known.most_common(12))
            raise InputError(
                f"Project Gutenberg has no texts in {language!r}", f"languages are two letters: {most} ..."
            )
    wanted = set(question.languages)
    author, subject = question.author.casefold(), question.subject.casefold()
    found = [
        entry
        for entry in entries
        if (not wanted or wanted & set(entry.languages))
        and (not author or author in entry.authors.casefold())
        and (not subject or subject in entry.subjects.casefold())
    ]
    if not found:
        raise InputError(
            "nothing in Project Gutenberg fits the question", "ask for less: fewer of --language, --author, --subject"
        )
    return found


def _wanted(entry: Entry, popularity: Popularity | None, mirrors: Sequence[str]) -> Wanted:
    language = entry.languages[0] if entry.languages else ""
    name = _SAFE.sub("-", _latin(entry.title.split(":")[0]).lower()).strip("-")[:40].strip("-")
    rights = (popularity.rights if popularity else "") or "see the Project Gutenberg licence in the file"
    return Wanted(
        source=f"gutenberg:{entry.number}",
        file=f"gutenberg/{language or 'xx'}/{entry.number}{'-' + name if name else ''}.txt",
        urls=tuple(_urls(entry.number, mirrors)),
        n_bytes=(popularity.text_bytes if popularity else 0) or _MEAN_BYTES,
        fields={
            "title": entry.title,
            "author": entry.authors,
            "language": language,
            "licence": rights,
        },
    )


def _urls(number: int, mirrors: Sequence[str]) -> Iterator[str]:
    """Yield where a text may lie: by the digits of its number, in the encodings of three times; then the made ones."""
    digits = "/".join(str(number)[:-1]) or "0"
    for mirror in mirrors:
        yield f"{mirror}/cache/epub/{number}/pg{number}.txt"
        for name in (f"{number}-0.txt", f"{number}.txt", f"{number}-8.txt"):
            yield f"{mirror}/{digits}/{number}/{name}"


def _names(text: str) -> Iterator[str]:
    """Yield the authors, given name first; translators, editors and illustrators are left out where authors are."""
    people = [person.strip() for person in text.split(";") if person.strip()]
    authors = [p for p in people if not _ROLE.search(p) or "[Author]" in p] or people[:1]
    for person in authors:
        plain = _LIFE.sub("", _ROLE.sub("", person)).strip(" ,")
        last, comma, first = plain.partition(",")
        yield f"{first.split('(')[0].strip()} {last.strip()}".strip() if comma else plain


def _latin(text: str) -> str:
    """Return the letters a file name should be made of; other scripts have only their number."""
    return text.encode("ascii", "ignore").decode()


def _downloads(popularity: dict[int, Popularity], number: int) -> int:
    return popularity[number].downloads if number in popularity else 0


def _is_free(popularity: Popularity) -> bool:
    return not popularity.rights or popularity.rights.casefold().startswith(_PUBLIC)


def _kept(client: Client, url: str, path: Path) -> Path:
    """Return a large catalogue, fetched at most once a week."""
    import time

    week = 7 * 24 * 3600
    if path.exists() and time.time() - path.stat().st_mtime < week:
        return path
    return download(client, url, path, Expected(most_bytes=_MOST_RDF_BYTES)).path


def _unpack(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        found = file.read(_MOST_CATALOGUE_BYTES + 1)
    if len(found) > _MOST_CATALOGUE_BYTES:
        raise OSError("it unpacks to more than any catalogue has")
    return found
