"""Trackers hold what the rows hold, once; and nothing that they do or suffer reaches the study."""

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_study
import wandb_files
import wandb_server
from ltm.progress import Progress
from ltm.records import Measure
from ltm.runs import queue
from ltm.runs.trackers import base, driver, ledger
from ltm.runs.trackers.rows import Rows
from ltm.runs.trackers.section import TrackersSection
from ltm.store import write_rows

CURVE = {"curve_tokens": [512, 2_560, 5_120], "curve_loss": [6.0, 5.5, 4.2]}


class Said(Progress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_study.finished(tmp_path_factory.mktemp("tracked") / "w", n_complete=0)


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made.work.root, tmp_path / "w")
    study = tiny_study.load(tmp_path / "w")
    for job in study.jobs()[:4]:
        tiny_study.write_run(study, job, **CURVE)
    return study


def score(study, value=0.25):
    rows = [
        Measure(job.run_id, "linking", "L1", value, math.nan, 0.1, 0.2, 5)
        for job in study.jobs()
        if queue.read_run(study.work, job.run_id)
    ]
    write_rows(study.work.path("scores", "measures.parquet"), rows, Measure)


def follow(study, body=lambda: None, patience=60.0, **chosen):
    """Follow a study with trackers while `body` runs; returns what was said."""
    said = Said()
    page = study.work.path("page.html")
    section = TrackersSection(**chosen, patience_seconds=patience)
    with driver.following(section, "demo", study.work, page, said):
        body()
    return said.lines


def finish(study):
    """Finish all runs, score them and make a page, as a study does while it is followed."""
    for job in study.jobs():
        tiny_study.write_run(study, job, **CURVE)
    score(study)
    study.work.path("page.html").write_text("<p>all</p>")


def rows_of(study):
    return {job.run_id: queue.read_run(study.work, job.run_id) for job in study.jobs()}


def test_rows_become_runs_without_paths_or_hosts(study):
    score(study)
    rows = Rows(study.work, study.work.path("page.html"))
    ids = [run_id for run_id, _ in rows.pending({})]
    assert ids == [job.run_id for job in study.jobs()[:4]]
    run = rows.run(ids[0])
    assert run.curve == list(zip(CURVE["curve_tokens"], CURVE["curve_loss"], strict=True))
    assert run.key.startswith(ids[0])
    assert (run.config["runs.lr"], len(run.config["books"])) == (0.004, 5)
    assert run.summary["scores/linking/L1"] == 0.25
    assert "scores/linking/L1/accuracy" not in run.summary  # NaN is no number
    text = json.dumps([run.config, rows.study()[0].config])
    assert str(study.work.root) not in text
    assert os.uname().nodename not in text


def test_a_copy_is_due_again_when_its_scores_come(study):
    rows = Rows(study.work, study.work.path("page.html"))
    fed = dict(rows.pending({}))
    assert list(rows.pending(fed)) == []
    score(study)
    assert {run_id for run_id, _ in rows.pending(fed)} == set(fed)


def test_wandb_offline_files_are_complete(study):
    pytest.importorskip("wandb")
    lines = follow(study, lambda: finish(study), wandb=True)
    assert not [line for line in lines if line.startswith("warning")]
    files = sorted(study.work.path("trackers", "wandb", "wandb").glob("offline-run-*/*.wandb"))
    runs = {run["config"].get("run_id", "study"): run for run in map(wandb_files.read_run, files)}
    rows = rows_of(study)
    assert len(files) == len(rows) + 1
    assert set(runs) == {*rows, "study"}
    for run_id, row in rows.items():
        run = runs[run_id]
        assert [(p["tokens"], p["loss"]) for p in run["points"]] == list(
            zip(row.curve_tokens, row.curve_loss, strict=True)
        )
        assert [p["_step"] for p in run["points"]] == row.curve_tokens
        assert (run["group"], run["project"], run["exit_code"]) == ("demo", "demo", 0)
        assert run["config"]["runs.lr"] == 0.004
        assert run["config"]["weights_sha256"] == row.weights_sha256
        assert len(run["config"]["books"]) == 5
        assert run["summary"]["final_loss"] == row.final_loss
        assert run["summary"]["scores/linking/L1"] == 0.25
    assert runs["study"]["artifacts"] == [("dashboard", "demo-dashboard")]
    assert runs["study"]["summary"]["complete"] == len(rows)


def test_a_second_start_hands_over_only_what_is_new(study):
    pytest.importorskip("tensorboard")
    finish(study)
    follow(study, tensorboard=True)
    folder = study.work.path("trackers", "tensorboard")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("events*")}
    began = time.monotonic()
    assert follow(study, tensorboard=True) == []
    assert time.monotonic() - began < 0.5  # no process was started
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("events*")} == before
    score(study, 0.75)
    follow(study, tensorboard=True)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("events*")}
    assert set(after) == set(before)
    assert all(after[path] > before[path] for path in before if "study" not in str(path.parent.name))


