"""The plan is right about what it rehearses, holds to a budget, and a study stops at its budget without loss."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

import ltm
from ltm.errors import BudgetError
from ltm.forecast.bill import Costs, Workload
from ltm.progress import Progress
from ltm.records import Run
from ltm.store import WorkFolder, as_json, read_json, write_json
from ltm.study import budget, history
from ltm.study.plan import Forecast, plan_key
from ltm.study.rehearsal import Library, Recorder, _line
from ltm.study.status import status

SMALL = {
    "sets.count": 12, "sets.books_per_set": 8, "sets.book_tokens": 1024, "sets.shares.seeds": 0.2,
    "sets.passage_tokens": 64, "tokens.vocab_size": 400, "tokens.sample_bytes": 200_000, "model.size": "llama-0.1m",
    "model.n_embd": 32, "model.block_size": 128, "runs.batch_tokens": 256, "runs.workers": 2,
    "evalset.items_per_family": 8, "evalset.context_words": 40, "patterns.redraws": 199,
}  # fmt: skip
QUIET = Progress(quiet=True)


def small_study(work, **changes):
    return ltm.load("demo", {**SMALL, **changes}, work=str(work))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan, and then the study."""
    folder = tmp_path_factory.mktemp("plan")
    os.environ["LTM_CACHE"] = str(folder / "cache")
    study = small_study(folder / "work")
    value = study.plan(QUIET)
    left_behind = (folder / "work").exists()
    began = time.monotonic()
    study.run(progress=QUIET)
    return study, value, left_behind, time.monotonic() - began


def test_a_plan_writes_nothing_and_names_every_stage(planned):
    _, value, left_behind, _ = planned
    assert not left_behind
    assert [row["stage"] for row in value["stages"]][1:] == [
        "books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dashboard"
    ]  # fmt: skip
    assert value["rate"]["source"].startswith("a rehearsal")
    assert value["n_runs"] > 12  # seeds blocks train twice
    assert value["seconds_low"] < value["seconds"] < value["seconds_high"]


def test_the_run_takes_the_forecast_of_the_plan_and_keeps_near_it(planned):
    study, value, _, wall = planned
    forecast = read_json(study.work.path("forecast.json"))
    assert forecast["seconds"] == pytest.approx(value["seconds"], rel=0.05)
    assert forecast["n_runs"] == value["n_runs"] == len(study.jobs())
    assert 0.3 < value["seconds"] / wall < 3  # a busy test machine; the bench measures how near it really is


def test_disk_is_what_the_folder_holds(planned):
    study, value, _, _ = planned
    assert value["disk_bytes"] == pytest.approx(budget.folder_bytes(study.work), rel=0.2)


def test_after_the_study_nothing_is_left_and_the_machine_remembers(planned):
    study, _, _, _ = planned
    after = study.plan(QUIET)
    assert {row["stage"] for row in after["stages"] if row["seconds"] == 0.0} >= {"books", "tokens", "runs", "scores"}
    assert after["rate"]["source"] == "complete runs of this study"
    row = history.rows(history.machine_id("cpu"), history.version())[-1]
    assert row["n_params"] == study.plan(QUIET)["n_params"]
    assert row["stages"]["runs"][1] > 0


def test_elapsed_is_the_whole_wall_time(planned):
    study, _, _, wall = planned
    assert study.status()["elapsed_seconds"] == pytest.approx(wall, abs=20.5)  # a young test process counts its age
    assert study.status()["elapsed_seconds"] > 0.9 * wall


