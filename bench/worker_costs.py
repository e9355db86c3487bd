"""What a run costs besides its steps: a warm worker's overhead, and a fresh worker's start with compiled code kept.

    python bench/worker_costs.py --work DIR      # of a study whose runs stage is complete

Trains some runs of the study again in a copy of its work folder.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ltm.runs import queue
from ltm.runs.executors.local import Job, LocalExecutor
from ltm.runs.worker import train_run
from ltm.store import WorkFolder

_RUNS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "work"
        shutil.copytree(options.work, copy, ignore=shutil.ignore_patterns("*.safetensors"))
        recipe, jobs = queue.read_jobs(WorkFolder(copy))
        began = time.monotonic()
        with LocalExecutor(1) as pool:
            ends, seconds = [], []
            for job in jobs[:_RUNS]:
                outcome = next(iter(pool.map(train_run, [Job(job.run_id, (str(copy), job.run_id, "again"))])))
                if not outcome.ok:
                    raise SystemExit(outcome.error)
                ends.append(time.monotonic())
                seconds.append(outcome.value["seconds"])
    steady = statistics.median(seconds[1:])
    walls = [b - a for a, b in itertools.pairwise(ends)]
    over = [wall - used for wall, used in zip(walls, seconds[1:], strict=True)]
    print(
        f"{recipe.model.size}, {recipe.n_steps()} steps a run: training {steady:.2f} s; "
        f"overhead of a run in a warm worker {statistics.median(over):.3f} s (median of {len(over)}); "
        f"start of a fresh worker {ends[0] - began - steady:.1f} s"
    )


if __name__ == "__main__":
    main()
