"""Numbers and nouns as English and Russian want them."""

from __future__ import annotations

import dataclasses
import doctest

import numpy as np
import pytest

from ltm.dashboard import words as page
from ltm.patterns import describe, inference, locale, recommend, sentences
from ltm.patterns.adaptive_shrinkage import shrink
from ltm.patterns.describe import Described, Kind
from ltm.patterns.interactions import TOGETHER, WITH
from ltm.patterns.table import Ability
from ltm.patterns.words import kind as kind_words
from ltm.patterns.words import not_told_apart, report_lines, sentence
from ltm.records import Effect


@pytest.mark.parametrize("module", [inference, locale, sentences])
def test_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_every_word_is_there_in_both_languages():
    for table in locale._TABLES.values():
        for english, russian in table.values():
            assert english
            assert any("а" <= letter <= "я" for letter in russian.lower()) or "σ" in russian


@pytest.mark.parametrize(
    ("count", "en", "ru"), [(1, "1 set", "1 набор"), (22, "22 sets", "22 набора"), (14, "14 sets", "14 наборов")]
)
def test_nouns_agree_with_their_number(count, en, ru):
    assert (locale.units_compared("book", count, "en"), locale.units_compared("book", count, "ru")) == (en, ru)


def test_genitive_after_out_of():
    forms = [locale.out_of("book", n, "ru") for n in (1, 2, 21, 60)]
    assert forms == ["1 книги", "2 книг", "21 книги", "60 книг"]
    assert locale.out_of("order", 1, "en") == "1 comparison of orders"


@pytest.mark.parametrize(
    ("kind", "name", "en", "ru"),
    [
        ("feature", "flesch", "books with more “ease of reading (Flesch)” score 0.40 seed sd lower per standard",
         "чем больше у книг набора признак «лёгкость чтения (Флеш)», тем результат ниже: на 0,40 σ повторов на одно"),
        ("order", "late:dialogue_share", "books with more “dialogue” do better early in the order: 0.40 seed sd per",
         "книги, у которых больше признак «доля диалога», полезнее в начале порядка: на 0,40 σ повторов на одно"),
        ("order", "readability_up_vs_random", "“from easy to hard books” scores 0.40 seed sd lower than “random order",
         "«от лёгких книг к трудным» даёт результат на 0,40 σ повторов ниже, чем «случайный порядок книг»"),
        ("gap", "head_vs_truncated", "“heads of books only” scores 0.40 seed sd lower than “the same amount of text",
         "«только начала книг» даёт результат на 0,40 σ повторов ниже, чем «столько же текста без пропусков»"),
        ("gap", "truncated_vs_full", "“less text, without gaps” scores 0.40 seed sd lower than “the full text”",
         "«меньше текста, но без пропусков» даёт результат на 0,40 σ повторов ниже, чем «полный текст»"),
        ("gap", "gap_dose", "the more text is left out, the worse text with gaps does against the same amount of text "
         "without gaps: slope 0.40 seed sd per unit of share left out",
         "чем больше текста пропущено, тем ниже результат по сравнению с таким же объёмом текста без пропусков: "
         "наклон 0,40 σ повторов на единицу пропущенной доли"),
    ],
)  # fmt: skip
def test_sentences_of_every_kind(kind, name, en, ru):
    effect = Effect(kind, name, name, "transfer", -0.4, 0.1, -0.6, -0.2, 0.001, 0.02, -0.3, 21, True)
    assert en in sentence(effect, "seed", "en")
    assert ru in sentence(effect, "seed", "ru")
    assert sentence(effect, "seed", "en").startswith("Logical transfer: ")
    assert "−0,60 до −0,20; q = 0,020; 21 " in sentence(effect, "seed", "ru")


@pytest.mark.parametrize(
    ("name", "label", "en", "ru"),
    [
        (
            "class 2 x class 5",
            "",
            "“kind 2” and “kind 5” in one set bring less",
            "«вид 2» и «вид 5» в одном наборе дают",
        ),
        ("cluster 0 x cluster 3", "", "“kind 0” and “kind 3” in one", "«вид 0» и «вид 3» в одном"),
        ("law x poetry", "", "“law” and “poetry” in one", "«закон» и «поэзия» в одном"),
        ("own_kind x poetry", "", "“own kind” and “poetry”", "«own kind» и «поэзия»"),
        ("b1 x b2", "Emma together with Dracula", "“Emma” and “Dracula” in one", "«Emma» и «Dracula» в одном"),
    ],
)
def test_combinations_name_kinds_in_the_language_and_books_by_their_titles(name, label, en, ru):
    label = label or name.replace(WITH, TOGETHER)
    effect = Effect("interaction", name, label, "transfer", -0.4, 0.1, -0.6, -0.2, 0.001, 0.02, -0.3, 21, True)
    assert en in sentence(effect, "residual", "en")
    assert ru in sentence(effect, "residual", "ru")
    assert "class" not in sentence(effect, "residual", "ru")