def test_half_of_the_runs_done_is_half_of_the_work(planned, tmp_path):
    """Time left comes from the runs: they took twice what was forecast, so the rest takes longer too."""
    study, _, _, _ = planned
    work = WorkFolder(tmp_path)
    work.create()
    jobs = read_json(study.work.path("runs", "jobs.json"))
    jobs["jobs"] = [{"run_id": f"r{i}", "variant_index": i, "init_seed": 1} for i in range(20)]
    write_json(work.path("runs", "jobs.json"), jobs)
    costs = Costs(tokens_per_second=100.0, run_seconds=0.0, workers_seconds=0.0, spread={"runs": 0.3})
    stages = [{"stage": "runs", "seconds": 1000.0, "low": 800.0, "high": 1300.0}]
    stages += [{"stage": "scores", "seconds": 50.0, "low": 40.0, "high": 60.0}]
    forecast = {"stages": stages, "costs": dataclasses.asdict(costs), "n_workers": 2, "n_runs": 20, "watts": 100.0}
    forecast |= {"run_tokens": 10_000, "disk_bytes": 1, "disk_bytes_range": [1, 1], "seconds": 1050.0}
    write_json(work.path("forecast.json"), forecast)
    write_json(work.path("timings.json"), {"stages": {"runs": 1000.0}, "other": 10.0})
    for i in range(10):
        write_json(work.path("runs", f"r{i}", "run.json"), as_json(_run(f"r{i}", 200.0)))
    value = status(study.settings, work)
    assert value["elapsed_seconds"] == 1010.0
    assert value["eta_seconds"] == pytest.approx(5 * 200 + 2**0.5 * 50, rel=0.05)
    assert value["eta_low"] < value["eta_seconds"] < value["eta_high"]
    assert "10 finished runs" in value["eta_from"]


def _run(run_id, seconds):
    return Run(run_id, "v", 1, "m", 1, 10_000, 1, seconds, 50.0, 0.0, "cpu", "float32", 1.0, [], [], "w", "", "")


@pytest.fixture
def priced():
    """A forecast of three hours of training."""
    load = Workload(
        n_runs=64, runs_left=64.0, models_to_score=67.0, run_tokens=65_536, n_params=30_000,
        n_workers=2, device="cpu", file_bytes=4e6, train_bytes=3e6, encoded_bytes=3e6, held_out_books=10.0,
        n_variants=64,
    )  # fmt: skip
    costs = Costs(tokens_per_second=65_536 / 300.0, weights_bytes=1e6)
    return Forecast(load, costs, Library(66, 4e6, 56, 3e6, 10.0, True), False)


def with_budget(planned, **limits):
    study = planned[0]
    values = study.settings.model_dump()
    values["sets"]["count"] = 56
    values["sets"]["book_tokens"] = 8192
    return type(study.settings).model_validate({**values, "budget": limits})


NOTHING = {"hours": 0.0, "kwh": 0.0, "usd": 0.0, "disk": 0.0}


def test_a_budget_is_held_against_the_range(planned, priced):
    def verdict(**limits):
        settings = with_budget(planned, **limits)
        return budget.held(settings.budget, priced.bill(settings), NOTHING)[0]["verdict"]

    hours = priced.bill(planned[0].settings)["seconds"] / 3600
    assert [verdict(hours=hours * x) for x in (2, 1.02, 0.98, 0.5)] == ["within", "at risk", "likely over", "over"]
    assert verdict(disk="10GB") == "within"
    assert verdict(disk="10MB") == "over"
    assert verdict(kwh=0.01) == "over"


def test_what_is_offered_fits_when_it_is_priced_again(planned, priced):
    settings = with_budget(planned, hours=1)
    offers = budget.alternatives(settings, priced, NOTHING, 56)
    assert len(offers) >= 2
    for offer in offers:
        assert offer["seconds"] <= 3600
        assert offer["lost"]
        assert offer["set"].startswith("--set ")
        changes = [text for text in offer["set"].split() if text != "--set"]
        changed = ltm.load("demo", [*(f"{k}={v}" for k, v in SMALL.items()), *changes])  # what is offered can be typed
        assert changed.settings.sets.count <= settings.sets.count
    variants = next(o for o in offers if o["set"].startswith("--set sets.count="))
    assert variants["n_runs"] < 64
    assert any("->" in line for line in variants["lost"])
    assert variants["seconds"] > 0.8 * 3600  # the largest number that fits, not just any


def test_nothing_is_offered_where_nothing_is_over(planned, priced):
    assert budget.alternatives(with_budget(planned, hours=100), priced, NOTHING, 56) == []
    assert budget.alternatives(with_budget(planned, hours=1e-6), priced, NOTHING, 56) == []  # nor where nothing helps


