"""A Ray cluster of several nodes on one machine: real raylets, real deaths."""

import contextlib
import os
import time
from pathlib import Path

import pytest

QUIET = {"include_dashboard": False}


@contextlib.contextmanager
def ray_cluster(nodes, cpus=1):
    """Give a cluster of a head without processors and some nodes; the caller's process has not joined it yet."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{here}{os.pathsep}{here}/runs"  # where workers find the tests' own tasks
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20, **QUIET})
    try:
        cluster.workers = [add_node(cluster, cpus) for _ in range(nodes)]
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def add_node(cluster, cpus=1):
    return cluster.add_node(num_cpus=cpus, object_store_memory=80 << 20, **QUIET)


def kill_node(cluster, node):
    """End a node as a power cut would: all its processes at once."""
    cluster.remove_node(node, allow_graceful=False)
    cluster.workers.remove(node)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
