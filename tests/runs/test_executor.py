"""The local executor: real processes, killed for real."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ltm.errors import DamagedError, DiskError, StoreError, TrainError
from ltm.runs.executors.base import CRASHED, KILLED, OVER_MEMORY, Outcome, nothing_to_lose, raise_for_folder
from ltm.runs.executors.deaths import Deaths
from ltm.runs.executors.local import Job, LocalExecutor, stop_requested
from ltm.runs.free_disk import DiskGuard, bytes_under_way
from ltm.store import WorkFolder


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


def get_on_and_die(path, wanted):
    step = int(Path(path).read_text()) if Path(path).exists() else 0
    if step == wanted:
        return step
    Path(path).unlink(missing_ok=True)
    Path(path).write_text(str(step + 1))
    return os.kill(os.getpid(), signal.SIGKILL)


def crash():
    print("about to crash", flush=True)
    ctypes.string_at(0)


def take_memory(size):
    held = bytearray(size)
    for page in range(0, size, 4096):
        held[page] = 1
    time.sleep(3 if size > 1e8 else 0)
    return len(held)


def stoppable(path):
    with open(path, "a") as file:
        file.write("called\n")
    while not stop_requested():
        if (Path(path).parent / "end").exists():
            return
        time.sleep(0.01)
    raise Stopped


class Stopped(Exception):
    pass


def calls(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def card():
    time.sleep(1.0)  # long enough that no worker takes two
    return os.environ["CUDA_VISIBLE_DEVICES"]


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


def test_a_job_whose_workers_are_always_killed_is_given_up_and_the_rest_go_on():
    with LocalExecutor(1, deaths=Deaths(most_kills=3)) as pool:
        got = outcomes(pool, die, [()])
        assert (got["0"].kind, got["0"].error) == (KILLED, "its worker was killed 3 times and got no further")
        assert outcomes(pool, square, [(3,)])["0"].value == 9


def test_a_job_that_gets_on_between_kills_is_never_given_up(tmp_path):
    mark = tmp_path / "progress"
    with LocalExecutor(1, deaths=Deaths(most_kills=2)) as pool:
        jobs = [Job("a", (str(mark), 5), progress=str(mark))]
        (outcome,) = pool.map(get_on_and_die, jobs)
    assert outcome.value == 5


def test_a_crash_is_told_from_a_kill_and_leaves_its_last_words(tmp_path):
    log = tmp_path / "log.txt"
    with LocalExecutor(1, deaths=Deaths(most_crashes=2)) as pool:
        (outcome,) = pool.map(crash, [Job("a", (), log=str(log))])
    assert outcome.kind == CRASHED
    assert "died 2 times, the last time by signal SIGSEGV" in outcome.error
    assert "about to crash" in outcome.error
    assert "in crash" in outcome.error  # where in the code, from the interpreter


def test_a_worker_over_its_memory_is_ended_and_the_rest_go_on():
    with LocalExecutor(1, most_bytes=400e6) as pool:
        got = outcomes(pool, take_memory, [(1_000_000_000,), (1_000_000,)])
    assert got["0"].kind == OVER_MEMORY
    assert "more than 381.5 MiB" in got["0"].error
    assert got["1"].value == 1_000_000


def test_paused_workers_end_and_their_jobs_are_done_later(tmp_path):
    open_gate = tmp_path / "open"
    log = tmp_path / "calls"
    with LocalExecutor(2) as pool:
        pool.may_work = open_gate.exists
        open_gate.touch()
        jobs = [Job(str(i), (str(log),), log="") for i in range(2)]
        iterator = pool.map(stoppable, jobs)
        closing = threading.Thread(target=lambda: (wait_for(lambda: calls(log) == 2), open_gate.unlink()))
        closing.start()
        seen = []
        opening = threading.Thread(
            target=lambda: (
                closing.join(),
                wait_for(lambda: not pool.pids()),
                seen.append(calls(log)),
                (tmp_path / "end").touch(),
                open_gate.touch(),
            )
        )
        opening.start()
        got = {o.key: o for o in iterator}
        opening.join()
    assert seen == [2]  # nothing was begun while it was paused
    assert all(o.ok for o in got.values())
    assert len(got) == 2


def test_what_the_owner_watches_can_end_the_work(tmp_path):
    def full():
        if (tmp_path / "calls").exists():
            raise DiskError("nearly full")

    jobs = [Job("a", (str(tmp_path / "calls"),))]
    with LocalExecutor(1) as pool:
        pool.on_tick = full
        with pytest.raises(DiskError):
            list(pool.map(stoppable, jobs))


def test_each_worker_sees_its_own_card():
    cards = [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "6")]
    with LocalExecutor(4, environments=cards) as pool:
        got = outcomes(pool, card, [()] * 4)
    assert sorted(o.value for o in got.values()) == ["4", "4", "6", "6"]


def test_busy_workers_are_asked_before_they_are_ended(tmp_path):
    path = tmp_path / "f"
    with LocalExecutor(1) as executor:
        iterator = executor.map(wait_for_stop, [Job("a", (str(path),))])
        threading.Thread(target=lambda: [time.sleep(0.1) for _ in range(200) if not path.exists()]).start()
        worker_started = False
        deadline = time.time() + 30
        threading.Thread(target=lambda: next(iterator, None), daemon=True).start()
        while time.time() < deadline and not worker_started:
            worker_started = path.exists() and path.read_text() == "started"
            time.sleep(0.02)
        assert worker_started
    assert path.read_text() == "stopped"


def compiling(path):
    with nothing_to_lose(lambda: Path(path).write_text("farewell")) as begun:
        Path(path).write_text("compiling")
        for _ in range(600):  # a call into compiled code that does not look whether it should stop
            time.sleep(0.1)
        begun()


def test_a_worker_that_compiles_ends_at_once_when_asked(tmp_path):
    path = tmp_path / "f"

    def leave():
        if path.exists():
            raise KeyboardInterrupt

    pool = LocalExecutor(1)
    pool.on_tick = leave
    with pytest.raises(KeyboardInterrupt):
        list(pool.map(compiling, [Job("a", (str(path),))]))
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5
    assert path.read_text() == "farewell"


def test_a_disk_that_is_nearly_full_stops_the_work_in_words(tmp_path):
    work = WorkFolder(tmp_path)
    DiskGuard(work, "auto", 0.0)()
    with pytest.raises(DiskError, match=r"nearly full: .* have to stay free \(runs.free_disk\)"):
        DiskGuard(work, 10**18, 0.0)()
    with pytest.raises(DiskError):
        DiskGuard(work, "auto", bytes_under_way(10**17, 2))()


def test_full_disks_and_damaged_files_are_nobodys_fault():
    pairs = [("DiskError", DiskError), ("StoreError", StoreError)]
    for kind, expected in pairs:
        with pytest.raises(expected, match="what happened"):
            raise_for_folder(Outcome("a", error="what happened\n  hint: do this", kind=kind))
    with pytest.raises(DamagedError, match="is missing"):
        raise_for_folder(Outcome("a", error="x", kind="DamagedError", damaged="/nowhere/x"))
    raise_for_folder(Outcome("a", error="its own", kind="TrainError"))


def hang_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return "done"


def test_a_worker_that_gives_no_sign_of_life_is_ended_and_its_job_done(tmp_path):
    with LocalExecutor(1, stall_seconds=1.5) as pool:
        job = Job("a", (str(tmp_path / "began"),), pulse=str(tmp_path / "pulse"))
        assert [o.value for o in pool.map(hang_once, [job])] == ["done"]
