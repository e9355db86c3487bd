"""The plan is right about what it rehearses, holds to a budget, and a study stops at its budget without loss."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import ltm
from ltm.errors import BudgetError
from ltm.forecast.bill import Costs, Workload
from ltm.progress import Progress
from ltm.records import Run
from ltm.sets.design import draw
from ltm.sets.shelf import blank_shelf
from ltm.store import WorkFolder, as_json, read_json, write_json
from ltm.study import budget, history
from ltm.study.build import bank_interrupted
from ltm.study.effort import Library
from ltm.study.knowing import design_of
from ltm.study.plan import Forecast, _library_from, plan_key, write_forecast
from ltm.study.rehearsal import Recorder, _line
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
        "books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dialogue", "dashboard"
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


LIBRARY = Library(66, 4e6, 56, 3e6, 10.0, True)


@pytest.fixture
def priced():
    """A forecast of three hours of training."""
    load = Workload(
        n_runs=64, runs_left=64.0, models_to_score=67.0, run_tokens=65_536, n_params=30_000,
        n_workers=2, device="cpu", file_bytes=4e6, train_bytes=3e6, encoded_bytes=3e6, held_out_books=10.0,
        n_variants=64,
    )  # fmt: skip
    costs = Costs(tokens_per_second=65_536 / 300.0, weights_bytes=1e6)
    return Forecast(load, costs, LIBRARY, False)


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
    command[6:6] = [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]  # what is given here wins
    environment = {**os.environ, "LTM_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_study_stops_at_its_budget_and_goes_on_with_a_larger_one(planned, tmp_path):
    refused = ltm_run(tmp_path / "w", tmp_path / "c", "--set", "budget.hours=0.000001")
    assert refused.returncode == 3
    assert "hint" in refused.stderr
    assert not list((tmp_path / "w").glob("runs/*/run.json"))
    assert ltm_run(tmp_path / "w", tmp_path / "c", "--set", "budget.hours=0.000001").returncode == 3  # again
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


def test_runs_under_way_write_a_checkpoint_when_the_budget_is_reached(tmp_path):
    """The forecast is made far too low, so that the study starts and meets its limit while it trains."""
    long = {"sets.book_tokens": 400_000, "runs.checkpoint_seconds": 600, "runs.compile": False}  # compiling outlasts it
    study = small_study(tmp_path / "w", **long)
    study.run("evalset", QUIET)
    costs = Costs(tokens_per_second=1e9, run_seconds=0.0)
    forecast = {"made_for": plan_key(study.settings), "costs": dataclasses.asdict(costs), "stages": [], "watts": 0.0}
    forecast |= {"seconds": 1.0, "seconds_low": 0.5, "seconds_high": 2.0, "n_runs": 14, "n_workers": 2}
    write_json(study.work.path("forecast.json"), forecast)
    more = [part for key, value in long.items() for part in ("--set", f"{key}={value}")]
    stopped = ltm_run(tmp_path / "w", tmp_path / "c", *more, "--accept-changes", "--set", "budget.hours=0.005")
    assert stopped.returncode == 3, stopped.stderr
    assert "the budget is reached" in stopped.stderr
    assert "goes on where it was" in stopped.stderr
    assert len(list((tmp_path / "w").glob("runs/*/checkpoint.safetensors"))) == 2
    assert study.status()["runs"]["stopped"] == 2


def test_a_limit_passed_while_it_works_interrupts_and_says_so():
    from ltm.forecast.section import BudgetSection
    from ltm.study.watch import Watch

    began = time.monotonic()

    def spent(_disk):
        return {"hours": (time.monotonic() - began) / 3600}

    limits = BudgetSection(hours=0.5 / 3600).limits()
    with pytest.raises(BudgetError, match="the budget is reached"), Watch(limits, spent):
        time.sleep(20)
    assert time.monotonic() - began < 5
    with Watch(BudgetSection(hours=1).limits(), spent):
        pass


IGNORED = """
import signal, sys, time
from ltm.errors import BudgetError
from ltm.forecast.section import BudgetSection
from ltm.study.watch import Watch
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
began = time.monotonic()
asked = []
def spent(_disk):
    asked.append(1)
    if len(asked) == 2:
        raise FileNotFoundError("a folder vanished")
    return {"hours": (time.monotonic() - began) / 3600}
try:
    with Watch(BudgetSection(hours=0.5 / 3600).limits(), spent):
        signal.raise_signal(signal.SIGINT)  # stays ignored
        time.sleep(20)
except BudgetError as error:
    print(error)
assert time.monotonic() - began < 10
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""


def test_a_study_in_the_background_stops_at_its_budget_too():
    """A shell starts background commands with SIGINT ignored; and what cannot be measured once is looked at again."""
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", IGNORED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the budget is reached" in done.stdout


def test_a_study_that_is_done_does_not_die_of_an_interrupt_that_comes_late():
    from ltm.forecast.section import BudgetSection
    from ltm.study.watch import Watch

    before = signal.getsignal(signal.SIGINT)
    watch = Watch(BudgetSection(hours=1).limits(), lambda _disk: {"hours": 0.0})
    with watch:
        watch.reached = "a limit"
        watch._over.set()  # the study ends while the thread is about to send
        watch._interrupt(threading.get_ident())
        watch._sent = True
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # or has sent just now
        time.sleep(0.1)
    assert signal.getsignal(signal.SIGINT) is before
    assert not watch._thread.is_alive()


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


