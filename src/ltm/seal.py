"""Files that tell whether they are whole: a digest inside the file, over everything else in it.

JSON, Parquet and safetensors all have room for a word of one's own. The file is made with a blank seal, hashed as it
stands, and the blank is filled with the digest; whoever reads it blanks it again and compares. A truncated file and a
flipped bit are then noticed, where a parser may read a wrong number without a word. Other programs read such a file as
always. A file without a seal (from an earlier version, or of another make) is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from ltm.errors import DamagedError

_MARK = b"ltm-sha256:"
_DIGITS = 64
BLANK = (_MARK + b"0" * _DIGITS).decode()
_FILLED = re.compile(re.escape(_MARK) + rb"([0-9a-f]{%d})" % _DIGITS)
_ZEROS = b"0" * _DIGITS
_SIDECAR = ".sha256"  # beside a file that has no room inside
_CHUNK_BYTES = 1 << 22


def sealed(data: bytes) -> bytes:
    """Return a file's bytes with its blank seal filled; bytes without a blank seal are returned as they are."""
    at = data.rfind(BLANK.encode())
    if at < 0:
        return data
    start = at + len(_MARK)
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + _DIGITS :]


def is_whole(data: bytes) -> bool:
    """Return whether a file's bytes are those that were sealed; True where there is no seal.

    >>> is_whole(sealed(f'{{"a": 1, "seal": "{BLANK}"}}'.encode())), is_whole(b"no seal")
    (True, True)
    """
    found = None
    for match in _FILLED.finditer(data):
        found = match  # the last one: Parquet and JSON have it near the end, and book text might quote one
    if found is None:
        return True
    digest = hashlib.sha256(data[: found.start(1)])
    digest.update(_ZEROS)
    digest.update(memoryview(data)[found.end(1) :])
    return digest.hexdigest().encode() == found[1]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sidecar(path: Path) -> Path:
    """Return where the digest of a file lies that has no room for a seal."""
    return path.with_name(path.name + _SIDECAR)


def check_file(path: Path) -> None:
    """Check a file against its seal or its sidecar.

    Raises:
        DamagedError: it is not what was written.
    """
    try:
        beside = sidecar(path)
        if beside.exists():
            good = beside.read_text(encoding="ascii", errors="replace").strip() == file_digest(path)
        elif path.suffix in (".json", ".parquet", ".safetensors"):
            data = path.read_bytes()
            good = is_whole(data) and _ends_well(path.suffix, data)
        else:
            return
    except FileNotFoundError:
        return
    if not good:
        raise DamagedError(path)


def _ends_well(suffix: str, data: bytes) -> bool:
    """Return whether a file has the end of its kind; a seal goes away with a truncated end."""
    if suffix == ".parquet":
        return len(data) > 8 and data[:4] == data[-4:] == b"PAR1"
    if suffix == ".json":
        try:
            json.loads(data)
        except ValueError:
            return False
        return True
    return len(data) > 8 and len(data) > 8 + int.from_bytes(data[:8], "little")
