"""The chapters: each says what the rows say, in two real languages, with the right unit, and claims no more."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import HOSTILE, write_study
from whole_study import write_whole_study

from ltm.dashboard import page
from ltm.dashboard.chapters import BUILDERS, abilities, books, confirmed, emergence, order, reasons, rounds
from ltm.dashboard.chapters.advice import more_data
from ltm.dashboard.chapters.sets import ideal_books
from ltm.dashboard.inputs import Inputs, read_inputs
from ltm.dashboard.layout import Chapter
from ltm.dashboard.names import effect_name, feature_name, meaning
from ltm.dashboard.words import LANGUAGES
from ltm.records import Book, Effect, Rejected, Reliability
from ltm.store import WorkFolder, read_json, read_rows, write_json, write_rows

CYRILLIC, LATIN = re.compile("[а-яё]", re.I), re.compile("[a-z]", re.I)
OPTIONAL = [
    "patterns/emergence.parquet", "scores/snapshots.parquet", "scores/report.json", "evalset/report.json",
    "sets/design.json", "sets/pilot/learned.json", "sets/adaptive/round.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return write_whole_study(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def inputs(work: WorkFolder) -> Inputs:
    return read_inputs(work)


@pytest.fixture(scope="module")
def built(inputs: Inputs) -> dict[str, Chapter]:
    return {name: build(inputs) for name, build in BUILDERS.items()}


def text_of(markup: str, language: str) -> str:
    """Return the sentences of one language of some HTML."""
    return html.unescape(" ".join(re.findall(rf'<span lang="{language}">(.*?)</span>', markup, re.DOTALL)))


def test_the_whole_study_is_read_without_a_problem(inputs: Inputs) -> None:
    assert inputs.problems == {}
    assert {run.state for run in inputs.ended} == {"failed", "stopped", "begun"}
    assert inputs.unreadable == ["broken-run"]


def test_every_figure_is_told_in_words_in_both_languages(built: dict[str, Chapter]) -> None:
    drawn = {name: figure for chapter in built.values() for name, figure in chapter.figures.items() if figure.spec}
    assert len(drawn) >= 19
    for name, figure in drawn.items():
        english, russian = (figure.summary.get(language, "") for language in LANGUAGES)
        assert len(english) > 20, name
        assert CYRILLIC.search(russian), name
        assert "None" not in english + russian, name


def test_no_estimate_is_drawn_without_its_interval(built: dict[str, Chapter]) -> None:
    checked = 0
    for chapter in built.values():
        for name, figure in chapter.figures.items():
            for row in figure.rows if figure.spec else []:
                if row.get("shown") is False or not {"low", "high"} <= row.keys() or name in ("time", "dose"):
                    continue
                assert row["low"] is not None, (name, row)
                assert row["high"] is not None, (name, row)
                checked += 1
            for row in figure.rows if name == "dose" else []:
                assert row["shown"] == (row["low"] is not None)
    assert checked > 200


def test_every_sentence_has_both_languages_and_russian_is_russian(built: dict[str, Chapter]) -> None:
    for name, chapter in built.items():
        both = [text_of(chapter.finding + chapter.body, language) for language in LANGUAGES]
        assert CYRILLIC.search(both[1]), name
        shown = re.sub(r"\u2068.*?\u2069|«.*?»|\(.*?\)|`.*?`", "", both[1])  # titles and settings stay as they are
        words = set(re.findall(r"[A-Za-z]{4,}", shown)) - {"MTLD", "parquet", "lfsr"}
        english = {word for word in words if word.islower() and word in both[0] and not word.startswith("ltm")}
        assert not english - {"books", "rejected", "scores", "snapshots", "runs"}, (name, english)


def test_units_are_those_of_the_effects(built: dict[str, Chapter], inputs: Inputs) -> None:
    rows = built["books"].figures["book"].rows
    units = {row["ability"]: row["axis"] for row in rows}
    assert units == {"linking": "seed", "transfer": "residual", "synthesis": "residual", "fluency": "seed"}
    words = built["books"].figures["book"].summary["en"].split("Transfer:")[1].split("Synthesis:")[0]
    assert "residual sd" in words
    assert "seed sd" not in words
    assert built["sets"].figures["ranks"].rows[0]["axis"] == "mixed"  # the mean of linking and transfer
    only = dataclasses.replace(inputs, findings=inputs.findings | {"ranked_by": ["transfer"]})
    text = text_of(BUILDERS["sets"](only).finding, "en")
    assert "residual sd" in text
    assert "seed" not in text
    for name in ("ideal", "confirmed"):
        said = dict(inputs.findings["ideal_set" if name == "ideal" else name])
        assert "seed or residual sd" in text_of(built[name].finding, "en"), name
        assert built[name].figures["ranges" if name == "ideal" else name].rows[0]["axis"] == said["unit"] == "mixed"


def test_a_finding_is_split_into_what_and_how_sure_and_never_repeated(work: WorkFolder) -> None:
    inputs = read_inputs(work)
    entry = {
        "ability": "transfer", "estimate": 2.19, "low": 1.9, "high": 2.48, "claimed": True,
        "text": {
            "en": "Transfer: “a” scores 2.19 residual sd higher than “b” (90 % interval 1.90 to 2.48; q = 0.003; 12 "
            "blocks). It holds in 4 of 4 other fits.",
            "ru": "Перенос: «a» даёт результат на 2,19 остаточной σ выше, чем «b» (90 %-й интервал от 1,90 до 2,48; "
            "q = 0,003; 12 блоков). Сохраняется в других расчётах: 4 из 4.",
        },
    }  # fmt: skip
    changed = dataclasses.replace(inputs, findings=inputs.findings | {"findings": [entry]})
    body = BUILDERS["answer"](changed).body
    item = re.search(r'<li class="finding-item up">(.*?)</li>', body, re.DOTALL)
    assert item
    english = text_of(item[1], "en")
    assert english == (
        "Transfer: “a” scores 2.19 residual sd higher than “b”. "
        "90% interval 1.90 to 2.48; q = 0.003; 12 blocks. It holds in 4 of 4 other fits."
    )
    assert "seed sd" not in english
    bare = entry | {"text": {"en": "Something moves transfer.", "ru": "Что-то двигает перенос."}}
    body = BUILDERS["answer"](dataclasses.replace(inputs, findings=inputs.findings | {"findings": [bare]})).body
    assert "+2.19 residual sd, 90% interval +1.90 to +2.48" in text_of(body, "en")


def test_only_the_confirmation_is_called_confirmed(inputs: Inputs, built: dict[str, Chapter]) -> None:
    rows = confirmed.finalist_rows(inputs)
    assert [row["confirmed"] for row in rows] == [1.4, 0.9, 0.2, -0.3]
    text = text_of(built["confirmed"].finding, "en")
    assert text == inputs.findings["confirmed"]["text"]["en"].replace(" %", "%")  # said once, by the patterns
    assert "2 of 4 can be called better than random sets" in text
    assert "+1.60 was expected" in text
    assert "назвать 2 из 4" in text_of(built["confirmed"].finding, "ru")
    assert "2 of 4 finalists are clearly better than random sets" in text_of(built["answer"].body, "en")
    assert "2 финалиста из 4" in text_of(built["answer"].body, "ru")
    without = dataclasses.replace(inputs, findings=inputs.findings | {"confirmed": None})
    assert "finalists are still being trained" in text_of(BUILDERS["confirmed"](_less(without)).finding, "en")
    off = dataclasses.replace(without, study={})
    assert "no confirmation round" in text_of(BUILDERS["confirmed"](off).finding, "en")
    assert "Nothing is confirmed" in text_of(BUILDERS["answer"](off).body, "en")
    for mean_low, said in ((-0.1, "Not confirmed"), (0.1, "for all 4 finalists together and for none of them alone")):
        found = inputs.findings["confirmed"] | {"n_better": 0, "mean_low": mean_low}
        weak = dataclasses.replace(inputs, findings=inputs.findings | {"confirmed": found})
        assert said in text_of(BUILDERS["answer"](weak).body, "en")


def test_numbered_kinds_of_books_say_what_they_hold(inputs: Inputs, built: dict[str, Chapter]) -> None:
    for name in ("features", "order"):
        assert "Kind 2: 9 books with more “dialogue” and less “ease of reading (Flesch)”." in built[name].body
        assert "Вид 2: 9 книг; больше «доля диалога»; меньше «лёгкость чтения (Флеш)»." in built[name].body
    none = dataclasses.replace(inputs, effects=[e for e in inputs.effects if "class 2" not in e.name])
    assert "Kind 2" not in BUILDERS["features"](none).body


def _less(inputs: Inputs) -> Inputs:
    """Return the inputs without the runs of the confirmation."""
    final = {v.variant_id for v in inputs.variants if v.round == "confirmation"}
    return dataclasses.replace(inputs, runs=[run for run in inputs.runs if run.variant_id not in final])


def test_the_ideal_set_is_listed_in_its_own_order(inputs: Inputs) -> None:
    found = inputs.findings["ideal_set"]
    rows = ideal_books(inputs, found)
    flesch = {(book.title, book.author, book.year): book.features["flesch"] for book in inputs.books}
    inside = [row for row in rows if row["membership"] != "open_out"]
    assert len(inside) == len(found["book_ids"])
    ease = [flesch[row["title"], row["author"], row["year"]] for row in inside]
    assert ease == sorted(ease, reverse=True)  # from easy to hard
    assert sum(row["membership"] == "sure" for row in rows) == len(found["sure"])
    assert rows[len(inside) :]  # those that could as well be in come last
    worth = [row["expected"] for row in ideal_books(inputs, found | {"order": ""}) if row["membership"] != "open_out"]
    assert worth == sorted(worth, reverse=True)
    assert ideal_books(inputs, {"book_ids": ["gone"], "sure": 3})[0]["title"] == "gone"


def test_books_that_cannot_be_told_apart_are_marked(inputs: Inputs, built: dict[str, Chapter]) -> None:
    first, second = inputs.books[0], inputs.books[1]
    found = books.twins(inputs.books, inputs.variants)
    assert found == {first.book_id: second.title, second.book_id: first.title}  # two editions of one work
    rows = [row for row in built["books"].figures["book"].rows if row["name"] == first.book_id]
    assert rows[0]["label"].endswith(books.MARK)
    assert rows[0]["twins"] == second.title
    pair = [b.book_id for b in inputs.books[2:4]]
    always = [
        dataclasses.replace(v, book_ids=[b for b in v.book_ids if b not in pair] + (pair if v.set_id % 2 else []))
        for v in inputs.variants
    ]
    assert books.twins(inputs.books, always)[pair[0]] == inputs.books[3].title  # always in the same sets


def test_the_weight_of_places_is_that_of_the_analysis(inputs: Inputs) -> None:
    from ltm.patterns.order import schedule_kernel
    from ltm.runs.schedule import learning_rate
    from ltm.runs.section import RunsSection

    for epochs, schedule in ((1, "wsd"), (3, "cosine"), (1, "linear")):
        recipe = inputs.study["runs"] | {"schedule": schedule}
        sets = inputs.study["sets"] | {"epochs": epochs}
        rows = order.kernel_rows({"runs": recipe, "sets": sets})
        n_steps = sets["books_per_set"] * sets["book_tokens"] * epochs // recipe["batch_tokens"]
        section = RunsSection(**recipe)
        kernel = schedule_kernel(np.array([learning_rate(section, s, n_steps) for s in range(n_steps)]), 0.1)
        per_pass = n_steps // epochs
        kernel = kernel[: per_pass * epochs].reshape(epochs, per_pass).mean(axis=0)
        at = np.interp([r["position"] for r in rows], (np.arange(per_pass) + 0.5) / per_pass, kernel / kernel.mean())
        assert np.allclose([r["weight"] for r in rows], at)
    for broken in ({}, {"runs": 3}, {"runs": {"optimizer": "adamw", "lr": "x"}, "sets": {}}):
        assert order.kernel_rows(broken) == []
    assert order.kernel_rows({"runs": inputs.study["runs"] | {"optimizer": "muon"}, "sets": inputs.study["sets"]}) == []


def test_emergence_is_that_of_the_analysis(inputs: Inputs) -> None:
    from ltm.patterns.emergence import tokens_needed

    series = emergence.above_chance(inputs.snapshots, inputs.reliability)
    assert list(series) == ["linking", "transfer", "synthesis", "fluency"]
    for runs in series.values():
        for points in runs.values():
            tokens, scores = [t for t, _ in points], np.array([s for _, s in points])
            expected = tokens_needed(tokens, scores)
            assert emergence.tokens_needed(points) == pytest.approx(expected) or expected == math.inf
    rows = emergence.needed_rows(series, {})
    by_ability = {row["ability"]: row for row in rows}
    assert by_ability["synthesis"]["beyond"] == "beyond"  # it never leaves chance, and says so
    assert by_ability["synthesis"]["never"] == by_ability["synthesis"]["n"]
    assert by_ability["linking"]["low"] <= by_ability["linking"]["tokens"] <= by_ability["linking"]["high"]
    text = text_of(BUILDERS["emergence"](inputs).finding, "en")
    assert "Synthesis: most runs never leave chance" in text
    off = dataclasses.replace(inputs, snapshots=[])
    assert "scores.snapshots" in text_of(BUILDERS["emergence"](off).finding, "en")


def test_why_a_family_is_not_measured_is_said_in_both_languages() -> None:
    row = Reliability("linking", "L1", 9, 80, 0, 0, 1, 0.5, 0.3, 0.1, 0, 0.3, 0.1, False, "English words")
    measured = {"untrained": 1.2, "ngram": math.nan, "split_half": 0.314, "icc": 0.08}
    needed = {"untrained": 5.0, "ngram": 2.0, "split_half": 0.7, "icc": 0.3}
    told = reasons.in_words(dataclasses.replace(row, reasons=measured, needed=needed))
    assert told["en"] == (
        "not clearly better than untrained models (z 1.2, needed 5); not compared with counting five words in a row "
        "(z 2 is needed); two halves of the questions disagree about the models (split-half 0.31, needed 0.70); the "
        "seed matters more than the set (ICC 0.08, needed 0.30)"
    )
    assert "z 1,2, нужно 5" in told["ru"]
    assert "согласие 0,31, нужно 0,70" in told["ru"]
    assert not re.search("better|halves", told["ru"])
    whole = dataclasses.replace(row, family="*", reasons={"no_family": 0.0}, needed={"no_family": 1.0})
    assert reasons.in_words(whole, ["L1", "L2"])["ru"].endswith("L1, L2")
    assert reasons.in_words(row) == {"en": "English words", "ru": "English words"}  # of another version
    assert reasons.in_words(dataclasses.replace(row, admitted=True)) == {}


def test_every_code_of_the_gate_has_words() -> None:
    from ltm.scores.reliability import CODES

    row = Reliability("linking", "L1", 9, 80, 0, 0, 1, 0.5, 0.3, 0.1, 0, 0.3, 0.1, False, "English words")
    for code in CODES:
        for value in (1.0, math.nan):
            told = reasons.in_words(dataclasses.replace(row, reasons={code: value}, needed={code: 2.0}), ["L1"])
            assert told["en"] != "English words", code
            assert CYRILLIC.search(told["ru"]), code


def test_the_reliability_table_is_whole(built: dict[str, Chapter], inputs: Inputs) -> None:
    figure = built["abilities"].figures["reliability"]
    keys = {key for key, _ in figure.columns}
    wanted = {"icc", "icc_low", "icc_high", "split_half", "snr", "detectable", "chance", "unigram", "ngram", "ending"}
    assert wanted <= keys
    failed = next(row for row in figure.rows if row["family"] == "S1")
    assert failed["reason"].startswith("not clearly better")
    assert CYRILLIC.search(failed["reason_ru"])
    assert [row["ability"] for row in figure.rows if row["family"] == "*"] == [
        "linking", "transfer", "synthesis", "fluency",
    ]  # fmt: skip
    nan = dataclasses.replace(inputs.reliability[0], icc=math.nan, split_half=math.nan)
    assert abilities.reliability_rows([nan])[0]["icc"] is None
    together = {row["one"] + row["two"]: row["together"] for row in built["abilities"].figures["correlations"].rows}
    assert together == {"linkingtransfer": "apart", "linkingsynthesis": "noisy", "transfersynthesis": "one_factor"}


def test_everything_lost_is_in_one_chapter(built: dict[str, Chapter]) -> None:
    lost = built["lost"]
    runs = {row["run"]: row for row in lost.figures["lost"].rows}
    assert {run: row["state"] for run, row in runs.items()} == {
        "failed-run": "failed", "stopped-run": "stopped", "begun-run": "begun", "broken-run": "unreadable",
    }  # fmt: skip
    assert runs["failed-run"]["log"].splitlines()[-1] == "step 12 <b>nan</b>"
    things = {row["thing"] for row in lost.figures["dropped"].rows}
    assert things == {"book", "question", "item", "unanswered", "cell", "family", "aside", "analysis"}
    for row in lost.figures["dropped"].rows:
        assert "reason_ru" in row or row["reason"] == "a reason of another version", row
    assert "1 run failed." in text_of(lost.finding, "en")
    assert "С ошибкой закончился 1 запуск." in text_of(lost.finding, "ru")


def test_rounds_say_what_the_pilot_decided(built: dict[str, Chapter], inputs: Inputs) -> None:
    names = [row["round"] for row in built["rounds"].figures["rounds"].rows]
    assert names == ["pilot", "exploration", "adaptive", "confirmation"]
    english = text_of(built["rounds"].body, "en")
    assert "Go: 62% of the differences between runs is the set (linking)." in english
    assert "“recipe 1”" in english
    assert "14 sets were proposed: 10 from draws of what books bring, 4 as children of good sets." in english
    assert "Предложены 14 наборов" in text_of(built["rounds"].body, "ru")
    assert [row["chosen"] for row in built["rounds"].figures["recipes"].rows] == ["chosen", "left"]
    assert rounds.pilot_lessons({"abilities": 3, "slow_lr": [1], "recipes": "x"}) == []
    one = dataclasses.replace(inputs, variants=[dataclasses.replace(v, round="exploration") for v in inputs.variants])
    assert "One round" in text_of(BUILDERS["rounds"](dataclasses.replace(one, learned={})).finding, "en")


def test_the_runs_that_a_promising_effect_needs(inputs: Inputs) -> None:
    effect = next(e for e in inputs.effects if e.kind == "book")
    effect = dataclasses.replace(effect, shrunk=0.5, se=0.2)
    factor = more_data(effect, 0.1, 50)
    assert factor is not None
    z = factor**0.5 * 0.5 / 0.2  # of the effect, once there is that much more data
    assert z == pytest.approx(3.09 + 0.84, abs=0.01)  # Bonferroni at 0.1 / 100, and 80 % power
    assert more_data(dataclasses.replace(effect, shrunk=0.0), 0.1, 50) is None
    assert more_data(dataclasses.replace(effect, shrunk=0.001), 0.1, 50) is None  # promises nothing
    assert more_data(dataclasses.replace(effect, se=math.nan), 0.1, 50) is None


def test_traits_of_the_library_have_names_and_meanings_in_russian() -> None:
    from ltm.books.features import DEFINITIONS
    from ltm.patterns.locale import term

    names = [*DEFINITIONS, "novelty", "vector_07", "unique_share", "set:diversity", "set:likeness"]
    assert len(names) > 40
    for name in names:
        russian = feature_name("ru", name)
        assert CYRILLIC.search(russian), name
        assert russian != feature_name("en", name)
        assert CYRILLIC.search(meaning("ru", name)), name
        if ":" not in name:
            assert CYRILLIC.search(term("feature", name, "ru")), name  # in the sentences of findings, too
    assert meaning("en", "own_idea") == "A trait that this library brings itself."


def test_terms_of_place_and_combinations_have_names_in_russian() -> None:
    for kind, name, expected in (
        ("order", "kernel:flesch", "лёгкость чтения (Флеш): там, где итог помнит больше всего"),
        ("order", "class 1 before poetry", "сначала вид 1, потом поэзия"),
        ("order", "adjacency", "похожие книги рядом"),
        ("order", "anti_chain_vs_random", "непохожее рядом с непохожим против случайного"),
        ("gap", "filled_vs_gaps", "пропуски, заполненные другими книгами против пропусков"),
        ("gap", "scattered_dose", "рассеянные пропуски: на долю пропущенного текста"),
        ("gap", "gap_curve", "пропуски: кривизна по доле пропущенного"),
        ("interaction", "class 2 x poetry", "вид 2 вместе с: поэзия"),
    ):
        assert effect_name("ru", kind, name, "English") == expected
    pair = effect_name("ru", "interaction", "0123456789abcdef x fedcba9876543210", "Emma together with Walden")
    assert pair == "Emma вместе с: Walden"


def test_hostile_titles_are_only_text_in_every_chapter(tmp_path: Path) -> None:
    work = write_whole_study(tmp_path, n_runs=24, n_books=20)
    books_read = read_rows(work.path("books", "catalogue.parquet"), Book)
    hostile = [
        dataclasses.replace(b, title=HOSTILE[i % 6], author=HOSTILE[1], genre=HOSTILE[0], licence=HOSTILE[1])
        for i, b in enumerate(books_read)
    ]
    write_rows(work.path("books", "catalogue.parquet"), hostile, Book)
    found = read_rows(work.path("patterns", "effects.parquet"), Effect)
    named = [dataclasses.replace(e, label=HOSTILE[i % 6]) for i, e in enumerate(found)]
    write_rows(work.path("patterns", "effects.parquet"), named, Effect)
    lost = [Rejected(HOSTILE[2], "read", HOSTILE[1], "", ""), Rejected(HOSTILE[0], "duplicate", "", hostile[3].source)]
    write_rows(work.path("books", "rejected.parquet"), lost, Rejected)
    write_json(work.path("study.json"), read_json(work.path("study.json")) | {"question": HOSTILE[2]})
    write_json(work.path("runs", "failed-run", "failed.json"), {"error": HOSTILE[1], "log": "\n".join(HOSTILE)})
    text = page.make_page(read_inputs(work), "ru")
    shown = text.split("<main>")[1].split("</main>")[0]
    assert any(piece in shown for piece in ("alert(", "HYPERLINK", "Emoji"))  # they are there, as text
    assert not re.search(r"<(script|img)", shown)
    assert "\u202e" not in text
    assert len(re.findall(r"</script", text)) == len(re.findall(r"<script[\s>]", text))


@pytest.mark.parametrize("runs", ["none", "one", "failed"])
def test_a_study_with_hardly_any_run_has_a_page(tmp_path: Path, runs: str) -> None:
    work = write_study(tmp_path, n_runs=12, n_books=20, finished=1 if runs == "one" else 0)
    for name in ("forecast.json",):
        assert read_json(work.path(name))
    if runs == "failed":
        for i in range(3):
            write_json(work.path("runs", f"run{i}", "failed.json"), {"error": HOSTILE[0], "log": ["a", HOSTILE[1]]})
    text = page.make_page(read_inputs(work), "ru")
    shown = text.split("<main>")[1].split("</main>")[0]
    assert shown.count("<section") == len(BUILDERS)
    assert "<script" not in shown
    assert "<img" not in shown
    if runs == "failed":
        assert "С ошибкой закончились 3 запуска." in html.unescape(shown)
    if runs == "one":
        assert 'data-figure="curves"' in shown
    assert "Let the study finish" in shown


@pytest.mark.parametrize("damage", ["missing", "damaged", "foreign"])
def test_files_of_later_stages_may_be_missing_or_damaged(tmp_path: Path, damage: str) -> None:
    work = write_whole_study(tmp_path, n_runs=24, n_books=20)
    for name in OPTIONAL:
        path = work.path(*name.split("/"))
        whole = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "damaged" or name.endswith("parquet"):
            path.write_bytes(whole[: len(whole) // 2])
        else:
            path.write_text(json.dumps({key: [1, None, "x"] for key in json.loads(whole)}), encoding="utf-8")
        inputs = read_inputs(work)
        foreign = damage == "foreign" and name.endswith("json")
        assert inputs.problems == ({} if damage == "missing" or foreign else {name: "damaged"})
        text = page.make_page(inputs, "en")
        assert (name in text) == (name in inputs.problems), name  # named in the chapter of what was dropped
        path.write_bytes(whole)


def test_numbers_that_are_none_reach_no_sentence(tmp_path: Path) -> None:
    work = write_whole_study(tmp_path, n_runs=24, n_books=20)
    found = read_json(work.path("patterns", "findings.json"))

    def emptied(value: object) -> object:
        if isinstance(value, dict):
            return {key: emptied(child) for key, child in value.items()}
        if isinstance(value, list):
            return [emptied(child) for child in value]
        return None if isinstance(value, float) else value

    write_json(work.path("patterns", "findings.json"), emptied(found))
    learned = read_json(work.path("sets", "pilot", "learned.json"))
    write_json(work.path("sets", "pilot", "learned.json"), emptied(learned))
    text = page.make_page(read_inputs(work), "en")
    shown = text.split("<main>")[1].split("</main>")[0]
    assert not re.search(r"\bNone\b|\bnan\b", re.sub(r"None of|step 12 .*?nan", "", shown))
