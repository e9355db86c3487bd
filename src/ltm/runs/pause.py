"""Pause a study from another terminal and let it go on.

Writes: `pause.json` in the work folder while the study is paused. Whoever gives out jobs looks for it once a second:
workers then write a checkpoint and end, so that their processors and their memory are free.
"""

from __future__ import annotations

from ltm.store import WorkFolder, write_json

_FILE = "pause.json"


def pause(work: WorkFolder) -> None:
    """Ask whoever works on a study to stop for now.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_json(work.path(_FILE), {"paused": True})


def go_on(work: WorkFolder) -> bool:
    """Let a paused study go on; returns whether it was paused."""
    path = work.path(_FILE)
    was = path.exists()
    path.unlink(missing_ok=True)
    return was


def is_paused(work: WorkFolder) -> bool:
    """Return whether a study is paused."""
    return (work.root / _FILE).exists()