def test_one_kind_before_another_is_named_in_the_language():
    effect = Effect("order", "class 1 before law", "", "transfer", -0.4, 0.1, -0.6, -0.2, 0.001, 0.02, -0.3, 21, True)
    assert "books of “law” do better before books of “kind 1”" in sentence(effect, "residual", "en")
    assert "книги «закон» полезнее раньше, чем книги «вид 1»" in sentence(effect, "residual", "ru")


def test_names_are_those_of_the_page():
    """Rooms may not read each other's words, so that both keep them: they must agree."""
    for name, pair in locale._KINDS.items():
        assert tuple(page.show(language, page.Term(f"term.{name}")) for language in page.LANGUAGES) == pair
    for name, pair in locale._FEATURES.items():
        assert tuple(page.show(language, page.Term(f"name.feature.{name}")) for language in page.LANGUAGES) == pair
    for name in ("seed", "residual", "mixed", "score", "doubling"):
        shown = tuple(page.show(language, page.Term(f"unit.effect.{name}")) for language in page.LANGUAGES)
        assert shown == locale._UNITS[name]


def test_a_kind_is_told_by_what_its_books_have_more_and_less_of():
    values = np.array([[2.0, -1.0, 0.1], [2.0, -1.0, -0.1], [-2.0, 1.0, 0.0], [-2.0, 1.0, 0.0]])
    names, classes = ("dialogue_share", "flesch", "mtld"), ("class 1", "class 2")
    known = Described(("a", "b", "c", "d"), names, values, np.array([0, 0, 1, 1]), classes, np.full(4, -1), np.zeros(0))
    assert known.kinds()[0] == Kind("class 1", 2, (("dialogue_share", 2.0), ("flesch", -1.0)))
    told = kind_words(known.kinds()[0])["text"]
    assert told["en"] == "Kind 1: 2 books with more “dialogue” and less “ease of reading (Flesch)”."
    assert told["ru"] == "Вид 1: 2 книги; больше «доля диалога»; меньше «лёгкость чтения (Флеш)»."
    plain = kind_words(Kind("cluster 0", 1, ()))["text"]
    assert plain["en"] == "Kind 0: 1 book with nothing that stands out."
    genres = dataclasses.replace(known, class_names=("law", "poetry"))
    assert genres.kinds() == []  # their names say what they are


def found_set(**changes):
    values = {"book_ids": ["a"] * 21, "predicted": 1.25, "low": 0.5, "high": 2.0, "sure": ["a"], "open": ["b"] * 3,
              "order": "", "places": [], "gaps": "", "best_tried": "v", "n_rivals": 4, "unit": "seed",
              "abilities": ("transfer",), "told": True}  # fmt: skip
    return recommend.Recommendation(**(values | changes))


def test_the_ideal_set_is_told_in_the_unit_that_was_used():
    for unit, en, ru in (("seed", "seed sd", "σ повторов"), ("residual", "residual sd", "остаточной σ"),
                         ("score", "points of the score", "единицы оценки")):  # fmt: skip
        text = recommend.as_plain(found_set(unit=unit), {})["text"]
        assert text["en"].startswith(
            f"Recommended: a set of 21 books, predicted +1.25 {en} above the average set by logical transfer (90 % from"
        )
        assert text["ru"].startswith(
            f"Рекомендуется набор из 21 книги, прогноз: +1,25 {ru} относительно среднего набора "
            "(по показателю: логический перенос; 90 % от +0,50 до +2,00)."
        )
        assert ("seed" in text["en"]) == (unit == "seed")


