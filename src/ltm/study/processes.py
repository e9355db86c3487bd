"""How much of the processors other programs took meanwhile, how large this program grew, and how long it has lived.

Reads: `/proc` (Linux); elsewhere nothing is known, and nothing is said.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

_BUSY_FIELDS = (0, 1, 2, 5, 6)  # user, nice, system, irq and softirq of /proc/stat
_YOUNG_SECONDS = 20.0  # a process that was started for a study is not older when it begins


class Load:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def others(self) -> float:
        """Return the share of all processors that was busy with other programs since the beginning."""
        passed = (time.monotonic() - self._began) * len(os.sched_getaffinity(0))
        taken = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return min(1.0, max(0.0, taken / passed)) if passed > 0 else 0.0


def process_age() -> float:
    """Return how long this process has lived, if it was started a moment ago; Python's start is part of the bill."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        age = uptime - float(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    return age if 0 <= age < _YOUNG_SECONDS else 0.0


def peak_bytes(pid: int | str = "self") -> int:
    """Return the peak resident memory of a process; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return max((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), default=0)


def children_peak_bytes() -> int:
    """Return the largest peak of the worker processes that are alive."""
    return max((peak_bytes(str(process.pid)) for process in multiprocessing.active_children()), default=0)


def _busy_seconds() -> float:
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        return sum(float(fields[i]) for i in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _own_seconds() -> float:
    """Return the processor seconds of this process, of its children that have ended, and of those that live."""
    spent = os.times()
    total = spent.user + spent.system + spent.children_user + spent.children_system
    for process in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += (float(fields[11]) + float(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            continue
    return total
