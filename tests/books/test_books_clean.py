"""Cleaning: rubbish goes, prose and verse stay."""

from __future__ import annotations

import textwrap

import pytest

from ltm.books.chapters import find_chapters
from ltm.books.clean import STEPS, clean, mend_hyphenation
from ltm.books.contents import drop_contents
from ltm.books.pages import drop_page_numbers
from ltm.books.readers.base import HEADING

SENTENCES = [
    f"It was in the {n}th year of the long and quiet reign, when nobody in the valley expected visitors, that a "
    f"stranger came down road number {n} and asked for water, for bread, and for the name of the village before him."
    for n in range(40)
]
VERSE = "\n".join(["Tyger Tyger, burning bright,", "In the forests of the night;", "What immortal hand or eye,"])


def test_hard_wrapped_prose_is_joined_and_verse_stays() -> None:
    wrapped = "\n\n".join(textwrap.fill(sentence, 70) for sentence in SENTENCES)
    text = clean(f"{wrapped}\n\n{VERSE}\n\n{wrapped}").text
    assert text == "\n\n".join([*SENTENCES, VERSE, *SENTENCES])


def test_indented_paragraphs_without_blank_lines() -> None:
    wrapped = "\n".join(textwrap.fill(s, 66, initial_indent="    ") for s in SENTENCES)
    assert clean(wrapped).text.split("\n\n") == SENTENCES


def test_one_paragraph_a_line() -> None:
    assert clean("\n".join(SENTENCES)).text == "\n\n".join(SENTENCES)


def test_text_of_verse_alone_stays_verse() -> None:
    poem = "\n\n".join([VERSE] * 30)
    assert clean(poem).text == poem


def test_clean_is_stable() -> None:
    once = clean("\n\n".join(textwrap.fill(s, 70) for s in SENTENCES) + "\n\n" + VERSE).text
    assert clean(once).text == once


GUTENBERG = """\ufeffThe Project Gutenberg EBook of A Tale, by Nobody

This eBook is for the use of anyone anywhere at no cost.

Title: A Tale
Author: Nobody

*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***

Produced by Someone and the Distributed
Proofreading Team.

{body}

End of the Project Gutenberg EBook of A Tale, by Nobody

*** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***

***** This file should be named 1.txt *****
Lots of licence.
"""


def test_gutenberg_frame_is_taken_off_and_counted() -> None:
    body = "\n\n".join(SENTENCES)
    cleaned = clean(GUTENBERG.format(body=body))
    assert cleaned.text == body
    assert cleaned.removed["Gutenberg header and licence"] > 300
    assert set(cleaned.removed) == {name for name, _ in STEPS}


def test_a_book_about_printing_keeps_its_gutenberg() -> None:
    body = "Johannes Gutenberg printed books. " + "\n\n".join(SENTENCES)
    assert clean(body).text == body


def test_control_characters_and_mojibake() -> None:
    broken = "Они сказали — «да» и ушли домой.".encode().decode("cp1251", errors="replace")
    assert clean("A\u00adb\ufeffc\x07d\u200be").text == "Abcde"
    assert "Они сказали" in clean(broken).text.replace("\ufffd", "")
    kept = "“Curly” quotes, naïve café — and ‘single’ ones…"
    assert clean(kept).text == kept


def test_hyphenation_follows_the_book() -> None:
    text = "The remarkable well-known man was remark-\nable and well-\nknown to all. Jean-\nPaul came."
    assert (
        mend_hyphenation(text) == "The remarkable well-known man was remarkable and well-known to all. Jean-Paul came."
    )


def test_page_numbers_go_and_chapter_numbers_stay() -> None:
    page = "\n\n".join(SENTENCES[:6])
    pages = "\n\n".join(f"{page}\n\n{number}" for number in range(3, 20))
    assert "\n\n7\n\n" not in clean(pages).text
    lengths = [2, 30, 5, 14, 1, 22, 3, 35, 9, 2, 28, 4]
    chapters = "\n\n".join(f"{n}\n\n" + "\n\n".join(SENTENCES[:k]) for n, k in enumerate(lengths, start=1))
    assert drop_page_numbers(chapters) == chapters
    assert drop_page_numbers("a word [Pg 12] more") == "a word more"


def test_contents_go_only_if_the_entries_come_back() -> None:
    heads = ["The Beginning", "The Middle", "The Bitter End"]
    table = "CONTENTS\n\n" + "\n".join(f"{i}. {h} ..... {i * 10}" for i, h in enumerate(heads, start=1))
    body = "\n\n".join(f"{i}. {h}\n\n{SENTENCES[i]}" for i, h in enumerate(heads, start=1))
    assert drop_contents(f"Title\n\n{table}\n\n{body}").split() == f"Title\n\n{body}".split()
    poem = f"Contents\n\n{VERSE}\n\n{body}"
    assert drop_contents(poem) == poem


@pytest.mark.parametrize(
    "head",
    [
        "CHAPTER {roman}",
        "Chapter {number}",
        "CHAPTER {roman}. The Name",
        "Глава {number}",
        "{roman}",
        "{roman}.",
        "{number}.",
    ],
)
def test_chapters_are_found(head: str) -> None:
    romans = ["I", "II", "III", "IV", "V"]
    heads = [head.format(roman=r, number=n) for n, r in enumerate(romans, start=1)]
    text = "\n\n".join(f"{h}\n\n" + "\n\n".join(SENTENCES) for h in heads)
    plain, starts = find_chapters(text)
    assert plain == text
    assert [text[start:].split("\n")[0] for start in starts] == heads


def test_marks_are_taken_out_and_become_offsets() -> None:
    body = "\n\n".join(SENTENCES)
    text, starts = find_chapters(f"{HEADING}Alpha\n\n{body}\n\n{HEADING}Beta\n\n{body}")
    assert HEADING not in text
    assert [text[s : s + 4] for s in starts] == ["Alph", "Beta"]


def test_stanza_numbers_and_short_marks_are_no_chapters() -> None:
    stanzas = "\n\n".join(f"{roman}\n\n{VERSE}" for roman in ["I", "II", "III", "IV", "V", "VI"] * 4)
    assert find_chapters(stanzas)[1] == [0]


def test_part_and_chapter_headings_open_one_chapter() -> None:
    body = "\n\n".join(SENTENCES)
    text = f"BOOK I\n\nCHAPTER I\n\n{body}\n\nCHAPTER II\n\n{body}\n\nBOOK II\n\nCHAPTER I\n\n{body}"
    assert [text[s : s + 10] for s in find_chapters(text)[1]] == ["BOOK I\n\nCH", "CHAPTER II", "BOOK II\n\nC"]
