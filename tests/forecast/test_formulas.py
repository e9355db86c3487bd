"""Counts against independent counts, limits of the roofline, and monotonicity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ltm.forecast import formulas
from ltm.forecast.case import Case, case_columns, device_columns
from ltm.forecast.constants import Constants, as_dict, constants
from ltm.forecast.devices import device
from ltm.forecast.estimate import forecast
from ltm.forecast.shapes import shape

CARD = device("RTX PRO 6000")


def case(model: str = "llama-2-7b", **changes: float) -> Case:
    s = shape(model)
    numbers = {f: float(getattr(s, f)) for f in ("n_layer", "n_embd", "n_head", "n_kv_head", "head_size", "n_hidden")}
    flags = {"gated": float(s.gated), "tied": float(s.tied), "learned_positions": float(s.learned_positions)}
    base = Case(
        **numbers, vocab_size=float(s.vocab_size), **flags, seq_len=2048, micro_batch=4, global_batch_tokens=65536
    )
    return dataclasses.replace(base, **changes)


def columns(*cases: Case):
    return case_columns(cases), device_columns([CARD] * len(cases))


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen-7b", 7_721_324_544),
        ("tinyllama", 1_100_048_384),
    ],
)
def test_parameters_are_the_published_ones(model, published):
    c, _ = columns(case(model))
    assert formulas.parameters(c)["total"][0] == pytest.approx(published, rel=1e-4)


def test_model_flops_are_six_per_parameter_and_token_plus_attention():
    made = case(seq_len=2048, micro_batch=1, global_batch_tokens=2048)
    c, d = columns(made)
    step = formulas.step_seconds(c, d, constants())
    linear = formulas.parameters(c)["blocks"] - made.n_layer * 2 * made.n_embd + made.vocab_size * made.n_embd
    causal = 12 * made.n_layer * made.n_embd * made.seq_len / 2
    assert step["model_flops"][0] == pytest.approx(2048 * (6 * linear[0] + causal), rel=1e-6)


def test_lora_counts_its_adapters():
    made = case(method=1.0, lora_rank=8.0, lora_attention=1.0, lora_mlp=0.0)
    c, _ = columns(made)
    # q, k, v and output of a 4096-wide model, rank 8: 2 * 8 * 4096 each
    assert formulas.parameters(c)["trained"][0] == 32 * 4 * 2 * 8 * 4096


def test_no_step_is_faster_than_the_card_multiplies():
    for model in ("125m", "1.3b", "llama-2-7b"):
        made = forecast(case(model), CARD)
        assert 0.02 < made.mfu < 1.0
        floor = made.parts_seconds["matmul"] * 0.5
        assert made.step_seconds > floor


@pytest.mark.parametrize(
    "slower", [{"checkpointing": 1.0}, {"kernels": 0.0}, {"attention": 0.0}, {"precision": 0.0}, {"loop": 0.0}]
)
def test_what_costs_time_costs_time(slower):
    assert forecast(case(**slower), CARD).tokens_per_second < forecast(case(), CARD).tokens_per_second


@pytest.mark.parametrize(
    "smaller",
    [{"checkpointing": 1.0}, {"micro_batch": 1.0}, {"optimizer": 1.0}, {"method": 2.0, "lora_rank": 8.0, "mixed": 0.0}],
)
def test_what_saves_memory_saves_memory(smaller):
    assert forecast(case(**smaller), CARD).peak_memory_bytes < forecast(case(), CARD).peak_memory_bytes


def test_lora_is_faster_than_full_training_but_not_ten_times():
    full, lora = forecast(case(), CARD), forecast(case(method=1.0, lora_rank=8.0, mixed=0.0), CARD)
    assert 1.05 < lora.tokens_per_second / full.tokens_per_second < 2.0


def test_qlora_is_slower_than_lora_and_smaller():
    lora, qlora = (
        forecast(case(method=method, lora_rank=8.0, mixed=0.0, checkpointing=1.0, micro_batch=1), CARD)
        for method in (1.0, 2.0)
    )
    assert qlora.tokens_per_second < lora.tokens_per_second
    assert qlora.peak_memory_bytes < 0.8 * lora.peak_memory_bytes


def test_sharding_over_cards_divides_states_and_on_one_card_saves_nothing():
    alone = forecast(case(), CARD)
    assert forecast(case(zero=2.0), CARD).peak_memory_bytes == alone.peak_memory_bytes
    eight = forecast(case(zero=3.0, n_devices=8.0, global_batch_tokens=524_288), CARD)
    states = ("weights", "gradients", "optimizer")
    assert sum(eight.memory_parts_bytes[n] for n in states) < 0.2 * sum(alone.memory_parts_bytes[n] for n in states)


def test_more_cards_are_faster_but_not_more_than_in_proportion():
    one = forecast(case("1.3b", global_batch_tokens=524_288), CARD)
    four = forecast(case("1.3b", global_batch_tokens=524_288, n_devices=4.0), CARD)
    assert 2.0 < four.tokens_per_second / one.tokens_per_second <= 4.0


def test_a_pipeline_pays_its_bubble():
    h100 = device("H100 SXM")
    few = forecast(case(n_devices=8.0, pp=8.0, micro_batch=1, global_batch_tokens=8 * 2048), h100)
    many = forecast(case(n_devices=8.0, pp=8.0, micro_batch=1, global_batch_tokens=256 * 2048), h100)
    assert few.parts_seconds["bubble"] / few.step_seconds > 0.3
    assert many.parts_seconds["bubble"] / many.step_seconds < 0.1


def test_attention_is_counted_once_for_causal_and_less_for_a_window():
    full = columns(case(seq_len=8192, micro_batch=1, global_batch_tokens=8192))
    window = columns(case(seq_len=8192, micro_batch=1, global_batch_tokens=8192, window=1024.0))
    k = constants()
    ratio = formulas.attention_seconds(*window, k)["flops"] / formulas.attention_seconds(*full, k)["flops"]
    # a query sees 1024 keys but for the first ones: (1024 - 1024 * 1024 / 2 / 8192) of 4096
    assert ratio[0] == pytest.approx((1024 - 1024**2 / 2 / 8192) / 4096)


def test_soft_maximum_lies_between_maximum_and_sum():
    a, b = np.array([1.0, 5.0, 0.0]), np.array([2.0, 5.0, 3.0])
    soft = formulas.soft_maximum(a, b, 4.0)
    assert np.all(soft >= np.maximum(a, b))
    assert np.all(soft <= a + b + 1e-12)


def test_formulas_use_exactly_the_constants_that_are_shipped():
    class Recorder(Constants):
        def __init__(self) -> None:
            super().__init__({})
            self.__dict__["used"] = set()

        def __getattribute__(self, name: str):
            if name in ("used", "__dict__", "__class__"):
                return object.__getattribute__(self, name)
            object.__getattribute__(self, "used").add(name)
            return as_dict()[name]

    recorder = Recorder()
    c, d = columns(case())
    formulas.spread(c, d, recorder)
    formulas.memory_bytes(c, d, recorder)
    formulas.power_watts(c, d, recorder)
    assert recorder.used == set(as_dict())


def test_ranges_hold_the_forecast_and_are_narrower_for_known_frameworks():
    stranger, known = forecast(case(), CARD), forecast(case(known=1.0), CARD)
    for made in (stranger, known):
        assert made.tokens_per_second_low < made.tokens_per_second < made.tokens_per_second_high
        assert made.peak_memory_low < made.peak_memory_bytes < made.peak_memory_high
    width = [m.tokens_per_second_high / m.tokens_per_second_low for m in (stranger, known)]
    assert width[1] < width[0]
    assert sum(stranger.memory_parts_bytes.values()) == pytest.approx(stranger.peak_memory_bytes)
