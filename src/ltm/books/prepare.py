"""One file or embedded book on its way to the catalogue: read, clean, language, chapters, features, sketch.

Everything here depends on one book alone. What depends on the others (duplicates, ranks, holding out) is done by the
stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ltm.books import features, gutenberg
from ltm.books.catalogue import book_id
from ltm.books.chapters import Layout, find_layout
from ltm.books.clean import clean
from ltm.books.duplicates import Sketch, sketch
from ltm.books.kjv import LICENCE, KjvBook
from ltm.books.language import detect
from ltm.books.metadata import choose, from_file_name, language_code, parse_rating, parse_year
from ltm.books.names import UNKNOWN
from ltm.books.quality import noise_share, quality
from ltm.books.readers import RawBook
from ltm.books.titlepage import read_title_page
from ltm.books.vectors import Vector, vector
from ltm.books.words import find_words
from ltm.records import Book, Rejected


@dataclass(frozen=True, slots=True)
class Prepared:
    """A usable book: its row (pool, rank, unit still open), its text, what it is compared by."""

    book: Book
    text: str
    sketch: Sketch
    vector: Vector  # text vector, shape (D,)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a book must be to be kept."""

    languages: frozenset[str]  # empty = any
    min_words: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a text before its row is made."""

    source: str
    fields: dict[str, str]
    language: str
    rank: int
    removed: dict[str, int]


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
    layout = find_layout(cleaned.text)
    if not any(letter.isalnum() for letter in layout.text[:5000]) and not features.count_words(layout.text):
        top = max(cleaned.removed, key=lambda name: cleaned.removed[name])
        return Rejected(source, "clean", f"no words are left after cleaning (most went as: {top})")
    fields = _fields(raw, source, manifest, layout.text)
    language = language_code(manifest["language"]) if manifest.get("language") else detect(layout.text)
    if language == "und" and fields.get("language"):
        language = language_code(fields["language"])
    if wanted.languages and language not in wanted.languages:
        return _other_language(source, language, wanted)
    known = _Known(source, fields, language, rank, {name: n for name, n in cleaned.removed.items() if n})
    return _prepared(layout, known, wanted.min_words)


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
        "rights": LICENCE,
    }
    layout = Layout(book.text, book.chapter_starts, book.chapter_starts)
    return _prepared(layout, _Known(source, fields, "en", rank, {}), 0)


def _other_language(source: str, language: str, wanted: Wanted) -> Rejected:
    reason = f"the language is {language}; wanted are {', '.join(sorted(wanted.languages))}"
    return Rejected(source, "language", reason, language=language)


def _fields(raw: RawBook, source: str, manifest: dict[str, str], text: str) -> dict[str, str]:
    """Return every field by the order of trust (see `ltm.books.metadata`)."""
    own = {name: getattr(raw, name) for name in ("title", "author", "year", "language", "genre", "rights")}
    header = gutenberg.read_header(raw.text)
    file_name = from_file_name(source)
    known = {**manifest, "rights": manifest.get("licence", "")}
    page = read_title_page(text, file_name)
    return choose(known, header, own, page.sure, file_name, page.guess)


def _prepared(layout: Layout, known: _Known, min_words: int) -> Prepared | Rejected:
    text, fields, language = layout.text, known.fields, known.language
    words = find_words(text)
    if len(words) < min_words:
        reason = f"{len(words)} words; books.min_words is {min_words}"
        return Rejected(known.source, "size", reason, language=language)
    numbers = features.compute(text, language, len(words), len(layout.chapters), words)
    book = Book(
        book_id=book_id(text),
        title=fields.get("title", PurePosixPath(known.source).stem),
        author=fields.get("author", UNKNOWN),
        year=parse_year(fields.get("year", "")),
        language=language,
        genre=fields.get("genre", UNKNOWN).lower(),
        source=known.source,
        licence=fields.get("rights", UNKNOWN),
        rank=known.rank,
        pool="train",
        n_words=len(words),
        n_bytes=len(text.encode()),
        chapter_starts=layout.chapters,
        features=numbers,
        scene_starts=layout.scenes,
        removed=known.removed,
        quality=quality(numbers, noise_share(words)),
        rating=parse_rating(fields.get("rating", "")),
    )
    return Prepared(book, text, sketch(words), vector(words))
