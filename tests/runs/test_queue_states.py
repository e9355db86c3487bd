"""States from the folder alone: whatever the clocks say, whatever is damaged, however many runs there are."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from ltm.records import Run, Variant
from ltm.runs import heartbeat, index, queue
from ltm.runs.attempts import Attempts
from ltm.runs.executors.base import CRASHED, OVER_MEMORY, Outcome
from ltm.runs.heartbeat import Watcher
from ltm.runs.order import in_order
from ltm.store import WorkFolder, as_json, read_json, write_json

RUN = Run(
    "a", "v", 1, "llama-0.1m", 100, 1000, 10, 1.0, 1000.0, 0.1, "cpu", "float32", 3.0, [1, 2], [4.0, 3.0], "h:1", "",
    "", {"torch": "2"},
)  # fmt: skip


@pytest.fixture
def work(tmp_path):
    index._known.clear()
    return WorkFolder(tmp_path)


def complete(work, run_id, **changes):
    write_json(work.path("runs", run_id, "run.json"), as_json(dataclasses.replace(RUN, run_id=run_id, **changes)))


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_every_state_comes_from_the_files(work):
    folder = work.path("runs")
    complete(work, "complete")
    write_json(folder / "failed" / "failed.json", {"error": "bad"})
    write_json(folder / "ended" / "stopped.json", {"reason": "others did better"})
    heartbeat.beat(folder / "running", "running", 1, 10)
    heartbeat.beat(folder / "stopped", "stopped", 1, 10)
    (folder / "lost").mkdir()
    (folder / "lost" / "checkpoint.safetensors").touch()
    names = ("complete", "failed", "running", "lost", "stopped", "waiting")
    assert queue.states(work, names) == {name: name for name in names}
    assert [queue.state_of(work, name) for name in names] == list(names)
    assert queue.states(work, ["ended"]) == {"ended": "stopped"}
    assert queue.stopped_for_good(work, {"ended": "stopped", "stopped": "stopped"}) == ["ended"]


def test_a_living_process_runs_whatever_the_clock_says_and_a_dead_one_does_not(work):
    folder = work.path("runs", "a")
    process = sleeper()
    try:
        own = {"pid": process.pid, "born": heartbeat.born(process.pid)}
        write_json(folder / heartbeat.FILE, {**heartbeat.myself(os.getpid()), **own, "state": "running"})
        for shift in (-(10**7), 10**7):  # the clock was set, by months
            os.utime(folder / heartbeat.FILE, (time.time() + shift,) * 2)
            assert queue.state_of(work, "a") == "running"
        other = {"pid": process.pid, "born": "1"}  # its number was given to another process
        write_json(folder / heartbeat.FILE, {**heartbeat.myself(os.getpid()), **other, "state": "running"})
        assert queue.state_of(work, "a") == "lost"
    finally:
        process.kill()
        process.wait()
    write_json(folder / heartbeat.FILE, {**heartbeat.myself(os.getpid()), **own, "state": "running"})
    assert queue.state_of(work, "a") == "lost"


def test_on_another_machine_the_clock_of_the_file_server_decides(work):
    folder = work.path("runs", "a")
    there = {**heartbeat.myself(os.getpid()), "host": "elsewhere", "place": "another boot", "state": "running"}
    write_json(folder / heartbeat.FILE, there)
    assert queue.state_of(work, "a") == "running"
    os.utime(folder / heartbeat.FILE, (time.time() - 3600,) * 2)
    assert queue.state_of(work, "a") == "lost"


def test_who_takes_a_run_over_watches_its_count_and_no_clock():
    watcher = Watcher(patience_seconds=0.2)
    assert not watcher.is_dead("a", 1)
    time.sleep(0.25)
    assert not watcher.is_dead("a", 2)
    time.sleep(0.25)
    assert watcher.is_dead("a", 2)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_row_is_no_complete_run(work, harm):
    complete(work, "a")
    assert list(index.complete(work, ["a"])) == ["a"]
    path = work.path("runs", "a", "run.json")
    data = bytearray(path.read_bytes())
    if harm == "flip":
        at = data.index(b"1000.0") + 1  # a digit: still JSON, still a number
        data[at] ^= 1
    path.write_bytes(bytes(data[: len(data) // 2]) if harm == "cut" else b"" if harm == "empty" else bytes(data))
    assert index.complete(work, ["a"]) == {}
    assert queue.state_of(work, "a") == "waiting"
    assert index.read_run(work, "a") is None


def test_the_table_of_complete_runs_answers_like_the_files(work):
    ids = [f"{i:03d}" for i in range(100)]
    for run_id in ids:
        complete(work, run_id)
    rows = index.complete(work, ids)
    assert (work.root / "runs" / "index.parquet").exists()
    index._known.clear()  # another process
    assert index.complete(work, ids) == rows
    index._known.clear()
    complete(work, "005", seconds=7.0)
    work.path("runs", "007", "run.json").unlink()
    briefs = index.briefs(work, ids)
    assert briefs["005"].seconds == 7.0
    assert "007" not in briefs
    assert len(briefs) == 99
    (work.root / "runs" / "index.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert len(index.briefs(work, ids)) == 99


def variant(i, block, round_="exploration"):
    return Variant(str(i), i, round_, block, block, "order", "base", ["b"], "random", "none", 1.0, 1, i, [1])


def test_rounds_and_blocks_stand_together_what_is_begun_and_what_is_long_comes_first():
    variants = [variant(0, 0), variant(1, 1), variant(2, 0), variant(3, 2, "adaptive"), variant(4, 1), variant(5, 3)]
    jobs = [queue.Job(str(v.index), v.index, 1) for v in variants]
    assert [j.run_id for j in in_order(jobs, variants)] == ["0", "2", "1", "4", "5", "3"]
    assert [j.run_id for j in in_order(jobs, variants, begun={"5"})] == ["5", "0", "2", "1", "4", "3"]
    assert [j.run_id for j in in_order(jobs, variants, tokens={"4": 9.0})] == ["1", "4", "0", "2", "5", "3"]


def attempts_of(work, monkeypatch, **runs):
    from types import SimpleNamespace

    from ltm.runs import attempts

    section = SimpleNamespace(retries=2, batch_tokens=512, **runs)
    shape = SimpleNamespace(block_size=128)
    monkeypatch.setattr(attempts.Attempts, "__post_init__", lambda self: None)
    monkeypatch.setattr(attempts, "_FIRST_WAIT_SECONDS", 0.1)
    found = Attempts(work, SimpleNamespace(runs=section), "1")
    found._micro_tokens, found._free_bytes, found.shape = 512, 0.0, shape
    return found


def test_own_errors_are_tried_again_with_pauses_and_then_set_aside_with_the_log(work, monkeypatch):
    found = attempts_of(work, monkeypatch)
    work.path("runs", "a").mkdir(parents=True)
    work.path("runs", "a", "log.txt").write_text("one\ntwo\n")
    bug = Outcome("a", error="ZeroDivisionError: x", kind="ZeroDivisionError", trace="in f")
    waits = []
    for _ in range(2):
        assert found.again(bug)
        began = time.monotonic()
        found.wait(["a"])
        waits.append(time.monotonic() - began)
    assert not found.again(bug)
    assert waits[0] >= 0.09
    assert waits[1] >= 0.19
    failure = read_json(work.path("runs", "a", "failed.json"))
    assert (failure["attempts"], failure["log"]) == (3, ["one", "two"])
    assert not found.again(Outcome("b", error="died", kind=CRASHED))  # the executor has tried it again already


def test_a_run_that_took_too_much_memory_goes_on_with_half_the_micro_batch(work, monkeypatch):
    found = attempts_of(work, monkeypatch)
    over = Outcome("a", error="too much", kind=OVER_MEMORY)
    sizes = []
    while found.again(over):
        sizes.append(found.job("a").arguments[5])
    assert sizes == [256, 128]
    assert found.job("b").arguments[5] == 0
