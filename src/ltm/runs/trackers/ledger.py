"""What a tracker was handed already: one JSON line per copy, appended and flushed after the tracker has it.

Writes: `trackers/<name>/fed.jsonl`. A last line that a crash cut short is passed over: that copy is handed over again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


class Ledger:
    """The copies that stand, by run id (`study` for the study itself)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fed = read(path)

    def add(self, run_id: str, digest: str) -> None:
        """Note that a copy stands."""
        self.fed[run_id] = digest
        line = json.dumps({"run_id": run_id, "digest": digest}) + "\n"
        with open(self.path, "a+b") as file:
            if file.tell() and not _ends_whole(file.fileno(), file.tell()):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> dict[str, str]:
    """Return the digest of the copy that stands, by run id; lines that cannot be read are passed over."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
            found[str(row["run_id"])] = str(row["digest"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _ends_whole(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
