"""What a user gets for bad input: a message with its place, exit code 2, no traceback, nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ltm(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "ltm.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert "Traceback" not in done.stderr
    return done


def study(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\n" + text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("books: {path: /no/such/folder}\n", "no such folder of books: /no/such/folder"),
        ("sets: {books_per_set: 67}\n", ":2:8: `sets.books_per_set` is 67, but the library has 66 files"),
        (
            "runs: {batch_tokens: 1000}\n",
            "`runs.batch_tokens` is 1000, not a multiple of the block size 256; nearest: 1024",
        ),
        ("setz: {}\n", ":2:1: unknown key `setz`; did you mean `sets`?"),
        ("seed: 1\nseed: 2\n", ':3:1: found duplicate key "seed"'),
        ("sets: {count: many}\n", "`sets.count` not a count: 'many'"),
        ("sets: {book_tokens: 64, books_per_set: 3}\n", "steps for 192 tokens a run; at least 10"),
        ("evalset: {path: none.yaml}\n", "`evalset.path` no such file: none.yaml"),
        ("runs: {device: cuda}\n", "`runs.device` runs.device is cuda, but PyTorch sees no GPU here"),
        ("model: {n_head: 5}\n", "n_head 5 does not divide n_embd 96; nearest: 4"),
    ],
)
def test_check_names_place_and_remedy(tmp_path, text, expected):
    if "cuda" in text:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    path = study(tmp_path, text)
    done = ltm("check", path)
    assert done.returncode == 2
    assert expected in done.stderr
    refused = ltm("run", path, "--work", tmp_path / "w")
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert not (tmp_path / "w" / "runs").exists()


def test_check_as_json_is_one_document(tmp_path):
    done = ltm("check", study(tmp_path, "setz: {}\n"), "--json")
    assert json.loads(done.stdout)["ok"] is False
    good = ltm("check", study(tmp_path, ""), "--json")
    assert (good.returncode, json.loads(good.stdout)) == (0, {"ok": True, "problems": []})


@pytest.mark.parametrize("name", ["demo.yaml", "ltm_bruteforce_pipeline.yaml"])
def test_the_studies_that_come_with_ltm_are_fine(name):
    assert ltm("check", ROOT / "studies" / name).returncode == 0


def test_packaged_studies_are_found_by_name(tmp_path):
    assert ltm("check", "demo", cwd=tmp_path).returncode == 0
    unknown = ltm("check", "dmo", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "demo, ltm_bruteforce_pipeline" in unknown.stderr


def test_an_empty_library_is_said(tmp_path):
    (tmp_path / "books").mkdir()
    path = study(tmp_path, f"books: {{path: {tmp_path / 'books'}}}\nsets: {{books_per_set: 1}}\n")
    done = ltm("run", path, "--work", tmp_path / "w")
    assert done.returncode == 2
    assert "0 files" in done.stderr or "no usable book" in done.stderr


def test_init_writes_a_study_that_is_fine_and_is_never_overwritten(tmp_path):
    assert ltm("init", "mine", cwd=tmp_path).returncode == 0
    assert ltm("check", "mine.yaml", cwd=tmp_path).returncode == 0
    assert "exists already" in ltm("init", "mine", cwd=tmp_path).stderr
    assert "cannot name a study" in ltm("init", "a/b", cwd=tmp_path).stderr


def test_status_of_a_study_that_was_never_run(tmp_path):
    done = ltm("status", "demo", "--json", "--work", tmp_path / "w")
    value = json.loads(done.stdout)
    assert set(value["runs"]) == {"waiting", "running", "complete", "failed", "lost", "stopped"}
    assert value["eta_seconds"] is None
    assert value["elapsed_seconds"] == 0


def test_plan_says_time_money_and_power_before_anything_is_trained(tmp_path):
    value = json.loads(ltm("plan", "demo", "--json", "--work", tmp_path / "w").stdout)
    assert 0 < value["seconds_low"] < value["seconds"] < value["seconds_high"]
    assert {s["stage"] for s in value["stages"]} >= {"books", "tokens", "runs", "scores", "patterns"}
    assert value["disk_bytes"] > 0
    assert value["cost_usd_range"][0] < value["cost_usd"] < value["cost_usd_range"][1]
    assert value["power"]["n_books"] == 56
    assert not (tmp_path / "w").exists() or not any((tmp_path / "w").glob("runs/*"))


def test_help_is_fast_and_without_torch():
    code = (
        "import sys, time; t = time.time(); import ltm.cli; ltm.cli._parser().format_help(); "
        "print(time.time() - t, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    seconds, torch, pydantic = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (torch, pydantic) == ("False", "False")
    assert float(seconds) < 0.3
