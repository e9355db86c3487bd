"""The Ray executor on an emulated cluster of three nodes, with workers and nodes killed for real."""

import os
import signal
import time
from pathlib import Path

import pytest

from emulated_ray import add_node, kill_node, ray_cluster, wait_for
from ltm.errors import InputError
from ltm.runs.executors.base import Job, stop_requested
from ltm.runs.section import RunsSection

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def where(path, seconds):
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    import ray

    return ray.get_runtime_context().get_node_id()


def die_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def until_stopped(path):
    Path(path).write_text("started")
    while not stop_requested():
        time.sleep(0.01)
    Path(path).write_text("stopped")


def jobs(folder, count, *more):
    return [Job(str(i), (str(folder / str(i)), *more)) for i in range(count)]


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(3) as started:
        yield started


@pytest.fixture
def executor(cluster):
    from ltm.runs.executors.ray import RayExecutor

    section = RunsSection(executor="ray", cluster={"address": cluster.address})
    with RayExecutor(section) as pool:
        yield pool


def test_all_nodes_work_and_nodes_may_come_and_go(executor, cluster, tmp_path):
    assert len({o.value for o in executor.map(where, jobs(tmp_path, 6, 0.5))}) == 3
    seen = []
    iterator = executor.map(where, jobs(tmp_path, 8, 1.0))
    seen.append(next(iterator))
    kill_node(cluster, cluster.workers[0])
    seen.append(next(iterator))
    new = add_node(cluster)
    cluster.workers.append(new)
    seen += list(iterator)
    assert sorted(o.key for o in seen) == [str(i) for i in range(8)]
    assert all(o.ok for o in seen)
    wait_for(lambda: new.node_id in {o.value for o in executor.map(where, jobs(tmp_path, 6, 0.3))}, 20)


def test_a_killed_worker_is_replaced_and_its_job_done(executor, tmp_path):
    assert [o.value for o in executor.map(die_once, jobs(tmp_path, 3))] == ["done"] * 3


def test_busy_workers_are_asked_before_they_are_ended(cluster, tmp_path):
    from ltm.runs.executors.ray import RayExecutor

    def leave():
        if (tmp_path / "0").exists() and (tmp_path / "0").read_text() == "started":
            raise KeyboardInterrupt

    section = RunsSection(executor="ray", cluster={"address": cluster.address})
    pool = RayExecutor(section)
    pool.on_tick = leave
    with pytest.raises(KeyboardInterrupt):
        list(pool.map(until_stopped, jobs(tmp_path, 1)))
    pool.close()
    assert (tmp_path / "0").read_text() == "stopped"


def test_a_cluster_that_is_not_there_is_named_at_once(cluster):
    import ray

    from ltm.runs.executors.ray import RayExecutor

    ray.shutdown()
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        RayExecutor(RunsSection(executor="ray", cluster={"address": "127.0.0.1:1"}))
    assert time.monotonic() - began < 10


def test_a_cluster_without_room_is_told(cluster, monkeypatch):
    from ltm.runs.executors import ray as executor

    monkeypatch.setattr(executor, "_NO_ROOM_SECONDS", 2.0)
    section = RunsSection(executor="ray", cluster={"address": cluster.address, "cpus_per_worker": 64})
    with executor.RayExecutor(section) as pool, pytest.raises(InputError, match="no room|has room for one worker"):
        list(pool.map(where, [Job("a", ("x", 0))]))
