"""The page as text: whole, offline, escaped, and there at any moment of a study."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest
from synthetic_study import HOSTILE, write_study

from ltm.dashboard import page
from ltm.dashboard.inputs import read_inputs
from ltm.dashboard.names import effect_name
from ltm.dashboard.section import DashboardSection
from ltm.dashboard.stage import build, page_path
from ltm.dashboard.tables import script_json
from ltm.dashboard.words import LANGUAGES, Duration, Fixed, Percent, Signed, entries, say, show
from ltm.errors import StoreError
from ltm.evalset import evalfile
from ltm.progress import Progress
from ltm.store import WorkFolder, read_json, write_json

LIMIT_BYTES = 2 * 2**20
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def html_text(study: WorkFolder) -> str:
    return build(DashboardSection(), study, QUIET).read_text(encoding="utf-8")


def payload(text: str) -> dict[str, object]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    return json.loads(match[1])


def prose(text: str) -> str:
    return text.split('<script type="application/json"')[0].split("</style>")[1]


def test_page_is_one_small_file_without_addresses(html_text: str) -> None:
    assert len(html_text.encode()) < LIMIT_BYTES
    assert "src=" not in prose(html_text)
    assert not re.search(r'(?:href|action)="(?!#)', prose(html_text))
    assert "<link" not in html_text


def test_policy_names_the_hashes_of_the_very_scripts(html_text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html_text)
    assert policy
    scripts = re.findall(r"<script>(.*?)</script>", html_text, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", html_text, re.DOTALL)
    assert len(scripts) == 2
    assert policy[1].replace("&#x27;", "'") == page.content_security_policy(scripts, styles)
    assert "unsafe" not in policy[1]


def test_every_chapter_has_its_finding_in_both_languages(html_text: str) -> None:
    for name in page.CHAPTERS:
        section = re.search(rf'<section id="{name}".*?</section>', html_text, re.DOTALL)
        assert section
        lead = re.search(r'<p class="lead">(.*?)</p>', section[0], re.DOTALL)
        assert lead
        for language in LANGUAGES:
            assert re.search(rf'<span lang="{language}">[^<]{{10,}}', lead[1]), (name, language)
    assert prose(html_text).count('<span lang="en">') == prose(html_text).count('<span lang="ru">')


def test_equal_rows_give_equal_bytes(study: WorkFolder, html_text: str) -> None:
    assert page.make_page(read_inputs(study), "en") == html_text


def test_the_answer_is_what_the_findings_say(study: WorkFolder, html_text: str) -> None:
    found = read_json(study.path("patterns", "findings.json"))
    sentence = found["findings"][0]["text"]["en"].split(" (")[0]
    assert sentence in prose(html_text)
    assert "8 findings stand out from chance." in html_text


def test_nothing_told_apart_is_said_so(tmp_path: Path) -> None:
    work = write_study(tmp_path, n_runs=20, n_books=20)
    write_json(work.path("patterns", "findings.json"), {"findings": [], "not_told_apart": [], "notes": []})
    text = page.make_page(read_inputs(work), "ru")
    assert "Nothing could be told apart" in text
    assert "Различить ничего не удалось" in text


def test_hostile_titles_are_only_text(tmp_path: Path) -> None:
    work = write_study(tmp_path, n_runs=20, n_books=20, titles=HOSTILE)
    study = read_json(work.path("study.json"))
    write_json(work.path("study.json"), study | {"question": HOSTILE[0], "name": HOSTILE[1]})
    text = page.make_page(read_inputs(work), "en")
    assert len(re.findall(r"<script[\s>]", text)) == 4
    assert len(re.findall(r"</script", text)) == 4
    assert "<img" not in prose(text)
    assert "\u202e" not in text
    titles = " ".join(map(str, payload(text)["titles"]))
    assert all(title.split("\u202e")[0].split("\u2028")[0] in titles for title in HOSTILE)


def test_json_cannot_close_its_element() -> None:
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}


def test_an_empty_work_folder_gives_a_page(tmp_path: Path) -> None:
    text = build(DashboardSection(), WorkFolder(tmp_path), QUIET).read_text(encoding="utf-8")
    assert "Nothing has been trained yet" in text
    assert "There is no study.json yet" in text
    assert payload(text)["figures"] == {}


def test_an_unfinished_study_says_how_far_it_is(tmp_path: Path) -> None:
    work = write_study(tmp_path, n_runs=24, n_books=20, finished=5)
    write_json(work.path("runs", "broken", "failed.json"), {"error": "loss is not finite"})
    text = page.make_page(read_inputs(work), "en")
    assert "Not finished: 5 of 24 runs are in." in text
    assert "готово 5 запусков из 24" in text
    assert "1 run failed" in text
    assert "curves" in payload(text)["figures"]


FILES = [
    "study.json",
    "books/catalogue.parquet",
    "books/rejected.parquet",
    "sets/variants.parquet",
    "tokens/shards.parquet",
    "scores/measures.parquet",
    "scores/reliability.parquet",
    "patterns/effects.parquet",
    "patterns/ranking.parquet",
    "patterns/findings.json",
    "dialogue/tuned.parquet",
    "dialogue/gains.parquet",
    "forecast.json",
    "timings.json",
]


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_each_file_may_be_missing_or_damaged(tmp_path: Path, damage: str) -> None:
    work = write_study(tmp_path, n_runs=16, n_books=20)
    whole = {name: work.path(*name.split("/")).read_bytes() for name in FILES}
    for name in FILES:
        path = work.path(*name.split("/"))
        if damage == "missing":
            path.unlink()
        else:
            broken = {"empty": b"", "half": whole[name][: len(whole[name]) // 2], "other": b'["x"]'}
            path.write_bytes(broken[damage])
        inputs = read_inputs(work)
        assert inputs.problems.get(name) == ("missing" if damage == "missing" else "damaged")
        assert inputs.problems.keys() == {name}
        text = page.make_page(inputs, "en")
        if not name.startswith(("tokens", "scores/measures")):
            assert name in prose(text), name
        path.write_bytes(whole[name])
    assert read_inputs(work).problems == {}


def test_json_of_foreign_shapes_does_not_break_the_page(tmp_path: Path) -> None:
    work = write_study(tmp_path, n_runs=16, n_books=20)
    for value in (
        {"findings": 3, "notes": {"a": 1}},
        {"findings": [1, {"text": 5}, {"text": {"en": "Only English."}}]},
    ):
        write_json(work.path("patterns", "findings.json"), value)
        write_json(work.path("forecast.json"), {"stages": [{"stage": "runs", "seconds": "long"}]})
        write_json(work.path("study.json"), {"name": 7, "question": ["x"]})
        text = page.make_page(read_inputs(work), "ru")
    assert '<span lang="ru">Only English.</span>' in text


def test_runs_with_nan_and_foreign_run_files(tmp_path: Path) -> None:
    work = write_study(tmp_path, n_runs=8, n_books=20)
    paths = sorted(work.path("runs").glob("*/run.json"))
    write_json(paths[0], read_json(paths[0]) | {"final_loss": None, "curve_loss": [None, 3.0, 2.0]})
    write_json(paths[1], read_json(paths[1]) | {"n_params": "many"})
    paths[2].write_text("{", encoding="utf-8")
    inputs = read_inputs(work)
    assert (len(inputs.runs), inputs.unreadable_runs) == (6, 2)
    assert "2 run files cannot be read" in page.make_page(inputs, "en")


def test_times_are_compared_over_the_same_stages(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    stages = [{"stage": "runs", "seconds": 600, "low": 300, "high": 900}, {"stage": "scores", "seconds": 60}]
    write_json(work.path("forecast.json"), {"stages": stages})
    write_json(work.path("timings.json"), {"stages": {"books": 5000, "runs": 660}, "current": {"stage": "scores"}})
    text = page.make_page(read_inputs(work), "en")
    assert "The work took 11\u00a0min; the forecast was 10\u00a0min." in text
    assert "1 of 1 stages ended inside its forecast range." in text


def test_page_is_written_where_the_section_says(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work")
    default = tmp_path / "work" / "ltm_result_dashboard.html"
    assert build(DashboardSection(), work, QUIET) == page_path(DashboardSection(), work) == default
    elsewhere = tmp_path / "elsewhere" / "page.html"
    assert build(DashboardSection(path=str(elsewhere)), work, QUIET) == elsewhere
    assert elsewhere.exists()
    with pytest.raises(StoreError):
        build(DashboardSection(path="../page.html"), work, QUIET)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError):
        build(DashboardSection(path=str(tmp_path / "file" / "page.html")), work, QUIET)


def test_locales_have_equal_keys_plurals_and_placeholders() -> None:
    english, russian = (entries(language) for language in LANGUAGES)
    assert english.keys() == russian.keys()
    for key, text in english.items():
        other = russian[key]
        assert isinstance(text, dict) == isinstance(other, dict), key
        if isinstance(text, dict) and isinstance(other, dict):
            assert text.keys() == {"one", "other"}
            assert other.keys() == {"one", "few", "many", "other"}
        forms = [*(text.values() if isinstance(text, dict) else [text])]
        forms += [*(other.values() if isinstance(other, dict) else [other])]
        assert all(form.strip() for form in forms), key
        named = [frozenset(field for _, field, _, _ in string.Formatter().parse(form) if field) for form in forms]
        most = frozenset().union(*named)
        # "the one run", without its number and its range, is good language; every other form says everything
        ones = [language["one"] for language in (text, other) if isinstance(language, dict)]
        assert all(names == most or form in ones for names, form in zip(named, forms, strict=True)), (key, named)


def test_numbers_are_written_as_each_language_writes_them() -> None:
    assert show("en", Signed(-1234.567)) == "−1,234.57"
    assert show("ru", Signed(-1234.567)) == "−1\u00a0234,57"
    assert show("ru", Signed(0.001)) == "0,00"
    assert show("en", Signed(0.5)) == "+0.50"
    assert show("ru", Percent(0.25)) == "25\u00a0%"
    assert show("en", Fixed(None)) == show("en", Fixed(float("nan"))) == show("ru", None) == "–"
    assert show("en", Duration(59.97)) == "1\u00a0min"
    assert show("ru", Duration(7_500)) == "2\u00a0ч 5\u00a0мин"
    assert [say("ru", "fact.runs", n=n) for n in (1, 2, 5, 11, 21)] == [
        "запуск",
        "запуска",
        "запусков",
        "запусков",
        "запуск",
    ]


def test_effects_are_named_in_each_language_or_by_their_label() -> None:
    assert effect_name("en", "order", "late:flesch", "x") == "ease of reading (Flesch): late in the order"
    assert effect_name("ru", "feature", "own_idea", "own idea") == "own idea"
    assert effect_name("ru", "order", "new_vs_random", "order: new against random") == "order: new against random"
    assert effect_name("ru", "book", "b1", "Emma") == "Emma"


def test_every_family_of_questions_has_a_name_in_both_languages():
    families = [family.name for family in evalfile.load(None).families]
    assert "T0c" in families
    assert {f"term.{name}" for name in families} <= entries("en").keys() & entries("ru").keys()
