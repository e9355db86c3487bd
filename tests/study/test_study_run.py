"""A whole study on real books: nothing lost when it is killed, nothing found in noise, damaged books found."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ltm
from ltm.progress import Progress
from ltm.records import Measure, Shard
from ltm.store import read_json, read_rows, write_rows
from shuffled import shuffled_words

SMALL = {
    "sets.count": 24, "sets.books_per_set": 8, "sets.book_tokens": 1024, "sets.shares.seeds": 0.1,
    "sets.shares.single": 0.4, "sets.shares.order": 0.25, "sets.shares.gaps": 0.25, "sets.passage_tokens": 64,
    "tokens.vocab_size": 400, "tokens.sample_bytes": 200_000, "model.size": "llama-0.1m", "model.n_embd": 32,
    "model.block_size": 128, "runs.batch_tokens": 256, "runs.workers": 2, "runs.checkpoint_seconds": 0.3,
    "evalset.items_per_family": 12, "evalset.context_words": 40, "patterns.redraws": 199,
}  # fmt: skip


def run_study(work, progress=None, **changes):
    study = ltm.load("demo", {**SMALL, **changes}, work=str(work))
    return study, study.run(progress=progress or Progress(quiet=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    work = tmp_path_factory.mktemp("study")
    study, result = run_study(work)
    assert result["failed_runs"] == {}
    return study


def test_every_stage_left_its_rows(finished):
    status = finished.status()
    assert set(status["stages"].values()) == {"complete"}
    assert status["runs"]["complete"] == len(finished.jobs())
    assert (status["eta_seconds"], status["working_on"]) == (0.0, None)
    assert status["elapsed_seconds"] > 0
    page = finished.work.path("ltm_result_dashboard.html").read_text(encoding="utf-8")
    assert "King James Bible" in page
    bank_a = finished.work.path("evalset", "bank_a.parquet")
    assert bank_a.stat().st_size > 1000


def test_running_again_does_nothing_and_is_fast(finished):
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "ltm.cli", "run", "demo", "--work", str(finished.work.root)]
        + [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "nothing to do" in done.stdout
    assert time.time() - start < 5 * (2 if os.getloadavg()[0] > 2 else 1)


def test_reports_answer_without_repeating_the_settings(finished):
    def answer(*arguments):
        command = [sys.executable, "-m", "ltm.cli", *arguments, "--work", str(finished.work.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    count = json.loads(answer("sql", "demo", "select count(*) as n from scores", "--json"))[0]["n"]
    cells = json.loads(answer("sql", "demo", "select sum(len(contexts)) as n from items where bank = 'a'", "--json"))
    assert count == cells[0]["n"] * len(finished.jobs())
    patterns = json.loads(answer("patterns", "demo", "--json"))
    assert {"kind", "name", "ability", "estimate", "low", "high", "p", "q"} <= set(patterns["effects"][0])
    assert {e["kind"] for e in patterns["effects"]} <= {"book", "feature", "order", "gap", "interaction"}
    assert patterns["top"][0]["run_id"] in {job.run_id for job in finished.jobs()}
    assert json.loads(answer("status", "demo", "--json"))["runs"]["complete"] == len(finished.jobs())
    run_id = finished.jobs()[0].run_id
    assert json.loads(answer("show", "demo", run_id, "--json"))["state"] == "complete"


def test_other_settings_in_the_same_folder_are_asked_about(finished):
    changed = ltm.load("demo", {**SMALL, "runs.lr": 0.002}, work=str(finished.work.root))
    with pytest.raises(ltm.errors.InputError, match="runs.lr: 0.004 -> 0.002"):
        changed.run(progress=Progress(quiet=True))
    assert finished.status()["runs"]["complete"] == len(finished.jobs())


def test_killed_at_random_moments_it_ends_with_the_same_findings(finished, tmp_path):
    """kill -9 of the whole process tree, again and again; the findings must be the same bytes."""
    command = [sys.executable, "-m", "ltm.cli", "run", "demo", "--quiet", "--work", str(tmp_path)]
    command += [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]
    moments = random.Random(5)
    log = tmp_path / "log"
    kills, code = 0, None
    while code is None:
        with open(log, "wb") as stderr:
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr)
            deadline = time.time() + 120  # the first start rehearses first; the moments are for the stages
            while not (tmp_path / "forecast.json").exists() and process.poll() is None and time.time() < deadline:
                time.sleep(0.05)
            try:
                code = process.wait(timeout=moments.uniform(1, 4) if kills < 6 else 300)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
    assert code == 0, log.read_text()
    assert kills >= 2
    for name in ("patterns/findings.json", "scores/measures.parquet", "patterns/effects.parquet"):
        assert (tmp_path / name).read_bytes() == finished.work.path(*name.split("/")).read_bytes()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 3], lambda data: b"?" + data[1:], None])
def test_a_damaged_text_is_made_again_from_its_book(finished, tmp_path, damage):
    work = tmp_path / "work"
    shutil.copytree(finished.work.root, work)
    used = read_rows(finished.work.path("tokens", "shards.parquet"), Shard)[0].book_id
    path = work / "books" / "text" / used[:2] / f"{used}.txt"
    good = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(good))
    shutil.rmtree(work / "tokens")
    _, result = run_study(work)
    assert path.read_bytes() == good
    assert result["failed_runs"] == {}
    assert (work / "patterns/findings.json").read_bytes() == (finished.work.path("patterns/findings.json")).read_bytes()


def test_lost_runs_are_seen_as_lost(finished, tmp_path):
    from ltm.runs import queue
    from ltm.store import WorkFolder

    work = WorkFolder(tmp_path)
    (tmp_path / "runs" / "abc").mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    queue.write_json(
        work.path("runs", "abc", "heartbeat.json"),
        {"state": "running", "step": 3, "n_steps": 9, "pid": process.pid, "host": os.uname().nodename},
    )
    assert queue.state_of(work, "abc") == "running"
    process.kill()
    process.wait()
    assert queue.state_of(work, "abc") == "lost"


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "ltm.cli", "run", "demo", "--work", str(tmp_path)]
    command += [part for k, v in {**SMALL, "sets.book_tokens": 60_000}.items() for part in ("--set", f"{k}={v}")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while time.time() < deadline and not list(tmp_path.glob("runs/*/checkpoint.safetensors")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    started = time.time()
    _, stderr = process.communicate(timeout=60)
    assert time.time() - started < 15
    assert process.returncode == 130
    assert "nothing is lost" in stderr
    status = ltm.load("demo", {**SMALL, "sets.book_tokens": 60_000}, work=str(tmp_path)).status()
    assert status["runs"]["stopped"] == 2


def test_a_study_of_noise_finds_nothing(finished, tmp_path):
    """The scores of a real study are replaced by noise twenty times; claims may come once in ten at most."""
    import shutil

    from ltm.patterns.stage import build

    claims = 0
    shutil.copytree(finished.work.root, tmp_path / "w")
    from ltm.store import WorkFolder

    work = WorkFolder(tmp_path / "w")
    path = work.path("scores", "measures.parquet")
    rows = read_rows(path, Measure)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = [
            Measure(r.run_id, r.ability, r.family, float(rng.normal()), 0.5, *rng.normal(size=2).tolist(), r.n_items)
            for r in rows
        ]
        write_rows(path, noise, Measure)
        _admit_everything(work)
        build(finished.settings.patterns, work, seed, Progress(quiet=True))
        claims += any(f["claimed"] for f in read_json(work.path("patterns", "findings.json"))["findings"])
    assert claims <= 5  # binomial(20, 0.10): more than 5 has a chance of 1 %


def _admit_everything(work):
    import dataclasses

    from ltm.records import Reliability

    path = work.path("scores", "reliability.parquet")
    rows = [dataclasses.replace(r, admitted=True, seed_sd=1.0, reason="") for r in read_rows(path, Reliability)]
    write_rows(path, rows, Reliability)


def test_damaged_books_are_found(tmp_path, kjv_texts):
    """60 real books, 10 of them with their words in random order: real training must point at those ten."""
    work, library = tmp_path / "w", tmp_path / "books"
    library.mkdir()
    long_enough = sorted(kjv_texts, key=lambda title: -len(kjv_texts[title]))[:60]
    rng = np.random.default_rng(3)
    held_out = set(rng.choice(long_enough[:30], 6, replace=False))
    damaged = set(rng.choice([t for t in long_enough if t not in held_out], 10, replace=False))
    with open(library / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "language", "title", "author"])
        for title in long_enough:
            name = title.replace(" ", "_") + ".txt"
            text = kjv_texts[title]
            (library / name).write_text(shuffled_words(text, 1) if title in damaged else text, encoding="utf-8")
            table.writerow([name, "en", title, f"Author of {title}"])
    changes = {
        "books.path": str(library), "books.held_out_authors": [f"Author of {t}" for t in sorted(held_out)],
        "books.min_words": 100, "books.dedupe": False, "sets.count": 70, "sets.books_per_set": 6,
        "sets.book_tokens": 8000, "sets.base_order": "shuffled", "sets.contrast_orders": ["random"],
        "sets.shares.single": 0.9, "sets.shares.seeds": 0.1, "sets.shares.order": 0.0, "sets.shares.gaps": 0.0,
        "tokens.vocab_size": 512, "tokens.sample_bytes": 400_000, "model.size": "llama-0.1m", "model.n_embd": 48,
        "model.block_size": 64, "runs.batch_tokens": 512, "runs.lr": 3e-3, "runs.checkpoint_seconds": 60,
        "evalset.items_per_family": 40, "patterns.redraws": 1999,
    }  # fmt: skip
    study, result = run_study(work, **changes)
    assert result["failed_runs"] == {}
    from ltm.patterns.stage import report

    effects = [e for e in report(study.work)["effects"] if e["kind"] == "book" and e["ability"] == "fluency"]
    harm = {e["label"]: -e["estimate"] for e in effects}
    bad, good = ([v for t, v in harm.items() if (t in damaged) == side] for side in (True, False))
    assert len(bad) == 10
    assert len(good) >= 40
    assert np.mean([b > g for b in bad for g in good]) >= 0.85  # .96 where this was written
    worst = sorted(harm, key=lambda title: -harm[title])[:5]
    assert len(damaged.intersection(worst)) >= 4  # by chance: one in a thousand
    # sound books differ too (letters and sayings from the held-out histories), but most that is claimed is damage
    harmful = {e["label"] for e in effects if e["claimed"] and e["estimate"] < 0}
    assert len(harmful & damaged) >= 5
    assert len(harmful & damaged) > len(harmful - damaged)
