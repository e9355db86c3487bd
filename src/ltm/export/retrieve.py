"""Passages of the library that bear on a question: BM25 over paragraphs, each with its book and place.

Reads: `books/catalogue.parquet` (Book), the clean texts. Writes: nothing. Source: Robertson et al. 1995, in the sparse
form of bm25s (Lù 2024). Only texts of this work folder are read, whatever model answers.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ltm.books.catalogue import TextStore, iter_books
from ltm.errors import InputError, MissingPartError
from ltm.records import Book
from ltm.store import WorkFolder

_WORDS = 110  # of a passage, about
_MOST_BYTES = 200_000_000  # of text that is held in memory with its index
_WORD = re.compile(r"\w+")
_BREAK = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Passage:
    """A piece of a book."""

    title: str
    author: str
    place: str  # `chapter 3, at 12 %`
    text: str
    score: float = 0.0

    @property
    def source(self) -> str:
        """Book and place, as it is cited."""
        by = f" by {self.author}" if self.author and self.author.lower() != "unknown" else ""
        return f"{self.title}{by}, {self.place}"


class Library:
    """The passages of a study's library, ready to be asked.

    Args:
        work: The study's work folder.

    Raises:
        MissingPartError: bm25s is not installed.
        InputError: the study has no books yet, or more than can be held in memory.
    """

    def __init__(self, work: WorkFolder) -> None:
        if importlib.util.find_spec("bm25s") is None:
            raise MissingPartError("bm25s is not installed, which finds passages", "pip install 'ltm[rag]'")
        import bm25s

        self.passages = list(_passages(work))
        if not self.passages:
            raise InputError(f"{work.root} has no books to look in", "build them: ltm books STUDY")
        words = [_words(f"{passage.title} {passage.text}") for passage in self.passages]
        self._known = {word for row in words for word in row}
        self._index: Any = bm25s.BM25()
        self._index.index(words, show_progress=False)

    def find(self, question: str, count: int = 3) -> list[Passage]:
        """Return the passages that bear on a question most, best first; none where no word of it stands anywhere."""
        words = [word for word in _words(question) if word in self._known]
        if not words:
            return []
        found, scores = self._index.retrieve([words], k=min(count, len(self.passages)), show_progress=False)
        return [
            Passage(p.title, p.author, p.place, p.text, float(score))
            for p, score in ((self.passages[int(i)], s) for i, s in zip(found[0], scores[0], strict=True))
            if score > 0
        ]


def prompt_with(passages: Iterable[Passage], question: str, most_characters: int) -> str:
    """Return a prompt with passages before a question, as many as fit, the best one nearest to the question."""
    chosen: list[str] = []
    room = most_characters - len(question)
    for number, passage in enumerate(passages, 1):
        text = f"[{number}] {passage.source}:\n{passage.text}"
        if chosen and len(text) > room:
            break
        chosen.append(text[: max(200, room)])
        room -= len(text)
    return "\n\n".join([*reversed(chosen), question])


def _passages(work: WorkFolder) -> Iterator[Passage]:
    store, size = TextStore(work), 0
    for batch in iter_books(work):
        for book in batch:
            size += book.n_bytes
            if size > _MOST_BYTES:
                raise InputError(
                    f"the library has more than {_MOST_BYTES / 1e6:.0f} MB of text, too much to look through here",
                    "chat without --rag, or make a study of fewer books",
                )
            yield from _of_book(book, store.read(book.book_id))


def _of_book(book: Book, text: str) -> Iterator[Passage]:
    """Yield passages of about `_WORDS` words that end with a paragraph, or a sentence of a long one."""
    for start, piece in _pieces(text):
        chapter = sum(1 for place in book.chapter_starts if place <= start)
        share = start / max(1, len(text))
        place = f"chapter {chapter}, at {share:.0%}" if len(book.chapter_starts) > 1 else f"at {share:.0%}"
        yield Passage(book.title, book.author, place, piece)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    start, count, position = 0, 0, 0
    for match in re.finditer(r"[^\n.!?…]*[\n.!?…]+|[^\n.!?…]+$", text):
        count += len(_WORD.findall(match.group()))
        position = match.end()
        ends = _BREAK.search(text[match.end() - 2 : match.end() + 2]) is not None
        if count >= _WORDS or (ends and count >= _WORDS // 2):
            if piece := text[start:position].strip():
                yield start, piece
            start, count = position, 0
    if piece := text[start:].strip():
        yield start, piece


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
