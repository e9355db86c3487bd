"""One file from the net to the disk: goes on where it was cut off, checked by length and checksum, whole or not there.

Source of the method: range requests with `If-Range` (RFC 9110, 13.1.5 and 14.2): the rest is only sent if the file is
still the one that was begun; else it comes whole, and is begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.books.fetch.client import Client, CutError, SourceError, Stream, UnreachableError
from ltm.seal import file_digest
from ltm.store import store_error
from ltm.units import format_bytes

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PROGRESS_BYTES = 32 * 1024  # an attempt that brings less is counted as one without progress


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched."""

    n_bytes: int | None = None
    sha256: str = ""
    most_bytes: int = 2 * 1024**3  # larger is refused


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched."""

    path: Path
    asked: str  # the address that was asked for
    url: str  # where it came from in the end
    n_bytes: int
    sha256: str


def download(
    client: Client, url: str, target: Path, expected: Expected | None = None, headers: dict[str, str] | None = None
) -> Fetched:
    """Fetch a file; what an earlier, broken attempt left is used.

    Args:
        client: Asks.
        url: What for.
        target: Where the file appears, whole; beside it lies `.NAME.part` until then.
        expected: Its length and checksum, where they are known.
        headers: Sent with every request.

    Raises:
        SourceError: it cannot be had, or is not what it should be.
        StoreError: the disk is full or the folder cannot be written.
    """
    expected = expected or Expected()
    part = _Part(target)
    fresh_starts = 0
    fruitless = 0
    while True:
        before = part.n_bytes
        try:
            final_url = _attempt(client, url, part, expected, headers or {})
            _check(part, expected, url)
        except CutError as error:
            fruitless = fruitless + 1 if part.n_bytes - before < _PROGRESS_BYTES else 1
            if fruitless >= client.manners.attempts:
                hint = "run the same command again later: it goes on where it was"
                raise UnreachableError(f"{error.message} (tried {fruitless} times)", hint) from None
            client.wait(client.pause(fruitless), f"{error.message}; going on from {format_bytes(part.n_bytes)}")
        except _WrongError as error:
            part.discard()
            fresh_starts += 1
            if fresh_starts >= 2:  # damage on the way goes away; a wrong file stays wrong
                raise SourceError(error.message, error.hint) from None
            client.say(f"{error.message}; fetching it anew")
        else:
            return part.finish(url, final_url)


class _WrongError(SourceError):
    """The file is whole and not what it should be."""


class _Part:
    """A file that is being fetched, and what tells whether its rest is still to be had."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self._about = target.with_name(f".{target.name}.part.json")
        self.validator, self.url = "", ""
        self.total: int | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, target) from error
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known: dict[str, Any] = json.loads(self._about.read_text(encoding="utf-8"))
            self.validator, self.url = str(known.get("validator", "")), str(known.get("url", ""))
            self.total = known.get("total")
        if not self._about.exists():
            self.path.unlink(missing_ok=True)

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, url: str, stream: Stream) -> None:
        """Forget what was there and note what is now coming."""
        self.validator = _validator(stream)
        self.url, self.total = url, stream.length
        self.path.write_bytes(b"")
        note = {"url": url, "validator": self.validator, "total": self.total}
        self._about.write_text(json.dumps(note), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def finish(self, asked: str, url: str) -> Fetched:
        try:
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())
            digest, n_bytes = file_digest(self.path), self.n_bytes
            self.path.replace(self.target)
            self._about.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, self.target) from error
        return Fetched(self.target, asked, url, n_bytes, digest)


def _attempt(client: Client, url: str, part: _Part, expected: Expected, headers: dict[str, str]) -> str:
    """Ask for the file, or for its rest, and write what comes; returns the address that answered."""
    start = part.n_bytes
    if start and part.validator and part.url == url:
        if part.total is not None and start == part.total:
            return url
        headers = {**headers, "range": f"bytes={start}-", "if-range": part.validator}
    try:
        with client.open(url, headers) as stream:
            _write(stream, url, part, expected, start)
            return stream.url
    except SourceError as error:
        if error.status == 416:
            part.discard()
            raise CutError(f"{url} is no longer the file that was begun") from None
        raise


def _write(stream: Stream, url: str, part: _Part, expected: Expected, start: int) -> None:
    if stream.status == 206:
        match = _CONTENT_RANGE.fullmatch(stream.headers.get("content-range", "").strip())
        if match is None or int(match[1]) != start or (match[3] != "*" and part.total not in (None, int(match[3]))):
            part.discard()
            raise CutError(f"{url} sends another part than was asked for")
    elif stream.status == 200:
        part.begin(url, stream)
    else:
        raise SourceError(f"{url} answers {stream.status} without a file", "check the source's address", stream.status)
    if (part.total or 0) > expected.most_bytes:
        raise SourceError(f"{url} has {format_bytes(part.total or 0)}; at most {format_bytes(expected.most_bytes)}")
    written = part.n_bytes
    try:
        with open(part.path, "ab") as file:
            for chunk in stream.chunks():
                file.write(chunk)
                written += len(chunk)
                if written > expected.most_bytes:
                    raise SourceError(f"{url} sends more than {format_bytes(expected.most_bytes)}", "it is refused")
    except OSError as error:
        raise store_error(error, part.target) from error
    if part.total is not None and written < part.total:
        raise CutError(f"{url}: {format_bytes(written)} of {format_bytes(part.total)} came")


def _check(part: _Part, expected: Expected, url: str) -> None:
    """Check the whole file."""
    n_bytes = part.n_bytes
    wanted = expected.n_bytes if expected.n_bytes is not None else part.total
    if wanted is not None and n_bytes != wanted:
        raise _WrongError(f"{url} has {n_bytes} bytes; it should have {wanted}", "choose another mirror")
    if expected.sha256 and file_digest(part.path) != expected.sha256:
        raise _WrongError(f"{url} is not the file that the source describes (its checksum differs)", "try again later")


def _validator(stream: Stream) -> str:
    """Return what `If-Range` may name: a strong entity tag, else the time of the last change."""
    tag = stream.headers.get("etag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return stream.headers.get("last-modified", "")
