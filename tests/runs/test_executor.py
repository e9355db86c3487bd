"""The local executor: real processes, killed for real."""

import os
import signal
import time
from pathlib import Path

import pytest

from ltm.errors import TrainError
from ltm.runs.executors.local import Job, LocalExecutor, stop_requested


def square(x):
    return x * x


def fail(kind):
    raise TrainError("bad luck", "try again") if kind == "known" else ZeroDivisionError("oops")


def die_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def pid():
    time.sleep(0.05)
    return os.getpid()


def wait_for_stop(path):
    Path(path).write_text("started")
    while not stop_requested():
        time.sleep(0.01)
    Path(path).write_text("stopped")


def outcomes(pool, task, arguments):
    return {o.key: o for o in pool.map(task, [Job(str(i), a) for i, a in enumerate(arguments)])}


@pytest.fixture(scope="module")
def pool():
    with LocalExecutor(2) as executor:
        yield executor


def test_every_job_has_one_outcome_and_workers_stay_warm(pool):
    assert {k: o.value for k, o in outcomes(pool, square, [(i,) for i in range(9)]).items()} == {
        str(i): i * i for i in range(9)
    }
    first = {o.value for o in outcomes(pool, pid, [()] * 6).values()}
    second = {o.value for o in outcomes(pool, pid, [()] * 6).values()}
    assert first | second == first
    assert len(first) == 2


def test_errors_come_back_in_words(pool):
    got = outcomes(pool, fail, [("known",), ("bug",)])
    assert (got["0"].kind, got["0"].trace) == ("TrainError", "")
    assert "try again" in got["0"].error
    assert got["1"].kind == "ZeroDivisionError"
    assert "in fail" in got["1"].trace


def test_a_killed_worker_is_replaced_and_its_job_done(pool, tmp_path):
    got = outcomes(pool, die_once, [(str(tmp_path / str(i)),) for i in range(3)])
    assert all(o.ok for o in got.values())


def test_a_job_that_kills_every_worker_fails_and_the_rest_go_on(pool):
    got = outcomes(pool, die, [()])
    assert "died 3 times" in got["0"].error
    assert outcomes(pool, square, [(3,)])["0"].value == 9


def test_busy_workers_are_asked_before_they_are_ended(tmp_path):
    path = tmp_path / "f"
    with LocalExecutor(1) as executor:
        iterator = executor.map(wait_for_stop, [Job("a", (str(path),))])
        import threading

        threading.Thread(target=lambda: [time.sleep(0.1) for _ in range(200) if not path.exists()]).start()
        worker_started = False
        deadline = time.time() + 30
        threading.Thread(target=lambda: next(iterator, None), daemon=True).start()
        while time.time() < deadline and not worker_started:
            worker_started = path.exists() and path.read_text() == "started"
            time.sleep(0.02)
        assert worker_started
    assert path.read_text() == "stopped"
