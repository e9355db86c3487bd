"""Damaged files are noticed, and what they hold is made again, byte by byte the same."""

import random

import pytest

from ltm.errors import DamagedError
from ltm.progress import Progress
from ltm.records import Shard
from ltm.seal import is_whole, sealed
from ltm.store import WorkFolder, read_json, read_rows, write_json, write_rows
from ltm.study import clock
from ltm.study.mend import with_mending

ROWS = [Shard(f"{i:016x}", i * 7, 7, [0, 3]) for i in range(50)]


def damaged(data, rng):
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_no_damage_gives_another_value(tmp_path, kind):
    """300 cut or bit-flipped files: each is refused, or (the seal itself was hit) read as it was written."""
    value = {"a": [1.5, 2.25, 1e9], "text": "words", "n": 12345}
    path = tmp_path / f"x.{kind}"
    write_json(path, value) if kind == "json" else write_rows(path, ROWS, Shard)
    good, rng, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(300):
        path.write_bytes(damaged(good, rng))
        try:
            found = read_json(path) if kind == "json" else read_rows(path, Shard)
        except DamagedError:
            refused += 1
            continue
        if isinstance(found, dict):
            found = {key: found[key] for key in found if key in value or not key.startswith(("seal", "s"))}
        assert found == (value if kind == "json" else ROWS)
    assert refused > 250


def test_a_seal_says_nothing_about_files_without_one():
    assert is_whole(b"anything")
    assert sealed(b"anything") == b"anything"


def test_a_marker_does_not_stand_for_files_that_were_damaged_after_it(tmp_path):
    work = WorkFolder(tmp_path)
    work.create()
    write_rows(work.path("sets", "variants.parquet"), ROWS, Shard)
    work.finish("sets", "in", "out")
    assert work.output_of("sets", "in") is not None
    path = work.path("sets", "variants.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    assert work.output_of("sets", "in") is None
    path.write_bytes(data)
    assert work.output_of("sets", "in") is not None


def test_what_is_damaged_is_made_again_and_nothing_else(tmp_path):
    work = WorkFolder(tmp_path)
    work.create()
    for stage in ("sets", "tokens"):
        write_rows(work.path(stage, "x.parquet"), ROWS, Shard)
        work.finish(stage, "in", "out")
    work.path("sets", "x.parquet").write_bytes(b"PAR1 nothing")
    built = []

    def build():
        for stage in ("sets", "tokens"):
            if work.output_of(stage, "in") is None:
                write_rows(work.path(stage, "x.parquet"), ROWS, Shard)
                work.finish(stage, "in", "out")
                built.append(stage)
            read_rows(work.path(stage, "x.parquet"), Shard)
        return built

    assert with_mending(work, Progress(quiet=True), build) == ["sets"]
    with pytest.raises(DamagedError):  # a file that is damaged again and again is not mended for ever
        with_mending(work, Progress(quiet=True), lambda: (_ for _ in ()).throw(DamagedError(work.path("sets", "y"))))
    with pytest.raises(DamagedError):  # none of the study's
        with_mending(work, Progress(quiet=True), lambda: (_ for _ in ()).throw(DamagedError(tmp_path.parent / "z")))


def test_missing_weights_send_all_such_runs_back_into_the_queue(tmp_path):
    work = WorkFolder(tmp_path)
    for name in ("a", "b", "c"):
        write_json(work.path("runs", name, "run.json"), {})
    work.path("runs", "c", "weights.safetensors").touch()
    calls = []

    def score():
        calls.append(1)
        if len(calls) == 1:
            raise DamagedError(work.path("runs", "a", "weights.safetensors"), missing=True)
        return sorted(path.parent.name for path in work.path("runs").glob("*/run.json"))

    assert with_mending(work, Progress(quiet=True), score) == ["c"]


def test_time_that_passes_does_not_jump_with_the_clock(monkeypatch):
    moment = clock.stamp()
    monkeypatch.setattr(clock.time, "time", lambda: 10.0**9)  # set back by decades
    assert 0 <= clock.since(moment) < 5
    assert clock.between(moment, moment["wall"] + 10**6) < 5  # a file from the future tells nothing
    elsewhere = {**moment, "place": "another machine", "wall": 10.0**9 - 60}
    assert clock.since(elsewhere) == 60
    assert clock.since(10.0**9 - 30) == 30  # as an earlier version wrote it
