"""What a fetch is going to do, and what it will take: said before anything but a catalogue is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltm.books.fetch.client import Client
from ltm.errors import DiskError
from ltm.units import format_bytes, format_seconds

_SPARE_BYTES = 500 * 1024**2  # left free on the disk
# bytes a second that a line may carry, where nothing has been measured: a poor one and a good one
_SLOW, _FAST = 300_000.0, 10_000_000.0
_MEASURED_BYTES = 300_000  # fewer tell nothing


@dataclass(frozen=True)
class Wanted:
    """One file to fetch."""

    source: str  # what it is at its source, for example `gutenberg:1342`
    file: str  # where it will lie, relative to the folder
    urls: tuple[str, ...]  # where it may be had, best first
    n_bytes: int  # as the catalogue says, or as such files have on average
    exact: bool = False  # whether `n_bytes` is the catalogue's word
    sha256: str = ""
    fields: dict[str, str] = field(default_factory=dict)  # title, author, year, language, genre, licence


@dataclass(frozen=True)
class Estimate:
    """What a fetch takes; `low` and `high` span where it will very likely end."""

    files: int
    there: int  # fetched before
    n_bytes: int
    exact: bool
    seconds_low: float
    seconds_high: float
    free_bytes: int

    def text(self, folder: Path) -> str:
        """Return the estimate as people read it."""
        about = "" if self.exact else "about "
        before = f" ({self.there} are there already)" if self.there else ""
        time = f"{format_seconds(self.seconds_low)} to {format_seconds(self.seconds_high)}"
        return (
            f"{self.files} files to fetch{before}, {about}{format_bytes(self.n_bytes)}, {time}, into {folder} "
            f"({format_bytes(self.free_bytes)} free)"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the numbers."""
        return {
            "files": self.files,
            "there": self.there,
            "bytes": self.n_bytes,
            "exact": self.exact,
            "seconds": [round(self.seconds_low, 1), round(self.seconds_high, 1)],
            "free_bytes": self.free_bytes,
        }


def estimate(
    wanted: Sequence[Wanted], there: int, client: Client, folder: Path, requests_each: float = 1.0
) -> Estimate:
    """Return what it takes to fetch these files.

    Args:
        wanted: Files that are not there yet.
        there: Files that are.
        client: Knows how often a host may be asked, and how fast the catalogue came.
        folder: Where they go.
        requests_each: Requests for one file.
    """
    n_bytes = sum(item.n_bytes for item in wanted)
    polite = len(wanted) * requests_each / client.manners.requests_per_second
    seen = client.counted
    slow, fast = _SLOW, _FAST
    if seen.n_bytes >= _MEASURED_BYTES and seen.transfer_seconds > 0:
        rate = seen.n_bytes / seen.transfer_seconds
        slow, fast = rate / 3, rate * 2
    # the wait between two requests runs while the file comes
    low, high = max(polite, n_bytes / fast), polite + n_bytes / slow
    return Estimate(
        files=len(wanted),
        there=there,
        n_bytes=n_bytes,
        exact=all(item.exact for item in wanted),
        seconds_low=low,
        seconds_high=high,
        free_bytes=free_bytes(folder),
    )


def check_disk(needed_bytes: int, folder: Path, exact: bool) -> None:
    """Check that a fetch finds room.

    Raises:
        DiskError: it does not.
    """
    free = free_bytes(folder)
    needed = int(needed_bytes * (1.0 if exact else 1.2)) + _SPARE_BYTES
    if needed > free:
        raise DiskError(
            f"{folder} has {format_bytes(free)} free; the fetch needs {format_bytes(needed)}",
            "free some space, choose another --to, or fetch less (--top, --limit, --tokens)",
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder lies on, or will."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
