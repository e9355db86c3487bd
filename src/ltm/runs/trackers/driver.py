"""Trackers beside a study: one process each, started with the study, waited for at its end, never in its way.

A process that dies is started again a few times; one that hangs is ended. What was not handed over is handed over by
the next start, since the ledger says what stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltm.progress import Progress
from ltm.runs.trackers import ledger
from ltm.runs.trackers.base import missing
from ltm.runs.trackers.feed import NOT_THERE
from ltm.runs.trackers.rows import Rows
from ltm.runs.trackers.section import TrackersSection
from ltm.store import WorkFolder

FOLDER = "trackers"
_STARTS = 4  # of one tracker's process in one start of the study
_PAUSE_SECONDS = 5.0  # before the second start; doubled for each further one
_GRACE_SECONDS = 2.0  # when the study was interrupted
_LOOK_SECONDS = 0.2


class Trackers:
    """The trackers of one start of a study, as a context around it.

    Args:
        section: Which, and how.
        study: The study's name.
        work: Its work folder.
        page: Where its result page lies, or will lie.
        progress: Told at the end what stands where.
    """

    def __init__(self, section: TrackersSection, study: str, work: WorkFolder, page: Path, progress: Progress) -> None:
        self.section, self.progress = section, progress
        self.rows = Rows(work, page)
        self.feeds = [
            _Feed(name, settings, section.patience_seconds, study, work, page)
            for name, settings in section.chosen().items()
            if not self._is_missing(name)
        ]

    def __enter__(self) -> Trackers:
        self.start_needed()
        return self

    def start_needed(self) -> None:
        """Start the processes that have something to do, now or soon; a study that is done starts none."""
        jobs = self.rows.job_ids()
        digest = self.rows.study()[1]
        for feed in self.feeds:
            fed = ledger.read(feed.folder / "fed.jsonl")
            unfinished = not jobs or any(run_id not in fed for run_id in jobs)
            if unfinished or fed.get("study") != digest or any(True for _ in self.rows.pending(fed)):
                feed.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.start_needed()
        for feed in self.feeds:
            feed.finish()
        try:
            if kind is None:
                self._wait()
            else:
                deadline = time.monotonic() + _GRACE_SECONDS
                while any(feed.alive() for feed in self.feeds) and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)
        finally:
            for feed in self.feeds:
                feed.end()
        if kind is None:
            self._report()

    def _is_missing(self, name: str) -> bool:
        line = missing(name)
        if line:
            self.progress.say(f"warning: the tracker {name} is not installed, and gets nothing: {line}")
        return line is not None

    def _wait(self) -> None:
        """Wait while every tracker that is not done keeps taking runs; Ctrl-C leaves the rest for the next start."""
        total = len(self.rows.job_ids())
        said = False
        moved = {feed.name: (time.monotonic(), -1) for feed in self.feeds}
        began = time.monotonic()
        while waiting := [feed for feed in self.feeds if feed.alive()]:
            for feed in waiting:
                count = feed.size()
                if count != moved[feed.name][1]:
                    moved[feed.name] = (time.monotonic(), count)
                elif time.monotonic() - moved[feed.name][0] > self.section.patience_seconds + _PAUSE_SECONDS:
                    feed.end()
            if not said and time.monotonic() - began > 3.0:
                names = " and ".join(feed.name for feed in waiting)
                self.progress.say(f"trackers  {names}: {total} runs are being handed over; Ctrl-C loses nothing")
                said = True
            time.sleep(_LOOK_SECONDS)

    def _report(self) -> None:
        for feed in self.feeds:
            fed = ledger.read(feed.folder / "fed.jsonl")
            left = sum(1 for _ in self.rows.pending(fed))
            if left or "study" not in fed:
                self.progress.say(
                    f"warning: {feed.name} did not take {left} runs: {feed.last_words()}; the study itself is whole, "
                    f"and the next `ltm run` hands them over ({feed.folder / 'log.txt'})"
                )


class _Feed:
    """One tracker's process, started again when it dies."""

    def __init__(
        self, name: str, settings: Mapping[str, Any], patience: float, study: str, work: WorkFolder, page: Path
    ) -> None:
        self.name, self.folder = name, work.path(FOLDER, name)
        self._about = {
            "name": name, "settings": dict(settings), "patience_seconds": patience, "study": study,
            "work": str(work.root.resolve()), "page": str(page.resolve()), "folder": str(self.folder.resolve()),
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._finishing = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, and a thread that starts it again; once."""
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Ask for the rest to be handed over."""
        with self._lock:
            self._finishing.set()
            self._close_stdin()

    def alive(self) -> bool:
        """Return whether something may still be handed over."""
        return self._thread.is_alive()

    def size(self) -> int:
        """Return a number that changes when a run was taken."""
        try:
            return (self.folder / "fed.jsonl").stat().st_size
        except OSError:
            return 0

    def end(self) -> None:
        """End the process and all that it started."""
        self._ended.set()
        self._kill()
        if self._thread.ident is not None:
            self._thread.join(_GRACE_SECONDS)

    def last_words(self) -> str:
        """Return the last line of its log."""
        try:
            lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]

    def _keep_alive(self) -> None:
        for attempt in range(_STARTS):
            code = self._run_once()
            if code in (0, NOT_THERE) or self._ended.is_set():
                return
            pause = _PAUSE_SECONDS * 2**attempt
            if self._ended.wait(min(pause, 1.0) if self._finishing.is_set() else pause):
                return

    def _run_once(self) -> int:
        """Run the process to its end; returns its exit code."""
        try:
            with self._lock:
                if self._ended.is_set():
                    return 0
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "ltm.runs.trackers.feed"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(self._about).encode() + b"\n")
                self._process.stdin.flush()
                if self._finishing.is_set():
                    self._close_stdin()
            return self._process.wait()
        except OSError:
            return NOT_THERE

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _kill(self) -> None:
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def following(section: TrackersSection, study: str, work: WorkFolder, page: Path, progress: Progress) -> Any:
    """Hand a study's runs to its trackers while the block runs; without trackers, nothing is started."""
    if not section.chosen():
        yield
        return
    with Trackers(section, study, work, page, progress):
        yield
