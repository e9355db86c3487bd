"""Who holds a work folder: seen, never broken into, never in the way once its owner is gone."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import time

import pytest

from ltm import lock
from ltm.errors import BusyError, NotOurs, StoreError
from ltm.store import FORMAT, WorkFolder, write_json

SPAWN = multiprocessing.get_context("spawn")


def _hold(root, ready):
    with WorkFolder(root).lock():
        ready.set()
        time.sleep(60)


def _count(root, start, n, path):
    """Take the lock n times and count in a file, without any other care."""
    start.wait(30)
    done = 0
    while done < n:
        try:
            with WorkFolder(root).lock():
                value = int(path.read_text())
                time.sleep(0.001)
                path.write_text(str(value + 1))
            done += 1
        except BusyError:
            time.sleep(0.002)


@pytest.fixture
def holder(tmp_path):
    ready = SPAWN.Event()
    process = SPAWN.Process(target=_hold, args=(tmp_path / "w", ready))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


def owner_file(root, **changes):
    """Write the file of an owner that is not this process."""
    root.mkdir(exist_ok=True)
    fields = dict(
        host="elsewhere", boot="another", pid=7, started="1", since="2026-01-02T03:04:05+00:00", user="mary", token="t"
    )
    path = root / lock.OWNER
    path.write_text(json.dumps({**fields, **changes}))
    return path


def refusal(work, kind=BusyError):
    """Return the error of trying to hold the folder."""
    with pytest.raises(kind) as error, work.lock():
        pass
    return error.value


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_owner_is_named_and_the_folder_is_untouched(tmp_path, holder):
    work = WorkFolder(tmp_path / "w")
    before = (work.root / lock.OWNER).read_bytes()
    error = refusal(work)
    assert re.search(f"process {holder.pid} on .* since 20..-..-.. ..:..:.. UTC, user ", error.message)
    assert error.exit_code == 2
    assert "another --work" in error.hint
    assert (work.root / lock.OWNER).read_bytes() == before
    owner = work.owner()
    assert owner is not None
    assert (owner.pid, owner.alive(), owner.here()) == (holder.pid, True, True)
    assert sorted(p.name for p in work.root.iterdir()) == [lock.LOCK, lock.OWNER, "ltm.json"]


def test_a_dead_process_of_this_machine_is_no_trouble(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    work = WorkFolder(tmp_path / "w")
    assert work.owner() is None
    assert (work.root / lock.OWNER).exists()  # it could not tidy up
    with work.lock():
        assert work.owner().pid == os.getpid()
    assert work.owner() is None
    assert not (work.root / lock.OWNER).exists()


def test_another_machine_with_fresh_beats_is_respected_where_the_kernel_lock_does_not_reach(tmp_path):
    path = owner_file(tmp_path)
    work = WorkFolder(tmp_path)
    error = refusal(work)
    assert "process 7 on elsewhere since 2026-01-02 03:04:05 UTC, user mary" in error.message
    assert "is gone" in error.hint
    assert work.owner().host == "elsewhere"
    age(path, lock.STALE_SECONDS + 5)
    assert work.owner() is None
    with work.lock():
        assert work.owner().pid == os.getpid()


def test_a_number_that_came_again_is_not_the_owner(tmp_path):
    here = dict(host=os.uname().nodename, boot=lock._boot(), pid=os.getpid())
    owner = lock.Owner(**here, started="1", since="2026-01-02T03:04:05+00:00", user="", token="t")
    assert owner.alive() is False
    assert dataclasses.replace(owner, started=lock._process_start(os.getpid())).alive() is True
    owner_file(tmp_path, **here)
    with WorkFolder(tmp_path).lock():
        pass


def test_a_stale_file_that_became_fresh_meanwhile_is_put_back(tmp_path):
    path = owner_file(tmp_path, token="old")
    judged = lock.read(path)
    owner_file(tmp_path, token="new")  # another machine was quicker
    lock._remove_stale(tmp_path, path, judged)
    assert lock.read(path).token == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == [lock.OWNER]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "null", "\x00" * 50])
def test_a_damaged_owner_file_is_taken_over(tmp_path, text):
    (tmp_path / lock.OWNER).write_text(text)
    with WorkFolder(tmp_path).lock():
        assert lock.read(tmp_path / lock.OWNER).pid == os.getpid()


@pytest.mark.parametrize("links", [True, False])
def test_without_the_kernels_lock_the_owner_file_alone_keeps_others_out(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError(lock.errno.ENOLCK, "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    if not links:

        def no_links(*_):
            raise OSError(lock.errno.EPERM, "no links")

        monkeypatch.setattr(lock.os, "link", no_links)
    work = WorkFolder(tmp_path)
    with work.lock():
        refusal(work)
    with work.lock():
        pass


def test_many_processes_never_hold_it_at_once(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    start = SPAWN.Event()
    processes = [SPAWN.Process(target=_count, args=(tmp_path / "w", start, 10, path)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert path.read_text() == "30"


def test_the_owner_touches_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with WorkFolder(tmp_path).lock():
        age(tmp_path / lock.OWNER, 1000)
        time.sleep(0.4)
        assert time.time() - (tmp_path / lock.OWNER).stat().st_mtime < 100


def test_a_newer_folder_is_refused_and_left_as_it_is(tmp_path):
    write_json(tmp_path / "ltm.json", {"format": FORMAT + 1, "ltm": "9.1"})
    before = (tmp_path / "ltm.json").read_bytes()
    error = refusal(WorkFolder(tmp_path), NotOurs)
    assert f"newer ltm (9.1, folder format {FORMAT + 1})" in error.message
    assert error.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["ltm.json"]
    assert (tmp_path / "ltm.json").read_bytes() == before


def test_a_folder_of_somebodys_own_is_refused(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "mine.txt").write_text("mine")
    with pytest.raises(NotOurs, match="not a work folder of ltm, and has a `books` of its own"):
        WorkFolder(tmp_path).create()
    assert [p.name for p in tmp_path.iterdir()] == ["books"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="no permission"), WorkFolder(tmp_path / "w").lock():
            pass
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_said(tmp_path):
    work = WorkFolder(tmp_path / "w")
    work.create()
    child = os.fork()
    if child == 0:  # this process would stay another user
        try:
            tmp_path.chmod(0o755)
            os.setuid(65534)
            with work.lock():
                pass
        except StoreError as error:
            os._exit(0 if "permission" in error.message and "--work" in error.hint else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
