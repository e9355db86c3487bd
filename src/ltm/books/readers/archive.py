"""Archives from strangers (zip, tar, gz, bz2, xz), opened in memory within fixed limits.

Nothing is ever unpacked to the disk, so a member's name cannot lead anywhere; names that try are refused all the same.
Sizes in a header can lie: the limits are applied to the bytes that really come out.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from ltm.books.readers.base import MAX_FILE_BYTES
from ltm.errors import BookError
from ltm.units import format_bytes

MAX_MEMBERS = 10_000
MAX_TOTAL_BYTES = 512 * 1024**2
MAX_RATIO = 200  # unpacked to packed; books reach 5, one repeated byte reaches 1000
RATIO_FROM_BYTES = 1024**2  # small members may be as repetitive as they like
TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")  # one file each
_CHUNK_BYTES = 1024**2
_Stream = IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    KeyError,
    IndexError,
)


@dataclass
class Budget:
    """How many bytes may still come out of one file of the library, archives inside it included."""

    left_bytes: int = field(default_factory=lambda: MAX_TOTAL_BYTES)

    def take(self, n_bytes: int) -> None:
        """Count bytes that came out.

        Raises:
            BookError: it is more than the whole file may give.
        """
        self.left_bytes -= n_bytes
        if self.left_bytes < 0:
            raise BookError(f"the archive unpacks to more than {format_bytes(MAX_TOTAL_BYTES)}")


@dataclass
class Archive:
    """An open zip archive."""

    file: zipfile.ZipFile
    members: list[zipfile.ZipInfo]  # files only, without the folders and droppings of file managers
    budget: Budget


@contextlib.contextmanager
def open_archive(data: bytes, budget: Budget | None = None) -> Iterator[Archive]:
    """Open a zip archive.

    Raises:
        BookError: it is damaged or has too many members.
    """
    try:
        file = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGE as error:
        raise BookError(f"the archive is damaged or cut off ({_plain(error)})") from None
    with file:
        infos = file.infolist()
        if len(infos) > MAX_MEMBERS:
            raise BookError(f"the archive has {len(infos)} members; at most {MAX_MEMBERS} are read")
        members = [info for info in infos if not info.filename.endswith("/") and not _is_dropping(info.filename)]
        yield Archive(file, members, budget or Budget())


def read_member(archive: Archive, member: zipfile.ZipInfo) -> bytes:
    """Return the bytes of one member.

    Raises:
        BookError: it is encrypted, damaged, too large, or its name leads out of the archive.
    """
    if _leads_out(member.filename):
        raise BookError("the member's name leads out of the archive")
    if member.flag_bits & 0x1:
        raise BookError("the archive is protected by a password")
    try:
        with archive.file.open(member) as stream:
            return _take(stream, member.compress_size, archive.budget)
    except _DAMAGE as error:
        raise BookError(f"the archive is damaged or cut off ({_plain(error)})") from None


def zip_members(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes | BookError]]:
    """Yield name and bytes of every member of a zip archive, or the error of one that cannot be taken out.

    Raises:
        BookError: the archive as a whole cannot be opened.
    """
    with open_archive(data, budget) as archive:
        for member in archive.members:
            try:
                yield zip_name(member), read_member(archive, member)
            except BookError as error:
                yield zip_name(member), error


def zip_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; without the UTF-8 flag Russian archives mean cp866, which zipfile reads as cp437."""
    if member.flag_bits & 0x800 or member.filename.isascii():
        return member.filename
    with contextlib.suppress(UnicodeError):
        raw = member.filename.encode("cp437")
        with contextlib.suppress(UnicodeError):
            return raw.decode("utf-8")
        return raw.decode("cp866")
    return member.filename


def tar_members(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes | BookError]]:
    """Yield name and bytes of every file of a tar archive, packed or not; links are passed over with their reason.

    Raises:
        BookError: the archive as a whole cannot be opened, or breaks off.
    """
    try:
        counted = _Counted(_unpacker(data), len(data), budget)
        with tarfile.open(fileobj=counted, mode="r|", errorlevel=1, encoding="utf-8", errors="replace") as archive:
            for place, member in enumerate(archive):
                if place >= MAX_MEMBERS:
                    raise BookError(f"the archive has more than {MAX_MEMBERS} members")
                if member.isdir() or _is_dropping(member.name):
                    continue
                if not member.isreg():
                    yield member.name, BookError("a link or device inside an archive is not followed")
                elif _leads_out(member.name):
                    yield member.name, BookError("the member's name leads out of the archive")
                elif member.size > MAX_FILE_BYTES:
                    yield member.name, BookError(f"the member has more than {format_bytes(MAX_FILE_BYTES)}")
                else:
                    stream = archive.extractfile(member)
                    yield member.name, stream.read() if stream else b""
    except BookError:
        raise
    except _DAMAGE as error:
        raise BookError(f"the archive is damaged or cut off ({_plain(error)})") from None


def unpack(data: bytes, budget: Budget) -> bytes:
    """Return what a gz, bz2 or xz file holds.

    Raises:
        BookError: it is damaged or too large.
    """
    try:
        with _unpacker(data) as stream:
            return _take(stream, len(data), budget)
    except _DAMAGE as error:
        raise BookError(f"the file is damaged or cut off ({_plain(error)})") from None


def _unpacker(data: bytes) -> _Stream:
    raw = io.BytesIO(data)
    if data[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if data[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if data[:6] == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    return raw


class _Counted(io.RawIOBase):
    """A stream that stops at the limits, whoever reads it."""

    def __init__(self, stream: _Stream, packed_bytes: int, budget: Budget) -> None:
        self._stream, self._packed_bytes, self._budget, self._n_bytes = stream, packed_bytes, budget, 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(_CHUNK_BYTES if size < 0 else size)
        self._n_bytes += len(chunk)
        self._budget.take(len(chunk))
        _check_ratio(self._n_bytes, self._packed_bytes)
        return chunk


def _take(stream: _Stream, packed_bytes: int, budget: Budget) -> bytes:
    parts: list[bytes] = []
    n_bytes = 0
    while chunk := stream.read(_CHUNK_BYTES):
        parts.append(chunk)
        n_bytes += len(chunk)
        budget.take(len(chunk))
        if n_bytes > MAX_FILE_BYTES:
            raise BookError(f"the member unpacks to more than {format_bytes(MAX_FILE_BYTES)}")
        _check_ratio(n_bytes, packed_bytes)
    return b"".join(parts)


def _plain(error: Exception) -> str:
    """Return what a decompressor says without its numbers."""
    return re.sub(r"^(?:zlib error: )?Error -\d+ while [\w ]+: ", "", str(error))[:150]


def _check_ratio(n_bytes: int, packed_bytes: int) -> None:
    if n_bytes > RATIO_FROM_BYTES and n_bytes > MAX_RATIO * max(packed_bytes, 1):
        raise BookError(f"the member unpacks to more than {MAX_RATIO} times its size: an archive bomb")


def _leads_out(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or plain[1:2] == ":" or ".." in plain.split("/") or "\x00" in plain


def _is_dropping(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or (parts[-1].startswith(".") and not parts[-1].startswith(".."))
