"""A work folder on a machine that does not see the study's: what a job needs is fetched once, what it makes goes home.

Reads: the study's design, tokens and questions, through whatever brings bytes (Ray's object store, or a storage address
of fsspec). Writes: a folder below the cache of the machine, shared by its workers, deleted when the work is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.errors import MissingPartError, StoreError
from ltm.runs.executors.base import LOG, Job, Outcome
from ltm.runs.heartbeat import FILE as HEARTBEAT
from ltm.seal import file_digest
from ltm.store import WorkFolder, cache_folder, write_bytes

PART_BYTES = 64 << 20  # of one piece of a large file on its way
_SHARED = ("sets", "tokens", "evalset")  # stages whose files every job may read
_BY_RUN = ("runs", "scores")  # stages with something for each run; what lies beside is for all
_OWN_STAY = (HEARTBEAT, LOG)  # of a run: nothing that another machine could use


@dataclass(frozen=True)
class Input:
    """One file that a job reads: where it lies below the work folder, and how its bytes come."""

    name: str
    digest: str  # SHA-256
    parts: tuple[Any, ...]  # what the bringer makes bytes of, in order


class Inputs:
    """The files that jobs read, on the machine that has them; a file is read again only when it has changed.

    Args:
        work: The study's work folder.
        send: Makes of a piece of a file what travels.
    """

    def __init__(self, work: WorkFolder, send: Callable[[str, bytes], Any]) -> None:
        self._work, self._send = work, send
        self._sent: dict[str, tuple[tuple[int, int], Input]] = {}

    def of(self, key: str, more: Iterable[str] = ()) -> list[Input]:
        """Return the inputs of the job of one run; `more` names files that it asked for."""
        names = [name for stage in _SHARED for name in self._below(stage)]
        for stage in _BY_RUN:
            names += [f"{stage}/{path.name}" for path in sorted(self._work.path(stage).glob("[!.]*.json"))]
        names += [n for n in self._below(f"runs/{key}") if n.rpartition("/")[2] not in _OWN_STAY]
        names += [*self._below("runs/recipes"), *more]
        found = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.append(self._input(name))
        return found

    def forget(self, key: str) -> None:
        """Let go of what only the job of one run has read."""
        for name in [name for name in self._sent if f"/{key}/" in name]:
            del self._sent[name]

    def _below(self, folder: str) -> list[str]:
        root = self._work.path(folder)
        paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
        return [p.relative_to(self._work.root).as_posix() for p in paths]

    def _input(self, name: str) -> Input:
        path = self._work.root / name
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if name not in self._sent or self._sent[name][0] != stamp:
            digest = hashlib.sha256()
            parts: list[Any] = []
            with open(path, "rb") as file:
                while data := file.read(PART_BYTES):
                    digest.update(data)
                    parts.append(self._send(f"{name}.{len(parts)}", data))
            self._sent[name] = (stamp, Input(name, digest.hexdigest(), tuple(parts)))
        return self._sent[name][1]


class NodeFolder:
    """The folder on the machine that works.

    Args:
        name: Of the study, told apart from others of this user.
        bring: Makes bytes of what travelled.
    """

    def __init__(self, name: str, bring: Callable[[Any], bytes]) -> None:
        self.root = cache_folder() / "nodes" / name
        self._bring = bring

    def fetch(self, inputs: Iterable[Input]) -> int:
        """Bring the inputs that are not there yet; returns how many. Workers of one machine wait for each other.

        Raises:
            StoreError: a file arrived damaged, or there is no room for it.
        """
        count = 0
        with self._lock():
            for wanted in inputs:
                path, mark = self.root / wanted.name, self.root / ".have" / wanted.name
                if path.exists() and mark.exists() and mark.read_text(encoding="ascii") == wanted.digest:
                    continue
                write_bytes(path, b"".join(self._bring(part) for part in wanted.parts), durable=False)
                if file_digest(path) != wanted.digest:
                    path.unlink()
                    raise StoreError(f"{wanted.name} arrived damaged", "run the same command again")
                write_bytes(mark, wanted.digest.encode(), durable=False)
                count += 1
        return count

    def here(self, job: Job, root: str) -> Job:
        """Return a job of the study's work folder as one of this folder."""
        arguments = tuple(str(self.root) if argument == root else argument for argument in job.arguments)
        places = {
            name: str(self.root) + value[len(root) :] if value.startswith(root) else value
            for name, value in (("log", job.log), ("progress", job.progress))
        }
        return dataclasses.replace(job, arguments=arguments, **places)

    def at_home(self, outcome: Outcome) -> Outcome:
        """Return an outcome whose damaged or missing file is named from the work folder on."""
        if not outcome.damaged.startswith(str(self.root)):
            return outcome
        return dataclasses.replace(outcome, damaged=Path(outcome.damaged).relative_to(self.root).as_posix())

    def made(self, key: str, known: dict[str, tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int], bytes]]:
        """Yield the files of one run that are new or changed, with their stamps; its `run.json` comes last."""
        paths = [p for place in (f"runs/{key}/*", f"scores/**/{key}*") for p in self.root.glob(place)]
        for path in sorted(paths, key=lambda p: (p.name in ("run.json", HEARTBEAT), p.as_posix())):
            if path.name.startswith(".") or not path.is_file():
                continue
            name = path.relative_to(self.root).as_posix()
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                stamp = (stat.st_mtime_ns, stat.st_size)
                if known.get(name) != stamp:
                    yield name, stamp, path.read_bytes()

    def forget(self, key: str) -> None:
        """Delete what one run made here."""
        for place in (self.root / "runs" / key, self.root / ".have" / "runs" / key):
            shutil.rmtree(place, ignore_errors=True)
        for path in self.root.glob(f"scores/**/{key}*"):
            path.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.root / ".fetch", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def storage(address: str) -> Any:
    """Return the file system of an fsspec address and the path in it.

    Raises:
        MissingPartError: what the address needs is not installed.
        StoreError: the address cannot be used.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingPartError(
            f"runs.cluster.storage {address} needs {error.name}", f"pip install {error.name}"
        ) from None
    except (ValueError, OSError) as error:
        raise StoreError(
            f"cannot use runs.cluster.storage {address}: {error}", "name a folder that all nodes reach"
        ) from None


def put(address: str, name: str, data: bytes) -> str:
    """Write bytes below a storage address; returns the whole address."""
    files, root = storage(address)
    path = f"{root.rstrip('/')}/{name}"
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    files.pipe_file(path, data)
    return f"{address.rstrip('/')}/{name}"


def get(address: str) -> bytes:
    """Return the bytes at a storage address."""
    files, path = storage(address)
    return bytes(files.cat_file(path))
