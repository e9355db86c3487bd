"""Many members on one board: a job has one owner at a time, and the dead own nothing."""

import os
import threading
import time

import pytest

from ltm.errors import InputError
from ltm.runs.executors import crew
from ltm.runs.executors.base import Job, Outcome
from ltm.runs.executors.crew import Board, CrewExecutor, Member, announce, follow
from ltm.runs.executors.local import LocalExecutor
from ltm.store import WorkFolder, write_json


def note(_root, path, seconds):
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_TASKS", (f"{note.__module__}:{note.__qualname__}",))
    monkeypatch.setattr(crew, "_LOOK_SECONDS", 0.1)
    folder = WorkFolder(tmp_path)
    folder.create()
    announce(folder, over=False)
    return folder


def jobs_of(work, count, seconds=0.1):
    return [Job(str(i), (str(work.root), str(work.root / f"done-{i}"), seconds)) for i in range(count)]


def boards(work, count):
    members = [Member(work) for _ in range(count)]
    return members, [Board(work, member) for member in members]


def test_each_job_is_claimed_once_however_many_try(work):
    members, all_boards = boards(work, 8)
    jobs = jobs_of(work, 40)
    all_boards[0].post(note, jobs)
    won = []

    def claim_all(board):
        board.look()
        won.extend(job.key for job in jobs if board.claim(job))

    threads = [threading.Thread(target=claim_all, args=(board,)) for board in all_boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won, key=int) == [job.key for job in jobs]
    for member in members:
        member.leave()


def test_a_claim_of_a_member_that_stands_still_is_taken_over_once(work):
    members, (leader, dead, *others) = boards(work, 5)
    (job,) = jobs_of(work, 1)
    leader.post(note, [job])
    dead.look()
    assert dead.claim(job)
    members[1]._over.set()  # its process is killed: the count stands still, and its file stays
    for board in others:
        board.look()
        board._watcher.patience_seconds = 0.5
    assert not any(board.claim(job) for board in others)  # seen for the first time: it may live
    time.sleep(0.6)
    assert sum(board.claim(job) for board in others) == 1
    for member in members:
        member.leave()


def test_what_is_claimed_in_an_earlier_batch_is_no_longer_given_out(work):
    members, (leader, follower) = boards(work, 2)
    jobs = jobs_of(work, 2)
    leader.post(note, jobs)
    follower.look()
    leader.post(note, jobs)
    assert not follower.claim(jobs[0])
    follower.look()
    assert follower.claim(jobs[0])
    follower.report(Outcome("0", value=1))
    assert [job.key for job in leader.open_jobs()] == ["1"]
    assert not leader.claim(jobs[0])
    for member in members:
        member.leave()


def test_members_share_the_work_and_all_outcomes_reach_the_leader(work):
    leading = CrewExecutor(LocalExecutor(1), work, Member(work))
    led = threading.Event()
    led.set()
    ended = []
    helper = threading.Thread(target=lambda: ended.append(follow(work, LocalExecutor(1), led.is_set)))
    helper.start()
    outcomes = list(leading.map(note, jobs_of(work, 12, 0.3)))
    announce(work, over=True)
    led.clear()
    helper.join(20)
    leading.close()
    assert ended == [False]
    assert sorted(int(o.key) for o in outcomes) == list(range(12))
    assert len({o.value for o in outcomes}) == 2
    assert all(len((work.root / f"done-{i}").read_text().splitlines()) == 1 for i in range(12))


def test_a_follower_without_a_leader_is_asked_to_lead(work):
    assert follow(work, LocalExecutor(1), lambda: False)


def test_a_board_cannot_ask_for_any_function(work):
    member = Member(work)
    value = {
        "batch": "x",
        "task": "os:system",
        "jobs": [{"key": "a", "arguments": ["true"], "log": "", "progress": ""}],
    }
    write_json(work.path("board", "jobs.json"), value)
    write_json(work.path("board", "now.json"), {"batch": "x", "over": False})
    board = Board(work, member)
    board.look()
    with pytest.raises(InputError, match="unknown task: os:system"):
        board.function()
    member.leave()
