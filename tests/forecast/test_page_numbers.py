"""The numbers of the page in a real browser are Python's, down to the printed tables."""

from __future__ import annotations

import random
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from opened_page import Opened, same

from chromium import CHROMIUM
from ltm.errors import LtmError
from ltm.forecast import estimate, fits, formulas, render
from ltm.forecast.answer import Answer, answer, energy_kwh, fitting_words, hours, memory_gib, speed
from ltm.forecast.case import CHECKPOINTING, Case, Columns, case_columns, device_columns
from ltm.forecast.claims import EXAMPLE, judge, read_claims
from ltm.forecast.constants import constants
from ltm.forecast.devices import Device, device, device_names
from ltm.forecast.inference import forecast_inference
from ltm.forecast.page_state import CHOICES, state_of
from ltm.forecast.question import Question, ask
from ltm.forecast.shapes import shape
from ltm.forecast.transpile import Source, runtime_script, transpile

FITS = {"sure": "fits", "likely": "likely fits", "unlikely": "may not fit", "over": "does not fit"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]


def cards() -> list[Device]:
    return [device(name) for name in device_names()]


def random_case(rng: random.Random) -> Case:
    """Return a case with every field at random, sensible or not: the arithmetic has to agree all the same."""
    heads, size = rng.choice([1, 2, 6, 12, 25, 32, 64]), rng.choice([32, 48, 64, 128, 256])
    values: dict[str, float] = {
        "n_layer": rng.randint(1, 96), "n_embd": heads * size, "n_head": heads, "head_size": size,
        "n_kv_head": rng.choice([1, heads]), "n_hidden": rng.randint(64, 30000), "vocab_size": rng.randint(256, 256000),
        "window": rng.choice([0, 0, 512]), "n_params": rng.choice([0, 0, 10 ** rng.uniform(6, 11)]),
        "seq_len": 2 ** rng.randint(6, 16), "micro_batch": rng.choice([1, 2, 3, 8, 64]),
        "global_batch_tokens": round(10 ** rng.uniform(3, 7)), "precision": rng.randint(0, 4),
        "attention": rng.randint(0, 3), "checkpointing": rng.choice([*CHECKPOINTING.values(), 0.5]),
        "kernels": rng.randint(0, 2), "method": rng.randint(0, 2), "lora_rank": rng.choice([0, 8, 64]),
        "lora_mlp": rng.random(), "optimizer": rng.randint(0, 3), "loop": rng.randint(0, 2),
        "n_devices": 2 ** rng.randint(0, 10), "tp": 2 ** rng.randint(0, 3), "pp": 2 ** rng.randint(0, 3),
        "cp": rng.choice([1, 1, 2]), "interleave": rng.choice([1, 4]), "zero": rng.randint(0, 3),
        "guesses": rng.randint(0, 4),
    }  # fmt: skip
    for f in fields(Case):
        usual = 1.0 if f.name in ("speed_scale", "launch_scale") else 0.0
        values.setdefault(f.name, rng.choice([0, 1]) if usual == 0.0 else rng.uniform(0.5, 2))
    values["node_link"] = 10 ** rng.uniform(9, 12)
    values["devices_per_node"] = rng.choice([1, 2, 8, 72])
    values["memory_extra"] = rng.choice([0, -1e9, 2e9])
    return Case(**{name: float(value) for name, value in values.items()})


def python_numbers(pairs: list[tuple[Case, Device]]) -> list[dict[str, float]]:
    c = case_columns([case for case, _ in pairs])
    d = device_columns([estimate.with_experience(card) for _, card in pairs])
    k, n = constants(), len(pairs)
    with np.errstate(all="ignore"):
        found: dict[str, Any] = {
            "layout": formulas.layout(c), "parameters": formulas.parameters(c), "step": formulas.step_seconds(c, d, k),
            "memory": formulas.memory_bytes(c, d, k), "spread": formulas.spread(c, d, k),
            "watts": {"all": formulas.power_watts(c, d, k)},
            "fixed": formulas.fixed_seconds(c, d, c.global_batch_tokens * 100),
        }  # fmt: skip
    flat = {f"{group}.{key}": np.broadcast_to(v, (n,)) for group, part in found.items() for key, v in part.items()}
    return [{key: float(values[i]) for key, values in flat.items()} for i in range(n)]


BROWSER_NUMBERS = """pairs => pairs.map(([c, name]) => {
  const d = ltm.devices.get(name), k = ltm.constants;
  const groups = {layout: ltm.layout(c), parameters: ltm.parameters(c), step: ltm.step_seconds(c, d, k),
    memory: ltm.memory_bytes(c, d, k), spread: ltm.spread(c, d, k), watts: {all: ltm.power_watts(c, d, k)},
    fixed: ltm.fixed_seconds(c, d, c.global_batch_tokens * 100)};
  return Object.entries(groups).flatMap(([group, part]) =>
    Object.entries(part).map(([key, v]) => [group + '.' + key, String(v)]));
})"""


