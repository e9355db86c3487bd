"""Flags become a case; everything wrong with a question is told at once, with what to do next."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ltm.errors import ConfigError, InputError
from ltm.forecast import fits
from ltm.forecast.answer import answer, fitting_words, to_document, to_text
from ltm.forecast.case import ATTENTIONS, PRECISIONS
from ltm.forecast.devices import device, device_names
from ltm.forecast.estimate import forecast
from ltm.forecast.machine import save_machine
from ltm.forecast.question import Question, ask
from ltm.forecast.render import single


def _problem(**fields: object) -> str:
    with pytest.raises(InputError) as caught:
        ask(Question(**fields))  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_are_the_documented_ones():
    asked = ask(Question())
    case = asked.case
    assert asked.device.name == "RTX PRO 6000 Blackwell Workstation"
    assert (PRECISIONS[int(case.precision)], ATTENTIONS[int(case.attention)], case.kernels) == ("bf16", "flash", 2)
    assert (case.global_batch_tokens, asked.tokens, case.n_devices) == (524_288, 10e9, 1)
    assert asked.auto_micro_batch


def test_a_book_has_250k_tokens_and_epochs_repeat_it():
    asked = ask(Question(books=100, pages=500, epochs=3))
    assert (asked.distinct_tokens, asked.tokens) == (25e6, 75e6)


def test_a_default_batch_leaves_little_text_a_hundred_steps():
    asked = ask(Question(books=1, pages=500, epochs=3))
    assert asked.tokens / asked.case.global_batch_tokens >= 100
    assert asked.case.global_batch_tokens % asked.case.seq_len == 0


def test_counts_may_be_written_as_people_write_them():
    assert ask(Question(tokens="1.5B", batch_tokens="1m", seq_len="1k")).tokens == 1.5e9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokens": 0}, "--tokens is 0"),
        ({"tokens": "-5"}, "--tokens -5 is not a whole number"),
        ({"tokens": "many"}, "--tokens many"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"books": 100}, "does not say how long they are"),
        ({"pages": 500}, "does not say how many books"),
        ({"books": 1, "pages": 500, "tokens": "1B"}, "twice"),
        ({"gpu": "RTX 9999"}, "nearest: "),
        ({"gpu": "name=X,memory_gib=24"}, "missing: bandwidth_gbps"),
        ({"model": "nosuch"}, "unknown model"),
        ({"n_head": 7}, "n_head 7 does not divide n_embd 768"),
        ({"n_head": 12, "n_kv_head": 5}, "n_kv_head 5 does not divide n_head 12"),
        ({"precision": "fp8", "gpu": "A100"}, "cannot compute in it; it came with Ada"),
        ({"precision": "bf16", "gpu": "V100"}, "use --precision fp16"),
        ({"precision": "bf16", "gpu": "T4"}, "use --precision fp16"),
        ({"precision": "tf32", "gpu": "T4"}, "cannot compute in it"),
        ({"parallel": "zero2"}, "on one card it saves nothing"),
        ({"parallel": "fsdp"}, "on one card it saves nothing"),
        ({"parallel": "ddp", "gpus": 1}, "add --gpus 2"),
        ({"gpus": 8, "tp": 3}, "nearest: --gpus 9"),
        ({"gpus": 8, "gpus_per_node": 3}, "nearest: --gpus-per-node 2 or 4"),
        ({"gpus": 7, "gpus_per_node": 4}, "nearest: --gpus-per-node 1 or 7"),
        ({"gpus": 8, "tp": 8, "model": "125m"}, "does not divide the 12 heads"),
        ({"gpus": 16, "pp": 16, "model": "125m"}, "more than the 12 layers"),
        ({"method": "qlora", "precision": "fp32"}, "computes in 16 bits"),
        ({"method": "lora", "precision": "fp8"}, "use --precision bf16"),
        ({"lora_rank": 8}, "--lora-rank goes with --method lora"),
        ({"lora_rank": 4096, "method": "lora"}, "above the width 768"),
        ({"gpus": "10m"}, "more than any cluster has"),
        ({"tokens": "999999999T"}, "too many"),
        ({"attention": "flash", "gpu": "GTX 1080 Ti"}, "use --attention eager"),
        ({"attention": "flash3", "gpu": "A100"}, "use --attention flash"),
        ({"micro_batch": 512, "batch_tokens": "100k"}, "use --micro-batch 48"),
        ({"seq_len": "4m"}, "at most about --seq-len"),
        ({"packing": 1.5}, "at most 1"),
        ({"method": "loar"}, "nearest: lora"),
        ({"usd_per_hour": -1}, "at least 0"),
        ({"micro_batch": "all"}, "--micro-batch all is not a whole number"),
    ],
)
def test_what_cannot_be_is_answered_with_what_can(fields, words):
    assert words in _problem(**fields)


def test_a_node_may_be_larger_than_what_is_used_of_it():
    assert ask(Question(gpus=2, gpus_per_node=8)).case.n_devices == 2
    assert ask(Question(gpus=16, gpus_per_node=4)).case.devices_per_node == 4


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        ask(Question(gpu="V100", precision="bf16", tokens=0, parallel="zero2", attention="flash3", n_head=7))
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert all(word in text for word in ("bf16", "--tokens is 0", "zero2", "flash3", "n_head 7"))


def test_a_card_without_bf16_gets_fp16_and_says_so():
    asked = ask(Question(gpu="T4"))
    assert PRECISIONS[int(asked.case.precision)] == "fp16"
    assert any("has no bf16" in note for note in asked.notes)


def test_the_shape_follows_the_width():
    asked = ask(Question(n_layer=12, n_embd=1024))
    assert asked.case.n_head * asked.case.head_size == 1024
    assert asked.case.n_hidden > ask(Question()).case.n_hidden


def test_a_config_file_is_a_model(tmp_path):
    config = {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "vocab_size": 999,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    asked = ask(Question(model=str(path)))
    assert (asked.case.n_layer, asked.case.n_embd, asked.case.vocab_size) == (4, 256, 999)


def test_the_largest_micro_batch_fits_and_the_next_one_does_not():
    card = device("RTX 4090")
    case = ask(Question(gpu="RTX 4090", model="355m")).case
    assert fits.likely(forecast(case, card))
    larger = [n for n in fits._micro_batches(case) if n > case.micro_batch]
    assert larger, "the batch itself is not the limit here"
    assert not fits.likely(forecast(dataclasses.replace(case, micro_batch=float(larger[0])), card))


def test_micro_batches_make_up_the_batch():
    case = ask(Question(batch_tokens=500_000, micro_batch=1)).case
    sequences = int(case.global_batch_tokens / case.seq_len)
    for n in fits._micro_batches(case):
        assert -(-sequences // n) * n <= 1.05 * sequences


def test_what_does_not_fit_gets_the_nearest_setting_that_does():
    found = answer(ask(Question(model="7b")))
    assert fitting_words(found.forecast) == "does not fit"
    assert to_document(found)["limited_by"] == "memory"
    first = found.ways[0]
    assert first.trains_all
    assert fits.likely(first.forecast)
    assert "checkpointing" in first.words


def test_a_smaller_micro_batch_is_tried_first_and_keeps_the_batch():
    asked = ask(Question(model="1.3b", micro_batch=64))
    found = answer(asked)
    assert found.ways[0].words.startswith("micro batch")
    assert found.ways[0].forecast.case.global_batch_tokens == asked.case.global_batch_tokens


def test_given_cards_are_shared_before_adapters_are_proposed():
    found = answer(ask(Question(model="7b", gpu="A100", gpus=8)))
    assert found.ways[0].cards == 8
    assert found.ways[0].trains_all
    assert "ZeRO" in found.ways[0].words


def test_adapters_are_proposed_with_the_cards_that_full_training_needs():
    found = answer(ask(Question(model="7b", gpu="RTX 4090")))
    assert "LoRA" in found.ways[0].words
    assert found.ways[-1].trains_all
    assert found.ways[-1].cards > 1


def test_the_answer_says_everything(capsys):
    found = answer(ask(Question(model="1.3b", gpus=8, gpu="H100", usd_per_hour=2.5)))
    text = to_text(found, 80)
    for word in ("tokens/s", "time", "memory", "energy", "cost", "limit", "range", "90 %", "activations", "start-up"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 80
    document = to_document(found)
    for key in ("tokens_per_second", "seconds", "peak_memory_bytes", "energy_kwh", "cost_usd"):
        assert document[key]["low"] < document[key]["value"] < document[key]["high"]
    json.dumps(document, allow_nan=False)


def test_padding_lowers_useful_speed_and_raises_time():
    dense, padded = (answer(ask(Question(packing=share, tokens="1B"))) for share in (1.0, 0.5))
    assert padded.bill.seconds > 1.8 * dense.bill.seconds


@pytest.mark.parametrize("name", device_names())
def test_every_device_answers_the_default_question(name):
    found = answer(ask(Question(gpu=name, model="llama-15m", tokens="100M")))
    assert found.bill.seconds > 0
    assert found.forecast.tokens_per_second_low < found.forecast.tokens_per_second


def test_this_machine_is_named_and_points_to_calibration(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    found = answer(ask(Question(gpu="cpu", model="llama-1m", tokens="10M")))
    text = to_text(found, 80)
    assert "this machine" in text
    assert "ltm forecast calibrate" in text
    ratio = found.forecast.tokens_per_second_high / found.forecast.tokens_per_second_low
    assert ratio > 4, "unmeasured rates are wide"


def record(device="cpu", **changes):
    from ltm.forecast import machine
    from ltm.forecast.machine_work import CLASSES

    constants = {name: 1e-9 for names in CLASSES.values() for name in names}
    values = {
        "fingerprint": machine.fingerprint(machine.describe(device)), "device": device, "description": {},
        "made_at": "", "probe_seconds": 1.0, "n_workers": 1,
        "constants": {"float32": constants, "bfloat16": constants},
        "multipliers": {dtype: dict.fromkeys(CLASSES, 1.0) for dtype in ("float32", "bfloat16")},
        "contention": {}, "memory": {"framework_bytes": 1e8},
        "costs": {"worker_start_seconds": 1.5, "encode_bytes_per_second": 4.5e6},
        "residuals": {"step": [0.01] * 10, "busy": [], "memory": [0.02] * 10, "compiled": []},
    }  # fmt: skip
    return machine.Machine(**(values | changes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    return tmp_path


def test_a_calibration_takes_the_place_of_usual_rates(cache):
    save_machine(record())
    found = answer(ask(Question(gpu="this", model="llama-1m", tokens="10M")))
    assert found.forecast.measured
    assert found.forecast.tokens_per_second_high / found.forecast.tokens_per_second < 1.05
    assert "measured: the calibration" in to_text(found, 80)
    assert found.bill.fixed_seconds["start"] == 1.5
    assert found.bill.fixed_seconds["tokenize"] == pytest.approx(10.0)
    training = 10e6 / found.forecast.tokens_per_second
    beside = sum(found.bill.fixed_seconds.values()) + sum(found.bill.extra_seconds.values())
    assert found.bill.seconds == pytest.approx(training + beside)
    adapters = answer(ask(Question(gpu="this", model="llama-1m", method="lora")))
    assert not adapters.forecast.measured, "the calibration knows nothing of adapters"


def test_changes_of_settings_are_compared_at_usual_rates_whatever_was_measured(cache):
    from ltm.forecast.tables import make

    question = Question(gpu="this", model="llama-1m", tokens="10M")
    before = make("speedups", question)
    save_machine(record())
    after = make("speedups", question)
    assert after.rows == before.rows
    assert "usual ones" in " ".join(after.notes)


def test_all_that_was_measured_around_training_is_in_the_bill(cache):
    costs = {"worker_start_seconds": 1.5, "encode_bytes_per_second": 4.5e6, "compile_seconds": 21.0,
             "tokenizer_train_bytes_per_second": 1e6, "score_tokens_per_trained_token": 6.0}  # fmt: skip
    save_machine(record(costs=costs))
    question = Question(gpu="cpu", model="llama-1m", tokens="10M", compile=True)
    found = answer(ask(question))
    rate = found.forecast.tokens_per_second
    assert found.bill.extra_seconds["evaluate"] == pytest.approx(1e6 / (6 * rate))
    assert found.bill.fixed_seconds["tokenize"] == pytest.approx(10.0 + 4.0)  # 4 MB are learned from
    assert found.bill.fixed_seconds["compile"] == 21.0
    assert "not timed: `ltm forecast calibrate --compile`" in to_text(found, 300)
    again = answer(ask(dataclasses.replace(question, continued=True, compile=None)))
    assert again.bill.fixed_seconds["tokenize"] == pytest.approx(10.0), "given weights have their tokenizer"
    assert again.bill.fixed_seconds["compile"] == 0.0


def test_this_machine_trains_as_a_study_would(cache):
    save_machine(record(dtype="bfloat16", compiles=True))
    found = answer(ask(Question(gpu="this", model="llama-1m", tokens="10M")))
    assert "bf16" in to_text(found, 200)
    assert found.asked.case.kernels == 2, "long runs are compiled"
    assert found.asked.case.global_batch_tokens == 2048
    short = ask(Question(gpu="this", model="llama-0.1m", tokens="10k"))
    assert short.case.kernels == 0, "compiling would take longer than it saves"
    plain = answer(ask(Question(gpu="this", model="llama-1m", tokens="10M", compile=False)))
    assert plain.forecast.tokens_per_second < found.forecast.tokens_per_second
    save_machine(record(dtype="bfloat16"))  # no compiler
    assert ask(Question(gpu="this", model="llama-1m", tokens="10M")).case.kernels == 0


def test_a_damaged_calibration_is_named_and_usual_rates_are_used(cache):
    path = save_machine(record())
    path.write_text(path.read_text().replace('"framework_bytes": 100000000.0', '"framework_bytes": null'))
    found = answer(ask(Question(gpu="this", model="llama-1m", tokens="10M")))
    assert not found.forecast.measured
    text = to_text(found, 200)
    assert text.count("is damaged") == 1
    assert "run `ltm forecast calibrate`" in text


@pytest.mark.parametrize(
    ("processor", "memory_gib"), [("NVIDIA GeForce RTX 4090", 24.0), ("A card that no list knows", 40.0)]
)
def test_a_calibrated_gpu_is_this_machine_and_its_processor_stays_cpu(cache, monkeypatch, processor, memory_gib):
    monkeypatch.setattr("ltm.forecast.machine._gpu_model", lambda: processor)
    rates = {"memory_bytes": 40 * 2.0**30, "bandwidth_bytes_per_second": 9e11,
             "matmul_float32_1024_flops_per_second": 2e13, "matmul_bfloat16_1024_flops_per_second": 1e14}  # fmt: skip
    save_machine(record("cuda", description={"processor": processor}, rates=rates))
    found = answer(ask(Question(gpu="this", model="llama-1m", tokens="10M")))
    assert found.forecast.measured
    assert processor.removeprefix("NVIDIA ") in found.forecast.device.name
    assert found.forecast.device.memory_bytes == memory_gib * 2**30
    assert "not compiled" in to_text(found, 200), "ltm's own engine is what was timed"
    adapters = answer(ask(Question(gpu="this", model="llama-1m", method="lora")))
    assert not adapters.forecast.measured
    assert "usual rates of this card" in to_text(adapters, 200)
    processor_alone = answer(ask(Question(gpu="cpu", model="llama-1m", tokens="10M")))
    assert not processor_alone.forecast.measured, "the processor was not calibrated"
    assert "cores" in processor_alone.forecast.device.name


def test_what_fits_instead_counts_useful_tokens_as_the_answer_does():
    found = answer(ask(Question(model="7b", gpu="RTX 4090", packing=0.3)))
    document = to_document(found)["instead"]
    text = " ".join(to_text(found, 400).split())
    assert document
    for way, entry in zip(found.ways, document, strict=True):
        assert entry["tokens_per_second"]["value"] == pytest.approx(0.3 * way.forecast.tokens_per_second)
        assert f"{single(entry['tokens_per_second']['value'], 'tokens_per_s')} tokens/s" in text
