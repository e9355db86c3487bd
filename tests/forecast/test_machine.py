"""A calibrated machine: found again, refused when damaged, sensible in size, and recovered from timings it made."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ltm.errors import DataError, InputError, StoreError
from ltm.forecast import machine as machines
from ltm.forecast.machine import Machine, load_machine, margin, read_machine, save_machine
from ltm.forecast.machine_fit import MemoryPeak, PieceTiming, StepTiming, fit_machine
from ltm.forecast.machine_work import (
    CLASSES,
    CONSTANTS,
    Case,
    attention_chunks,
    class_seconds,
    compiled_constants,
    memory_parts,
    piece,
    step_terms,
)
from ltm.model.sizes import SIZES, ModelConfig

# A machine of known constants: 100 and 400 GFLOP/s, a nanosecond or so per element, microseconds per call.
TRUE = {
    dtype: {name: 2e-5 if "_call" in name else 1e-9 for name in CONSTANTS}
    | {"mm_flop": 1e-11 / speed, "dw_flop": 1.2e-11 / speed, "bmm_flop": 1.1e-11 / speed, "embed_row": 3e-8}
    | {"mm_in": 1e-10, "mm_out": 1e-10, "mm_weight": 1e-10, "dw_in": 1e-10, "dw_out": 1e-10, "mm_far": 0.0}
    | {
        "compiled_call": 0.0,
        "dw_far": 0.0,
        "score_tail": 0.0,
        "score_far": 0.0,
        "rotary_far": 0.0,
        "element_far": 0.0,
        "ln_row": 2e-8,
    }
    for dtype, speed in (("float32", 1), ("bfloat16", 4))
}
FACTORS = {"matmul": 1.1, "attention": 1.2, "elementwise": 1.3, "loss": 1.1, "parameters": 1.2, "overhead": 1.2}
BUSY = dict.fromkeys(CLASSES, 1.15)
MEMORY = {"framework_bytes": 3e8, "states": 1.05, "activations": 1.3, "passing": 0.9}


def machine(**changes):
    values = {
        "fingerprint": machines.fingerprint(machines.describe()),
        "device": "cpu",
        "description": machines.describe(),
        "made_at": "2026-01-01T00:00:00+00:00",
        "probe_seconds": 55.0,
        "n_workers": 4,
        "constants": TRUE,
        "multipliers": {"float32": FACTORS, "bfloat16": FACTORS},
        "contention": BUSY,
        "memory": MEMORY,
        "residuals": {"step": [0.02, -0.05, 0.03], "busy": [0.1, -0.02], "memory": [0.04], "compiled": []},
        "costs": {"worker_start_seconds": 1.5},
    }
    return Machine(**(values | changes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    return tmp_path


def test_a_record_is_found_again_with_every_number(cache):
    path = save_machine(machine())
    assert path.parent == cache / "machines"
    assert load_machine() == machine()
    assert "node" not in path.read_text()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"version": 2', '"version": 1'), "damaged"),  # its seal tells first
        (lambda text: text.replace('"mm_flop"', '"flops"'), "damaged"),
        (lambda text: text.replace('"framework_bytes": 300000000.0', '"framework_bytes": null'), "damaged"),
        (lambda _: "[]", "another version"),
        (lambda text: text.replace('"worker_start_seconds": 1.5', '"worker_start_seconds": null'), "damaged"),
        (lambda text: text.replace('"worker_start_seconds": 1.5', '"worker_start_seconds": -1.5'), "damaged"),
        (lambda text: text.replace('"activations": 1.3', '"activations": null'), "damaged"),
        (lambda text: text.replace('"activations": 1.3', '"activations": "much"'), "damaged"),
        (lambda text: text.replace('"n_workers": 4', '"n_workers": 0'), "damaged"),
        (lambda text: text.replace('"n_workers": 4', '"n_workers": 1.5'), "damaged"),
        (lambda text: text.replace("-0.05", "-5000"), "damaged"),
        (lambda text: text.replace('"mm_in": 1e-10', '"mm_in": -1e-10'), "damaged"),
        (lambda text: text.replace('"mm_in": 1e-10', '"mm_in": NaN'), "damaged"),
        (lambda text: text.replace('"mm_in": 1e-10', f'"mm_in": 1{"0" * 400}'), "damaged"),
    ],
)
def test_a_damaged_or_old_record_is_not_used_and_says_so(cache, damage, word):
    path = save_machine(machine())
    path.write_text(damage(path.read_text()))
    said = []
    assert load_machine(say=said.append) is None
    assert word in said[0]
    assert "ltm forecast calibrate" in said[0]
    with pytest.raises(StoreError, match=word):
        read_machine(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"constants": {dtype: dict.fromkeys(CONSTANTS, 0.0) for dtype in TRUE}},  # a step would take no time
        {"constants": {"float32": TRUE["float32"]}},
        {"multipliers": {}},
        {"multipliers": {"float32": FACTORS | {"matmul": -1.0}}},
        {"multipliers": {"float16": FACTORS}, "constants": TRUE | {"float16": TRUE["float32"]}},
        {"device": "abacus"},
        {"costs": None},
        {"memory": {"states": 1.0}},
        {"residuals": {"step": [0.1], "busy": None, "memory": [], "compiled": []}},
        {"residuals": {"step": [0.1], "busy": [], "memory": []}},
        {"compiled": {"bfloat16": FACTORS | {"matmul": -1.0}}},
        {"dtype": "float16"},
        {"compiles": "yes"},
    ],
)
def test_a_record_that_cannot_forecast_is_not_used(cache, changes):
    save_machine(machine(**changes))
    said = []
    assert load_machine(say=said.append) is None
    assert len(said) == 1
    assert "is damaged" in said[0]


def test_a_record_that_cannot_be_read_is_not_used(cache, monkeypatch):
    path = machines.machine_path()
    path.mkdir(parents=True)
    said = []
    assert load_machine(say=said.append) is None
    assert "cannot read" in said[0]
    path.rmdir()
    path.symlink_to(cache / "gone")  # a link to nowhere
    assert load_machine(say=said.append) is None
    assert "is missing" in said[1]


def test_the_cache_folder_may_be_written_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LTM_CACHE", "~/kept")
    assert machines.machines_folder() == tmp_path / "kept/machines"
    monkeypatch.delenv("LTM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert machines.machines_folder() == tmp_path / "xdg/ltm/machines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert machines.machines_folder() == tmp_path / ".cache/ltm/machines"


def test_a_machine_that_was_never_probed_has_no_record_and_says_nothing(cache):
    said = []
    assert load_machine(say=said.append) is None
    assert said == []


def test_what_was_measured_of_another_engine_is_not_found(cache, monkeypatch):
    save_machine(machine())
    monkeypatch.setattr(machines, "ENGINE", machines.ENGINE + 1)
    assert load_machine() is None


def test_another_machine_has_another_record(cache, monkeypatch):
    save_machine(machine())
    monkeypatch.setattr(machines, "cpu_model", lambda: "Another Processor 9000")
    assert load_machine() is None


def test_forecasts_fall_with_size_and_memory_rises():
    one = machine()
    order = ["llama-0.1m", "llama-0.2m", "llama-0.5m", "llama-1m", "llama-5m", "llama-15m", "llama-30m"]
    found = [one.predict(dataclasses.replace(SIZES[name], block_size=256), 2048) for name in order]
    rates, peaks = [p.tokens_per_second for p in found], [p.peak_memory_bytes for p in found]
    assert rates == sorted(rates, reverse=True)
    assert peaks == sorted(peaks)
    base = SIZES["gpt2-5m"]
    for change in ({"n_layer": 9}, {"vocab_size": 8192}, {"n_hidden": 2048}, {"block_size": 1024}):
        bigger = one.predict(dataclasses.replace(base, **change), 4096)
        assert bigger.tokens_per_second < one.predict(base, 4096).tokens_per_second


def test_a_prediction_adds_up_and_its_range_holds_it():
    config = SIZES["mistral-5m"]
    found = machine().predict(config, 4096, 1024, "bfloat16", n_workers=4)
    assert 4096 / sum(found.parts_seconds.values()) == pytest.approx(found.tokens_per_second)
    assert found.low < found.tokens_per_second < found.high
    assert found.high / found.tokens_per_second == pytest.approx(math.exp(0.15))  # the busy residuals
    alone = machine().predict(config, 4096, 1024, "bfloat16")
    assert alone.tokens_per_second == pytest.approx(1.15 * found.tokens_per_second)
    crowded = machine().predict(config, 4096, 1024, "bfloat16", n_workers=8)
    assert crowded.tokens_per_second == pytest.approx(found.tokens_per_second / 2)


def test_averaged_weights_cost_only_where_they_are_asked_for():
    config = SIZES["mistral-5m"]
    plain, averaged = (machine().predict(config, 4096, n_steps=40, averaged=asked) for asked in (False, True))
    assert averaged.tokens_per_second < plain.tokens_per_second == machine().predict(config, 4096).tokens_per_second
    more = averaged.peak_memory_bytes - plain.peak_memory_bytes
    assert more == pytest.approx(MEMORY["states"] * 4 * config.n_params)


def test_what_limits_a_case():
    assert machine().predict(SIZES["llama-30m"], 4096).limited_by == "compute"
    slow = {dtype: c | dict.fromkeys(CLASSES["overhead"], 0.01) for dtype, c in TRUE.items()}
    assert machine(constants=slow).predict(SIZES["llama-0.1m"], 512).limited_by == "launch overhead"
    idle = {dtype: c | {"loss_element": 1e-6} for dtype, c in TRUE.items()}
    assert machine(constants=idle).predict(SIZES["llama-0.1m"], 512).limited_by == "memory bandwidth"


def test_impossible_cases_are_refused_with_the_nearest_one():
    with pytest.raises(InputError, match=r"nearest: batch_tokens=1024"):
        machine().predict(SIZES["llama-0.5m"], 1000)
    with pytest.raises(InputError, match="unknown precision"):
        machine().predict(SIZES["llama-0.5m"], 1024, dtype="fp8")
    only = machine(multipliers={"float32": FACTORS})
    with pytest.raises(InputError, match="was not probed"):
        only.predict(SIZES["llama-0.5m"], 1024, dtype="bfloat16")


def test_the_margin_is_the_conformal_quantile():
    assert margin([0.1] * 5) == pytest.approx(math.exp(0.15))  # five cannot show 90 %
    assert margin([0.01 * i for i in range(1, 20)]) == pytest.approx(math.exp(0.18))  # 18th of 19
    assert margin([]) > 1.3


def shapes(rng, n):
    for _ in range(n):
        heads, head_size = int(rng.integers(1, 7)), int(rng.choice([16, 24, 32, 48]))
        family = str(rng.choice(["llama", "gpt2"]))
        width, block = heads * head_size, int(rng.choice([64, 256, 512]))
        config = ModelConfig(family, int(rng.integers(2, 7)), heads, heads, width, 3 * width, 1000, block)
        yield Case(config, 2048, int(rng.choice([512, 1024, 2048])), str(rng.choice(["float32", "bfloat16"])))


def probe_pieces(noise, rng):
    """Timings that a machine of the TRUE constants would give."""
    wanted = [("linear", {"m": m, "n": n, "k": k}) for m, n, k in rng.integers(16, 3000, (12, 3))]
    for kind in ("forward", "grad_weight"):
        wanted += [(kind, {"m": m, "n": n, "k": k}) for m, n, k in rng.integers(16, 3000, (14, 3))]
    for name in ("attention", "rotary_attention"):
        for t, h, c, n in rng.integers((16, 1, 8, 1), (600, 8, 64, 20), (16, 4)):
            wanted.append((name, {"m": t * n, "t": t, "h": 2 * h, "k": h, "c": c}))
    wanted += [(n, {"m": m, "d": d}) for n in ("rms", "ln") for m, d in rng.integers(16, 2000, (8, 2))]
    wanted += [(n, {"m": m, "f": f}) for n in ("swiglu", "gelu") for m, f in rng.integers(16, 2000, (8, 2))]
    wanted += [("bias", {"m": m, "n": n}) for m, n in rng.integers(16, 2000, (6, 2))]
    wanted += [("embedding", {"m": m, "d": d, "v": v}) for m, d, v in rng.integers(16, 2000, (10, 3))]
    wanted += [(n, {"layers": a, "d": 2 * d, "v": v}) for n in ("update", "gather", "average")
               for a, d, v in rng.integers((1, 4, 64), (12, 100, 2000), (6, 3))]  # fmt: skip
    wanted += [
        ("loss", {"m": m, "d": d, "v": v}) for m, d, v in rng.integers((100, 16, 200), (3000, 300, 4000), (10, 3))
    ]
    timings = []
    for dtype in ("float32", "bfloat16"):
        for name, sizes in wanted:
            sizes = {key: int(value) for key, value in sizes.items()}
            terms = piece(name, **sizes)
            seconds = sum(class_seconds(terms, TRUE[dtype]).values()) * math.exp(noise * rng.normal())
            timings.append(PieceTiming(name, dtype, sizes, seconds))
    return timings


def true_seconds(case, busy=False, compiled=False):
    constants = compiled_constants(TRUE[case.dtype]) if compiled else TRUE[case.dtype]
    parts = class_seconds(step_terms(case), constants)
    return sum(parts[name] * FACTORS[name] * (BUSY[name] if busy else 1) for name in CLASSES)


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 0.03), (0.02, 0.08)])
def test_a_machine_is_recovered_from_timings_it_made(noise, worst):
    rng = np.random.default_rng(3)
    pieces = probe_pieces(noise, rng)
    cases = list(shapes(rng, 24))
    steps = [StepTiming(case, true_seconds(case) * math.exp(noise * rng.normal())) for case in cases]
    busy = [StepTiming(case, true_seconds(case, busy=True)) for case in cases[:8]]
    peaks = [
        MemoryPeak(c, MEMORY["framework_bytes"] + sum(MEMORY[n] * b for n, b in memory_parts(c).items()))
        for c in (Case(SIZES[name], 4096) for name in ("llama-0.2m", "gpt2-0.5m", "llama-5m", "llama-30m", "gpt2-30m"))
    ]
    fit = fit_machine(pieces, steps, busy, peaks)
    assert fit.constants["float32"]["mm_flop"] == pytest.approx(TRUE["float32"]["mm_flop"], rel=0.05)
    assert fit.constants["bfloat16"]["mm_flop"] == pytest.approx(TRUE["bfloat16"]["mm_flop"], rel=0.1)
    made = machine(
        constants=fit.constants, multipliers=fit.multipliers, contention=fit.contention, memory=fit.memory, n_workers=2
    )
    errors = []
    for case in shapes(np.random.default_rng(99), 30):
        for n_workers in (1, 2):
            found = made.predict(case.config, 2048, case.micro_batch_tokens, case.dtype, n_workers)
            errors.append(found.tokens_per_second * true_seconds(case, busy=n_workers == 2) / 2048 - 1)
    assert max(map(abs, errors)) < worst
    unseen = Case(SIZES["mistral-5m"], 4096)
    true_peak = MEMORY["framework_bytes"] + sum(MEMORY[n] * b for n, b in memory_parts(unseen).items())
    assert made.peak_memory_bytes(unseen) == pytest.approx(true_peak, rel=0.05)
    assert len(fit.residuals["step"]) == 24
    assert fit.residuals["compiled"] == []
    assert len(fit.residuals["busy"]) == 8
    json.dumps(dataclasses.asdict(fit))  # plain numbers: the record can be written


def test_compiled_steps_correct_what_compiling_usually_gains():
    rng = np.random.default_rng(3)
    cases = [dataclasses.replace(case, dtype="bfloat16") for case in shapes(rng, 8)]
    plain = [StepTiming(case, true_seconds(case)) for case in cases]
    timed = [StepTiming(case, 1.2 * true_seconds(case, compiled=True)) for case in cases[:4]]  # a slower compiler
    fit = fit_machine(probe_pieces(0.0, rng), plain, [], [], timed)
    assert len(fit.residuals["compiled"]) == 4
    made = machine(constants=fit.constants, multipliers=fit.multipliers, compiled=fit.compiled, residuals=fit.residuals)
    for case in cases[4:]:
        found = made.predict(case.config, 2048, case.micro_batch_tokens, "bfloat16", compiled=True)
        assert 2048 / found.tokens_per_second == pytest.approx(1.2 * true_seconds(case, compiled=True), rel=0.05)
        assert found.limited_by in ("compute", "memory bandwidth", "launch overhead")


def test_compiling_that_was_not_timed_has_its_usual_gain_and_a_wide_range():
    one = machine()
    plain = one.predict(SIZES["llama-1m"], 2048, dtype="bfloat16")
    found = one.predict(SIZES["llama-1m"], 2048, dtype="bfloat16", compiled=True)
    assert 1 < found.tokens_per_second / plain.tokens_per_second < 4
    assert found.high / found.tokens_per_second == pytest.approx(1.2 * plain.high / plain.tokens_per_second)
    timed = machine(
        compiled={"bfloat16": dict.fromkeys(CLASSES, 1.0)}, residuals=one.residuals | {"compiled": [0.1] * 10}
    )
    known = timed.predict(SIZES["llama-1m"], 2048, dtype="bfloat16", compiled=True)
    assert (
        plain.high / plain.tokens_per_second
        < known.high / known.tokens_per_second
        < found.high / found.tokens_per_second
    )
    other = timed.predict(SIZES["llama-1m"], 2048, compiled=True)
    assert other.high / other.tokens_per_second == pytest.approx(found.high / found.tokens_per_second), "not compiled"


def test_a_machine_trains_in_its_own_precision_where_none_is_named():
    one = machine(dtype="bfloat16")
    assert one.predict(SIZES["llama-1m"], 2048) == one.predict(SIZES["llama-1m"], 2048, dtype="bfloat16")


def test_attention_skips_keys_that_no_query_of_a_chunk_sees():
    assert list(attention_chunks(64)) == [(64, 64)]
    assert list(attention_chunks(300)) == [(128, 128), (128, 256), (44, 300)]
    assert list(attention_chunks(512, 100)) == [(128, 128), (128, 227), (128, 227), (128, 227)]
    base = {"m": 1024, "t": 1024, "h": 4, "k": 4, "c": 32}
    assert piece("attention", **base)["score"] < 0.6 * 4 * 1024 * 1024
    assert piece("attention", **base, w=128)["score"] < 0.5 * piece("attention", **base)["score"]


def test_one_step_of_a_precision_corrects_it_but_leaves_nothing_out():
    (case,) = shapes(np.random.default_rng(5), 1)
    steps = [StepTiming(case, true_seconds(case))]
    fit = fit_machine(probe_pieces(0.0, np.random.default_rng(3)), steps, steps, [])
    assert fit.residuals["step"] == fit.residuals["busy"] == []
    assert margin(fit.residuals["step"]) > 1.3


def test_a_shape_timed_twice_leaves_two_out():
    cases = [dataclasses.replace(case, dtype="float32") for case in shapes(np.random.default_rng(5), 4)]
    steps = [StepTiming(case, true_seconds(case)) for case in [*cases, cases[0]]]
    fit = fit_machine(probe_pieces(0.0, np.random.default_rng(3)), steps, [], [])
    assert len(fit.residuals["step"]) == 5


def test_an_empty_probe_is_an_error():
    with pytest.raises(DataError, match="timed nothing"):
        fit_machine([], [], [], [])