def test_formulas_in_the_browser_equal_python_on_random_cases(opened: Opened) -> None:
    rng = random.Random(7)
    every = cards()
    pairs = [(random_case(rng), every[i % len(every)]) for i in range(max(400, 3 * len(every)))]
    wanted = python_numbers(pairs)
    given = [[{f.name: getattr(case, f.name) for f in fields(Case)}, card.name] for case, card in pairs]
    found = [{key: float(text) for key, text in row} for row in opened.page.evaluate(BROWSER_NUMBERS, given)]
    assert len(found) >= 300
    assert found[0].keys() == wanted[0].keys()
    assert {card.name for _, card in pairs} == set(device_names())
    wrong = [
        (i, key, a[key], b[key]) for i, (a, b) in enumerate(zip(found, wanted, strict=True)) for key in b
        if not same(a[key], b[key])
    ]  # fmt: skip
    assert wrong == []
    for key in wanted[0]:  # no part is constant: the cases reach it
        if key not in ("spread.from_plain_attention", "spread.from_launch", "spread.from_network", "fixed.warm_up"):
            assert len({row[key] for row in wanted}) > 1, key


def random_question(rng: random.Random) -> Question:
    method = rng.choice(["full", "full", "lora", "qlora"])
    gpus = rng.choice([1, 1, 1, 2, 8, 64])
    books = rng.random() < 0.4
    return Question(
        model=rng.choice(["1m", "15m", "125m", "1.3b", "7b", "70b", "llama-3.1-8b", "gpt-2-medium", "qwen2.5-0.5b"]),
        tokens=None if books else rng.choice([None, "5M", "1B", "300B"]),
        books=rng.choice([1, 10, 1000]) if books else None,
        pages=rng.choice([50, 500]) if books else None,
        epochs=rng.choice([None, 1, 3]),
        method=method,
        continued=rng.choice([None, True]),
        precision=rng.choice([None, None, "fp32", "bf16", "fp16", "fp8"]),
        attention=rng.choice([None, "eager", "flash"]),
        compile=rng.choice([None, True, False]),
        checkpointing=rng.choice([None, "selective", "full"]),
        packing=rng.choice([None, 0.4]),
        micro_batch=rng.choice([None, None, 1, 8]),
        batch_tokens=rng.choice([None, None, 131072, 500_000]),
        seq_len=rng.choice([None, 512, 4096]),
        optimizer=rng.choice([None, "adamw8bit", "muon", "sgd"]),
        parallel=rng.choice(["ddp", "zero1", "zero2", "zero3"]) if gpus > 1 else None,
        tp=rng.choice([None, None, 2]) if gpus > 1 else None,
        gpus=gpus,
        gpu=rng.choice(device_names()),
        usd_per_hour=rng.choice([None, 2.5]),
        watts=rng.choice([None, 300]),
    )


def answers(n: int) -> list[Answer]:
    rng, found = random.Random(11), []
    while len(found) < n:
        try:
            found.append(answer(ask(random_question(rng))))
        except LtmError:  # a question that makes no sense, such as fp8 on a card without it
            continue
    return found


BROWSER_ANSWERS = """states => states.map((state) => {
  const made = ltm.answer({...ltm.data.defaults, ...state});
  return {refused: made.refused, ...made.bill, ...made.speed, ...made.peak, state: made.state,
    micro_batch: made.micro_batch, batch: made.c.global_batch_tokens,
    limited_by: made.limited_by, step: made.step && made.step.total};
})"""


def test_questions_are_answered_as_the_command_line_answers_them(opened: Opened) -> None:
    every = answers(150)
    found = opened.page.evaluate(BROWSER_ANSWERS, [state_of(one.asked) for one in every])
    limits = {"launch": "launch overhead"}
    for one, made in zip(every, found, strict=True):
        result, bill, case = one.forecast, one.bill, one.asked.case
        rate, peak = speed(result), memory_gib(result)
        pairs = {
            "seconds": bill.seconds, "seconds_low": bill.seconds_low, "seconds_high": bill.seconds_high,
            "kwh": bill.energy_kwh, "kwh_low": bill.energy_kwh_low, "kwh_high": bill.energy_kwh_high,
            "usd": bill.cost_usd, "usd_low": bill.cost_usd_low, "usd_high": bill.cost_usd_high,
            "tokens_per_second": rate.value, "tokens_per_second_low": rate.low, "tokens_per_second_high": rate.high,
            "mfu": result.mfu, "total": peak.value * 1024**3, "low": peak.low * 1024**3, "high": peak.high * 1024**3,
            "step": result.step_seconds, "micro_batch": case.micro_batch, "batch": case.global_batch_tokens,
        }  # fmt: skip
        wrong = {key: (made[key], value) for key, value in pairs.items() if not same(made[key], value)}
        assert wrong == {}, one.asked.question
        assert made["refused"] is None
        assert limits.get(made["limited_by"], made["limited_by"]) == result.limited_by
        assert FITS[made["state"]] == fitting_words(result)


