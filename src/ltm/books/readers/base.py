"""What a reader gives back, and what a reader is.

A reader turns the bytes of one file into raw books. It sees no path and opens nothing: a hostile file can only harm
its own text. A reader that knows where chapters begin puts `HEADING` before the first line of each; `ltm.books.clean`
keeps the mark and `ltm.books.chapters` takes it out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

HEADING = "\ue000"  # a private-use character; readers remove it from the text they are given
MAX_FILE_BYTES = 100 * 1024**2  # of one file or one archive member; the longest novels are 10 MB


@dataclass(frozen=True, slots=True)
class RawBook:
    """The text of one book as the file has it, with whatever the file says about itself (empty = nothing)."""

    text: str
    title: str = ""
    author: str = ""
    year: str = ""
    language: str = ""
    genre: str = ""
    rights: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A book in a file, or the reason why there is none."""

    member: str  # its name inside an archive or its row in a table; empty for a file that is one book
    book: RawBook | None
    reason: str = ""


class Reader(Protocol):
    """Reads one file format."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The ends of the file names it reads, in lower case with the dot."""
        ...

    def read(self, data: bytes) -> RawBook:
        """Return the book in a file.

        Args:
            data: The whole file, at most `MAX_FILE_BYTES`.

        Raises:
            BookError: the file is damaged, hostile or holds no text; the message says so in plain words.
        """
        ...
