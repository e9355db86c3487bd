"""What a worker's death means for the job that it had: work on, wait a little, or give the job up.

A process that is killed from outside is lost, not failed: its job goes back into the queue, again and again while it
gets on, with growing pauses where it does not. A process that ends itself (a crash in compiled code, an exit) is the
job's own fault after a few times. One that took too much memory is told apart, since less at a time will do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltm.runs.executors.base import CRASHED, KILLED, OVER_MEMORY, Job, Outcome, log_tail, signal_name
from ltm.runs.heartbeat import Watcher

_MOST_CRASHES = 3  # of workers on one job before it counts as failed
_MOST_KILLS = 12  # of workers on one job that got no further between them
_KILLS_WITHOUT_WAIT = 3
_LONGEST_WAIT_SECONDS = 30.0
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stalls:
    """Tells which jobs have given no sign of life for long, by a clock that never jumps."""

    def __init__(self, patience_seconds: float) -> None:
        self._watcher = Watcher(patience_seconds)

    def has_stalled(self, job: Job, worker: int) -> bool:
        """Return whether a job's pulse has stood still for as long as this worker had it."""
        return bool(job.pulse) and self._watcher.is_dead(job.key, (worker, _stamp(job.pulse)))


def out_of_memory_kills() -> int:
    """Return how many processes of this control group, or of this machine, were ended for want of memory so far."""
    total = 0
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill "), ("/proc/vmstat", "oom_kill ")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
    return total


@dataclass
class _Record:
    kills: int = 0
    crashes: int = 0
    progress: Any = None
    not_before: float = 0.0  # time.monotonic()


@dataclass
class Deaths:
    """Keeps count of the deaths of workers by job."""

    most_kills: int = _MOST_KILLS
    most_crashes: int = _MOST_CRASHES
    _records: dict[str, _Record] = field(default_factory=dict)
    _out_of_memory: int = field(default_factory=out_of_memory_kills)

    def of(self, job: Job, exit_code: int | None) -> Outcome | None:
        """Note a death; returns how the job ended by it, or None where it is to be worked on again.

        Args:
            job: What the worker had.
            exit_code: Of its process, negative for a signal; None where nobody knows (another machine).
        """
        record = self._records.setdefault(job.key, _Record())
        progress = _stamp(job.progress)
        if progress != record.progress:
            record.progress, record.kills = progress, 0
        if exit_code == -signal.SIGKILL and (now := out_of_memory_kills()) > self._out_of_memory:
            self._out_of_memory = now
            return Outcome(job.key, "the system ended its worker: the machine ran out of memory", OVER_MEMORY)
        if exit_code is None or -exit_code in _FROM_OUTSIDE or exit_code in _STOPPED:
            record.kills += 1
            if record.kills < self.most_kills:
                beyond = record.kills - _KILLS_WITHOUT_WAIT
                record.not_before = time.monotonic() + min(_LONGEST_WAIT_SECONDS, 2.0**beyond if beyond > 0 else 0.0)
                return None
            return Outcome(job.key, f"its worker was killed {record.kills} times and got no further", KILLED)
        record.crashes += 1
        if record.crashes < self.most_crashes:
            record.not_before = time.monotonic() + 2.0 ** (record.crashes - 1)
            return None
        lines = "\n".join(log_tail(job.log))
        error = f"its worker process died {record.crashes} times, the last time {signal_name(exit_code)}"
        return Outcome(job.key, f"{error}\n{lines}" if lines else error, CRASHED)

    def wait_seconds(self, job: Job) -> float:
        """Return how long to wait before a job may be given to a worker again."""
        record = self._records.get(job.key)
        return max(0.0, record.not_before - time.monotonic()) if record else 0.0


_STOPPED = (75, 128 + signal.SIGTERM)


def _stamp(path: str) -> tuple[int, int] | None:
    if not path:
        return None
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
