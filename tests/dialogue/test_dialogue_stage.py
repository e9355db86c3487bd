"""The stage end to end: the best models of a small study are tuned, scored again, and not tuned twice."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tiny_study
from ltm.errors import ConfigError
from ltm.progress import Progress


def _talk(path: Path, n: int = 60) -> Path:
    rows = []
    for i in range(n):
        turns = [
            {"role": "user", "content": f"Who begat him, {i}?"},
            {"role": "assistant", "content": "His father did."},
        ]
        rows.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(rows))
    return path


def test_the_best_are_tuned_and_asked_again(tmp_path: Path) -> None:
    changes = {"dialogue.path": str(_talk(tmp_path / "talk.jsonl")), "dialogue.top": 2, "sets.count": 4}
    study = tiny_study.load(tmp_path / "w", **changes, **{"dialogue.epochs": 3, "dialogue.lr": 4e-3})
    study.run(progress=Progress(quiet=True))
    tuned = pq.read_table(tmp_path / "w/dialogue/tuned.parquet").to_pylist()
    assert [row["place"] for row in tuned] == [1, 2]
    assert all(row["held_out_after"] < row["held_out_before"] for row in tuned)
    assert all(row["n_train"] + row["n_held_out"] == 60 for row in tuned)
    gains = pq.read_table(tmp_path / "w/dialogue/gains.parquet").to_pylist()
    fluency = [gain for gain in gains if gain["family"] == "F0"]
    assert len(fluency) == 2
    for gain in fluency:  # a model that was tuned on one sentence predicts other text worse
        assert gain["after"] < gain["before"] < 0
    weights = tmp_path / "w/dialogue" / tuned[0]["run_id"] / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert study.run(progress=Progress(quiet=True))["built"] == []
    (tmp_path / "w/dialogue/done.json").unlink()
    assert "dialogue" in study.run(progress=Progress(quiet=True))["built"]
    assert weights.stat().st_mtime_ns == before  # what stands is not made again


def test_where_nobody_talks_nothing_is_tuned(tmp_path: Path) -> None:
    study = tiny_study.load(tmp_path / "w", **{"sets.count": 4})  # the King James books: no quotation marks
    study.run(until="dialogue", progress=Progress(quiet=True))
    assert pq.read_table(tmp_path / "w/dialogue/tuned.parquet").num_rows == 0


def test_a_malformed_file_stops_the_study_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"messages": []}\n')
    study = tiny_study.load(tmp_path / "w", **{"dialogue.path": str(path)})
    assert any("talk.jsonl:1" in problem for problem in study.check())
    with pytest.raises(ConfigError):
        study.run(progress=Progress(quiet=True))
