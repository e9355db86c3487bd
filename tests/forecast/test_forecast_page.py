"""The page as a file: its words, its policy, what it embeds, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import pytest

from ltm.errors import InputError
from ltm.forecast import page
from ltm.forecast.devices import device
from ltm.forecast.page_state import CHOICES, state_of, understood
from ltm.forecast.question import Question, ask
from ltm.forecast.shapes import shape

HOSTILE = "</script><img src=x onerror=alert(1)>"
SHEET = {
    "name": HOSTILE,
    "memory_gib": 24.0,
    "bandwidth_gbps": 1000.0,
    "bf16_tflops": 100.0,
}


def embedded(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_policy_allows_this_script_and_style_alone() -> None:
    text = page.page_html()
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1])
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for name, body in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"\b(?:src|href)=\"(?!#)|https?:|\bstyle=\"|\son\w+=\"", text.replace(script, ""))
    assert not re.search(r"innerHTML|document\.write|\beval\(|new Function|fetch\(|XMLHttp", script)


def test_languages_have_the_same_words_and_every_word_is_there() -> None:
    english, russian = page.words("en"), page.words("ru")
    assert english.keys() == russian.keys()
    for key, text in english.items():
        assert text.strip(), key
        assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", russian[key])), key
    scripts = "".join(page._asset(name) for name in page.SCRIPTS) + page._asset("page.html")
    used = set(re.findall(r"say\('([\w.]+)'[,)]", scripts)) | set(re.findall(r'data-word="([\w.]+)"', scripts))
    used |= {f"choice.{key}.{word}" for key, words in CHOICES.items() for word in words}
    used |= {f"reason.{name}" for name in page.page_data(understood(None), "en")["reasons"]}
    assert len(used) > 80
    assert used <= english.keys()


def test_names_of_strangers_cannot_close_the_script() -> None:
    text = page.page_html(devices=[device(SHEET)])
    assert "<img" not in text
    names = [card["name"] for card in embedded(text)["devices"]]
    assert HOSTILE in names


def test_page_opens_on_the_question_given(tmp_path: Path) -> None:
    asked = Question(
        model="gpt2-medium", books=10, pages="1k", epochs=3, gpu="H100", gpus=8, parallel="fsdp", seq_len=512
    )
    path = page.write_page(tmp_path / "page.html", asked, "ru")
    data = embedded(path.read_text(encoding="utf-8"))
    initial = data["initial"]
    assert data["language"] == "ru"
    wanted = {
        "data": "books",
        "books": 10,
        "pages": 1000,
        "epochs": 3,
        "gpu": "H100 SXM",
        "n_devices": 8,
        "seq_len": 512,
    }
    assert {key: initial[key] for key in wanted} == wanted
    assert (initial["sharding"], initial["micro_batch"], initial["batch_tokens"]) == ("zero3", 0, 0)
    own = next(entry for entry in data["shapes"] if entry["id"] == initial["model"])
    assert own["parameters"] == shape("gpt2-medium").parameters


def test_changed_shape_becomes_a_model_of_its_own() -> None:
    data = page.page_data(understood({"model": "125m", "n_layer": 6}), "en")
    assert data["initial"]["model"] == "125m *"
    assert next(entry for entry in data["shapes"] if entry["id"] == "125m *")["n_layer"] == 6
    assert all(data["defaults"][key] == value for key, value in state_of(ask(Question())).items())


def test_offered_models_are_found_again_by_name() -> None:
    shapes = page.page_data(understood(None), "en")["shapes"]
    assert len({entry["id"] for entry in shapes}) == len(shapes) > 100
    for entry in shapes:
        assert shape(entry["id"]).parameters == entry["parameters"], entry["id"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"models": "7b"}, "no field 'models'"),
        ({"gpu": "H1000000"}, "unknown card"),
        ({"tokens": "many"}, "tokens many"),
    ],
)
def test_bad_questions_are_refused(question: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        page.page_html(question)


def test_unknown_language_is_refused() -> None:
    with pytest.raises(InputError, match="no language 'fr'"):
        page.page_html(language="fr")


def test_formula_that_reads_a_missing_constant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = page.as_dict()
    del constants["matmul_efficiency"]
    monkeypatch.setattr(page, "as_dict", lambda: constants)
    with pytest.raises(InputError, match=r"k\.matmul_efficiency"):
        page.page_html()
