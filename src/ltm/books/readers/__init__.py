"""Readers of book files, one file each behind one small protocol; this is the only list of them.

`read_file` is the one door: it picks the reader by suffix and opens archives, whose members are read like files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from ltm.books.readers.archive import PACKED_SUFFIXES, TAR_SUFFIXES, Budget, tar_members, unpack, zip_members
from ltm.books.readers.base import HEADING, Found, RawBook, Reader
from ltm.books.readers.epub import EpubReader
from ltm.books.readers.fb2 import Fb2Reader
from ltm.books.readers.html import HtmlReader
from ltm.books.readers.markdown import MarkdownReader
from ltm.books.readers.rows import SUFFIXES as ROW_SUFFIXES
from ltm.books.readers.rows import read_rows
from ltm.books.readers.tei import XmlReader
from ltm.books.readers.txt import TxtReader
from ltm.errors import BookError

__all__ = ["ARCHIVES", "HEADING", "SUFFIXES", "Found", "RawBook", "holds_many", "read_file"]

READERS: tuple[Reader, ...] = (TxtReader(), MarkdownReader(), HtmlReader(), EpubReader(), Fb2Reader(), XmlReader())
_BY_SUFFIX = {suffix: reader for reader in READERS for suffix in reader.suffixes}
ARCHIVES = (".zip", ".fbz", *TAR_SUFFIXES)
SUFFIXES = (*_BY_SUFFIX, *ROW_SUFFIXES, *ARCHIVES, *PACKED_SUFFIXES)
_MAX_DEPTH = 2  # an archive in an archive is opened, one inside that is not
_SIGNS = (  # what a file is, whatever its name says
    (b"PK\x03\x04", "a zip archive", (".zip", ".epub", ".fbz")),
    (b"%PDF-", "a PDF", ()),
    (b"\x1f\x8b", "a gz archive", (".gz", ".tgz")),
    (b"PAR1", "a Parquet table", (".parquet",)),
    (b"Rar!", "a RAR archive", ()),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ()),
    (b"\x89PNG", "a picture", ()),
    (b"\xff\xd8\xff", "a picture", ()),
    (b"\x7fELF", "a program", ()),
    (b"\xd0\xcf\x11\xe0", "an old Word document", ()),
    (b"{\\rtf", "an RTF document", ()),
    (b"AT&TFORM", "a DjVu scan", ()),
)


def holds_many(name: str) -> bool:
    """Tell by its name whether a file may hold several books: an archive or a table."""
    lower = name.lower()
    return lower.endswith((*ARCHIVES, *ROW_SUFFIXES)) or lower.removesuffix(".gz").endswith(ROW_SUFFIXES)


def read_file(data: bytes, name: str, text_column: str = "") -> list[Found]:
    """Return every book of a file; a file or member that cannot be read comes back with its reason.

    Args:
        data: The whole file.
        name: Its name; the suffix chooses the reader.
        text_column: For tables: the column that holds the text; empty = find it.
    """
    return list(_read(data, name, "", text_column, Budget(), 0))


def _read(data: bytes, name: str, member: str, column: str, budget: Budget, depth: int) -> Iterator[Found]:
    lower = name.lower()
    try:
        if not data.strip(b"\x00\t\n\r "):
            raise BookError("the file is empty")
        _check_signs(data, lower)
        if lower.endswith(ARCHIVES):
            yield from _read_archive(data, lower, member, column, budget, depth)
        elif lower.endswith(PACKED_SUFFIXES):
            if depth > _MAX_DEPTH:
                raise BookError("archives more than two deep are not opened")
            inner = name.rpartition(".")[0]
            yield from _read(unpack(data, budget), inner, member, column, budget, depth + 1)
        elif lower.endswith(ROW_SUFFIXES):
            for found in read_rows(data, name, column):
                yield Found(f"{member}/{found.member}".lstrip("/"), found.book, found.reason)
        else:
            yield _read_one(data, lower, member)
    except BookError as error:
        yield Found(member, None, error.message)
    except (RecursionError, MemoryError):
        yield Found(member, None, "the file is too deeply nested or too large to be read")
    except Exception as error:  # a reader's own fault must cost one book, not the whole library
        yield Found(member, None, f"the file is damaged: {type(error).__name__}: {error}"[:300])


def _read_one(data: bytes, lower_name: str, member: str) -> Found:
    suffix = PurePosixPath(lower_name).suffix
    reader = _BY_SUFFIX.get(suffix)
    if reader is None:
        known = ", ".join(SUFFIXES)
        raise BookError(f"no reader for `{suffix or 'files without a suffix'}`; known are {known}")
    return Found(member, reader.read(data))


def _read_archive(
    data: bytes, lower_name: str, member: str, column: str, budget: Budget, depth: int
) -> Iterator[Found]:
    if depth >= _MAX_DEPTH:
        raise BookError("archives more than two deep are not opened")
    members = tar_members(data, budget) if lower_name.endswith(TAR_SUFFIXES) else zip_members(data, budget)
    empty = True
    for inner, content in members:
        empty = False
        path = f"{member}/{inner}" if member else inner
        if isinstance(content, BookError):
            yield Found(path, None, content.message)
        else:
            yield from _read(content, inner, path, column, budget, depth + 1)
    if empty:
        raise BookError("the archive holds no files")


def _check_signs(data: bytes, lower_name: str) -> None:
    """Refuse a file that is something else than its name says, in words that tell what to do."""
    for sign, what, suffixes in _SIGNS:
        if data.startswith(sign) and not lower_name.endswith(suffixes):
            if PurePosixPath(lower_name).suffix not in SUFFIXES:
                return  # no reader for it anyway; that is the better reason
            advice = f"; name it {suffixes[0]}" if suffixes else "; such files are not read"
            raise BookError(f"the file is not text: it is {what}, whatever its name says{advice}")