def test_history_passes_over_lines_of_wrong_types(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    wrong = ["[1.0, null]", "[2.0]", "7", '["a", "b"]', '"12"', "null", "[[1], 2]", "[1e999, 3]", f"[1{'0' * 400}, 2]"]
    lines = [
        f'{{"machine": "m", "version": "1", "stages": {{"books": {pair}, "runs": [10.0, 12.0]}}}}' for pair in wrong
    ]
    lines += ["[" * 100_000, "7", '{"machine": "m", "version": "1", "stages": [1]}', "1" * 5000]
    (tmp_path / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = history.corrections(history.rows("m", "1"))
    assert set(found) == {"runs"}
    assert found["runs"] > 1.1


def test_a_stored_plan_of_another_ltm_is_not_used(tmp_path, monkeypatch, priced):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    library = dataclasses.asdict(priced.library)
    history.store_plan("k", priced.costs, library)
    assert history.stored_plan("k") == (priced.costs, library)
    path = tmp_path / "plans" / "k.json"
    value = read_json(path)
    for changed in ({**value, "costs": {**value["costs"], "new": 1}}, {**value, "costs": [1]}, {**value, "made_at": 0}):
        write_json(path, changed)
        assert history.stored_plan("k") is None
    assert _library_from(library) == priced.library
    assert _library_from({**library, "new": 1}) is None
    assert _library_from({}) is None
    assert _library_from(None) is None
    os.utime(path, (1, 1))
    history.store_plan("other", priced.costs, library)
    assert [p.name for p in (tmp_path / "plans").iterdir()] == ["other.json"]  # what is too old is deleted


def test_a_plan_is_of_one_study_and_one_library(tmp_path):
    keys = {plan_key(small_study(tmp_path, **change).settings) for change in ({}, {"sets.count": 13}, {"seed": 2})}
    assert len(keys) == 3
    one, other = (small_study(tmp_path, **{"budget.hours": hours}).settings for hours in (1, 2))
    assert plan_key(one) == plan_key(other)
    changes = ({}, {"books.max_books": 30}, {"patterns.redraws": 299}, {"scores.bank": "b"}, {"seed": 2})
    assert len({plan_key(small_study(tmp_path, **change).settings) for change in changes}) == len(changes)


def test_a_forecast_that_stands_takes_the_present_prices_and_knows_what_was_spent(planned, tmp_path):
    work = WorkFolder(tmp_path)
    work.create()
    write_json(work.path("timings.json"), {"stages": {"books": 30.0}, "other": 6.0})
    cheap, dear = (small_study(tmp_path, **{"forecast.usd_per_hour": usd}).settings for usd in (0.0, 36.0))
    history.store_plan(plan_key(cheap), Costs(tokens_per_second=1000.0), dataclasses.asdict(LIBRARY))
    first = write_forecast(cheap, work, None, QUIET)
    assert first["spent_seconds"] == 36.0
    second = write_forecast(dear, work, None, QUIET)
    assert second["seconds"] == first["seconds"]
    assert second["cost_usd"] == pytest.approx(first["cost_usd"] + first["seconds"] / 100)
    assert second == read_json(work.path("forecast.json"))


def test_a_start_that_was_killed_counts_what_it_spent_beside_its_stages(tmp_path):
    work = WorkFolder(tmp_path)
    work.create()
    now = time.time()
    timings = {"stages": {"books": 50.0}, "other": 5.0, "began": now - 100, "before": 20.0}
    timings["current"] = {"stage": "tokens", "started": now - 40}
    write_json(work.path("timings.json"), timings)
    bank_interrupted(work, timings)
    assert timings["stages"]["tokens"] == pytest.approx(40, abs=1)
    assert timings["other"] == pytest.approx(5 + 100 - 30 - 40, abs=1)


def test_disk_that_is_taken_already_is_in_the_middle_of_the_forecast(planned, priced):
    settings = with_budget(planned, disk="5GB")
    row = budget.held(settings.budget, priced.bill(settings), {**NOTHING, "disk": 6e9})[0]
    assert row["forecast"] == row["low"] == row["high"] == 6e9


def test_the_counts_of_a_design_are_known_before_it_is_drawn(planned):
    settings = with_budget(planned, hours=1)
    _, whole = draw(settings.sets, blank_shelf(56), settings.seed)
    counts = {**design_of(settings), "n_sets": sum(design_of(settings)["templates"].values())}
    assert {key: counts[key] for key in ("n_runs", "n_sets", "n_variants", "templates")} == {
        key: whole[key] for key in ("n_runs", "n_sets", "n_variants", "templates")
    }


def test_offers_for_a_large_design_take_moments(planned, priced):
    values = planned[0].settings.model_dump()
    values["sets"].update(count=4000, books_per_set=64)
    settings = type(planned[0].settings).model_validate({**values, "budget": {"hours": 10}})
    large = dataclasses.replace(
        priced, load=dataclasses.replace(priced.load, n_runs=4400, runs_left=4400.0, n_variants=4000)
    )
    began = time.monotonic()
    assert budget.alternatives(settings, large, NOTHING, 2000)
    assert time.monotonic() - began < 15


def test_a_plan_that_is_stopped_leaves_nothing_in_the_temporary_folder(tmp_path):
    for number in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-m", "ltm.cli", "plan", "demo", "--work", str(tmp_path / "w")]
        command += [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]
        folder = tmp_path / "tmp"
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(folder), "LTM_CACHE": str(tmp_path / "c")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            until = time.monotonic() + 120
            while not list(folder.glob("ltm-plan-*/work/runs/probe-*/*")) and time.monotonic() < until:
                time.sleep(0.02)
            assert process.poll() is None
            process.send_signal(number)
            _, text = process.communicate(timeout=60)
        assert process.returncode == 130, text
        time.sleep(0.5)
        assert not list(folder.glob("ltm-plan-*"))


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
