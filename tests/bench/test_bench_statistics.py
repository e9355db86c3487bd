"""The arithmetic of the benchmark: turns, medians, paired ratios, FLOPs, tokens, and the gate between steps."""

from __future__ import annotations

import dataclasses
import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from ltm.bench.flops import flops_per_token
from ltm.bench.gate import Gate, Ready, Turn
from ltm.bench.lineup import ENGINE, YARDSTICK, line_up
from ltm.bench.question import Question, case_of
from ltm.bench.rows import Found, bench_row
from ltm.bench.statistics import quartiles, ratios, turn_order
from ltm.bench.words import zipf_tokens
from ltm.errors import DataError
from ltm.model.sizes import SIZES

BOTH = ("usual", "hardest")
MACHINE = {"device": "cpu"}


def _turns(*rates: float, n_processes: int = 1) -> list[list[Turn]]:
    return [[Turn(rate * 2.0 / n_processes, 2.0, 2.0, 1e6)] * n_processes for rate in rates]


def _found(*rates: float, n_params: int, n_processes: int = 1, **about) -> Found:
    ready = [Ready(5.0, 0.5, {"n_params": n_params, "compiled": True, **about})] * n_processes
    return Found(ready=ready, turns=_turns(*rates, n_processes=n_processes))


def _row(found: dict[str, Found], question: Question):
    case = case_of("1m", question, "cpu", "float32")
    return bench_row("1m", "llama-1m", question, case, line_up(question, case, 2, "cpu", "x"), found, MACHINE)


def test_everybody_has_one_turn_a_round_and_nobody_is_always_first():
    names = ["gemm", "ltm", "hf", "nanogpt"]
    rounds = [turn_order(names, index) for index in range(8)]
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert {order[0] for order in rounds} == set(names)
    assert turn_order([], 3) == []


def test_quartiles_of_known_values():
    found = quartiles([10.0, 2.0, 4.0, 8.0, 6.0])
    assert (found.low, found.median, found.high) == (4.0, 6.0, 8.0)
    with pytest.raises(DataError):
        quartiles([])


def test_ratios_are_paired_so_that_a_slow_round_does_not_count():
    question = Question(modes=("usual",))
    # rounds 2 and 3 are slow for both, each by its own factor: the medians of the rates are of different rounds
    found = {
        YARDSTICK: _found(1e12, 1e11, 5e11, n_params=1),
        ENGINE: _found(3000.0, 300.0, 1500.0, n_params=1_000_000),
        "hf-usual": _found(1000.0, 100.0, 500.0, n_params=1_000_000),
    }
    row = _row(found, question)
    assert row.ratio_to_hf_trainer == pytest.approx(3.0)
    assert row.ratio_to_hf_trainer_quartiles == pytest.approx((3.0, 3.0))
    assert row.tokens_per_second == pytest.approx(1500.0)
    assert row.mfu == pytest.approx(row.flops_per_token * 3e-9)
    assert row.mfu_causal < row.mfu
    with pytest.raises(DataError):
        ratios([1.0], [1.0, 2.0])


def test_processes_of_a_crew_add_up_and_the_largest_memory_counts():
    found = _found(4000.0, n_params=7, n_processes=2)
    found.turns[0][1] = dataclasses.replace(found.turns[0][1], peak_bytes=3e6)
    assert found.rates() == pytest.approx([4000.0])
    assert found.peak_bytes() == 3_000_000
    assert found.compile_seconds() == 4.5


def test_a_peer_of_another_shape_is_also_compared_by_parameters():
    question = Question(peers=("nanogpt",), modes=BOTH)
    found = {
        YARDSTICK: _found(1e12, n_params=1),
        ENGINE: _found(3000.0, n_params=1_000_000),
        "nanogpt-usual": _found(1000.0, n_params=1_500_000, n_multiplied=1_490_000),
        "nanogpt-hardest": Found(reason="no compiler"),
    }
    row = _row(found, question)
    usual, hardest = row.peers
    assert usual.ratio == pytest.approx(3.0)
    assert usual.ratio_by_parameters == pytest.approx(2.0)
    assert usual.mfu == pytest.approx(1000.0 * flops_per_token(SIZES["llama-1m"], n_multiplied=1_490_000) / 1e12)
    assert (hardest.ratio, hardest.reason) == (None, "no compiler")
    assert row.ratio_to_hf_trainer is None
    assert "--peers hf" in row.ratio_to_hf_trainer_reason


