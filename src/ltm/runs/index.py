"""All complete runs of a study at once: thousands of small files, read again only where one has changed.

Reads: `runs/<run_id>/run.json` (Run). Writes: `runs/index.parquet`, the same rows in one table with the size and the
moment of change of the file that each was read from. It can be deleted at any time and is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ltm import records
from ltm.errors import DataError, StoreError
from ltm.records import Run
from ltm.store import WorkFolder, read_json, read_table, write_table

RUN = "run.json"
_FILE = "index.parquet"
_WORTH_WRITING = 64  # rows that have to be new: below that reading the files is as fast as reading the table
_Stamp = tuple[int, int, int]  # of a file: changed at (ns), bytes, inode
_known: dict[str, dict[str, tuple[_Stamp, Run]]] = {}  # by folder, in this process
_KNOWN_FOLDERS = 4


@dataclass(frozen=True)
class Brief:
    """What `status` needs of a complete run; read without the curves."""

    run_id: str
    seconds: float
    tokens_per_second: float


def read_run(work: WorkFolder, run_id: str) -> Run | None:
    """Return a complete run, or None; a damaged `run.json` counts as not complete. Keys of a newer ltm are ignored."""
    return _parsed(work.path("runs", run_id, RUN))


def complete(work: WorkFolder, run_ids: Iterable[str]) -> dict[str, Run]:
    """Return those of the runs that are complete, in the given order."""
    folder = str(work.path("runs"))
    known = _remembered(folder)
    found: dict[str, Run] = {}
    fresh = 0
    for run_id in run_ids:
        path = f"{folder}/{run_id}/{RUN}"
        stamp = _stamp(path)
        if stamp is None:
            continue
        entry = known.get(run_id)
        if entry is None or entry[0] != stamp:
            run = _parsed(Path(path))
            if run is None:
                continue
            known[run_id] = entry = (stamp, run)
            fresh += 1
        found[run_id] = entry[1]
    if fresh >= _WORTH_WRITING:
        with contextlib.suppress(StoreError):  # a reader without the right to write is welcome
            _write(folder, known)
    return found


def briefs(work: WorkFolder, run_ids: Iterable[str]) -> dict[str, Brief]:
    """Return the same as `complete` with little of each run; much faster where the table is up to date."""
    folder = str(work.path("runs"))
    if folder in _known:
        return {key: _brief(run) for key, run in complete(work, run_ids).items()}
    rows = _brief_rows(folder)
    found: dict[str, Brief] = {}
    fresh = 0
    for run_id in run_ids:
        stamp = _stamp(f"{folder}/{run_id}/{RUN}")
        if stamp is None:
            continue
        row = rows.get(run_id)
        if row is not None and row[0] == stamp:
            found[run_id] = row[1]
            continue
        if fresh == _WORTH_WRITING:  # too many for this way: read all, and leave the table up to date
            return {key: _brief(run) for key, run in complete(work, run_ids).items()}
        run = _parsed(Path(f"{folder}/{run_id}/{RUN}"))
        if run is not None:
            fresh += 1
            found[run_id] = _brief(run)
    return found


def _brief(run: Run) -> Brief:
    return Brief(run.run_id, run.seconds, run.tokens_per_second)


def _stamp(path: str) -> _Stamp | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - ten thousand of them
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parsed(path: Path) -> Run | None:
    names = {f.name for f in dataclasses.fields(Run)}
    try:
        return Run(**{key: value for key, value in read_json(path).items() if key in names})
    except (StoreError, TypeError, AttributeError):
        return None


def _remembered(folder: str) -> dict[str, tuple[_Stamp, Run]]:
    """Return what this process knows of a folder, at first from the table."""
    if folder not in _known:
        while len(_known) >= _KNOWN_FOLDERS:
            del _known[next(iter(_known))]
        _known[folder] = _read(folder)
    return _known[folder]


def _read(folder: str) -> dict[str, tuple[_Stamp, Run]]:
    try:
        table = read_table(Path(folder, _FILE))
        rows = records.from_table(table, Run)
        stamps = zip(*(table.column(name).to_pylist() for name in ("changed_ns", "bytes", "inode")), strict=True)
        return {run.run_id: (stamp, run) for run, stamp in zip(rows, stamps, strict=True)}
    except (StoreError, DataError, KeyError, ValueError):  # missing, damaged, or of another version
        return {}


def _brief_rows(folder: str) -> dict[str, tuple[_Stamp, Brief]]:
    columns = ["run_id", "seconds", "tokens_per_second", "changed_ns", "bytes", "inode"]
    try:
        table = read_table(Path(folder, _FILE), columns)
        values = [table.column(name).to_pylist() for name in columns]
    except (StoreError, KeyError, ValueError):
        return {}
    return {row[0]: ((row[3], row[4], row[5]), Brief(row[0], row[1], row[2])) for row in zip(*values, strict=True)}


def _write(folder: str, known: dict[str, tuple[_Stamp, Run]]) -> None:
    import pyarrow as pa

    entries = [known[key] for key in sorted(known)]
    table = records.to_table([run for _, run in entries], Run)
    for i, name in enumerate(("changed_ns", "bytes", "inode")):
        table = table.append_column(name, pa.array([stamp[i] for stamp, _ in entries], type=pa.int64()))
    write_table(Path(folder, _FILE), table, durable=False)