def ltm_run(work, cache, *arguments):
    command = [sys.executable, "-m", "ltm.cli", "run", "demo", "--quiet", "--work", str(work), *arguments]
    command += [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]
    environment = {**os.environ, "LTM_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_study_stops_at_its_budget_and_goes_on_with_a_larger_one(planned, tmp_path):
    refused = ltm_run(tmp_path / "w", tmp_path / "c", "--set", "budget.hours=0.000001")
    assert refused.returncode == 3
    assert "hint" in refused.stderr
    assert not list((tmp_path / "w").glob("runs/*/run.json"))
    assert ltm_run(tmp_path / "w", tmp_path / "c", "--set", "budget.hours=0.000001").returncode == 3  # nor the next time
    # long runs, and a limit that is above the low end of nothing: it is reached while the first runs train
    stopped = ltm_run(
        tmp_path / "w", tmp_path / "c", "--accept-changes", "--set", "budget.disk=3MB", "--over-budget",
        "--until", "tokens",
    )  # fmt: skip
    assert stopped.returncode == 0  # --over-budget goes on whatever is spent
    again = ltm_run(tmp_path / "w", tmp_path / "c", "--set", "budget.disk=3MB")
    assert again.returncode == 3
    assert "the budget is reached" in again.stderr
    done = ltm_run(tmp_path / "w", tmp_path / "c")
    assert done.returncode == 0
    findings = (tmp_path / "w" / "patterns" / "findings.json").read_bytes()
    assert findings == planned[0].work.path("patterns", "findings.json").read_bytes()  # a budget retrains nothing


def test_a_limit_passed_while_it_works_interrupts_and_says_so():
    from ltm.forecast.section import BudgetSection
    from ltm.study.watch import Watch

    began = time.monotonic()

    def spent(_disk):
        return {"hours": (time.monotonic() - began) / 3600}

    with pytest.raises(BudgetError, match="the budget is reached"), Watch(BudgetSection(hours=0.5 / 3600), spent):
        time.sleep(20)
    assert time.monotonic() - began < 5
    with Watch(BudgetSection(hours=1), spent):
        pass


def test_the_time_before_the_work_flows_is_told_from_the_time_a_byte_takes():
    sizes = [1e6] * 40
    marks = [0.0] + [2.0 + 0.5 * (1 + i // 2) for i in range(40)]  # two processes that take 2 s to start
    fixed, per_byte = _line(marks, sizes, 2)
    assert (fixed, per_byte) == (pytest.approx(2.0, abs=0.3), pytest.approx(2.5e-7, rel=0.05))


def test_a_recorder_notes_units_and_says_nothing(capsys):
    note = Recorder()
    task = note.task("books", 3, "files")
    for _ in range(3):
        task.advance()
    assert len(note.marks) == 4
    assert note.marks == sorted(note.marks)
    assert capsys.readouterr().err == ""


def test_history_shrinks_and_forgets_disturbed_studies(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    assert history.rows("m", "1") == []
    for forecast, measured in ((10.0, 12.0), (10.0, 12.0), (10.0, 40.0)):  # the last met another load
        history.append({"machine": "m", "version": "1", "stages": {"runs": [forecast, measured]}})
    with open(tmp_path / "history.jsonl", "a", encoding="utf-8") as file:
        file.write("not json\n")
    past = history.rows("m", "1")
    assert len(past) == 3
    assert 1.0 < history.corrections(past)["runs"] < 1.2
    assert history.rows("another", "1") == []


def test_a_plan_is_of_one_study_and_one_library(tmp_path):
    keys = {plan_key(small_study(tmp_path, **change).settings) for change in ({}, {"sets.count": 13}, {"seed": 2})}
    assert len(keys) == 3
    one, other = (small_study(tmp_path, **{"budget.hours": hours}).settings for hours in (1, 2))
    assert plan_key(one) == plan_key(other)


def test_plan_json_is_one_document(tmp_path):
    command = [sys.executable, "-m", "ltm.cli", "plan", "demo", "--work", str(tmp_path / "w"), "--json"]
    command += [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]
    done = subprocess.run([*command, "--set", "budget.hours=0.0001"], capture_output=True, text=True, check=True)
    value = json.loads(done.stdout)
    assert value["budget"][0]["verdict"] == "over"
    assert "plan      " in done.stderr
    wrong = subprocess.run([*command, "--set", "budget.days=3"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "unknown key `budget.days`" in wrong.stderr