def test_who_takes_part_and_how():
    question = Question(peers=("hf", "nanogpt"), modes=BOTH)
    case = case_of("0.1m", question, "cpu", "float32")
    lineup = {one.key: one for one in line_up(question, case, 4, "cpu", "folder")}
    assert list(lineup) == ["gemm", "ltm", "hf-usual", "hf-hardest", "nanogpt-usual", "nanogpt-hardest"]
    for key in ("gemm", "ltm", "hf-hardest", "nanogpt-hardest"):
        one = lineup[key]
        assert (one.n_processes, one.seat.threads, one.seat.keeps_memory) == (4, 1, True)
    for key in ("hf-usual", "nanogpt-usual"):
        one = lineup[key]
        assert (one.n_processes, one.seat.threads, one.seat.keeps_memory, one.seat.compiled) == (1, 4, False, False)
    assert len({seat.folder for one in lineup.values() for seat in one.seats("")}) == sum(
        one.n_processes for one in lineup.values()
    )
    assert lineup["hf-hardest"].attentions == ("sdpa", "eager")
    compiled = line_up(Question(modes=("compiled",)), case, 4, "cpu", "folder")[-1]
    assert (compiled.n_processes, compiled.seat.compiled, compiled.attentions) == (4, True, ("",))
    on_gpu = line_up(question, case, 4, "cuda", "folder")
    assert {one.n_processes for one in on_gpu} == {1}
    assert [one.key for one in on_gpu if one.seat.compiled] == ["ltm", "hf-hardest", "nanogpt-usual", "nanogpt-hardest"]


def test_flops_follow_the_formula_of_palm():
    config = dataclasses.replace(SIZES["llama-1m"], vocab_size=2048)
    by_hand = 6 * config.n_params + 12 * 4 * 4 * 32 * 256
    assert flops_per_token(config) == by_hand
    assert flops_per_token(config, masked_half=False) == 6 * config.n_params + 12 * 4 * 4 * 32 * 128
    untied = dataclasses.replace(config, tie_embeddings=False)
    assert flops_per_token(untied) == flops_per_token(config)  # a table that is looked up is no product
    windowed = dataclasses.replace(config, window=64)
    assert flops_per_token(config) - flops_per_token(windowed) == 12 * 4 * 4 * 32 * (256 - 64)


def test_tokens_are_the_same_for_all_and_few_words_make_most_of_them():
    tokens = zipf_tokens(500, 20_000)
    assert np.array_equal(tokens, zipf_tokens(500, 20_000))
    counts = np.bincount(tokens, minlength=500)
    assert len(counts) == 500
    assert counts[:10].sum() > 3 * counts[-250:].sum() / 2
    assert counts[0] > counts[20] > counts[400]


def test_shapes_and_batches_hold_together():
    case = case_of("mistral-0.5m", Question(block_size=64), "cpu", "float32")
    assert case.config.window <= case.config.block_size == 64
    assert case.batch_tokens % 64 == 0
    usual = [case_of(size, Question(), "cpu", "float32").config for size in ("0.1m", "1m", "3m", "15m", "125m")]
    assert [config.vocab_size for config in usual] == [1024, 2048, 4096, 8192, 32_768]
    assert usual[2].n_params == pytest.approx(3e6, rel=0.01)
    for name in SIZES:
        for device in ("cpu", "cuda"):
            assert case_of(name, Question(), device, "bfloat16").batch_tokens >= SIZES[name].block_size


def test_the_gate_warms_up_then_lets_pass_turn_by_turn():
    ours, theirs = Pipe()
    waited = []
    gate = Gate(theirs, 10.0, lambda: waited.append(1), lambda: 77.0)
    steps = []

    def contender() -> None:
        gate.begin(n_params=5)
        going = True
        while going:
            steps.append(len(steps))
            going = gate.passed()

    thread = threading.Thread(target=contender)
    thread.start()
    ready = ours.recv()
    warm = len(steps)
    assert isinstance(ready, Ready)
    assert warm >= 5
    assert ready.about == {"n_params": 5}
    taken = []
    for seconds in (0.0, 0.02):
        ours.send(seconds)
        taken.append(ours.recv())
    ours.send(None)
    thread.join(5)
    assert not thread.is_alive()
    assert all(isinstance(turn, Turn) for turn in taken)
    assert taken[0].amount == 20.0  # a turn is never shorter than two steps
    assert taken[1].seconds >= 0.02
    assert sum(turn.amount for turn in taken) == 10.0 * (len(steps) - warm)
    assert len(waited) >= warm + 2  # the device is waited for before the clock is read
    assert taken[0].peak_bytes == 77.0
