"""The work folder: the only truth about a study. Files appear whole or not at all; a stage's marker comes last.

Writes: everything below the study's work folder. Each file is written to a temporary name, flushed to the disk and
renamed; `<stage>/done.json` is written when all files of the stage stand. No other folder holds anything about a study
but a cache of how fast the machine is (`ltm.study.history`, `ltm.forecast.machine`), which may be deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ltm import records
from ltm.errors import BusyError, DataError, StoreError

Row = TypeVar("Row")
_REBUILD = "delete the folder that it lies in (not the whole work folder) and run the same command again"
FORMAT = 1  # of the work folder; a newer one is refused


def fingerprint(value: Any, length: int = 16) -> str:
    """Return a short stable hash of plain values (None, bool, int, float, str, list, tuple, dict with text keys).

    Raises:
        DataError: a value cannot be written stably (an object, a set, NaN, a path).
    """
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:length]


def _canonical(value: Any) -> str:
    def check(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                if not isinstance(key, str):
                    raise DataError(f"cannot fingerprint a non-text key at {path}: {key!r}")
                check(child, f"{path}.{key}")
        elif isinstance(node, (list, tuple)):
            for index, child in enumerate(node):
                check(child, f"{path}[{index}]")
        elif isinstance(node, float) and not math.isfinite(node):
            raise DataError(f"cannot fingerprint {node} at {path}")
        elif node is not None and not isinstance(node, (bool, int, float, str)):
            raise DataError(f"cannot fingerprint {type(node).__name__} at {path}")

    check(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def cache_folder() -> Path:
    """Return where what is known of this machine lies: `$LTM_CACHE`, else `$XDG_CACHE_HOME/ltm` or `~/.cache/ltm`."""
    if named := os.environ.get("LTM_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "ltm"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: temporary file, fsync, rename.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise store_error(error, path) from error


def store_error(error: OSError, path: Path) -> StoreError:
    """Return an OSError of the work folder in words, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk is full: cannot write {path}", "free some space and run the same command again")
    return StoreError(f"cannot write {path}: {error.strerror}", "check the folder's permissions, or choose --work")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole, keys sorted, so that equal values give equal bytes. NaN becomes null."""
    text = json.dumps(json_safe(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of the work folder.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run the stage that writes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise StoreError(f"{path} is damaged", _REBUILD) from None


def as_json(row: Any) -> dict[str, Any]:
    """Return a record as a JSON-ready dict; NaN becomes null."""
    return {key: json_safe(value) for key, value in dataclasses.asdict(row).items()}


def json_safe(value: Any) -> Any:
    """Return plain values as JSON can hold them: numbers that are not finite become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: json_safe(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(child) for child in value]
    return value


def write_rows(path: Path, rows: Iterable[Row], cls: type[Row]) -> None:
    """Write records as one Parquet file, whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # no statistics: they leave NaN out, and DuckDB then answers questions about NaN wrongly
    pq.write_table(records.to_table(rows, cls), sink, compression="zstd", write_statistics=False)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_rows(path: Path, cls: type[Row]) -> list[Row]:
    """Read the records of one Parquet file.

    Raises:
        StoreError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise StoreError(f"{path} is missing", "run the stage that writes it")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError):
        raise StoreError(f"{path} is damaged", _REBUILD) from None
    return records.from_table(table, cls)


class WorkFolder:
    """One study's work folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, *parts: str) -> Path:
        """Return a path below the work folder.

        Raises:
            StoreError: the parts lead out of the work folder.
        """
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"{path} lies outside the work folder")
        return path

    def create(self) -> None:
        """Make the folder, or check that an existing one can be used.

        Raises:
            StoreError: it cannot be made, or a newer ltm wrote it.
        """
        marker = self.path("ltm.json")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, self.root) from error
        if not marker.exists():
            write_json(marker, {"format": FORMAT})
        elif read_json(marker)["format"] > FORMAT:
            raise StoreError(f"{self.root} was written by a newer ltm", "upgrade ltm or choose another --work")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the lock goes away with the process, however it ends.

        Raises:
            BusyError: another process holds it; the message names the owner.
        """
        self.create()
        descriptor = self._acquire(self.path(".lock"))
        try:
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise store_error(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BlockingIOError:
            os.close(descriptor)
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            hint = "wait for it, stop it, or choose another --work"
            raise BusyError(f"{self.root} is in use by {owner}", hint) from None
        except OSError as error:
            os.close(descriptor)
            raise store_error(error, path) from error
        return descriptor

    def finish(self, stage: str, inputs: str, output: Any) -> None:
        """Write a stage's completion marker: what it was made from and a fingerprint of what it made."""
        write_json(self.path(stage, "done.json"), {"inputs": inputs, "output": fingerprint(output)})

    def output_of(self, stage: str, inputs: str | None = None) -> str | None:
        """Return the output fingerprint of a finished stage, or None if it is unfinished or made from other inputs."""
        path = self.path(stage, "done.json")
        if not path.exists():
            return None
        try:
            marker = read_json(path)
        except StoreError:
            return None  # a damaged marker means: not finished; the stage is built again
        if inputs is not None and marker.get("inputs") != inputs:
            return None
        output = marker.get("output")
        return output if isinstance(output, str) else None
