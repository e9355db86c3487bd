"""The page in a real browser without a network: quiet, bilingual, reachable by keyboard, restored by its link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from opened_page import HOSTILE, Opened

from chromium import CHROMIUM
from ltm.forecast.page_state import state_of
from ltm.forecast.question import Question, ask

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]


@pytest.mark.parametrize("opened", [360, 390, 768, 1280, 2560], indirect=True)
def test_page_is_quiet_and_fits_the_screen(opened: Opened) -> None:
    for question in (
        {},
        {"gpu": HOSTILE["name"]},
        {"model": "70b", "data": "books"},
        {"precision": "fp8", "gpu": "V100 SXM2"},
    ):
        for language in ("en", "ru"):
            opened.page.click(f"[data-language={language}]")
            opened.ask(question)
            assert opened.overflow() <= 0
    assert opened.page.locator("img").count() == 0
    assert opened.said == opened.asked == []


def test_every_word_is_in_the_readers_language(opened: Opened) -> None:
    opened.page.click("#all-cards")
    opened.ask({"model": "70b", "n_devices": 4, "method": "full", "claim_hours": 5})
    for language, letters in (("en", r"[а-яА-Я]"), ("ru", r"\b(?:the|of|and|is|hours?|tokens|memory)\b")):
        opened.page.click(f"[data-language={language}]")
        opened.settle()
        shown = opened.page.evaluate("document.body.innerText").replace("Русский", "").replace("ltm forecast", "")
        assert not re.search(letters, shown), re.search(f".*{letters}.*", shown)
        assert not re.search(r"\b(?:page|field|choice|col|head|tile|step|memory|change|verdict)\.[a-z]", shown)
        assert not re.search(r"{\w+}", shown)
        assert opened.page.evaluate("document.documentElement.lang") == language
    opened.ask({"precision": "fp8", "gpu": "V100 SXM2"})
    assert "не умеет" in opened.text("#problem")
    opened.page.click("#problem button")
    opened.settle()
    assert opened.page.evaluate("ltm.question().precision") == "fp16"
    assert opened.said == []


def test_no_slider_end_or_choice_breaks_a_number(opened: Opened) -> None:
    bad = re.compile(r"NaN|undefined|Infinity|∞|null|\[object|e\+\d")
    page = opened.page
    controls = page.locator("form input[type=range]").evaluate_all("all => all.map(one => one.id || one.dataset.name)")
    assert {"field-size", "tokens", "seq_len", "usd_per_hour"} <= set(controls)
    move = """([end, names]) => { for (const one of document.querySelectorAll('form input[type=range]')) {
        if (names && !names.includes(one.dataset.name)) continue;
        one.value = one[end]; one.dispatchEvent(new Event('input')); } }"""
    names = page.locator("form input[type=range]").evaluate_all("all => all.map(one => one.dataset.name)")
    for end in ("min", "max"):
        for chosen in (*([name] for name in names), None):
            page.evaluate(move, [end, chosen])
            opened.settle()
            assert not bad.search(page.evaluate("document.body.innerText")), (end, chosen)
        page.evaluate("ltm.ask({...ltm.data.initial})")
        opened.settle()
    page.evaluate("ltm.ask({n_devices: 4})")
    opened.settle()
    for select in page.locator("form select:visible").all():
        for value in select.locator("option").evaluate_all("all => all.map(one => one.value)"):
            select.select_option(value)
            opened.settle()
            assert not bad.search(page.evaluate("document.body.innerText"))
    assert opened.said == opened.asked == []


def test_link_restores_the_question(opened: Opened, page_path: Path, browser: Any) -> None:
    state = {"model": "3b", "tokens": 3.5e9, "epochs": 2, "gpu": HOSTILE["name"], "n_devices": 4, "sharding": "zero3",
             "method": "lora", "lora_rank": 64, "micro_batch": 2, "seq_len": 4096, "usd_per_kwh": 0.31}  # fmt: skip
    opened.ask(state)
    opened.page.locator("#group-shape summary").click()
    opened.page.fill("#field-n_layer", "7")
    opened.page.keyboard.press("Enter")
    opened.page.click("[data-language=ru]")
    for _ in range(50):
        opened.page.wait_for_timeout(50)
        if "lang=ru" in opened.page.evaluate("location.hash"):
            break
    assert "shape=7" in opened.page.evaluate("location.hash")
    before = opened.page.evaluate("[ltm.question(), document.getElementById('time').textContent]")
    other = Opened(browser.new_page(), page_path, opened.page.evaluate("location.hash"))
    assert other.page.evaluate("[ltm.question(), document.getElementById('time').textContent]") == before
    assert before[0]["shape"]["n_layer"] == 7
    assert {key: before[0][key] for key in state} == state
    assert other.page.evaluate("document.documentElement.lang") == "ru"
    other.page.close()
    hostile = "#model=nothing&gpu=<script>&tokens=NaN&n_devices=-5&precision=fp7&shape=1,2&zzz=1&lang=xx"
    other = Opened(browser.new_page(), page_path, hostile)
    assert other.page.evaluate("ltm.hashOf(ltm.question())") == ""
    assert other.said == opened.said == []
    other.page.close()


def test_keyboard_finds_a_card_and_drags_a_slider(opened: Opened) -> None:
    page = opened.page
    page.focus("#field-gpu")
    page.keyboard.type("4090")
    assert page.locator("#list-gpu [role=option]").count() >= 1
    page.keyboard.press("Enter")
    opened.settle()
    assert page.evaluate("ltm.question().gpu") == "GeForce RTX 4090"
    assert page.get_attribute("#field-gpu", "aria-expanded") == "false"
    page.focus("#field-size")
    before = opened.text("#time")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    opened.settle()
    assert opened.text("#time") != before
    unlabelled = """[...document.querySelectorAll('input, select, button')].filter((one) =>
        !(one.labels && one.labels.length) && !one.getAttribute('aria-label') && !one.textContent.trim()).length"""
    assert page.evaluate(unlabelled) == 0
    page.fill("#field-tokens", "2,5 млрд")
    page.keyboard.press("Enter")
    opened.settle()
    assert page.evaluate("ltm.question().tokens") == 2.5e9
    page.fill("#field-tokens", "lots")
    page.keyboard.press("Enter")
    assert page.get_attribute("#field-tokens", "aria-invalid") == "true"


def test_proposals_fit_and_an_update_is_quick(opened: Opened) -> None:
    opened.ask({"model": "7b", "gpu": "GeForce RTX 4090"})
    assert "Does not fit" in opened.text("#fits")
    proposals = opened.page.locator("#changes button").count()
    assert proposals >= 3
    for place in range(proposals):
        opened.ask({**state_of(ask(Question(model="7b", gpu="RTX 4090")))})
        opened.page.locator("#changes button").nth(place).click()
        opened.settle()
        assert re.match(r"Fits|Likely fits", opened.text("#fits"))
    times = []
    for size in range(20):
        opened.ask({"tokens": 1e9 * (size + 1)})
        times.append(float(opened.page.evaluate("document.documentElement.dataset.milliseconds")))
    assert sorted(times)[len(times) // 2] < 50
