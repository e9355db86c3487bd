"""One file or embedded book on its way to the catalogue: read, clean, language, chapters, features, sketch.

Everything here depends on one book alone. What depends on the others (duplicates, holding out) is done by the stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltm.books import features, gutenberg
from ltm.books.catalogue import book_id
from ltm.books.chapters import find_chapters
from ltm.books.clean import clean
from ltm.books.duplicates import Sketch, sketch
from ltm.books.kjv import LICENCE, KjvBook
from ltm.books.language import detect
from ltm.books.metadata import UNKNOWN, choose, from_file_name, parse_year
from ltm.books.readers import RawBook
from ltm.records import Book, Rejected

_LANGUAGE_NAMES = {
    "eng": "en",
    "rus": "ru",
    "fre": "fr",
    "fra": "fr",
    "ger": "de",
    "deu": "de",
    "spa": "es",
    "ita": "it",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A usable book: its row (pool and rank still open), its text, its sketch."""

    book: Book
    text: str
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a book must be to be kept."""

    languages: frozenset[str]  # empty = any
    min_words: int


def prepare(raw: RawBook, source: str, manifest: dict[str, str], wanted: Wanted, rank: int) -> Prepared | Rejected:
    """Return the book of a raw text, or why it is left out.

    Args:
        raw: What the reader found.
        source: Path relative to the library, with the member's name for a book in an archive.
        manifest: The manifest's fields for it, possibly none.
        wanted: Languages and least length.
        rank: Its place in the library's order.
    """
    cleaned = clean(raw.text)
    text, chapter_starts = find_chapters(cleaned.text)
    n_words = features.count_words(text)
    if n_words == 0:
        top = max(cleaned.removed, key=lambda name: cleaned.removed[name])
        return Rejected(source, "clean", f"no words are left after cleaning (most went as: {top})")
    own = {name: getattr(raw, name) for name in ("title", "author", "year", "language", "genre")}
    fields = choose(manifest, own, gutenberg.read_header(raw.text), from_file_name(source))
    language = _language(fields.get("language", ""), manifest, text)
    if wanted.languages and language not in wanted.languages:
        return Rejected(
            source, "language", f"the language is {language}; wanted are {', '.join(sorted(wanted.languages))}"
        )
    if n_words < wanted.min_words:
        return Rejected(source, "size", f"{n_words} words; books.min_words is {wanted.min_words}")
    book = _row(text, source, fields, language, rank, n_words, chapter_starts)
    return Prepared(book, text, sketch(text))


def prepare_kjv(book: KjvBook, wanted: Wanted, rank: int) -> Prepared | Rejected:
    """Return an embedded book; it is clean already, its length is no reason to leave it out."""
    source = f"kjv:{book.title}"
    if wanted.languages and "en" not in wanted.languages:
        return _other_language(source, "en", wanted)
    fields = {
        "title": book.title,
        "author": book.author,
        "year": str(book.year),
        "genre": book.genre,
        "licence": LICENCE,
    }
    row = _row(book.text, source, fields, "en", rank, features.count_words(book.text), book.chapter_starts)
    return Prepared(row, book.text, sketch(book.text))


def _other_language(source: str, language: str, wanted: Wanted) -> Rejected:
    return Rejected(source, "language", f"the language is {language}; wanted are {', '.join(sorted(wanted.languages))}")


def _language(named: str, manifest: dict[str, str], text: str) -> str:
    """Trust the manifest; else the text itself, since files often name their language wrongly or not at all."""
    if manifest.get("language"):
        code = named.lower()
        return _LANGUAGE_NAMES.get(code, code.replace("_", "-").split("-")[0])
    return detect(text)


def _row(
    text: str, source: str, fields: dict[str, str], language: str, rank: int, n_words: int, chapter_starts: list[int]
) -> Book:
    return Book(
        book_id=book_id(text),
        title=fields.get("title", source),
        author=fields.get("author", UNKNOWN),
        year=parse_year(fields.get("year", "")),
        language=language,
        genre=fields.get("genre", UNKNOWN).lower(),
        source=source,
        licence=fields.get("licence", UNKNOWN),
        rank=rank,
        pool="train",
        n_words=n_words,
        n_bytes=len(text.encode()),
        chapter_starts=chapter_starts,
        features=features.compute(text, language, n_words),
    )
