"""One process at a time in a work folder: who holds it is written down, and nobody has to tidy up after a crash.

Writes: `.lock` (the kernel's lock; free again when its process ends, however it ends) and `.owner` (who holds it). On a
network folder the kernel's lock may hold on one machine only; there the owner's file decides: it appears by a hard
link, which is atomic on NFS too, its holder touches it every few seconds, and one that was not touched for a while by
the file server's own clock belongs to a machine that is gone, and is taken over. (The link is what Linux's open(2)
recommends for NFS.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltm.errors import BusyError

LOCK, OWNER = ".lock", ".owner"
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a beat, by the clock of the file server: the owner's machine is gone
_TRIES, _WAIT_SECONDS = 5, 0.1  # `ltm status` looks at the lock for a moment
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Owner:
    """Who holds a work folder."""

    host: str
    boot: str  # of the machine's present start: a process number means nothing after the next
    pid: int
    started: str  # of the process, in the kernel's ticks: process numbers come again
    since: str  # ISO 8601, UTC
    user: str
    token: str  # of this one hold

    def in_words(self) -> str:
        """Return who it is as a person reads it."""
        user = f", user {self.user}" if self.user else ""
        return f"process {self.pid} on {self.host} since {self.since.replace('T', ' ').replace('+00:00', ' UTC')}{user}"

    def here(self) -> bool:
        """Whether the owner runs under this machine's kernel, since its last start; maybe in another container."""
        return self.boot == _boot() and (self.boot != "" or self.host == socket.gethostname())

    def alive(self) -> bool | None:
        """Whether its process lives; None where only its beats can tell."""
        if not self.here() or self.host != socket.gethostname():
            return None
        started = _process_start(self.pid)
        return started is not None and self.started in ("", started)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Owner]:
    """Hold a folder for this process.

    Raises:
        BusyError: another process holds it; the message says which, and since when.
        OSError: the folder cannot be written.
    """
    descriptor, locked = _kernel_lock(folder)
    try:
        owner = _take(folder, locked)
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(folder / OWNER, owner.token, over), daemon=True)
        beat.start()
        try:
            yield owner
        finally:
            over.set()
            beat.join(1.0)
            if _is_ours(folder / OWNER, owner.token):
                with contextlib.suppress(OSError):
                    (folder / OWNER).unlink()
    finally:
        os.close(descriptor)


def owner_of(folder: Path) -> Owner | None:
    """Return who holds a folder now, or None; writes nothing."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        locked = False
    except BlockingIOError:
        locked = True
    except OSError:
        locked = False
    finally:
        os.close(descriptor)
    owner = read(folder / OWNER)
    if locked:
        return owner or _unknown()
    if owner is None or owner.here() or _silent_seconds(folder, folder / OWNER, look_only=True) > STALE_SECONDS:
        return None  # on this machine the kernel's lock is the truth
    return owner


def read(path: Path) -> Owner | None:
    """Return the owner that a file names, or None where there is none or it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Owner(**{field.name: value[field.name] for field in dataclasses.fields(Owner)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kernel_lock(folder: Path) -> tuple[int, bool]:
    """Return the open lock file, and whether the file system has locks at all."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    for attempt in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor, True
        except BlockingIOError:
            if attempt == _TRIES - 1:
                os.close(descriptor)
                raise _busy(folder, read(folder / OWNER) or _unknown(), None) from None
            time.sleep(_WAIT_SECONDS)
        except OSError as error:
            if error.errno in _NO_FLOCK:  # a file system without locks: the owner's file alone decides
                return descriptor, False
            os.close(descriptor)
            raise
    raise AssertionError("not reached")


def _take(folder: Path, locked: bool) -> Owner:
    """Put our name into the owner's file; the name of a dead owner is moved away first."""
    path = folder / OWNER
    owner = Owner(
        socket.gethostname(), _boot(), os.getpid(), _process_start(os.getpid()) or "", _now(), _user(),
        secrets.token_hex(8),
    )  # fmt: skip
    mine = folder / f"{OWNER}.{owner.token}"
    mine.write_text(json.dumps(dataclasses.asdict(owner)) + "\n", encoding="utf-8")
    try:
        for _ in range(_TRIES):
            if _link(mine, path):
                return owner
            other = read(path)
            if other is not None and not (locked and other.here()):  # else we have what it would still hold
                silent = _silent_seconds(folder, path)
                if other.alive() or (other.alive() is None and silent <= STALE_SECONDS):
                    raise _busy(folder, other, silent)
            _remove_stale(folder, path, other)
    finally:
        mine.unlink(missing_ok=True)
    raise _busy(folder, read(path) or _unknown(), None)


def _link(mine: Path, path: Path) -> bool:
    """Give our file the owner's name unless it is taken. A lost answer of the server is told by the number of links."""
    try:
        os.link(mine, path)
    except FileExistsError:
        return mine.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return _create(mine, path)  # a file system without hard links (exFAT, some FUSE)
    return True


def _create(mine: Path, path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as file:
        file.write(mine.read_bytes())
    return True


def _remove_stale(folder: Path, path: Path, judged: Owner | None) -> None:
    """Move the file of a dead owner away; if someone else was quicker, their file is put back."""
    aside = folder / f"{OWNER}.stale.{secrets.token_hex(8)}"
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if read(aside) != judged:
        _link(aside, path)
    aside.unlink(missing_ok=True)


def _beat(path: Path, token: str, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            if _is_ours(path, token):
                os.utime(path)  # with no times given, the file server's own


def _is_ours(path: Path, token: str) -> bool:
    found = read(path)
    return found is not None and found.token == token


def _silent_seconds(folder: Path, path: Path, look_only: bool = False) -> float:
    """Return for how long an owner has not touched its file, by the clock that dates files there."""
    try:
        touched = path.stat().st_mtime
        if look_only:
            return time.time() - touched
        probe = folder / f"{OWNER}.clock.{secrets.token_hex(8)}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return 0.0
    return now - touched


def _busy(folder: Path, owner: Owner, silent: float | None) -> BusyError:
    hint = "wait for it, stop it, or choose another --work"
    if silent is not None and not owner.here():
        hint += (
            f"; its last sign of life is {max(0.0, silent):.0f} s old: if that machine is gone, "
            f"the folder is free {STALE_SECONDS:.0f} s after the last one"
        )
    return BusyError(f"{folder} is in use by {owner.in_words()}", hint)


def _unknown() -> Owner:
    return Owner("an unknown machine", "", 0, "", _now(), "", "")


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def _process_start(pid: int) -> str | None:
    """Return when a process of this machine was started; None if there is no such process, empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
