"""The process that hands finished runs to one tracker; nothing that it does or suffers reaches the study.

Reads: a work folder (see `rows`), and on stdin one JSON line of settings; the end of stdin means: hand over what is
left, then end. Writes: what the tracker writes, `trackers/<name>/fed.jsonl` (Ledger) and `trackers/<name>/log.txt`.
It runs beside the study at low priority and looks for new rows every few seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GAVE_UP, NOT_THERE = 75, 69  # exit codes: one call took too long; the package is missing or refuses to start
_LOOK_SECONDS = 2.0
_MOST_LOOK_SHARE = 20  # a look at very many rows is followed by a longer pause
_NICE = 10
_FAILURES = 3  # in a row, and the process ends: its driver decides whether another one tries again
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Feed one tracker until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the study's; it closes stdin
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    about = json.loads(sys.stdin.readline())
    folder = Path(about["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with _held(folder):
                return _Feeder(about, folder).feed()
        except Exception:
            _say(traceback.format_exc())
            return NOT_THERE


class _Feeder:
    def __init__(self, about: dict[str, Any], folder: Path) -> None:
        from ltm.runs.trackers.base import open_tracker
        from ltm.runs.trackers.ledger import Ledger
        from ltm.runs.trackers.rows import Rows
        from ltm.store import WorkFolder

        self.rows = Rows(WorkFolder(Path(about["work"])), Path(about["page"]))
        self.patience = float(about["patience_seconds"])
        self.ledger = Ledger(folder / "fed.jsonl")
        with self._patiently("start"):
            self.tracker = open_tracker(about["name"], about["settings"], about["study"], folder)
        self.failures = 0

    def feed(self) -> int:
        ending = False
        while True:
            began = time.monotonic()
            ending = ending or _stdin_ended(0.0)
            done = self._pass(ending)
            if self.failures >= _FAILURES:
                return 1
            if ending and done:
                with self._patiently("close"):
                    self.tracker.close()
                return 0
            took = time.monotonic() - began
            if not ending and _stdin_ended(max(_LOOK_SECONDS, took * _MOST_LOOK_SHARE * (not done))):
                ending = True

    def _pass(self, ending: bool) -> bool:
        """Hand over what is new; returns whether nothing was."""
        nothing = True
        for run_id, digest in list(self.rows.pending(self.ledger.fed)):
            nothing = False
            run = self.rows.run(run_id)
            if run is not None and self._try(run_id, digest, lambda run=run: self.tracker.write_run(run)):
                continue
            if self.failures >= _FAILURES:
                return False
        study, digest = self.rows.study()
        wanted = study.page is not None if not ending else True
        if wanted and self.ledger.fed.get("study") != digest and self.rows.job_ids():
            nothing = False
            self._try("study", digest, lambda: self.tracker.write_study(study))
        return nothing

    def _try(self, run_id: str, digest: str, call: Any) -> bool:
        try:
            with self._patiently(run_id):
                call()
        except Exception:
            self.failures += 1
            _say(f"{run_id}: {traceback.format_exc()}")
            return False
        self.failures = 0
        self.ledger.add(run_id, digest)
        return True

    @contextlib.contextmanager
    def _patiently(self, what: str) -> Iterator[None]:
        """End the process when a call takes too long: a thread cannot be stopped, a process can."""

        def give_up() -> None:
            _say(f"{what}: no answer for {self.patience:g} s")
            os._exit(GAVE_UP)

        timer = threading.Timer(self.patience, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Wait for the feeder of a study that was just killed to go away: two would write at once."""
    import fcntl

    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stdin_ended(seconds: float) -> bool:
    """Return whether stdin was closed, waiting so long for it."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


def _say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with contextlib.suppress(OSError):
        print(f"{stamp} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
