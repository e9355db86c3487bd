"""Time that passes, whatever happens to the clock on the wall: an hour of work stays an hour when the clock is set.

Within a process time is taken from a clock that never jumps. Between processes of one machine the time since its start
is compared; only across a restart, or on another machine, the clock on the wall has to do.
"""

from __future__ import annotations

import time
from typing import Any

from ltm.runs.heartbeat import place

_WALL, _STEADY = time.time(), time.monotonic()


def now() -> float:
    """Return the time in seconds as the wall clock showed it when this process began, plus what has passed since."""
    return _WALL + time.monotonic() - _STEADY


def running() -> float:
    """Return the seconds since this machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def stamp(wall: float | None = None) -> dict[str, Any]:
    """Return a moment that another process can tell the distance of; `wall` is one of `now`, by default this one."""
    at = now() if wall is None else wall
    return {"wall": at, "running": running() - (now() - at), "place": place()}


def since(moment: Any) -> float:
    """Return the seconds since a moment (a stamp, or plain seconds of the wall clock of an earlier version)."""
    if isinstance(moment, dict):
        if moment.get("place") == place():
            return max(0.0, running() - float(moment["running"]))
        return max(0.0, time.time() - float(moment["wall"]))
    return max(0.0, time.time() - float(moment))


def between(moment: Any, wall: float) -> float:
    """Return the seconds from a moment to a later one of the wall clock, never more than have really passed."""
    start = float(moment["wall"] if isinstance(moment, dict) else moment)
    return min(max(0.0, wall - start), since(moment))