def test_tensorboard_events_are_read_back(study):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    follow(study, lambda: finish(study), tensorboard=True)
    folder = study.work.path("trackers", "tensorboard", "demo")
    rows = rows_of(study)
    assert len(list(folder.iterdir())) == len(rows) + 1
    for run_id, row in rows.items():
        found = event_accumulator.EventAccumulator(str(next(folder.glob(f"{run_id}-*"))))
        found.Reload()
        points = found.Scalars("loss")
        assert [p.step for p in points] == row.curve_tokens
        assert [p.value for p in points] == pytest.approx(row.curve_loss)
        assert found.Scalars("scores/linking/L1")[0].value == 0.25
        text = found.Tensors("config/text_summary" if "config/text_summary" in found.Tags()["tensors"] else "config")
        assert b"runs.lr | 0.004" in text[0].tensor_proto.string_val[0]
        assert "_hparams_/session_start_info" in found.summary_metadata


@pytest.mark.slow
def test_wandb_online_sends_every_point_once(study, monkeypatch):
    pytest.importorskip("wandb")
    with wandb_server.WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        assert [x for x in follow(study, wandb={"mode": "online"}) if "warning" in x] == []
        for job in study.jobs():
            tiny_study.write_run(study, job, **CURVE)
        score(study)
        assert [x for x in follow(study, wandb={"mode": "online"}) if "warning" in x] == []
    for run_id, row in rows_of(study).items():
        sent = next(value for key, value in server.runs.items() if key.startswith(run_id))
        assert [(p["tokens"], p["loss"]) for _, p in sorted(sent["history"].items())] == list(
            zip(row.curve_tokens, row.curve_loss, strict=True)
        )
        assert sent["group"] == "demo"
        assert sent["config"]["runs.lr"]["value"] == 0.004
        assert sent["summary"]["scores/linking/L1"] == 0.25
    assert len(server.runs) == len(study.jobs()) + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
@pytest.mark.filterwarnings("ignore:The ``noload``")
def test_mlflow_store_is_read_back(study):
    tracking = pytest.importorskip("mlflow.tracking")
    finish(study)
    follow(study, mlflow=True)
    score(study, 0.75)  # scored anew: the same runs, no points twice
    follow(study, mlflow=True)
    path = study.work.path("trackers", "mlflow", "mlflow.db")
    client = tracking.MlflowClient(f"sqlite:///{path}")
    experiment = client.get_experiment_by_name("demo")
    found = client.search_runs([experiment.experiment_id])
    by_id = {run.data.tags.get("ltm.run_id", "study"): run for run in found}
    rows = rows_of(study)
    assert len(found) == len(rows) + 1
    for run_id, row in rows.items():
        run = by_id[run_id]
        points = client.get_metric_history(run.info.run_id, "loss")
        assert [(p.step, p.value) for p in points] == list(zip(row.curve_tokens, row.curve_loss, strict=True))
        assert run.data.params["runs.lr"] == "0.004"
        assert run.data.metrics["scores/linking/L1"] == 0.75
        assert run.info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(by_id["study"].info.run_id)] == ["page.html"]


@pytest.mark.slow
def test_trackio_database_is_read_back(study):
    pytest.importorskip("trackio")
    finish(study)
    follow(study, trackio=True)
    fed = study.work.path("trackers", "trackio", "fed.jsonl")
    fed.unlink()  # as after a kill between the tracker's write and ours
    follow(study, trackio=True)
    with sqlite3.connect(study.work.path("trackers", "trackio", "demo.db")) as database:
        points = database.execute("select run_id, step, metrics from metrics order by id").fetchall()
        configs = dict(database.execute("select run_id, config from configs").fetchall())
    for run_id, row in rows_of(study).items():
        key = next(key for key in configs if key.startswith(run_id))
        own = [(step, json.loads(metrics)) for name, step, metrics in points if name == key]
        curve = [(step, m["loss"]) for step, m in own if "loss" in m]
        assert curve == list(zip(row.curve_tokens, row.curve_loss, strict=True))
        assert [m["scores/linking/L1"] for _, m in own if "scores/linking/L1" in m] == [0.25]
        config = json.loads(configs[key])
        assert (config["_Group"], config["runs.lr"]) == ("demo", 0.004)


@pytest.mark.slow
def test_a_killed_tracker_leaves_no_run_twice(study):
    pytest.importorskip("wandb")
    finish(study)
    follow(study, wandb=True)
    folder = study.work.path("trackers", "wandb")
    lines = (folder / "fed.jsonl").read_text().splitlines()
    (folder / "fed.jsonl").write_text("\n".join(lines[:2]) + '\n{"run_id": "cut sh')  # killed while it wrote
    half = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))[-1]
    half.write_bytes(half.read_bytes()[:60])
    follow(study, wandb=True)
    files = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    ids = [wandb_files.read_run(path)["id"] for path in files]
    assert len(ids) == len(set(ids)) == len(study.jobs()) + 1
    assert len(ledger.read(folder / "fed.jsonl")) == len(ids)