SHOWN = [
    Question(),
    Question(model="7b", method="qlora", gpu="RTX 4090", tokens="20M", usd_per_hour=0.5),
    Question(model="1.3b", books=100, pages=500, epochs=3, gpu="H100", gpus=8, parallel="fsdp"),
    Question(model="70b", gpu="RTX 4090"),
]


@pytest.mark.parametrize("question", SHOWN)
def test_shown_numbers_are_pythons(opened: Opened, question: Question) -> None:
    one = answer(ask(question))
    opened.ask(state_of(one.asked))
    time, memory = hours(one.bill), memory_gib(one.forecast)
    assert opened.text("#time") == render.single(time.value, "hours")
    low, high = (render.single(value, "hours").split(" ")[0] for value in (time.low, time.high))
    shown = opened.text("#time-range")
    assert shown.startswith("90 % range: ")
    ranged = render.amount(time.value, time.low, time.high, "hours")
    assert re.sub(r"[^\d.,]+", " ", shown.removeprefix("90 % range: ")).split() == re.findall(r"[\d.,]+", ranged)[1:]
    rate = speed(one.forecast)
    assert opened.text("#tile-speed .value") == render.single(rate.value, "tokens_per_s") + " tokens/s"
    assert opened.text("#tile-memory .value") == render.single(memory.value, "gib")
    assert opened.text("#tile-energy .value") == render.single(energy_kwh(one.bill).value, "kwh")
    assert opened.text("#tile-cost .value") == render.single(one.bill.cost_usd, "usd")
    assert opened.text("#tile-share .value") == render.single(one.forecast.mfu, "share")
    assert opened.text("#asked").count(one.asked.device.name) == 1
    row = opened.page.locator("#cards-table tr.now")
    assert row.locator("td").first.inner_text().replace("\u00a0", " ") == render.single(time.value, "hours")
    assert bool(opened.page.locator("#changes button").count()) != fits.likely(one.forecast)
    assert (low, high) != ("", "")


def test_tables_of_cards_models_and_books_are_pythons(opened: Opened) -> None:
    opened.page.click("#all-cards")

    def table(name: str) -> dict[str, list[str]]:
        rows = opened.page.locator(f"#{name}-table tbody tr").all()
        cells = [[cell.replace("\u00a0", " ") for cell in row.locator("th, td").all_inner_texts()] for row in rows]
        return {first: rest for first, *rest in cells}

    found = table("cards")
    assert len(found) == len(device_names()) + 1
    for name in ("H100 SXM", "GeForce RTX 4090", "A100 SXM 40GB", "Instinct MI300X", "T4 (fp16)"):
        one = answer(ask(Question(gpu=name.removesuffix(" (fp16)"))))
        assert found[name][0] == render.single(hours(one.bill).value, "hours")
        assert found[name][2] == render.single(one.forecast.tokens_per_second, "tokens_per_s")
        assert found[name][3].split(" · ")[0] == render.single(memory_gib(one.forecast).value, "gib")
    for name, row in table("models").items():
        one = answer(ask(Question(model=name)))
        assert row[0] == render.single(hours(one.bill).value, "hours")
    for books, row in table("books").items():
        one = answer(ask(Question(books=books.replace(",", ""), pages=500, epochs=3)))
        assert row[1] == render.single(hours(one.bill).value, "hours")
        assert row[6] == render.single(one.bill.cost_usd, "usd")


def test_switches_change_one_setting_at_the_same_micro_batch(opened: Opened) -> None:
    one = answer(ask(Question(model="355m", gpus=4, gpu="A100 SXM 80GB")))
    found = opened.page.evaluate(
        """state => ltm.switches(ltm.answer({...ltm.data.defaults, ...state})).map((row) =>
            [row.key, row.word, row.made.speed.tokens_per_second, row.made.memory.total])""",
        state_of(one.asked),
    )
    codes = {key: CHOICES[key].index for key in ("attention", "kernels", "precision", "optimizer")}
    codes |= {"checkpointing": CHECKPOINTING.__getitem__, "sharding": CHOICES["sharding"].index}
    checked = 0
    for key, word, tokens_per_second, memory in found:
        if key not in codes:  # methods change several fields of a case
            continue
        fields_of = {"zero" if key == "sharding" else key: float(codes[key](word))}
        fields_of |= {"mixed": 0.0} if word == "fp32" else {}
        result = estimate.forecast(replace(one.asked.case, **fields_of), one.asked.device)
        assert same(tokens_per_second, result.tokens_per_second), (key, word)
        assert same(memory, result.peak_memory_bytes), (key, word)
        checked += 1
    assert checked >= 9
    assert {"lora", "qlora"} <= {word for _, word, _, _ in found}


