"""The probe: work counted like the profiler counts it, every piece runs, and a short probe makes a usable record."""

import dataclasses
import platform
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ltm.forecast.machine import load_machine
from ltm.forecast.machine_work import Case, chunks, matmul_flops, memory_parts, piece
from ltm.model.gpt import GPT
from ltm.model.sizes import SIZES, ModelConfig
from ltm.runs import calibrate, calibrate_costs, calibrate_pieces, calibrate_steps

CASES = [
    Case(dataclasses.replace(SIZES["llama-0.5m"], vocab_size=300, block_size=64), 512),
    Case(ModelConfig("mistral", 3, 4, 2, 64, 160, 5000, 64, 32), 1024, 512),
    Case(ModelConfig("gpt2", 2, 3, 3, 48, 100, 257, 32), 256, 64),
    Case(ModelConfig("llama", 2, 4, 1, 64, 96, 700, 64), 512, 128, "bfloat16"),
    Case(ModelConfig("mistral", 2, 4, 2, 64, 96, 300, 320, 150, tie_embeddings=False), 640, 0, "bfloat16"),
]


@pytest.mark.parametrize("case", CASES)
def test_matrix_work_is_what_pytorch_counts(case):
    model = GPT(case.config).to(getattr(torch, case.dtype))
    tokens = torch.randint(
        0, case.config.vocab_size, (case.micro_tokens // case.config.block_size, case.config.block_size)
    )
    with FlopCounterMode(display=False) as counter:
        for _ in range(case.n_micro):
            torch.autograd.grad(model.loss(tokens, tokens), list(model.parameters()))
    assert counter.get_total_flops() == matmul_flops(case)


@pytest.mark.parametrize("case", CASES)
def test_saved_memory_is_near_what_autograd_saves(case):
    model = GPT(case.config).to(getattr(torch, case.dtype))
    tokens = torch.randint(
        0, case.config.vocab_size, (case.micro_tokens // case.config.block_size, case.config.block_size)
    )
    storages = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(tokens)
    saved = sum(t.untyped_storage().nbytes() for t in storages.values())
    assert hidden.requires_grad
    assert memory_parts(case)["activations"] == pytest.approx(saved, rel=0.1)


def test_tensors_are_those_whose_gradients_are_gathered():
    for case in CASES:
        assert case.n_tensors == len(list(GPT(case.config).parameters()))


def test_every_piece_of_the_plan_runs_and_is_timed():
    smallest = {}
    for wanted in calibrate_pieces.plan():
        work = sum(piece(wanted.name, **dict(wanted.sizes)).values())
        key = (wanted.name, wanted.dtype)
        if key not in smallest or work < smallest[key][0]:
            smallest[key] = (work, wanted)
    timings = calibrate_pieces.time_pieces([wanted for _, wanted in smallest.values()], 0.0)
    assert {t.name for t in timings} >= {
        "linear",
        "attention",
        "rotary_attention",
        "loss",
        "update",
        "gather",
        "average",
    }
    assert all(0 < t.seconds < 1 for t in timings)


def test_larger_pieces_have_more_of_every_term():
    for name, small, large in [
        ("linear", {"m": 64, "n": 32, "k": 32}, {"m": 128, "n": 64, "k": 64}),
        ("attention", {"m": 64, "t": 32, "h": 2, "k": 1, "c": 24}, {"m": 256, "t": 64, "h": 4, "k": 2, "c": 40}),
        ("loss", {"m": 64, "d": 32, "v": 300}, {"m": 9000, "d": 64, "v": 3000}),
    ]:
        few, many = piece(name, **small), piece(name, **large)
        assert all(many[term] >= amount for term, amount in few.items())


def test_chunks_are_those_of_the_loss():
    assert chunks(1000, 257) == (1000, 1)
    rows, n_chunks = chunks(1000, 8192)  # 256 rows at a time
    assert n_chunks == 4
    assert rows == 250


def test_the_plan_has_all_families_precisions_and_skinny_shapes():
    cases = calibrate_steps.plan()
    assert {c.config.family for c in cases} == {"llama", "mistral", "gpt2"}
    assert {c.dtype for c in cases} == {"float32", "bfloat16"}
    assert set(calibrate_steps.busy_plan()) < set(cases)
    compiled = calibrate_steps.compiled_plan("cpu", "bfloat16")
    assert {c.config.family for c in compiled} == {"llama", "mistral", "gpt2"}
    assert max(c.config.n_layer for c in compiled) <= 2, "compiling takes seconds a layer"


def test_steps_are_timed_in_rounds_and_memory_grows():
    case = Case(ModelConfig("llama", 2, 2, 2, 32, 64, 300, 32), 128)
    (taken,) = calibrate_steps.time_steps([case], 0.05, 2, "cpu")
    assert taken
    assert all(0 < seconds < 5 for seconds in taken)
    assert calibrate_steps.typical([4.0, 1.0, 2.0, 3.0, 5.0, 9.0, 8.0, 7.0, 6.0, 11.0, 10.0]) == 2.0
    bigger = dataclasses.replace(case, config=dataclasses.replace(case.config, n_embd=64, vocab_size=8000))
    first, second = (calibrate_steps.memory_peak(one, "cpu") for one in (case, bigger))
    assert 50e6 < first <= second


def test_a_step_whose_processor_was_taken_away_does_not_count():
    assert calibrate_steps.undisturbed([(1.0, 1.0), (5.0, 2.0), (1.1, 1.09)]) == [1.0, 1.1]
    assert calibrate_steps.undisturbed([(5.0, 2.0), (4.0, 0.1), (6.0, 3.0)]) == [2.0]  # all disturbed: the middle
    assert calibrate_steps.undisturbed([]) == []


def test_costs_are_measured_in_their_units():
    found = calibrate_costs.costs("cpu")
    assert found["score_tokens_per_trained_token"] > 1.2  # forward alone is faster than forward, backward and step
    assert 1e4 < found["tokenizer_train_bytes_per_second"] < 1e9
    assert 1e4 < found["encode_bytes_per_second"] < 1e10
    assert 1e-11 < found["build_seconds_per_parameter"] < 1e-5
    assert found["weights_write_bytes_per_second"] > 1e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back at once")
def test_freed_memory_is_kept():
    code = """
import sys, numpy as np
from pathlib import Path
from ltm.runs.executors import local

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "keep":
    local.keep_freed_memory()
before = resident()
blocks = [np.ones(16 << 17) for _ in range(16)]  # 16 MiB each
del blocks
print(resident() - before)
"""
    left = {
        mode: int(
            subprocess.run([sys.executable, "-c", code, mode], capture_output=True, check=True, timeout=60).stdout
        )
        for mode in ("keep", "give_back")
    }
    assert left["keep"] > 240 << 20
    assert left["give_back"] < 64 << 20


@pytest.mark.slow
def test_a_probe_makes_a_record_that_forecasts(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    made = calibrate.calibrate(30, device="cpu")
    assert load_machine() == made
    assert made.probe_seconds < 60
    text = "\n".join(calibrate.lines(made))
    assert "tokens/s of one worker" in text
    assert made.fingerprint in text
    case = calibrate_steps.plan()[4]
    (taken,) = calibrate_steps.time_steps([case], 1.0, 4, "cpu")
    found = made.predict(case.config, case.batch_tokens, case.micro_batch_tokens, case.dtype)
    assert found.tokens_per_second == pytest.approx(case.batch_tokens / calibrate_steps.typical(taken), rel=0.35)