@pytest.mark.slow
def test_a_tracker_that_fails_is_said_and_fails_nothing(study, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "a file").write_text("in the way")
    done = []
    lines = follow(study, lambda: (finish(study), done.append(True)), tensorboard={"folder": str(tmp_path / "a file")})
    assert done == [True]
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert f"tensorboard did not take {len(study.jobs())} runs" in warning
    assert "the study itself is whole" in warning
    assert "Error" in warning
    follow(study, tensorboard=True)  # mended: the next start hands all over
    assert len(ledger.read(study.work.path("trackers", "tensorboard", "fed.jsonl"))) == len(study.jobs()) + 1


@pytest.mark.slow
def test_a_tracker_that_hangs_is_given_up(study, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setattr(driver, "_STARTS", 1)
    finish(study)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        entered = []
        began = time.monotonic()
        lines = follow(study, lambda: entered.append(time.monotonic() - began), patience=2.0, mlflow={"uri": uri})
    assert entered[0] < 1.0  # the study did not wait to begin
    assert time.monotonic() - began < 45
    assert any("no answer for 2 s" in line and "the study itself is whole" in line for line in lines)


@pytest.mark.slow
def test_an_interrupted_study_does_not_wait(study):
    pytest.importorskip("wandb")
    began = []

    def interrupt():
        began.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(study, interrupt, wandb=True)
    assert time.monotonic() - began[0] < 8
    finish(study)
    follow(study, wandb=True)
    assert len(ledger.read(study.work.path("trackers", "wandb", "fed.jsonl"))) == len(study.jobs()) + 1


def test_a_missing_package_is_said_with_the_line_that_installs_it(study, monkeypatch):
    monkeypatch.setitem(base.NEEDS, "wandb", ("a_package_that_nobody_has",))
    lines = follow(study, wandb=True)
    assert lines == ["warning: the tracker wandb is not installed, and gets nothing: pip install 'ltm[wandb]'"]
    checked = tiny_study.load(study.work.root, **{"trackers.wandb": True})
    notes = checked.notes()
    assert notes.problems == []
    assert any("trackers.wandb` is not installed" in w and "pip install 'ltm[wandb]'" in w for w in notes.warnings)


def test_online_without_a_key_is_a_warning(study, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    checked = tiny_study.load(study.work.root, **{"trackers.wandb": {"mode": "online"}})
    assert any("there is no key here: wandb login; nearest: offline" in w for w in checked.notes().warnings)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"wandb": {"mode": "onlin"}}, "nearest: online"),
        ({"wandb": {"projekt": "x"}}, "did you mean `project`"),
        ({"wanddb": True}, "did you mean `wandb`"),
        ({"wandb": {"project": "a/b"}}, "trackers.wandb.project"),
        ({"wandb": 3}, "trackers.wandb"),
        ({"patience_seconds": 0}, "patience_seconds"),
    ],
)
def test_wrong_settings_are_named(wrong, words, tmp_path):
    from ltm.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        tiny_study.load(tmp_path, trackers=wrong)
    assert words in str(error.value)


def test_trackers_import_nothing_until_they_are_asked_for():
    code = (
        "import sys, ltm.study; print([n for n in ('wandb', 'mlflow', 'trackio', 'tensorboard') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_the_feeder_goes_away_with_its_study(study):
    pytest.importorskip("tensorboard")
    code = (
        "import sys, time, tiny_study\n"
        "from pathlib import Path\n"
        "from ltm.progress import Progress\n"
        "from ltm.runs.trackers.driver import following\n"
        "from ltm.runs.trackers.section import TrackersSection\n"
        "study = tiny_study.load(Path(sys.argv[1]))\n"
        "section = TrackersSection(tensorboard=True)\n"
        "with following(section, 'demo', study.work, study.work.path('page.html'), Progress(quiet=True)):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(study.work.root)], stdout=subprocess.PIPE, text=True, env=env
    )
    assert parent.stdout.readline() == "ready\n"
    fed = study.work.path("trackers", "tensorboard", "fed.jsonl")
    deadline = time.monotonic() + 40
    while len(ledger.read(fed)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=False)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    time.sleep(0.5)
    alive = [pid for pid in children.stdout.split() if _lives(pid)]
    assert children.stdout.split()
    assert alive == []


def test_a_study_follows_its_trackers_itself(study):
    """The one line in `Study.run` that all of this hangs on."""
    pytest.importorskip("tensorboard")
    own = tiny_study.load(study.work.root, **{"trackers.tensorboard": True})
    own.run(until="tokens", progress=Progress(quiet=True))
    assert len(ledger.read(study.work.path("trackers", "tensorboard", "fed.jsonl"))) == 4 + 1
