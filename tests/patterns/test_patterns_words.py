"""Numbers and nouns as English and Russian want them."""

from __future__ import annotations

import doctest

import pytest

from ltm.patterns import inference, locale
from ltm.patterns.words import sentence
from ltm.records import Effect


@pytest.mark.parametrize("module", [inference, locale])
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
