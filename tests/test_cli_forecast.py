"""`ltm forecast` as a user meets it: one JSON document, files, exit codes, hints, half a second, no PyTorch."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltm.cli import main

ROOT = Path(__file__).parents[1]
THROUGHPUT = ROOT / "src/ltm/forecast/data/throughput.csv"


def _json(capsys, *arguments: str):
    assert main(["forecast", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def _error(capsys, *arguments: str) -> str:
    assert main(["forecast", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_a_question_in_words_and_in_json(capsys):
    assert main(["forecast", "--model", "1.3b", "--tokens", "10B", "--gpu", "H100", "--gpus", "8"]) == 0
    text = capsys.readouterr().out
    assert "8 x H100 SXM" in text
    assert "limit" in text
    found = _json(capsys, "--model", "1.3b", "--tokens", "10B", "--gpu", "H100", "--gpus", "8")
    assert found["n_devices"] == 8
    assert found["tokens_per_second"]["low"] < found["tokens_per_second"]["value"]


def test_flags_before_a_verb_stay_in_force(capsys):
    found = _json(capsys, "--gpu", "RTX 4090", "table", "train", "--model", "125m")
    assert found["settings"]["gpu"] == "GeForce RTX 4090"


@pytest.mark.parametrize("name", ["train", "books", "speedups", "feasible"])
def test_tables_in_every_form(capsys, tmp_path, name):
    document = _json(capsys, "table", name)
    assert document["table"] == name
    assert main(["forecast", "table", name]) == 0
    assert main(["forecast", "table", name, "--csv", "-"]) == 0
    assert main(["forecast", "table", name, "--markdown"]) == 0
    capsys.readouterr()
    path = tmp_path / "table.csv"
    assert main(["forecast", "table", name, "--csv", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(_read(path)) == len(document["rows"])


def test_a_campaign_with_its_own_flags(capsys):
    found = _json(capsys, "table", "campaign", "--variants", "20", "--seeds", "2", "--top", "3", "--replicates", "10")
    assert found["settings"]["variants"] == 20
    assert [row["n_cards"] for row in found["rows"]] == [1, 8, 64, 1000]


def test_html_of_a_table(capsys, tmp_path):
    path = tmp_path / "page.html"
    assert main(["forecast", "table", "train", "--model", "125m,355m", "--html", str(path)]) == 0
    assert "<html" in path.read_text(encoding="utf-8")
    assert main(["forecast", "page", str(path), "--language", "ru"]) == 0
    assert 'lang="ru"' in path.read_text(encoding="utf-8")


def test_claims_with_and_without_a_file(capsys, tmp_path):
    assert len(_json(capsys, "--claim")["rows"]) == 8
    path = tmp_path / "claims.csv"
    path.write_text("model,gpu,tokens,claimed_low_hours\n125m,RTX PRO 6000,10B,1\n")
    found = _json(capsys, "--claim", str(path))
    assert found["rows"][0]["verdict"].startswith("impossible: 4.1 times")


def test_rows_come_back_with_forecasts(capsys):
    assert main(["forecast", "rows", str(THROUGHPUT), "--csv"]) == 0
    captured = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(captured.out)))
    given = _read(THROUGHPUT)
    assert len(found) == len(given)
    for row, origin in zip(found, given, strict=True):
        assert {key: row[key] for key in origin} == origin
        if row["forecast_tokens_per_s"]:
            low, mid, high = (float(row["forecast_tokens_per_s" + end]) for end in ("_low", "", "_high"))
            assert low < mid < high
            assert float(row["forecast_peak_mem_gib_low"]) < float(row["forecast_peak_mem_gib_high"])
            assert row["limited_by"]
        else:
            assert row["reason"]


def test_rows_from_standard_input_to_a_file(tmp_path):
    text = "model_name,gpu,n_gpu,seq_len,tokens_per_s_total\nLlama-2-7b,A100 SXM 80GB,8,4096,123\nx,RTX 9999,1,1,\n"
    out = tmp_path / "out.csv"
    done = subprocess.run(
        [sys.executable, "-m", "ltm.cli", "forecast", "rows", "-", "--csv", "--out", str(out)],
        input=text, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == ""
    assert "1 of 2 rows have no forecast" in done.stderr
    good, bad = _read(out)
    assert float(good["forecast_tokens_per_s"]) > 1000
    assert "unknown card" in bad["reason"]


def test_measured_columns_are_not_read(tmp_path, capsys):
    head = "model_name,gpu,n_gpu,seq_len,micro_batch,tokens_per_s_total,peak_mem_gib,mfu\n"
    answers = []
    for measured in ("1,1,0.01", "99999,79,0.9", ",,"):
        path = tmp_path / "rows.csv"
        path.write_text(head + f"Llama-2-7b,A100 SXM 80GB,8,4096,1,{measured}\n")
        assert main(["forecast", "rows", str(path), "--csv"]) == 0
        answers.append(next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["forecast_tokens_per_s"])
    assert len(set(answers)) == 1


def test_inference(capsys):
    found = _json(capsys, "inference", "--model", "3b", "--quant", "q4", "--rag-passages", "8", "--gpu", "RTX 3060")
    assert found["fits"]
    assert found["settings"]["rag_tokens"] == 250e6
    assert main(["forecast", "inference"]) == 0
    assert "first word" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "RTX 9999"], "give its data sheet"),
        (["--tokens", "0"], "--tokens is 0"),
        (["table", "trian"], "nearest: train"),
        (["table"], "which table?"),
        (["table", "train", "--variants", "3"], "belongs to the table `campaign`"),
        (["--claim", "nosuch.csv"], "cannot read"),
        (["rows", "nosuch.csv", "--csv"], "cannot read"),
        (["inference", "--quant", "q3"], "nearest: "),
        (["inference", "--gpu", "RTX 9999", "--model", "nosuch"], "unknown model"),
        (["calibrate", "--seconds", "0"], "give 5 to 600"),
        (["--model", "/nosuch/config.json"], "cannot read"),
        (["--html", "nosuch/page.html"], "the folder nosuch does not exist"),
        (["table", "train", "--csv", "-", "--html", "nosuch/page.html"], "the folder nosuch does not exist"),
        (["table", "train", "--csv", "nosuch/table.csv"], "the folder nosuch does not exist"),
        (["rows", str(THROUGHPUT), "--out", "nosuch/rows.csv"], "the folder nosuch does not exist"),
        (["page", "nosuch/page.html"], "the folder nosuch does not exist"),
        (["page", "."], ". is a folder"),
        (["--gpus", "8", "--gpus-per-node", "3"], "nearest: --gpus-per-node 2 or 4"),
    ],
)
def test_mistakes_exit_with_2_and_a_hint(capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in _error(capsys, *arguments)
    assert not (tmp_path / "nosuch").exists()


def test_calibrate_measures_what_is_asked_and_prints_what_it_found(capsys, monkeypatch):
    from ltm.forecast.machine import Machine
    from ltm.forecast.machine_work import CLASSES, CONSTANTS
    from ltm.runs import calibrate

    asked = []

    def probe(seconds, progress, with_compiler, device):
        asked.append((seconds, with_compiler, device))
        return Machine(
            fingerprint="1234", device=device, made_at="", probe_seconds=seconds, n_workers=1,
            description={"processor": "A processor", "cores": 1, "memory_gib": 1, "torch": "2"},
            constants={"float32": dict.fromkeys(CONSTANTS, 1e-9)},
            multipliers={"float32": dict.fromkeys(CLASSES, 1.0)}, contention={}, memory={"framework_bytes": 1e8},
            residuals={"step": [0.1], "busy": [], "memory": [0.1], "compiled": []},
            costs={"compile_seconds": 20.0}, rates={"matmul_float32_64_flops_per_second": 5e10},
        )  # fmt: skip

    monkeypatch.setattr(calibrate, "calibrate", probe)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert main(["forecast", "calibrate", "--seconds", "9", "--compile"]) == 0
    text = capsys.readouterr().out
    assert "tokens/s of one worker" in text
    assert "matmul float32 64: 50.0 GFLOP/s" in text
    assert "compile seconds: 20 s" in text
    assert "next: ltm forecast" in text
    assert len(_json(capsys, "calibrate", "--device", "cpu")["machines"]) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["forecast", "calibrate"]) == 0
    assert asked == [(9, True, "cpu"), (9, True, "cuda"), (60, False, "cpu"), (60, False, "cpu")]


def test_a_gpu_that_is_not_there_cannot_be_calibrated(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = _error(capsys, "calibrate", "--device", "cuda")
    assert "PyTorch sees no GPU" in said
    assert "use --device cpu" in said


def test_unknown_flags_and_verbs_are_refused(capsys):
    for arguments in (["--no-such-flag"], ["frobnicate"], ["--mod", "125m"]):
        with pytest.raises(SystemExit) as caught:
            main(["forecast", *arguments])
        assert caught.value.code == 2
    capsys.readouterr()


def test_rows_that_are_no_table_are_explained(capsys, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    assert "no column `gpu`" in _error(capsys, "rows", str(path))
    path.write_text("model_name,gpu\n1,2,3\n")
    assert "more cells" in _error(capsys, "rows", str(path))
    path.write_bytes("model_name,gpu\nкнига,x\n".encode("cp1251"))
    assert "UTF-8" in _error(capsys, "rows", str(path))


def test_a_forecast_takes_half_a_second_and_imports_nothing_heavy():
    code = (
        "import sys; from ltm.cli import main; main(['forecast', '--model', '1.3b']); "
        "heavy = {'torch', 'pydantic', 'scipy', 'pyarrow', 'duckdb'} & set(m.split('.')[0] for m in sys.modules); "
        "assert not heavy, heavy"
    )
    best = float("inf")
    for _ in range(4):  # other work may disturb a single start
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
        best = min(best, time.perf_counter() - started)
    assert best < 0.5


def test_the_simulator_runs_from_a_clone_without_installing(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = ROOT / "ltm_training_time_simulator.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0
    assert "RTX PRO 6000" in done.stdout
    assert "More:" in done.stdout
    answer = subprocess.run(
        [sys.executable, str(script), "--model", "125m", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert json.loads(answer.stdout)["model"]["name"] == "125m"


def test_the_simulator_without_numpy_says_what_to_install(tmp_path):
    done = subprocess.run(  # -S leaves the site packages out, and with them numpy
        [sys.executable, "-S", str(ROOT / "ltm_training_time_simulator.py")],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'pip install "numpy>=2"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_narrow_terminal_keeps_its_width(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ([], ["table", "train"], ["table", "books"], ["--claim"], ["inference"]):
        assert main(["forecast", *arguments]) == 0
        assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


def test_the_examples_of_the_docs_hold():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/forecast/examples.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_claims_stand_for_themselves(capsys):
    assert main(["forecast", "--claim", "--model", "7b"]) == 2
    assert "--model does not go with --claim" in capsys.readouterr().err
