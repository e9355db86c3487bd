"""`ltm bench train` as a user meets it: what is refused, and one small benchmark beside real peers."""

from __future__ import annotations

import json

import pytest
import torch

from ltm.bench import lineup
from ltm.cli import main


@pytest.fixture
def refused(capsys):
    """Call `ltm bench` with arguments that must be refused; returns what was said."""

    def call(*arguments: str) -> str:
        assert main(["bench", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return captured.err

    return call


def test_an_unknown_size_is_answered_with_the_nearest(refused):
    assert "llama-5m" in refused("train", "--sizes", "1m,5mm")
    assert "gpt2-5m" in refused("train", "--sizes", "gpt-5m")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "at least one round"),
        (["--rounds", "-2"], "at least one round"),
        (["--rounds", "many"], "--rounds"),
        (["--seconds", "0"], "more than 0"),
        (["--seconds", "nan"], "more than 0"),
        (["--seconds", "soon"], "not a number"),
        (["--device", "tpu"], "auto, cpu, cuda"),
        (["--dtype", "int8"], "bfloat16"),
        (["--peers", "axolotl"], "hf, nanogpt"),
        (["--mode", "harder"], "usual, compiled, hardest"),
        (["--vocab", "1"], "too small"),
        (["--sizes", "0.1m", "--batch-tokens", "1000"], "batch_tokens=1024"),
        (["--peers", "nanogpt"], "--nanogpt DIR"),
        (["--out", "bench.txt"], "bench.md"),
        (["--out", "/no/such/folder/bench.md"], "no folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_starts(refused, arguments, said):
    assert said in refused("train", *arguments)


def test_a_folder_that_is_no_clone_is_refused(refused, tmp_path):
    assert "no model.py" in refused("train", "--nanogpt", str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_also_without_the_subcommand(refused):
    assert "sees no GPU" in refused("--device", "cuda")


def test_a_missing_trainer_is_answered_with_the_install_line(monkeypatch):
    monkeypatch.setattr(lineup.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'ltm[hf]'" in lineup.missing("hf")
    assert lineup.missing("nanogpt") == ""


def test_a_small_benchmark_beside_the_trainer_and_a_peer_that_breaks(capsys, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    (tmp_path / "model.py").write_text("raise ValueError('not today')")
    out = tmp_path / "table.md"
    arguments = ["bench", "train", "--sizes", "0.1m", "--rounds", "1", "--seconds", "0.3", "--batch-tokens", "512"]
    arguments += ["--no-compile", "--nanogpt", str(tmp_path), "--json", "--quiet", "--device", "cpu", "--out", str(out)]
    assert main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["size"], row["model"], row["device"], row["rounds"]) == ("0.1m", "llama-0.1m", "cpu", 1)
    assert (row["vocab_size"], row["block_size"], row["batch_tokens"]) == (1024, 128, 512)
    assert row["dtype"] in ("float32", "bfloat16")
    assert isinstance(row["n_workers"], int)
    assert row["n_workers"] >= 1
    assert 0 < row["mfu"] < 1.5
    assert row["tokens_per_second"] > 1000
    assert row["tokens_per_second_quartiles"] == [row["tokens_per_second"]] * 2
    assert 1e8 < row["peak_memory_bytes"] < 8e9
    assert isinstance(row["peak_memory_bytes"], int)
    assert row["compile_seconds"] >= 0
    assert row["ratio_to_hf_trainer"] > 0
    assert row["ratio_to_hf_trainer_reason"] == ""
    trainer, broken = row["peers"]
    assert trainer["n_params"] == row["n_params"]  # the same shape
    assert trainer["ratio"] == row["ratio_to_hf_trainer"]
    assert broken["ratio"] is None
    assert "not today" in broken["reason"]
    table = out.read_text()
    assert "llama-0.1m" in table
    assert "not today" in table
    assert json.loads(out.with_suffix(".json").read_text())[0]["size"] == "0.1m"
