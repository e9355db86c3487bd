"""The work folder: the only truth about a study. Files appear whole or not at all; a stage's marker comes last.

Writes: everything below the study's work folder. Each file is written to a temporary name, flushed to the disk and
renamed; `<stage>/done.json` is written when all files of the stage stand. No other folder holds anything about a study
but a cache of how fast the machine is (`ltm.study.history`, `ltm.forecast.machine`), which may be deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ltm import records
from ltm.errors import DamagedError, DataError, DiskError, NotOurs, StoreError
from ltm.lock import LOCK, Owner, hold, owner_of
from ltm.seal import BLANK, check_file, is_whole, sealed

Row = TypeVar("Row")
_SEAL = "seal"  # the key of a JSON file's digest of itself; nobody sees it but who opens the file
FORMAT = 1  # of the work folder; a newer one is refused
# folders that may be a user's own
_STAGES = ("books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dialogue")


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


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ltm")
    except metadata.PackageNotFoundError:
        return ""


def cache_folder() -> Path:
    """Return where what is known of this machine lies: `$LTM_CACHE`, else `$XDG_CACHE_HOME/ltm` or `~/.cache/ltm`."""
    if named := os.environ.get("LTM_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "ltm"


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole: temporary file, fsync, rename, fsync of the folder.

    Args:
        path: The file.
        data: What it is to hold.
        durable: Whether it has to outlive a power cut; without, a process may still be killed at any moment.

    Raises:
        DiskError: the disk is full.
        StoreError: the folder cannot be written.
    """
    # the name is one's own: two machines that share the folder may have the same process numbers
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise store_error(error, path) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut; file systems that cannot do it for a folder are left in peace."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def store_error(error: OSError, path: Path) -> StoreError:
    """Return an OSError of the work folder in words, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"the disk is full: cannot write {path}", "free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "give this user the right to write there, or choose another --work"
        return StoreError(f"no permission to write {path}: {error.strerror}", hint)
    return StoreError(f"cannot write {path}: {error.strerror}", "check the folder's permissions, or choose --work")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write JSON whole, keys sorted, so that equal values give equal bytes. NaN becomes null; an object is sealed."""
    write_bytes(path, json_bytes(value), durable)


def json_bytes(value: Any) -> bytes:
    """Return a value as `write_json` stores it."""
    plain = json_safe(value)
    if isinstance(plain, dict):
        plain = {**plain, _SEAL: BLANK}
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return sealed(f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of the work folder.

    Raises:
        DamagedError: it is not what was written.
        StoreError: it is missing or cannot be read.
    """
    try:
        data = path.read_bytes()
        value = json.loads(data)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run the stage that writes it") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    except ValueError:  # not JSON, or not UTF-8
        raise DamagedError(path) from None
    if isinstance(value, dict) and value.pop(_SEAL, None) is not None and not is_whole(data):
        raise DamagedError(path)
    return value


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
    """Write records as one Parquet file, whole and sealed."""
    write_table(path, records.to_table(rows, cls))


def write_table(path: Path, table: Any, durable: bool = True) -> None:
    """Write an Arrow table as one Parquet file, whole and sealed; its metadata is kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # no statistics: they leave NaN out, and DuckDB then answers questions about NaN wrongly
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_SEAL: BLANK})
    write_bytes(path, sealed(sink.getvalue().to_pybytes()), durable)


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """Read one Parquet file as an Arrow table, after a look at its seal.

    Raises:
        DamagedError: it is not what was written.
        StoreError: it is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        if not is_whole(data):
            raise DamagedError(path)
        return pq.ParquetFile(pa.BufferReader(data)).read(columns)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run the stage that writes it") from None
    except (pa.ArrowException, OSError):
        raise DamagedError(path) from None


def read_rows(path: Path, cls: type[Row]) -> list[Row]:
    """Read the records of one Parquet file.

    Raises:
        DamagedError: it is not what was written.
        StoreError: it is missing.
    """
    return records.from_table(read_table(path), cls)


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
            StoreError: it cannot be made, a newer ltm wrote it, or it holds something else.
        """
        marker = self.path("ltm.json")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists() and (names := sorted(name for name in _STAGES if self.path(name).exists())):
                raise NotOurs(
                    f"{self.root} is not a work folder of ltm, and has a `{names[0]}` of its own",
                    "choose another --work: nothing there was touched",
                )
        except OSError as error:
            raise store_error(error, self.root) from error
        if marker.exists():
            self.check_version()
        if not self._format():
            write_json(marker, {"format": FORMAT, "ltm": _version()})

    def check_version(self) -> None:
        """Refuse a folder that a newer ltm wrote; one that is not there is no trouble.

        Raises:
            StoreError: a newer ltm wrote it.
        """
        if self._format() > FORMAT:
            value = read_json(self.path("ltm.json"))
            raise NotOurs(
                f"{self.root} was written by a newer ltm ({value.get('ltm', 'unknown')}, folder format "
                f"{value['format']}); this is {_version() or 'unknown'}, which knows format {FORMAT}",
                "upgrade ltm, or choose another --work: nothing there was touched",
            )

    def _format(self) -> int:
        """Return the format that the folder names; 0 where there is no marker or it is damaged."""
        try:
            return int(read_json(self.path("ltm.json"))["format"])
        except (StoreError, KeyError, TypeError, ValueError):
            return 0

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the lock goes away with the process, however it ends.

        Raises:
            BusyError: another process holds it; the message names the owner.
            StoreError: the folder cannot be written, or is none that this ltm can use.
        """
        self.create()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold(self.root))
            except OSError as error:
                raise store_error(error, self.root / LOCK) from error
            yield

    def owner(self) -> Owner | None:
        """Return who holds the folder now, or None."""
        return owner_of(self.root)

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
            if inputs is not None and marker.get("inputs") != inputs:
                return None
            self.check(stage)
            output = marker.get("output")
        except (StoreError, AttributeError):
            return None  # damaged means: not finished; the stage is built again
        return output if isinstance(output, str) else None

    def check(self, stage: str) -> None:
        """Check the files of a finished stage that were touched after its marker was written against their seals.

        Nothing is read where nothing was touched. What is damaged without a trace in the folder is noticed by whoever
        reads it.

        Raises:
            DamagedError: one is not what was written.
        """
        folder = self.path(stage)
        marked = (folder / "done.json").stat().st_mtime_ns
        for where, _, names in os.walk(folder):
            for name in names:
                touched = os.path.join(where, name)  # noqa: PTH118 - twice as fast, and there may be many
                if not name.startswith(".") and os.stat(touched).st_mtime_ns > marked:  # noqa: PTH116
                    check_file(Path(touched))
