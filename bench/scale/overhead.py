"""What the executors cost beside the work: jobs that only sleep, so that busy processors do not matter.

    python bench/scale/overhead.py [--seconds 10] [--jobs 12] [--ray]

Prints, for each round, the time of all jobs over jobs x seconds / workers, less the start of the workers. With `--ray`
local and an emulated Ray cluster of three nodes take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]
from ltm.runs.executors.base import Job
from ltm.runs.executors.local import LocalExecutor

WORKERS = 3


def measure(pool, jobs: int, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """Return the overhead of warm workers as a share."""
    list(pool.map(time.sleep, [Job(f"warm-{i}", (5.0,)) for i in range(2 * WORKERS)]))  # all of them are up then
    began = time.monotonic()
    outcomes = list(pool.map(time.sleep, [Job(str(i), (seconds,)) for i in range(jobs)]))
    assert all(outcome.ok for outcome in outcomes)
    return (time.monotonic() - began) / (jobs * seconds / WORKERS) - 1


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(options.rounds):
        with LocalExecutor(WORKERS) as pool:
            found["local"].append(measure(pool, options.jobs, options.seconds))
        if options.ray:
            from emulated_ray import ray_cluster
            from ltm.runs.executors.ray import RayExecutor
            from ltm.runs.section import RunsSection

            with ray_cluster(WORKERS) as cluster:
                section = RunsSection(executor="ray", cluster={"address": cluster.address})
                with RayExecutor(section) as pool:
                    found["ray"].append(measure(pool, options.jobs, options.seconds))
        for name, shares in found.items():
            if shares:
                print(
                    f"{name}: {[f'{share:.2%}' for share in shares]}, median {statistics.median(shares):.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