def test_a_set_that_cannot_be_told_from_an_average_one_is_not_recommended():
    both = ("linking", "transfer")
    found = found_set(low=-0.1, sure=[], places=["late:flesch"], n_rivals=0, abilities=both, told=False)
    text = recommend.as_plain(found, {})["text"]
    start = "No test says that it matters which books are in a set; the best predicted set, of 21 books, is +1.25 seed"
    assert text["en"].startswith(start)
    assert "by the mean of linking scenes, logical transfer" in text["en"]
    assert "1 finding says which books do better where" in text["en"]
    assert "the best stands apart from all others" in text["en"]
    start = "Ни одна проверка не говорит, что состав набора важен; лучший по прогнозу набор, из 21 книги: +1,25 σ"
    assert text["ru"].startswith(start)
    assert "есть 1 вывод." in text["ru"]
    assert "Recommended" not in text["en"]
    assert "it is the luckiest of many sets, so the number says little)." in text["en"]
    assert "это самый удачный из многих наборов, поэтому число мало о чём говорит)." in text["ru"]
    sure = recommend.as_plain(found_set(told=False), {})["text"]  # books of luck are not sure
    assert "90 %" in recommend.as_plain(found_set(), {})["text"]["en"].split("2.00")[1]
    assert "probability" not in sure["en"]
    assert "вероятностью" not in sure["ru"]
    one = recommend.as_plain(found_set(low=-0.1), {})["text"]  # its books are better, but a set has luck of its own
    assert one["en"].startswith("Recommended: ")
    assert "+2.00; by its own luck one such set may be no better than the average)." in one["en"]
    assert "один такой набор может оказаться не лучше среднего" in one["ru"]


class _Twelve:
    """What `recommend` asks of a surrogate: twelve books whose estimates are noise that shrinks to nothing."""

    book_ids = tuple(f"b{i}" for i in range(12))
    set_size, abilities, rest_sd, usual = 6.0, ("transfer",), 0.1, np.full(12, 0.5)
    mean_B = 0.2 * np.random.default_rng(0).standard_normal(12)

    def alone(self):
        return self.mean_B, np.ones(12)


def test_books_that_do_nothing_are_equally_likely_in_the_set():
    assert not np.any(shrink(*_Twelve().alone()).draws(400, np.random.default_rng(0)))
    found = recommend.recommend(_Twelve(), [], "v", 0, 1, told=True)
    assert found.sure == []
    assert found.open == list(_Twelve.book_ids)
    untold = recommend.recommend(_Twelve(), [], "v", 0, 1, told=False)
    assert (untold.sure, untold.open) == ([], [])


def test_nothing_found_is_said_first_and_unnamed_kinds_are_left_out():
    kinds = [{"name": f"class {i}", "text": {"en": f"Kind {i}.", "ru": f"Вид {i}."}} for i in (1, 2, 3)]
    rest = [{"text": {"en": "None of 9 books.", "ru": "Ни одна."}}]
    lines = report_lines({"findings": [], "not_told_apart": rest, "kinds": kinds}, "en")
    assert lines[1:3] == [
        "what was found:",
        "  - Nothing: no book, feature, order, gap or combination stands out from chance.",
    ]
    assert not any("Kind" in line for line in lines)
    one = {"name": "class 1 x class 3", "text": {"en": "A finding.", "ru": "Вывод."}}
    lines = report_lines({"findings": [one], "not_told_apart": rest, "kinds": kinds}, "en")
    assert "  - Kind 1." in lines
    assert "  - Kind 3." in lines
    assert "  - Kind 2." not in lines


def test_no_kind_is_a_single_book():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((60, 3))
    values[7] = 40.0  # farthest from all others: k-means makes it a class of its own
    label = describe._without_small(values, describe.k_means(values, 7))
    counts = np.bincount(label)
    assert counts.min() >= describe.MIN_BOOKS
    assert counts.sum() == 60


def test_the_only_comparison_is_named():
    effect = Effect("order", "shuffled_vs_random", "", "transfer", -0.4, 0.1, -0.6, -0.2, 0.4, 0.4, -0.3, 21, False)
    facts = {"transfer": Ability("transfer", True, "", ("T0c",), "seed", 1.0, 40, 0, False)}
    told = not_told_apart([effect], facts, {})[0]["text"]
    assert (
        told["en"]
        == "Logical transfer: “shuffled passages” could not be told apart from “random order of books” (q = 0.40)."
    )
    assert (
        told["ru"]
        == "Логический перенос: «перемешанные отрывки» нельзя отличить от «случайный порядок книг» (q = 0,40)."
    )
