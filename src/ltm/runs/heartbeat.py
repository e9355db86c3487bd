"""Signs of life: who trains a run, and whether it still does.

Writes: `runs/<run_id>/heartbeat.json`. No two machines' clocks are ever compared. On the machine that wrote a beat the
process itself is asked: it lives if its number and its moment of birth are those of the beat. Elsewhere the beat's age
is what the file server's own clock says of it. Whoever means to take a run over watches the count in it with a clock
that cannot jump (`Watcher`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import time
from pathlib import Path
from typing import Any

from ltm.errors import StoreError
from ltm.store import read_json, write_json

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
FILE = "heartbeat.json"
_count = itertools.count(1)
_STARTED_FIELD = 19  # of /proc/<pid>/stat behind the command's name: when the process began, in ticks since boot
_PROBE = ".clock"


@functools.cache
def place() -> str:
    """Return what tells this machine since its last start, and this container on it, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return os.uname().nodename


def born(pid: int) -> str:
    """Return when a process of this machine began, `?` where the system does not tell, nothing if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else "?"
    return "" if fields[0] in "ZX" else fields[_STARTED_FIELD]


@functools.cache
def myself(pid: int = 0) -> dict[str, Any]:
    """Return what names this process; `pid` is its number, so that a fork does not take its parent's name."""
    own = pid or os.getpid()
    return {"pid": own, "born": born(own), "host": os.uname().nodename, "place": place()}


def beat(folder: Path, state: str, step: int, n_steps: int, **more: Any) -> None:
    """Say that a run is alive (or `stopped`), and how far it is."""
    value = {"state": state, "step": step, "n_steps": n_steps, "count": next(_count), **more, **myself(os.getpid())}
    with contextlib.suppress(StoreError):  # a full disk ends a run where it loses something: at its next checkpoint
        write_json(folder / FILE, value, durable=False)


def read_beat(folder: str | Path) -> dict[str, Any] | None:
    """Return the last beat of a run, None where there is none or it is damaged."""
    try:
        value = read_json(Path(folder, FILE))
    except StoreError:
        return None
    return value if isinstance(value, dict) else None


def is_here(value: dict[str, Any]) -> bool:
    """Return whether a beat was written on this machine since it started."""
    return value.get("place", value.get("host")) in (place(), os.uname().nodename)


def is_alive(value: dict[str, Any], path: Path) -> bool:
    """Return whether the process of a beat lives: asked here, judged by the file's age elsewhere."""
    if is_here(value):
        found = born(int(value.get("pid", 0)))
        return bool(found) and value.get("born", found) == found
    try:
        return server_now(path) - path.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def server_now(path: Path) -> float:
    """Return the time by the clock of the machine that keeps a file, in seconds; else by this one's."""
    probe = path.parents[1] / _PROBE
    try:
        with open(probe, "ab"):
            os.utime(probe)
        return probe.stat().st_mtime
    except OSError:
        return time.time()


class Watcher:
    """Tells which of some counts have stood still for a while, by a clock of this machine that never jumps."""

    def __init__(self, patience_seconds: float = STALE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self._seen: dict[str, tuple[Any, float]] = {}

    def still_seconds(self, key: str, count: Any) -> float:
        """Return for how long a count has not changed since it was first seen here."""
        now = time.monotonic()
        last = self._seen.get(key)
        if last is None or last[0] != count:
            self._seen[key] = last = (count, now)
        return now - last[1]

    def is_dead(self, key: str, count: Any) -> bool:
        """Return whether a count has stood still for longer than a living process lets it."""
        return self.still_seconds(key, count) >= self.patience_seconds
