"""Where pieces of a book may begin and end, and what none may hold: headings, notes, damaged lines, half quotations."""

import numpy as np
import pytest

from ltm.evalset.evalfile import load
from ltm.evalset.linking import chapter_suffix, name_recall
from ltm.evalset.passages import EvalBook, Sizes
from ltm.evalset.sentences import sentences
from ltm.records import Book

PLAIN = "He went out into the cold street. Nobody had seen him go. The lamp was still burning in the hall."


def cut(text, titles=()):
    return [(text[s.start : s.end], s) for s in sentences(text, 0, len(text), titles)]


def only(text, part, titles=()):
    (found,) = [s for piece, s in cut(text, titles) if part in piece]
    return found


def as_book(text, starts=(0,), **changes):
    values = {"book_id": "b", "title": "T", "author": "Anna Writer", "language": "en", "pool": "eval_a", **changes}
    return Book(
        year=None, genre="g", source="s", licence="pd", rank=0, n_words=len(text.split()), n_bytes=len(text.encode()),
        chapter_starts=list(starts), **values,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "CHAPTER XXVIII - I GO IN QUEST OF MY INHERITANCE",
        "Глава II",
        "ЯВЛЕНИЕ ТРЕТЬЕ",
        "Явление третие",
        "XII.",
        "Дорогая собака",
        "Anna Writer",
        "Byron.",
        "[Illustration: the house]",
        "[1] A note of the publisher.",
        "Сказал он тихо historia morbus [болезнь истории (лат.)] и умолк.",
        "Я сказал осноТзу и умолк.",
        "Он сел,тлядя ему в глаза.",
        "Въ эту минуту онъ поднялъ чулокъ тончайш╕й.",
        "Наконец док-то-рально объявил он.",
        "Produced by volunteers of Project Gutenberg.",
        "Он вышел и закричал» громко.",
    ],
)
def test_lines_that_are_no_text_are_walls(line):
    around = [PLAIN.replace("street", street) for street in ("lane", "garden", "yard", "road", "wood", "field")]
    text = "\n\n".join([*around, line, *around])
    wall = next(s for piece, s in cut(text, {"anna writer"}) if piece in line or line in piece)
    assert not wall.sound
    assert not wall.opens
    assert not wall.closes
    book = EvalBook.of(as_book(text), text)
    for first in range(len(book.starts)):
        for n_words in (8, 20, 60):
            span = book.span(first, n_words)
            assert span is None or line not in book.slice(span)
            assert line not in (book.exact(first, n_words) or "")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "Mr. Smith went out with Col. Brown. He came back at six.",
        "«Кто там?» — спросил он. Никто не ответил.",
        "— Кое-как дошли, — сказал майор. Все-таки молчали. Он был в С—м уезде.",
        "He wrote to McDonald on the 2nd of May. It was not answered.",
        "Any day now, he thought, 'tis all one. I waited.",
    ],
)
def test_plain_text_has_no_walls(text):
    assert all(s.sound for _, s in cut(text))


def test_a_piece_begins_and_ends_outside_of_quotations():
    text = (
        'He turned. "Come along, old boy. Spend the money. That is my maxim." They laughed. (It was late. I left.) So.'
    )
    begins = [piece for piece, s in cut(text) if s.opens]
    ends = [piece for piece, s in cut(text) if s.closes]
    assert begins == ["He turned.", '"Come along, old boy.', "They laughed.", "(It was late.", "So."]
    assert ends == ["He turned.", 'That is my maxim."', "They laughed.", "I left.)", "So."]


def test_a_mark_between_scenes_is_in_no_piece():
    text = f"{PLAIN}\n\n* * *\n\n{PLAIN.replace('street', 'garden')}"
    book = EvalBook.of(as_book(text), text)
    found = [book.slice(span) for first in range(6) if (span := book.span(first, 30))]
    assert found
    assert not any("*" in piece for piece in found)


def test_lines_of_verse_are_sentences_only_where_one_begins():
    lines = ["Гляжу, Федота бледного", "Силантий держит за ухо.", "Пастух ушёл; Федотушка", "При стаде был один."] * 6
    found = cut("\n\n".join(lines))
    assert len(found) == len(lines)
    assert all(s.sound for _, s in found)
    assert {piece for piece, s in found if s.opens} == {lines[0], lines[2]}
    assert {piece for piece, s in found if s.closes} == {lines[1], lines[3]}


def test_what_a_speaker_says_stays_with_the_name():
    text = "\n\n".join(["Jack.", "I never saw him before.", "Gwendolen. I did. And so did he."] * 12)
    pieces = [piece for piece, _ in cut(text)]
    assert pieces[0] == "Jack.\n\nI never saw him before."
    assert pieces[1] == "Gwendolen. I did."


def test_one_person_is_not_offered_against_himself():
    """Arina Ivanovna is not "Arina, or Ivanovna"; after "the New" there is nothing to recall of Jersey."""
    rng = np.random.default_rng(0)
    people = ["Arina Ivanovna", "Boris Petrov", "Clara Semenovna"]
    words = [f"w{i}" for i in range(200)]
    lines = []
    for _ in range(900):
        body = " ".join(words[int(i)] for i in rng.integers(0, 200, 7))
        one = people[int(rng.integers(3))]
        lines.append(f"The {body} and {one if rng.random() < 0.5 else one.split()[0]} went {words[0]}.")
    text = " ".join(lines)
    book = EvalBook.of(as_book(text), text)
    family = next(family for family in load(None).families if family.name == "L3")
    drafts = list(name_recall(book, family, Sizes(100, 1, 12, "N."), rng))
    assert len(drafts) > 20
    firsts = {person.split()[0] for person in people}
    for draft in drafts:
        names = [option.strip() for option in draft.continuations[: len(draft.continuations) // 2]]
        assert names[draft.gold] in firsts
        for person in people:
            one, two = person.split()
            assert not (names[draft.gold] == one and two in names)


def test_the_next_chapters_heading_is_not_in_the_end_of_this_one():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(300)]
    text, starts = "", []
    for number in range(1, 9):
        body = " ".join("The " + " ".join(words[int(i)] for i in rng.integers(0, 300, 9)) + "." for _ in range(60))
        text += f"A Story of Number {number}\n\nAnna Writer\n\n"  # stands above the place that counts as the beginning
        starts.append(len(text))
        text += f"A STORY OF NUMBER {number}\n\n{body}\n\n[1] A note.\n\n"
    book = EvalBook.of(as_book(text, starts), text)
    family = next(family for family in load(None).families if family.name == "L2c")
    drafts = list(chapter_suffix(book, family, Sizes(60, 20, 0, "N."), rng))
    assert len(drafts) >= 5
    for draft in drafts:
        assert draft.contexts[0].startswith("The word")
        assert draft.contexts[0].endswith(".")
        assert not any(part in draft.contexts[0] for part in ("Story", "Anna", "note"))
        assert all(option.startswith("\n\nThe word") for option in draft.continuations[:4])
