"""Lay out a work folder with thousands of complete runs, made of nothing, to time `ltm status` and the start of a run.

python bench/scale/many_runs.py FOLDER 10000
time ltm status demo --work FOLDER
python bench/scale/many_runs.py FOLDER --time      # what a start does before it trains, in CPU seconds
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import ltm
from ltm.records import Run
from ltm.runs import index, queue
from ltm.store import as_json, json_bytes, write_json

COMPLETE_SHARE = 0.97
POINTS = 64  # of a curve


def lay_out(root: Path, count: int) -> None:
    """Write the queue and the rows."""
    study = ltm.load("demo", {}, work=str(root))
    study.work.create()
    settings = json.loads(study.settings.model_dump_json())
    write_json(root / "study.json", {**settings, "overrides": {}})
    jobs = [queue.Job(f"{i:012x}", i, 1, f"v{i}", "c") for i in range(count)]
    queue.write_jobs(study.work, study.recipe, jobs)
    for i, job in enumerate(jobs[: int(count * COMPLETE_SHARE)]):
        run = Run(
            job.run_id, job.variant_id, 1, "llama-0.1m", 100_000, 1_000_000, 2000, 10.0 + i % 7 / 10, 1e5, 0.1, "cpu",
            "bfloat16", 3.3, list(range(POINTS)), [i / 3 for i in range(POINTS)], "h:1", "2026", "2026", {"torch": "2"},
        )  # fmt: skip
        folder = root / "runs" / job.run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_bytes(json_bytes(as_json(run)))
        (folder / "weights.safetensors").write_bytes(b"x" * 100)


def start(root: Path) -> None:
    """Do what a start does before it trains."""
    from ltm.runs.stage import tidy

    study = ltm.load("demo", {}, work=str(root))
    _, jobs = queue.read_jobs(study.work)
    for _ in range(3):  # standing, forecast, runs
        missing = queue.missing(study.work, jobs)
        found = index.complete(study.work, [job.run_id for job in jobs])
    tidy(study.work, jobs)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{len(found)} complete, {len(missing)} missing: {time.process_time():.2f} CPU s, {memory} MiB")


if __name__ == "__main__":
    start(Path(sys.argv[1])) if sys.argv[2] == "--time" else lay_out(Path(sys.argv[1]), int(sys.argv[2]))
