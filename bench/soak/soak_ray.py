"""The same with an emulated Ray cluster of three nodes: workers killed, nodes taken away and added, drivers killed.

python bench/soak/soak_ray.py --folder DIR --minutes 9     # goes on where it stopped
python bench/soak/soak_ray.py --folder DIR --minutes 9 --apart   # nodes do not see the work folder
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import faults
import soak

WANTED = {"kill": 50, "node": 10}
NODES = 3
_MB = 1 << 20


class Cluster:
    """Raylets of this process; a node is taken away as a power cut would."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster as Emulated

        head = {"num_cpus": 0, "object_store_memory": 80 * _MB, "include_dashboard": False}
        self.emulated = Emulated(initialize_head=True, head_node_args=head)
        self.nodes = [self._add() for _ in range(NODES)]

    def _add(self):  # type: ignore[no-untyped-def]
        return self.emulated.add_node(num_cpus=1, object_store_memory=80 * _MB, include_dashboard=False)

    def replace(self, rng: random.Random) -> None:
        node = rng.choice(self.nodes)
        self.nodes.remove(node)
        self.emulated.remove_node(node, allow_graceful=False)
        self.nodes.append(self._add())


def ray_workers() -> list[int]:
    """Return the processes of ltm's workers on all emulated nodes of this process."""
    return [pid for pid in faults.children(os.getpid()) if faults.command_of(pid).startswith("ray::Worker")]


def one_round(state: soak.Soak, number: int, cluster: Cluster, apart: bool) -> bool:
    """Disturb one study until it is done; returns whether it ended as the undisturbed one."""
    calm, rng = state.undisturbed(), random.Random(number)
    work = state.folder / f"ray-{number}"
    shutil.rmtree(work, ignore_errors=True)
    soak._copy_without_runs(calm, work)
    left = {"kill": rng.randint(6, 10), "node": 2}
    began, starts = time.monotonic(), 0
    log = state.folder / f"ray-{number}.log"
    while True:
        starts += 1
        more = ["runs.executor=ray", f"runs.cluster.address={cluster.emulated.address}", "runs.free_disk=1MB"]
        more += ["runs.cluster.shared_folder=false"] if apart else []
        command = [*soak.command(work), *(part for setting in more for part in ("--set", setting))]
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.3, 4.0))
            kind = rng.choice(["kill", "kill", "kill", "node", "driver"])
            if process.poll() is not None or not left.get(kind, left["kill"]):
                continue
            if kind == "node":
                cluster.replace(rng)
            elif kind == "driver" and rng.random() < 0.3:
                process.kill()
            elif kind == "kill" and (alive := ray_workers()):
                faults.kill(rng.choice(alive))
            else:
                continue
            left[kind] = left.get(kind, 1) - 1
            state.note(round=number, what=kind)
        if process.returncode == 0:
            break
        if process.returncode != -9:
            raise SystemExit(f"exit code {process.returncode}: {log.read_text()[-3000:]}")
    problems = soak.compare(calm, work)
    seconds = time.monotonic() - began
    state.note(round=number, what="end", starts=starts, seconds=seconds, problems=problems, apart=apart)
    if not problems:
        shutil.rmtree(work, ignore_errors=True)
    return not problems


def main() -> int:
    """Go on with the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--apart", action="store_true", help="nodes do not see the work folder")
    options = parser.parse_args()
    state = soak.Soak(options.folder.resolve())
    deadline = time.monotonic() + 60 * options.minutes
    state.undisturbed()
    cluster = Cluster()
    try:
        while time.monotonic() < deadline and any(state.counts()[kind] < n for kind, n in WANTED.items()):
            number = 1 + max((row["round"] for row in state.rows), default=0)
            if not one_round(state, number, cluster, options.apart or number % 3 == 0):
                print(f"round {number} ended differently: {state.rows[-1]['problems']}", file=sys.stderr)
                return 1
    finally:
        cluster.emulated.shutdown()
    ends = [row for row in state.rows if row["what"] == "end"]
    different = sum(bool(row["problems"]) for row in ends)
    print(json.dumps({**state.counts(), "rounds": len(ends), "rounds that ended differently": different}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
