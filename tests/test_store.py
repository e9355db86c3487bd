"""The work folder: whole files, stable fingerprints, one owner."""

import errno
import math
import multiprocessing
import os
from pathlib import Path

import pytest

from ltm import store
from ltm.errors import BusyError, DataError, StoreError
from ltm.records import Book, Effect, Variant
from ltm.store import WorkFolder


def book(**changes):
    values = dict(
        book_id="ab", title="T", author="A", year=None, language="en", genre="", source="a.txt", licence="", rank=0,
        pool="train", n_words=3, n_bytes=9, chapter_starts=[0, 4], features={"b": 2.0, "a": 1.0},
    )  # fmt: skip
    return Book(**{**values, **changes})


def test_rows_come_back_as_they_were(tmp_path):
    rows = [book(), book(book_id="cd", year=-600, features={})]
    store.write_rows(tmp_path / "x.parquet", rows, Book)
    assert store.read_rows(tmp_path / "x.parquet", Book) == rows
    store.write_rows(tmp_path / "none.parquet", [], Variant)
    assert store.read_rows(tmp_path / "none.parquet", Variant) == []


def test_a_table_of_another_record_is_refused(tmp_path):
    store.write_rows(tmp_path / "x.parquet", [book()], Book)
    with pytest.raises(DataError, match="lacks columns"):
        store.read_rows(tmp_path / "x.parquet", Effect)


def test_damaged_and_missing_files_are_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match="is damaged"):
        store.read_rows(tmp_path / "x.parquet", Book)
    with pytest.raises(StoreError, match="is missing"):
        store.read_rows(tmp_path / "y.parquet", Book)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        store.read_json(tmp_path / "x.json")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        store.write_json(path, {"a": 2})
    assert store.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_fingerprints_are_stable_and_refuse_what_is_not():
    assert store.fingerprint({"b": 1, "a": [1.5, None, "я"]}) == store.fingerprint({"a": [1.5, None, "я"], "b": 1})
    assert store.fingerprint(1) != store.fingerprint("1")
    for bad in (math.nan, {1: 2}, {"a": Path("x")}, {1, 2}):
        with pytest.raises(DataError, match="cannot fingerprint"):
            store.fingerprint(bad)


def test_nan_is_written_as_null(tmp_path):
    store.write_json(tmp_path / "x.json", {"a": math.nan, "b": [math.inf]})
    assert store.read_json(tmp_path / "x.json") == {"a": None, "b": [None]}


def test_a_marker_counts_only_for_its_inputs(tmp_path):
    work = WorkFolder(tmp_path)
    assert work.output_of("sets") is None
    work.finish("sets", "in1", ["a"])
    assert work.output_of("sets", "in1") == store.fingerprint(["a"])
    assert work.output_of("sets", "in2") is None
    work.path("sets", "done.json").write_text("garbage")
    assert work.output_of("sets", "in1") is None


def test_paths_stay_inside(tmp_path):
    with pytest.raises(StoreError, match="outside"):
        WorkFolder(tmp_path / "w").path("..", "other")


def _hold(root, ready, release):
    with WorkFolder(root).lock():
        ready.set()
        release.wait(20)


def test_one_process_at_a_time_and_the_owner_is_named(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "w", ready, release))
    process.start()
    assert ready.wait(20)
    with pytest.raises(BusyError, match=f"process {process.pid}"), WorkFolder(tmp_path / "w").lock():
        pass
    process.kill()
    process.join()
    with WorkFolder(tmp_path / "w").lock():
        pass


def test_a_newer_work_folder_is_refused(tmp_path):
    store.write_json(tmp_path / "ltm.json", {"format": store.FORMAT + 1})
    with pytest.raises(StoreError, match="newer ltm"):
        WorkFolder(tmp_path).create()
