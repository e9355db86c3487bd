"""Which weights stay on the disk once a study is done.

Reads: `patterns/ranking.parquet` (Ranked), `scores/`. Writes: deletes `runs/<run_id>/weights.safetensors`. The rows and
the raw answers of all runs stay; a run whose weights are wanted later is trained again to the same bits.
"""

from __future__ import annotations

from typing import Literal

from ltm.progress import Progress
from ltm.records import Ranked
from ltm.runs.index import RUN
from ltm.store import WorkFolder, read_rows
from ltm.units import format_bytes

_WEIGHTS = "weights.safetensors"


def prune(work: WorkFolder, keep: int | Literal["all"], progress: Progress) -> int:
    """Delete the weights of all runs but the best; returns how many files were deleted.

    Only weights of runs that are complete and whose answers are stored go.
    """
    path = work.path("patterns", "ranking.parquet")
    if keep == "all" or not path.exists():
        return 0
    ranked = sorted(read_rows(path, Ranked), key=lambda row: row.place)
    best = {row.run_id for row in ranked[:keep]}
    if not best:
        return 0
    count, freed = 0, 0
    for weights in work.path("runs").glob(f"*/{_WEIGHTS}"):
        run_id = weights.parent.name
        stored = work.path("scores", f"{run_id}.parquet").exists() and weights.with_name(RUN).exists()
        if run_id not in best and stored:
            freed += weights.stat().st_size
            weights.unlink()
            count += 1
    if count:
        progress.say(f"runs      weights of {count} runs deleted ({format_bytes(freed)}): runs.keep_weights is {keep}")
    return count
