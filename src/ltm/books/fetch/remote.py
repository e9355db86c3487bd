"""A part of a large file on the net, read where it lies: of a table of gigabytes a few megabytes may be wanted.

Source of the method: range requests (RFC 9110, 14). Each is answered with a part of the file of the length that its
catalogue names; a server that answers otherwise is not read this way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

from ltm.books.fetch.client import Client, SourceError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_AHEAD_BYTES = 1 << 20  # asked for at once: a request costs a polite second
_MOST_BYTES = 512 * 1024**2  # in one request


class NoPartsError(SourceError):
    """The server does not give parts of this file."""


class RemoteFile(io.RawIOBase):
    """A file that can be read anywhere; every read that is not in hand is a request."""

    def __init__(self, client: Client, url: str, n_bytes: int, headers: Mapping[str, str]) -> None:
        self._client, self._url, self._n_bytes, self._headers = client, url, n_bytes, dict(headers)
        self._at = 0
        self._held, self._held_from = b"", 0
        self.name = url

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; returns it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return bytes from here on, at most `size`.

        Raises:
            NoPartsError: the server gives no parts, or not of this file.
            SourceError: it cannot be asked.
        """
        end = self._n_bytes if size is None or size < 0 else min(self._n_bytes, self._at + size)
        start = self._at
        if start >= end:
            return b""
        if start < self._held_from or end > self._held_from + len(self._held):
            self._fetch(start, min(self._n_bytes, max(end, start + _AHEAD_BYTES)))
        self._at = end
        return self._held[start - self._held_from : end - self._held_from]

    def _fetch(self, start: int, end: int) -> None:
        headers = {**self._headers, "range": f"bytes={start}-{end - 1}"}
        answer = self._client.get(self._url, headers, most_bytes=_MOST_BYTES)
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if answer.status != 206 or match is None or (int(match[1]), int(match[3])) != (start, self._n_bytes):
            raise NoPartsError(f"{self._url} gives no parts of the file", "fetch it whole")
        if len(answer.body) != end - start:
            raise SourceError(f"{self._url} sent {len(answer.body)} of {end - start} bytes", "try again later")
        self._held, self._held_from = answer.body, start
