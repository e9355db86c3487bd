"""Inference by roofline: sizes add up, limits are where they must be, constants regenerate from their data."""

from __future__ import annotations

import csv
import math
from importlib.resources import files

import numpy as np
import pytest

from ltm.errors import ConfigError, InputError
from ltm.forecast.devices import device
from ltm.forecast.formulas_inference import decode_seconds, prefill_seconds
from ltm.forecast.inference import QUANTS, forecast_inference, inference_case, inference_constants, to_document, to_text
from ltm.forecast.shapes import shape
from ltm.forecast.transpile import Source, transpile

CARD = device("RTX 4090")
LLAMA = shape("llama-3.1-8b")


def test_weights_and_cache_have_the_bytes_of_the_shape():
    found = forecast_inference(LLAMA, CARD, "f16", context=8192)
    assert found.memory_parts_bytes["weights"] == pytest.approx(2 * LLAMA.parameters, rel=0.001)
    assert found.memory_parts_bytes["cache"] == 2 * 32 * 8 * 128 * 2 * 8192
    assert sum(found.memory_parts_bytes.values()) / 1024**3 == pytest.approx(found.memory_gib.value)


def test_quantised_weights_are_smaller_and_faster_to_write_with():
    half, four = (forecast_inference(LLAMA, CARD, quant) for quant in ("f16", "q4"))
    assert four.memory_gib.value < 0.5 * half.memory_gib.value
    assert four.decode_tokens_per_second.value > 1.5 * half.decode_tokens_per_second.value


def test_one_answer_is_bound_by_bandwidth_and_many_share_the_weights():
    one, many = (forecast_inference(LLAMA, device("H100"), batch=n, context=4400) for n in (1, 16))
    assert one.limited_by == "bandwidth"
    assert one.prefill_limited_by == "compute"
    assert 5 * one.decode_tokens_per_second.value < many.decode_tokens_per_second.value
    assert many.decode_tokens_per_second.value < 16 * one.decode_tokens_per_second.value


def test_no_rate_is_above_what_the_card_can_read_or_compute():
    for name in ("RTX 3060", "RTX 4090", "H100", "Apple M2 Ultra", "RTX PRO 6000"):
        card = device(name)
        found = forecast_inference(LLAMA, card, "f16")
        assert found.decode_tokens_per_second.value < card.bandwidth / (2 * LLAMA.parameters - 2 * 128256 * 4096)
        assert found.prefill_tokens_per_second.value * 2 * LLAMA.parameters < 1.2 * card.peak_flops


def test_passages_cost_search_and_an_index():
    plain = forecast_inference(shape("3b"), CARD, "q4")
    found = forecast_inference(shape("3b"), CARD, "q4", rag_passages=8, books=1000)
    assert found.answer_seconds.value > plain.answer_seconds.value
    assert found.index_bytes > 250e6 * 4
    assert "1,000 books" in to_text(found, 80)
    assert to_document(found)["index_seconds"] > 0


def test_what_does_not_fit_says_how_many_cards():
    found = forecast_inference(shape("70b"), CARD, "q4")
    assert not found.fits
    assert found.cards_needed == 2
    assert forecast_inference(shape("70b"), CARD, "q4", n_devices=2).fits


def test_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        forecast_inference(LLAMA, CARD, "q3", context=0, batch=0)
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError, match="use --context 4396"):
        forecast_inference(LLAMA, CARD, context=4096, prompt=4096, answer=300)
    with pytest.raises(InputError, match="more than --prompt"):
        forecast_inference(LLAMA, CARD, rag_passages=20, passage_tokens=400)


def test_published_rates_lie_in_the_ranges():
    """The constants were fitted on these rows; what is held here is that code and constants still belong together."""
    text = (files("ltm.forecast") / "data" / "inference.csv").read_text(encoding="utf-8")
    k = inference_constants()
    decode, prefill = [], []
    for row in csv.DictReader(text.splitlines()):
        n = float(row["tokens"])
        case, card = inference_case(shape(row["model"]), QUANTS[row["quant"]], n, n, n), device(row["gpu"])
        said = 1 / float(decode_seconds(case, card, k, n / 2)["total"])
        decode.append(abs(math.log(said / float(row["decode_tokens_per_s"]))))
        if row["prefill_tokens_per_s"]:
            said = n / float(prefill_seconds(case, card, k, n)["total"])
            prefill.append(abs(math.log(said / float(row["prefill_tokens_per_s"]))))
    assert np.median(decode) < math.log(1.15)
    assert np.mean(np.array(decode) <= k.spread_decode) >= 0.85
    assert np.mean(np.array(prefill) <= k.spread_prefill) >= 0.85


def test_the_formulas_stay_in_the_language_of_the_page():
    source = (files("ltm.forecast") / "formulas_inference.py").read_text(encoding="utf-8")
    script = transpile([Source("formulas_inference.py", source)])
    assert "inference" in script.functions
