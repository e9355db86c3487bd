"""A folder of books: which files there are, in which order, and the bytes of one of them.

Reads: the folder and its manifest. Nothing outside the folder is ever opened: links that lead out are rejected.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ltm.books.manifest import Manifest, find_manifest
from ltm.books.readers.base import MAX_FILE_BYTES
from ltm.errors import BookError, LibraryError
from ltm.units import format_bytes

_NOT_BOOKS = frozenset((".csv", ".json", ".yaml", ".yml", ".toml", ".ini", ".log"))  # what lies beside books


@dataclass(frozen=True, slots=True)
class BookFile:
    """One file of the library."""

    relative: str  # with forward slashes, printable
    opened: str  # path to open
    n_bytes: int
    mtime_ns: int
    problem: str = ""  # why it cannot be opened


def check_folder(path: str | None) -> Path:
    """Return the library folder.

    Raises:
        LibraryError: none is named, it does not exist, is not a folder, or may not be read.
    """
    if path is None:
        raise LibraryError("the study does not say where its books are", "give a folder: --set books.path=DIR")
    root = Path(path).expanduser()
    try:
        if not root.exists():
            raise LibraryError(f"no such folder of books: {path}", "check `books.path`; it counts from where you are")
        if not root.is_dir():
            raise LibraryError(f"not a folder: {path}", "name the folder that holds the books in `books.path`")
        with os.scandir(root):
            pass
    except OSError as error:
        raise LibraryError(f"cannot read the folder {path}: {error.strerror}", "check its permissions") from None
    return root


def list_files(root: Path, manifest_path: str | None = None) -> list[BookFile]:
    """Return every file below the folder, sorted by path; hidden files, tables and settings are passed over."""
    manifest = find_manifest(root, manifest_path)
    skipped = manifest if manifest else None
    found: list[BookFile] = []
    _walk(root, "", root.resolve(), found)
    books = [file for file in found if Path(file.relative).suffix.lower() not in _NOT_BOOKS]
    kept = [file for file in books if skipped is None or not file.opened or Path(file.opened) != skipped]
    return sorted(kept, key=lambda file: file.relative)


def in_order(files: list[BookFile], manifest: Manifest) -> list[BookFile]:
    """Return files in the library's own order: first as the manifest lists them, then the others by path."""
    last = len(manifest.rows)

    def place(file: BookFile) -> tuple[int, str]:
        row = manifest.find(file.relative)
        return (row[0] if row else last, file.relative)

    return sorted(files, key=place)


def read_bytes(file: BookFile) -> bytes:
    """Return the bytes of a file.

    Raises:
        BookError: it cannot be read, is too large, or is not in the folder.
    """
    if file.problem:
        raise BookError(file.problem)
    if file.n_bytes > MAX_FILE_BYTES:
        limit = format_bytes(MAX_FILE_BYTES)
        raise BookError(f"the file has {format_bytes(file.n_bytes)}; at most {limit} are read (unpack or split it)")
    try:
        with open(file.opened, "rb") as stream:
            before = os.fstat(stream.fileno())
            data = stream.read(MAX_FILE_BYTES + 1)
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise BookError(f"the file cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise BookError(f"the file has more than {format_bytes(MAX_FILE_BYTES)}")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise BookError("the file changed while it was read; run again when it is whole")
    return data


def _walk(folder: Path, prefix: str, real_root: Path, found: list[BookFile]) -> None:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        found.append(BookFile(prefix.rstrip("/"), "", 0, 0, f"the folder cannot be read: {error.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # names that are no UTF-8 (unpacked on another system) are shown with their bytes, and opened all the same
        relative = prefix + os.fsencode(entry.name).decode("utf-8", errors="backslashreplace")
        if entry.is_dir(follow_symlinks=False):
            _walk(Path(entry.path), f"{relative}/", real_root, found)
        else:
            found.append(_entry(entry, relative, real_root))


def _entry(entry: os.DirEntry[str], relative: str, real_root: Path) -> BookFile:
    try:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real_root):
            return BookFile(relative, "", 0, 0, "a link that leads out of the library folder")
        if entry.is_dir():
            return BookFile(relative, "", 0, 0, "a link to a folder is not followed")
        if not entry.is_file():
            return BookFile(relative, "", 0, 0, "not a regular file")
        stat = entry.stat()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return BookFile(relative, "", 0, 0, f"the file cannot be examined: {reason}")
    return BookFile(relative, entry.path, stat.st_size, stat.st_mtime_ns)
