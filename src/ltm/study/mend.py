"""Go on when a file of the work folder turns out to be damaged: what it holds is made again, and nothing else.

Reads: the path of the damaged file. Writes: deletes it together with the marker that says that it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ltm.errors import DamagedError
from ltm.progress import Progress
from ltm.runs.index import RUN
from ltm.store import WorkFolder

T = TypeVar("T")
_WEIGHTS = "weights.safetensors"
_MOST = 1000  # files in one start


def with_mending(work: WorkFolder, progress: Progress, action: Callable[[], T]) -> T:
    """Return what an action returns; each time it meets a damaged file, that is cleared away and the action repeated.

    Raises:
        DamagedError: a file is damaged again right after it was made, or is none of the work folder's.
    """
    mended: set[Path] = set()
    while True:
        try:
            return action()
        except DamagedError as error:
            if error.path in mended or len(mended) >= _MOST or not _clear_away(work, error.path):
                raise
            mended.add(error.path)
            what = "missing" if error.missing else "damaged"
            progress.say(f"{error.path.relative_to(work.root)} is {what}; it is made again")


def _clear_away(work: WorkFolder, path: Path) -> bool:
    """Delete a damaged file and the marker of what it belongs to; returns False for files of somebody else."""
    if not path.resolve().is_relative_to(work.root.resolve()):
        return False
    parts = path.resolve().relative_to(work.root.resolve()).parts
    gone = not path.exists()
    path.unlink(missing_ok=True)
    if len(parts) > 1 and parts[0] != "runs":
        work.path(parts[0], "done.json").unlink(missing_ok=True)
    elif len(parts) == 3 and path.name == _WEIGHTS:
        path.with_name(RUN).unlink(missing_ok=True)
        if gone:  # weights that were not kept are needed again: of all runs at once, not one after the other
            for row in work.path("runs").glob(f"*/{RUN}"):
                if not row.with_name(_WEIGHTS).exists():
                    row.unlink()
    return True
