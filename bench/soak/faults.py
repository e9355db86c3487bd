"""What can go wrong with a study, done to a real one: processes killed, disks filled, files damaged, clocks set."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

_IN_CREATE, _IN_NONBLOCK = 0x100, 0o4000
_EVENT = struct.Struct("iIII")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def children(pid: int) -> list[int]:
    """Return all processes below a process."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                below = [int(text) for text in task.read_text().split()]
                found += below
                todo += below
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def workers(driver: int) -> list[int]:
    """Return the worker processes of a driver."""
    return [pid for pid in children(driver) if "spawn_main" in command_of(pid)]


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Moments:
    """Tells at once when a file is about to be written, so that a kill meets the writing of it (inotify)."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_IN_NONBLOCK)
        self._folder, self._watched = folder, set[Path]()

    def wait_for(self, part: str, seconds: float, process: subprocess.Popen[bytes]) -> bool:
        """Wait until a temporary file with `part` in its name appears; False where none does in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            self._watch_new()
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            at = 0
            while at < len(data):
                *_, length = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0").decode(errors="replace")
                at += _EVENT.size + length
                if name.startswith(".") and name.endswith(".tmp") and part in name:
                    return True
        return False

    def _watch_new(self) -> None:
        for folder in [self._folder, *self._folder.glob("*"), *self._folder.glob("runs/*")]:
            if folder not in self._watched and folder.is_dir():
                self._libc.inotify_add_watch(self._descriptor, str(folder).encode(), _IN_CREATE)
                self._watched.add(folder)

    def close(self) -> None:
        os.close(self._descriptor)


def fill_disk(folder: Path) -> Path:
    """Fill the disk of a folder to the last byte."""
    filler = folder / "filler"
    size = 1 << 20
    with open(filler, "ab", buffering=0) as file:
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    return filler


def damage(path: Path, rng: random.Random) -> str:
    """Cut a file short or flip one bit of it, as it lies."""
    size = path.stat().st_size
    if rng.random() < 0.5:
        keep = rng.randrange(size)
        os.truncate(path, keep)
        return f"cut to {keep} of {size} bytes"
    at, bit = rng.randrange(size), 1 << rng.randrange(8)
    with open(path, "r+b") as file:
        file.seek(at)
        value = file.read(1)[0]
        file.seek(at)
        file.write(bytes([value ^ bit]))
    return f"bit flipped at byte {at} of {size}"


def can_be_damaged(work: Path) -> list[Path]:
    """Return the files of a study that hold something: all but logs, locks and signs of life."""
    leave_out = {"heartbeat.json", "log.txt", "filler", "ltm.json", "study.json"}
    return [
        path
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in leave_out and not path.name.startswith(".") and path.stat().st_size > 8
    ]


def clock_environment(file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock on the wall is set by a file (libfaketime)."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
