"""Serve the page of a study on this machine while the study runs, and hand on what changed.

Reads: the work folder, through `Inputs`. Writes: nothing. A thread looks whether files changed, makes the parts of the
page anew and keeps their digests; the browser asks every two seconds and is given what differs from its own. This may
take a tenth of the time at most: the work of the study itself comes first.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ltm.dashboard.inputs import read_inputs
from ltm.dashboard.page import Parts, fill_page, make_parts
from ltm.errors import LtmError
from ltm.loopback import Answering, Loopback
from ltm.store import WorkFolder, json_safe

LOOK_SECONDS = 1.0
_SHARE = 0.1  # of the time that looking and making may take
_LARGEST_BODY_BYTES = 1 << 16
_WATCHED = ("", "books", "sets", "tokens", "evalset", "scores", "patterns", "dialogue")
_SUFFIXES = (".json", ".parquet")
_PER_RUN = ("run.json", "failed.json")


@dataclass(frozen=True)
class Snapshot:
    """The parts of the page at one moment, by name, with their digests."""

    parts: Parts
    texts: dict[str, str]
    digests: dict[str, str]

    @classmethod
    def of(cls, parts: Parts) -> Snapshot:
        """Return the snapshot of a page's parts."""
        texts = {f"section.{name}": text for name, text in parts.sections.items()}
        texts |= {name: getattr(parts, name) for name in ("title", "header", "banner", "data", "runs")}
        digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
        return cls(parts, texts, digests)

    def beyond(self, known: dict[str, str]) -> dict[str, str]:
        """Return the parts whose digests differ from the known ones."""
        return {name: text for name, text in self.texts.items() if known.get(name) != self.digests[name]}


class LivePage(Loopback):
    """The page of a study, and what changes in it.

    Args:
        work: The study's work folder; it need not be there yet.
        language: What the page opens in.
        status: How far the study is, as `ltm status --json` says it.
        port: 0 = any that is free.

    Raises:
        InputError: the port is in use or not allowed; names the nearest that is free.
    """

    def __init__(self, work: WorkFolder, language: str, status: Callable[[], dict[str, Any]], port: int) -> None:
        self.work, self.language = work, language
        self._status = status
        self._over = threading.Event()
        super().__init__(_Handler, port)
        self._seen = signature(work)
        self.snapshot = Snapshot.of(make_parts(read_inputs(work), language))
        self.standing = self._look_at_status()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the server was told to end."""
        return self._over.is_set()

    def close(self) -> None:
        """Stop following, and free the port."""
        self._over.set()
        super().close()

    def page(self) -> str:
        """Return the whole page as it is now."""
        snapshot = self.snapshot
        page = fill_page(snapshot.parts, self.language, live=True)
        known = html.escape(json.dumps(snapshot.digests))
        return page.replace('<div id="live"', f'<div id="live" data-known="{known}"', 1)

    def changes(self, known: dict[str, str]) -> dict[str, Any]:
        """Return how far the study is, and the parts that a reader does not have yet."""
        snapshot = self.snapshot
        return {"status": self.standing, "parts": snapshot.beyond(known), "digests": snapshot.digests}

    def _look_at_status(self) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json_safe(self._status())
        except (LtmError, OSError):  # a file is being written, or the folder is not there yet
            return None
        return value

    def _follow(self) -> None:
        wait = LOOK_SECONDS
        while not self._over.wait(wait):
            began = time.perf_counter()
            try:
                self._look()
            except Exception as error:  # one damaged moment must not end the page for good
                self.standing = {"error": str(error)}
            wait = max(LOOK_SECONDS, (time.perf_counter() - began) * (1 / _SHARE - 1))

    def _look(self) -> None:
        seen = signature(self.work)
        if seen != self._seen:
            self._seen = seen
            self.snapshot = Snapshot.of(make_parts(read_inputs(self.work), self.language))
        self.standing = self._look_at_status()


def signature(work: WorkFolder) -> int:
    """Return a number that changes when a file that the page reads is written, removed or added."""
    found: list[tuple[str, int, int]] = []
    for folder in _WATCHED:
        found += [entry for entry in _entries(work.root / folder) if entry[0].endswith(_SUFFIXES)]
    for name, changed, _ in _entries(work.root / "runs"):
        found += [(f"{name}/{file}", *stat) for file in _PER_RUN if (stat := _stat(work.root / "runs" / name / file))]
        found.append((name, changed, 0) if name.endswith(_SUFFIXES) else (name, 0, 0))
    return hash(tuple(sorted(found)))


def _entries(folder: Path) -> list[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, *_numbers(entry.stat())) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        return _numbers(path.stat())
    except OSError:
        return None


def _numbers(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_mtime_ns, stat.st_size


class _Handler(Answering):
    owner: LivePage
    printed_by = "ltm dashboard --live"
    cookie_prefix = "ltm_dashboard"

    def do_GET(self) -> None:  # noqa: N802
        """Give the page to whoever has the token."""
        if not self.is_let_in():
            return
        if urlparse(self.path).path != "/":
            self.reply_json(404, {"error": "there is only one page"})
            return
        more = {"Content-Security-Policy": "frame-ancestors 'none'", "Set-Cookie": self.cookie_to_set()}
        self.reply(200, "text/html; charset=utf-8", self.owner.page().encode(), more)

    def do_POST(self) -> None:  # noqa: N802
        """Say what changed; a call brings the digests that the reader knows, as JSON, which other sites cannot send."""
        if not self.is_let_in():
            self.close_connection = True
            return
        if self.owner.is_over:  # a connection that was open may outlive the server
            self.close_connection = True
            self.reply_json(503, {"error": "the server has ended"})
            return
        known = self._known()
        if known is None or urlparse(self.path).path != "/changes":
            self.close_connection = True
            self.reply_json(400 if known is None else 404, {"error": "there is no such call, or it is damaged"})
            return
        self.reply_json(200, self.owner.changes(known))

    def _known(self) -> dict[str, str] | None:
        try:
            size = int(self.headers.get("content-length") or 0)
            if not 0 < size <= _LARGEST_BODY_BYTES or self.headers.get("content-type") != "application/json":
                return None
            value = json.loads(self.rfile.read(size))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None
