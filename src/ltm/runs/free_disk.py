"""Stop before the disk is full: a disk without a free byte loses checkpoints, and whatever else writes to it.

Reads: the file system of the work folder. Writes: nothing.
"""

from __future__ import annotations

import os
import time
from typing import Literal

from ltm.errors import DiskError
from ltm.store import WorkFolder
from ltm.units import format_bytes

_SHARE, _MOST_BYTES = 0.01, 1e9  # of the disk that stay free in any case
_SLACK = 1.25
_FLOAT_BYTES = 4
_STATES = 3  # weights and two averages of the optimizer in a checkpoint
_EVERY_SECONDS = 2.0


def bytes_under_way(n_params: int, n_workers: int, averaged: bool = False) -> float:
    """Return what all workers may write at about the same time: a checkpoint beside the one before, and the weights."""
    checkpoint = (_STATES + averaged) * _FLOAT_BYTES * n_params
    return _SLACK * n_workers * (checkpoint + _FLOAT_BYTES * n_params)


class DiskGuard:
    """Asked now and then; raises when the disk has too little left.

    Args:
        work: The work folder.
        wanted: Bytes that are to stay free, or `auto`.
        under_way_bytes: What the workers are about to write, for `auto`.
    """

    def __init__(self, work: WorkFolder, wanted: int | Literal["auto"], under_way_bytes: float) -> None:
        self._work = work
        self._wanted, self._under_way = wanted, under_way_bytes
        self._looked_at = float("-inf")

    def __call__(self) -> None:
        """Look at the disk, if the last look is a while ago.

        Raises:
            DiskError: too little is free.
        """
        if time.monotonic() - self._looked_at < _EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            disk = os.statvfs(self._work.root)
        except OSError:
            return
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        wanted = self._under_way + min(_MOST_BYTES, _SHARE * size) if self._wanted == "auto" else float(self._wanted)
        if free < wanted:
            raise DiskError(
                f"the disk of {self._work.root} is nearly full: {format_bytes(free)} are free, "
                f"{format_bytes(wanted)} have to stay free (runs.free_disk)",
                "nothing is lost; free some space and run the same command again",
            )
