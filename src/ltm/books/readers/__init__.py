"""Readers of book files, one file each behind one small protocol; this is the only list of them.

`read_file` is the one door: it picks the reader by suffix and opens zip archives, whose members are read like files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ltm.books.readers.archive import open_archive, read_member
from ltm.books.readers.base import HEADING, RawBook, Reader
from ltm.books.readers.epub import EpubReader
from ltm.books.readers.fb2 import Fb2Reader
from ltm.books.readers.html import HtmlReader
from ltm.books.readers.markdown import MarkdownReader
from ltm.books.readers.tei import XmlReader
from ltm.books.readers.txt import TxtReader
from ltm.errors import BookError

__all__ = ["HEADING", "SUFFIXES", "Found", "RawBook", "read_file"]

READERS: tuple[Reader, ...] = (TxtReader(), MarkdownReader(), HtmlReader(), EpubReader(), Fb2Reader(), XmlReader())
_BY_SUFFIX = {suffix: reader for reader in READERS for suffix in reader.suffixes}
SUFFIXES = (*_BY_SUFFIX, ".zip")


@dataclass(frozen=True, slots=True)
class Found:
    """A book in a file, or the reason why there is none."""

    member: str  # its name inside a zip archive; empty for a file that is one book
    book: RawBook | None
    reason: str = ""


def read_file(data: bytes, name: str) -> list[Found]:
    """Return every book of a file; a file or member that cannot be read comes back with its reason.

    Args:
        data: The whole file.
        name: Its name; the suffix chooses the reader.
    """
    if PurePosixPath(name).suffix.lower() != ".zip":
        return [_read_one(data, name, "")]
    try:
        return _read_archive(data)
    except BookError as error:
        return [Found("", None, error.message)]


def _read_one(data: bytes, name: str, member: str) -> Found:
    suffix = PurePosixPath(name).suffix.lower()
    reader = _BY_SUFFIX.get(suffix)
    if reader is None:
        known = ", ".join(SUFFIXES)
        return Found(member, None, f"no reader for `{suffix or 'files without a suffix'}`; known are {known}")
    try:
        if not data.strip(b"\x00\t\n\r "):
            raise BookError("the file is empty")
        return Found(member, reader.read(data))
    except BookError as error:
        return Found(member, None, error.message)
    except (RecursionError, MemoryError):
        return Found(member, None, "the file is too deeply nested or too large to be read")
    except Exception as error:  # a reader's own fault must cost one book, not the whole library
        return Found(member, None, f"the file is damaged: {type(error).__name__}: {error}")


def _read_archive(data: bytes) -> list[Found]:
    found = []
    with open_archive(data) as archive:
        for member in archive.members:
            if PurePosixPath(member.filename).suffix.lower() == ".zip":
                found.append(Found(member.filename, None, "an archive inside an archive is not opened"))
                continue
            try:
                content = read_member(archive, member)
            except BookError as error:
                found.append(Found(member.filename, None, error.message))
                continue
            found.append(_read_one(content, member.filename, member.filename))
    return found or [Found("", None, "the archive holds no files")]
