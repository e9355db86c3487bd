"""status --watch, pause, resume, --max-hours, --submit: what they print, what they write, and how they refuse."""

import json

import pytest

import ltm
from ltm.cli import main
from ltm.errors import BudgetError
from ltm.forecast.section import BudgetSection
from ltm.progress import Progress
from ltm.records import Ranked
from ltm.runs.pause import is_paused
from ltm.store import WorkFolder, write_json, write_rows
from ltm.study import keep
from ltm.study.watch import OF_THIS_START, Watch


@pytest.fixture
def work(tmp_path):
    folder = WorkFolder(tmp_path / "w")
    folder.create()
    return folder


def test_a_study_that_nobody_works_on_cannot_be_paused(work, capsys):
    assert main(["pause", "demo", "--work", str(work.root)]) == 2
    assert "nobody works on this study" in capsys.readouterr().err
    assert not is_paused(work)
    assert main(["resume", "demo", "--work", str(work.root)]) == 0
    assert "it was not paused" in capsys.readouterr().out


def test_a_running_study_is_paused_and_goes_on(work, capsys):
    with work.lock():
        assert main(["pause", "demo", "--work", str(work.root)]) == 0
        assert is_paused(work)
        capsys.readouterr()
        assert main(["status", "demo", "--work", str(work.root), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["paused"]
        assert main(["resume", "demo", "--work", str(work.root), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"was_paused": True}
        assert not is_paused(work)


def test_watching_prints_a_document_a_line_until_the_end(work, capsys, monkeypatch):
    values = iter([{"stages": {"books": "waiting"}}, {"stages": {"books": "complete"}}])
    monkeypatch.setattr(ltm.study.Study, "status", lambda self: next(values))
    assert main(["status", "demo", "--work", str(work.root), "--json", "--watch", "0.2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["stages"]["books"] for line in lines] == ["waiting", "complete"]


@pytest.mark.parametrize("value", ["0", "-1", "inf", "soon"])
def test_a_limit_of_nothing_is_refused(value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "demo", "--max-hours", value])
    assert ended.value.code == 2
    assert "--max-hours" in capsys.readouterr().err


def test_the_limit_of_one_start_is_told_from_the_budget():
    limits = {**BudgetSection(hours=100).limits(), f"hours{OF_THIS_START}": 0.1}
    spent = {"hours": 50.0, f"hours{OF_THIS_START}": 0.2}
    with pytest.raises(BudgetError, match=r"stopped as asked: 12 min .* \(hours of this start\)") as raised:
        Watch(limits, lambda disk: spent).__enter__()
    assert raised.value.exit_code == 3
    with pytest.raises(BudgetError, match="the budget is reached: 2 d 2 h"):
        Watch({**limits, "hours": 50.0}, lambda disk: {**spent, f"hours{OF_THIS_START}": 0.0}).__enter__()


def test_only_weights_of_scored_losers_are_deleted(work):
    def ranked(place, run_id):
        return Ranked(place, run_id, run_id, 1.0 - place, 0.0, 1.0, 0.0, False, {})

    write_rows(work.path("patterns", "ranking.parquet"), [ranked(i, f"r{i}") for i in range(1, 6)], Ranked)
    for i in range(1, 7):
        write_json(work.path("runs", f"r{i}", "run.json"), {})
        work.path("runs", f"r{i}", "weights.safetensors").write_bytes(b"w" * 10)
        if i != 5:
            work.path("scores", f"r{i}.parquet").parent.mkdir(exist_ok=True)
            work.path("scores", f"r{i}.parquet").touch()
    assert keep.prune(work, "all", Progress(quiet=True)) == 0
    assert keep.prune(work, 2, Progress(quiet=True)) == 3
    left = sorted(path.parent.name for path in work.path("runs").glob("*/weights.safetensors"))
    assert left == ["r1", "r2", "r5"]  # r5 has no scores yet


def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(work, capsys):
    write_json(work.path("ltm.json"), {"format": 99})
    before = sorted(path.name for path in work.root.iterdir())
    assert main(["run", "demo", "--work", str(work.root)]) != 0
    assert "newer ltm" in capsys.readouterr().err
    assert sorted(path.name for path in work.root.iterdir()) == before
