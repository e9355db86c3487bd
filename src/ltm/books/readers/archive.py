"""Zip archives from strangers, opened in memory within fixed limits.

Nothing is ever unpacked to the disk, so a member's name cannot lead anywhere; names that try are refused all the same.
Sizes in a zip header can lie: the limits are applied to the bytes that really come out.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ltm.books.readers.base import MAX_FILE_BYTES
from ltm.errors import BookError
from ltm.units import format_bytes

MAX_MEMBERS = 10_000
MAX_TOTAL_BYTES = 512 * 1024**2
MAX_RATIO = 200  # unpacked to packed; books reach 5, one repeated byte reaches 1000
RATIO_FROM_BYTES = 1024**2  # small members may be as repetitive as they like
_CHUNK_BYTES = 1024**2


@dataclass
class Archive:
    """An open zip archive and how much was taken out of it so far."""

    file: zipfile.ZipFile
    members: list[zipfile.ZipInfo]  # files only, without the folders and droppings of file managers
    taken_bytes: int = 0


@contextlib.contextmanager
def open_archive(data: bytes) -> Iterator[Archive]:
    """Open a zip archive.

    Raises:
        BookError: it is damaged or has too many members.
    """
    try:
        file = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise BookError(f"the archive is damaged or cut off ({error})") from None
    with file:
        infos = file.infolist()
        if len(infos) > MAX_MEMBERS:
            raise BookError(f"the archive has {len(infos)} members; at most {MAX_MEMBERS} are read")
        yield Archive(file, [info for info in infos if not info.is_dir() and not _is_dropping(info.filename)])


def read_member(archive: Archive, member: zipfile.ZipInfo) -> bytes:
    """Return the bytes of one member.

    Raises:
        BookError: it is encrypted, damaged, too large, or its name leads out of the archive.
    """
    if _leads_out(member.filename):
        raise BookError("the member's name leads out of the archive")
    if member.flag_bits & 0x1:
        raise BookError("the archive is protected by a password")
    parts: list[bytes] = []
    n_bytes = 0
    try:
        with archive.file.open(member) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                parts.append(chunk)
                n_bytes += len(chunk)
                archive.taken_bytes += len(chunk)
                _check_limits(archive, member, n_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise BookError(f"the archive is damaged or cut off ({error})") from None
    return b"".join(parts)


def _check_limits(archive: Archive, member: zipfile.ZipInfo, n_bytes: int) -> None:
    if n_bytes > MAX_FILE_BYTES:
        raise BookError(f"the member unpacks to more than {format_bytes(MAX_FILE_BYTES)}")
    if archive.taken_bytes > MAX_TOTAL_BYTES:
        raise BookError(f"the archive unpacks to more than {format_bytes(MAX_TOTAL_BYTES)}")
    if n_bytes > RATIO_FROM_BYTES and n_bytes > MAX_RATIO * max(member.compress_size, 1):
        raise BookError(f"the member unpacks to more than {MAX_RATIO} times its size: an archive bomb")


def _leads_out(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or plain[1:2] == ":" or ".." in plain.split("/") or "\x00" in plain


def _is_dropping(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or (parts[-1].startswith(".") and not parts[-1].startswith(".."))
