"""Fetch a list of files, one after another; what is there already is passed over, what cannot be had is noted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ltm.books.fetch.client import Client, SourceError, UnreachableError
from ltm.books.fetch.download import Expected, Fetched, download
from ltm.books.fetch.plan import Wanted
from ltm.books.fetch.record import Record, Row
from ltm.errors import InputError
from ltm.progress import Progress
from ltm.units import format_bytes

_MOST_BYTES = 1024**3
_IN_A_ROW = 3  # files that a source cannot give one after another: then it is not the files
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


@dataclass
class Outcome:
    """What a fetch did."""

    fetched: int = 0
    there: int = 0
    there_bytes: int = 0
    n_bytes: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # source, why


Check = Callable[[Path], None]


def fetch_all(
    client: Client,
    wanted: Sequence[Wanted],
    record: Record,
    progress: Progress,
    check: Check | None = None,
    headers: dict[str, str] | None = None,
    enough_bytes: int | None = None,
) -> Outcome:
    """Fetch files into the folder of a record.

    Args:
        client: Asks.
        wanted: What for, in this order.
        record: Of the folder.
        progress: Told about each file.
        check: Looks at a file that came and raises `SourceError` when it is not what it should be.
        headers: Sent with every request.
        enough_bytes: Stop when so many bytes are there.

    Raises:
        SourceError: the source gives nothing any more; what was fetched is recorded.
        StoreError: the disk is full.
    """
    outcome = Outcome()
    task = progress.task("fetch", len(wanted), "files")
    in_a_row = 0
    places = _Places()
    for item in wanted:
        if enough_bytes is not None and outcome.n_bytes + outcome.there_bytes >= enough_bytes:
            break
        known = record.find(item.source)
        if known is not None:
            outcome.there += 1
            outcome.there_bytes += int(known["bytes"])
            task.skipped += 1
            task.advance()
            continue
        try:
            fetched = _fetch_one(client, places.ordered(item.urls), item, record.folder, check, headers)
        except SourceError as error:
            outcome.failed.append((item.source, error.message))
            in_a_row = 0 if error.status in (404, 410) else in_a_row + 1
            if in_a_row >= _IN_A_ROW:
                raise SourceError(
                    f"{error.message}; {in_a_row} files in a row could not be fetched", error.hint, error.status
                ) from None
        else:
            in_a_row = 0
            places.learn(item.urls, fetched.asked)
            outcome.fetched += 1
            outcome.n_bytes += fetched.n_bytes
            row = Row(item.file, item.source, fetched.url, fetched.sha256, fetched.n_bytes)
            record.add(dataclasses.replace(row, **item.fields))  # type: ignore[arg-type]
        note = f"{format_bytes(outcome.n_bytes)}" + (f", {len(outcome.failed)} not to be had" if outcome.failed else "")
        task.advance(note=note)
    return outcome


class _Places:
    """Remembers at which of its places the last file was found: the next one most likely lies there too."""

    def __init__(self) -> None:
        self._last = 0

    def ordered(self, urls: Sequence[str]) -> list[str]:
        """Return the places with the most likely one first."""
        last = min(self._last, len(urls) - 1)
        return [urls[last], *urls[:last], *urls[last + 1 :]]

    def learn(self, urls: Sequence[str], url: str) -> None:
        """Note where a file was found."""
        self._last = list(urls).index(url)


def _fetch_one(
    client: Client, urls: Sequence[str], item: Wanted, folder: Path, check: Check | None, headers: dict[str, str] | None
) -> Fetched:
    """Fetch one file from the first place that has it."""
    target = _inside(folder, item.file)
    expected = Expected(item.n_bytes if item.exact else None, item.sha256, _MOST_BYTES)
    problem: SourceError | None = None
    silent: set[str] = set()  # hosts that were asked in vain as often as manners allow: they have no other file either
    for url in urls:
        host = urlsplit(url).netloc
        if host in silent:
            continue
        try:
            fetched = download(client, url, target, expected, headers)
            try:
                _check_kind(target)
                if check is not None:
                    check(target)
            except SourceError:
                target.unlink(missing_ok=True)
                raise
        except SourceError as error:
            if isinstance(error, UnreachableError):
                silent.add(host)
            # "not found" is what most places answer for most names: another reason says more
            if problem is None or problem.status in (404, 410):
                problem = error
        else:
            return fetched
    assert problem is not None
    raise problem


def _inside(folder: Path, relative: str) -> Path:
    """Return the path of a file below the folder; names come from catalogues that strangers wrote."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or "\0" in relative or not pure.name:
        raise InputError(f"the source names a file {relative!r}, which leads out of the folder")
    return folder / pure


def _check_kind(path: Path) -> None:
    """Refuse a page of excuses in place of a book."""
    with open(path, "rb") as file:
        head = file.read(2048)
    suffix = path.suffix.lower()
    if not head.strip(b"\0 \r\n\t"):
        raise SourceError(f"{path.name} came empty", "try again later")
    if suffix not in (".htm", ".html", ".xhtml") and _HTML.match(head):
        raise SourceError(f"a web page came in place of {path.name}", "the source may be busy or ask for a login")
    signs = {".epub": b"PK\x03\x04", ".zip": b"PK\x03\x04", ".parquet": b"PAR1", ".gz": b"\x1f\x8b"}
    if suffix in signs and not head.startswith(signs[suffix]):
        raise SourceError(f"{path.name} is no {suffix[1:]} file", "try again later, or another mirror")