def test_model_at_work_is_pythons(opened: Opened) -> None:
    rng = random.Random(5)
    for name in rng.sample(device_names(), 25):
        model, cards_in_use = rng.choice(["125m", "3b", "llama-3.1-8b", "70b"]), rng.choice([1, 1, 4])
        state = state_of(ask(Question(model=model, gpu=name, gpus=cards_in_use)))
        found = opened.page.evaluate("state => ltm.serving(ltm.answer({...ltm.data.defaults, ...state}))", state)
        assert len(found) == 3
        for row in found:
            one = forecast_inference(shape(model), device(name), row["quant"], n_devices=cards_in_use)
            pairs = (
                (row["memory"]["total"], one.memory_gib.value * 1024**3),
                (row["prefill"], one.prefill_tokens_per_second.value),
                (row["decode"], one.decode_tokens_per_second.value),
                (row["decode"] * row["decode_factor"], one.decode_tokens_per_second.high),
                (row["first_token_seconds"], one.first_token_seconds.value),
                (row["answer_seconds"] / row["answer_factor"], one.answer_seconds.low),
            )
            assert all(same(a, b) for a, b in pairs), (model, name, pairs)
            assert row["fits"] == one.fits


def test_claims_are_judged(opened: Opened) -> None:
    rows = opened.page.locator("#claims-table tbody tr").all_inner_texts()
    assert len(rows) == 8
    assert all("impossible" in row for row in rows[:4])
    assert all("too slow" in row for row in rows[4:])
    example = [judge(claim) for claim in read_claims(EXAMPLE)]
    judged = opened.page.evaluate("""ltm.data.claims.map((claim) => {
        const made = ltm.answer({...ltm.data.defaults, ...claim.state});
        const {slow, fast} = ltm.judgeClaim(made, claim.low * 3600, claim.high * 3600);
        return [slow.tokens_per_second, fast.tokens_per_second, slow.share, fast.share]; })""")
    for found, one in zip(judged, example, strict=True):
        wanted = [*one.implied_tokens_per_second, *one.implied_share]
        assert all(same(a, b) for a, b in zip(found, wanted, strict=True))
    one = answer(ask(Question()))
    for claim, word in ((0.1, "impossible"), (1.01 * one.bill.seconds / 3600, "plausible"), (1000, "too slow")):
        opened.page.fill("#field-claim_hours", f"{claim:.4f}")
        opened.page.keyboard.press("Enter")
        opened.settle()
        assert word in opened.text("#claim-verdict")
    share = 6 * one.asked.shape.parameters * 10e9 / (1000 * 3600) / one.asked.device.peak_flops
    assert f"{10e9 / 3.6e6 / 1000:.3g}k tokens/s" in opened.text("#claim-verdict")
    assert render.single(share, "share") in opened.text("#claim-verdict")


def test_numpys_meaning_is_kept_where_javascript_differs(browser: Any) -> None:
    text = (
        "from numpy import ceil, exp, log, maximum, minimum, where\n"
        "def f(c):\n"
        '    return {"a": where(c.x > 0, 1.0 / c.x, 5.0), "b": c.x / c.x, "c": 1.0 ** (c.x / c.x),'
        ' "d": (c.x - 1.0) ** (1.0 / c.x), "e": where(c.x / c.x, 1.0, 2.0), "f": maximum(c.x / c.x, 1.0),'
        ' "g": c.y * (c.y > 2), "h": ceil(-c.y / 7), "i": log(c.x), "j": minimum(c.x, -1.0) ** 0.5,'
        ' "k": 0.0 + (c.y < 2) + (c.y != 3) + (c.y == 3) + (c.y <= 3) + (c.y >= 4), "l": exp(c.y) ** -c.y}\n'
    )
    space: dict[str, Any] = {}
    exec(text, space)
    with np.errstate(all="ignore"):
        wanted = {k: float(v[0]) for k, v in space["f"](Columns(x=np.array([0.0]), y=np.array([3.0]))).items()}
    run = "return Object.entries(f({x: 0, y: 3})).map(([k, v]) => [k, String(v)]);"
    made = "\n".join(["(() => {", runtime_script(), transpile([Source("t.py", text)]).text, run, "})()"])
    tab = browser.new_page()
    found = {key: float(value) for key, value in tab.evaluate(made)}
    tab.close()
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not same(found[key], wanted[key], 0.0)] == []
