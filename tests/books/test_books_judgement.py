"""Metadata, language, features, duplicates, holding out: what is decided about a book."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest

from ltm.books import features
from ltm.books.duplicates import DuplicateFinder, sketch
from ltm.books.holdout import assign_pools, group_by_author
from ltm.books.judge import Judge, units
from ltm.books.language import detect
from ltm.books.metadata import choose, from_file_name, parse_year
from ltm.books.names import author_keys
from ltm.books.prepare import Prepared
from ltm.books.vectors import vector
from ltm.books.words import find_words
from ltm.errors import LibraryError
from ltm.records import Book


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("600 BC", -600),
        ("-330", -330),
        ("58 B.C.", -58),
        ("44 до н. э.", -44),
        ("1906-1921", 1906),
        ("1900-01-01", 1900),
        ("c. 1850", 1850),
        ("", None),
        ("unknown", None),
        ("9999", None),
    ],
)
def test_years(text: str, year: int | None) -> None:
    assert parse_year(text) == year


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("H.G. Wells", "Wells, Herbert George (1866-1946)"),
        ("Лев Толстой", "Л. Н. Толстой"),
        ("Francis Beaumont Q313932", "Beaumont, F."),
        ("Sir Walter Scott", "Walter Scott"),
        ("Abbé Prévost", "Abbe Prevost"),
    ],
)
def test_spellings_of_one_author(one: str, other: str) -> None:
    assert author_keys(one) == author_keys(other) != []


def test_different_authors_and_nobody() -> None:
    assert author_keys("Anne Brontë") != author_keys("Charlotte Brontë")
    assert author_keys("Anonymous") == author_keys("unknown") == author_keys("") == []
    assert len(author_keys("Karl Marx & Friedrich Engels")) == 2


def test_order_of_trust_and_file_names() -> None:
    assert choose({"title": ""}, {"title": "Own"}, {"title": "Name", "author": "A"}) == {"title": "Own", "author": "A"}
    assert from_file_name("x/en0002_a-e-dolbear_the-machinery.txt") == {
        "author": "A E Dolbear",
        "title": "The Machinery",
    }
    assert from_file_name("Лев Толстой - Война и мир.fb2.zip") == {"author": "Лев Толстой", "title": "Война и мир"}
    assert from_file_name("emma.txt") == {"title": "Emma"}


def test_language() -> None:
    assert detect("It was a bright cold day in April, and the clocks were striking thirteen. " * 50) == "en"
    assert detect("Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему. " * 50) == "ru"
    assert detect("") == "und"


WORDS = [
    "river",
    "stone",
    "lantern",
    "winter",
    "market",
    "orphan",
    "gate",
    "silver",
    "letter",
    "garden",
    "promise",
    "shadow",
    "horse",
    "copper",
    "music",
]


def prose(seed: int, n: int = 4000) -> str:
    rng = random.Random(seed)
    out = []
    for place in range(n):
        word = rng.choice(WORDS) + rng.choice(["", "s", "ed", "ing"])
        out.append(word.capitalize() if place % 12 == 0 else word + ("." if place % 12 == 11 else ""))
    return " ".join(out)


@pytest.mark.parametrize("text", ["", "x", "1234", "?!", "\n\n", "word " * 5, prose(1)])
@pytest.mark.parametrize("language", ["en", "ru", "zh"])
def test_features_are_fixed_and_finite(text: str, language: str) -> None:
    values = features.compute(text, language, features.count_words(text))
    assert list(values) == list(features.DEFINITIONS)
    assert all(math.isfinite(value) for value in values.values())


def test_features_mean_what_they_say() -> None:
    talk = "“Who is there?” asked John. “I am,” said Mary.\n\n" * 60
    essay = "Because reason is slow, therefore the mind wandered; although it walked, it never arrived.\n\n" * 60
    a, b = (features.compute(t, "en", 500) for t in (talk, essay))
    assert a["dialogue_share"] == pytest.approx(1, abs=0.05)
    assert b["dialogue_share"] < 0.05
    assert a["question_share"] == pytest.approx(1 / 2, abs=0.2)
    assert b["question_share"] == 0
    assert a["name_density"] > 0 == b["name_density"]
    assert b["connective_share"] == pytest.approx(3 / 14, abs=1e-6)
    assert b["past_tense_share"] == pytest.approx(3 / 14, abs=1e-6)
    assert a["first_person_share"] == pytest.approx(1 / 9, abs=1e-6)
    repetitive, varied = features.compute("so it goes. " * 3000, "en", 9000), features.compute(prose(2), "en", 4000)
    assert repetitive["compression_ratio"] < varied["compression_ratio"]
    assert repetitive["mtld"] < varied["mtld"]
    assert features.compute("The cat sat. " * 50, "en", 150)["flesch"] > 100


def prepared(name: str, text: str, quality: float = 1.0) -> Prepared:
    known = sketch(text)
    book = make_book(int(known.exact[:12], 16), "Ann Author", n_words=known.n_words)
    book = dataclasses.replace(book, title=name, source=f"{name}.txt", quality=quality)
    return Prepared(book, text, known, vector(find_words(text)))


def judged(*items: Prepared, dedupe: bool = True) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the titles that stay, and source and reason of what does not."""
    judge = Judge(dedupe)
    rejected = [row for item in items for row in judge.consider(item)]
    assert all(row.step == "duplicate" for row in rejected)
    return [book.title for book in judge.kept.values()], [(row.source, row.reason) for row in rejected]


def test_exact_copy_whatever_its_case_and_spacing() -> None:
    first = prepared("Moby", "Call me Ishmael. Some years ago.")
    copy = prepared("Copy", "CALL me   ishmael - some years\nago")
    other = prepared("Other", "Call me Ahab. Some years ago.")
    kept, rejected = judged(first, copy, other, dedupe=False)
    assert kept == ["Moby", "Other"]
    assert rejected == [("Copy.txt", "the same text as Moby (Moby.txt)")]


BOOK, STRANGER, THIRD = prose(10, 12_000), prose(11, 12_000), prose(12, 12_000)
NOISE = random.Random(4)
PLANTED = {
    "edited": " ".join(w if i % 50 else "changed" for i, w in enumerate(BOOK.split())),
    "half": " ".join(BOOK.split()[:6000]),
    "end": " ".join(BOOK.split()[4000:]),
    "misread": "".join(NOISE.choice("abcdefgh") if c.isalpha() and NOISE.random() < 0.03 else c for c in BOOK),
    "preface": prose(30, 2500) + " " + BOOK,
    "collection": STRANGER + " " + BOOK + " " + THIRD,
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("copy_first", [False, True])
def test_one_of_two_copies_stays(kind: str, copy_first: bool) -> None:
    pair = [prepared("book", BOOK), prepared(kind, PLANTED[kind])]
    kept, rejected = judged(*(reversed(pair) if copy_first else pair))
    assert len(kept) == len(rejected) == 1
    # the fuller text stays, whichever came first
    assert kept == [
        {"half": "book", "end": "book", "preface": "preface", "collection": "collection"}.get(kind, kept[0])
    ]
    assert judged(*pair, dedupe=False)[1] == []


def test_strangers_and_collections_that_share_a_story_stay() -> None:
    stories = [prose(seed, 5_000) for seed in range(40, 46)]
    one, other = " ".join(stories[:4]), " ".join([stories[0], *stories[4:]])
    kept, rejected = judged(prepared("a", BOOK), prepared("b", STRANGER), prepared("c", one), prepared("d", other))
    assert kept == ["a", "b", "c", "d"], rejected


def test_a_collection_of_books_that_are_there_goes() -> None:
    kept, rejected = judged(
        prepared("a", BOOK), prepared("b", STRANGER), prepared("all", f"{BOOK} {STRANGER} {prose(50, 3000)}")
    )
    assert kept == ["a", "b"]
    assert "book by book" in rejected[0][1]


def test_a_copy_of_a_withdrawn_book_names_what_stays() -> None:
    half = prepared("half", PLANTED["half"])
    kept, rejected = judged(half, prepared("book", BOOK), half)
    assert kept == ["book"]
    assert rejected[1][1] == "the same text as a part or copy of book (book.txt)"


def test_the_index_of_a_large_library_gets_thinner_and_still_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm.books.duplicates.MAX_INDEX", 3_000)
    finder = DuplicateFinder()
    for seed in range(60, 75):
        finder.add(sketch(prose(seed, 30_000)))
    assert finder.threshold < 2**64 // 100
    assert finder.find(sketch(prose(70, 30_000) + " and more"))[0].owner == 10
    assert finder.find(sketch(prose(99, 30_000))) == []


def test_novelty_is_what_no_other_book_says() -> None:
    finder = DuplicateFinder()
    shared = prose(80, 30_000)
    texts = [shared + " " + prose(81, 30_000), shared + " " + prose(82, 30_000), prose(83, 60_000)]
    numbers = np.array([finder.add(sketch(text)) for text in texts], dtype=np.int32)
    assert finder.novelty(numbers) == pytest.approx([0.5, 0.5, 1.0], abs=0.06)
    assert finder.novelty(numbers[1:])[0] == pytest.approx(1.0)


def test_editions_are_one_unit_whatever_the_spelling() -> None:
    titles = [
        "Crime and Punishment",
        "Anna Karenina",
        "The Crime and Punishment: A Novel",
        "Анна Каренина",
        "Poems",
        "Poems",
    ]
    authors = ["Fyodor Dostoyevsky", "Leo Tolstoy", "Dostoevsky, Fedor", "Лев Толстой", "unknown", "unknown"]
    found = units(list("abcdef"), titles, authors)
    assert found == ["a", "b", "a", "b", "e", "f"]
    assert units(["a", "b"], ["War and Peace, vol. 1", "War and Peace, vol. 2"], ["Leo Tolstoy"] * 2) == ["a", "b"]


def make_book(number: int, author: str, language: str = "en", n_words: int = 20_000, genre: str = "fiction") -> Book:
    return Book(
        f"{number:016x}", f"T{number}", author, None, language, genre, f"{number}.txt", "", number, "train", n_words,
        n_words * 6, [0], {},
    )  # fmt: skip


def library(n_en: int = 60, n_ru: int = 30) -> list[Book]:
    books = [make_book(i, f"Author {chr(65 + i % 26)}smith", n_words=3000 + 1000 * (i % 30)) for i in range(n_en)]
    return books + [make_book(1000 + i, f"Автор Фамилия{chr(1072 + i % 15)}", "ru") for i in range(n_ru)]


@pytest.mark.parametrize("seed", range(5))
def test_pools_hold_whole_authors_and_every_language(seed: int) -> None:
    books = library()
    pools = assign_pools(books, 0.15, [], seed)
    assert pools == assign_pools(list(reversed(books)), 0.15, [], seed)
    assert set(pools) == {book.book_id for book in books}
    for unit in group_by_author(books):
        assert len({pools[book.book_id] for book in unit.books}) == 1
    for language, n in (("en", 60), ("ru", 30)):
        held = [book for book in books if book.language == language and pools[book.book_id] != "train"]
        assert abs(len(held) - 0.15 * n) <= 2
        assert {pools[book.book_id] for book in held} == {"eval_a", "eval_b"}
    sizes = [sum(b.n_bytes for b in books if pools[b.book_id] == pool) for pool in ("eval_a", "eval_b")]
    assert max(sizes) < 2 * min(sizes)
    held_all = [book for book in books if pools[book.book_id] != "train"]
    assert sum(book.n_words >= 5000 for book in held_all) >= 0.8 * len(held_all)


def test_the_draw_depends_on_the_seed() -> None:
    books = library()
    assert len({tuple(sorted(assign_pools(books, 0.15, [], seed).items())) for seed in range(5)}) > 1


def test_co_authors_are_one_unit_and_unknowns_are_many() -> None:
    books = [
        make_book(1, "A Marx & B Engels"),
        make_book(2, "B Engels"),
        make_book(3, "unknown"),
        make_book(4, "unknown"),
    ]
    assert sorted(len(unit.books) for unit in group_by_author(books)) == [1, 1, 2]


def test_named_authors_override_the_share() -> None:
    books = [make_book(i, ["Jane Austen", "Mark Twain", "H.G. Wells"][i % 3]) for i in range(9)]
    pools = assign_pools(books, 0.5, ["Austen", "Twain, Mark"], 0)
    held = {book.author for book in books if pools[book.book_id] != "train"}
    assert held == {"Jane Austen", "Mark Twain"}
    with pytest.raises(LibraryError, match="Asten") as caught:
        assign_pools(books, 0.5, ["Jane Asten", "Mark Twain"], 0)
    assert "Jane Austen" in caught.value.hint
    with pytest.raises(LibraryError, match="holds out 3 of 9"):
        assign_pools(books, 0.5, ["Jane Austen"], 0)


@pytest.mark.parametrize("authors", [["A B"], ["A B"] * 9, ["A B", "C D"], ["A B", "C D"] * 4])
def test_too_few_authors_are_refused(authors: list[str]) -> None:
    with pytest.raises(LibraryError, match="too few"):
        assign_pools([make_book(i, name) for i, name in enumerate(authors)], 0.15, [], 0)


def test_the_smallest_library_that_works() -> None:
    books = [make_book(i, f"Name Surname{chr(97 + i)}") for i in range(4)]
    pools = assign_pools(books, 0.15, [], 0)
    assert sorted(pools.values()).count("train") == 1


def test_one_huge_author_leaves_books_to_train_on() -> None:
    books = [make_book(i, "Big Author") for i in range(30)] + [
        make_book(100 + i, f"S Mall{chr(97 + i)}") for i in range(3)
    ]
    pools = assign_pools(books, 0.15, [], 0)
    assert [pools[book.book_id] for book in books[:30]] == ["train"] * 30
    assert {pools[book.book_id] for book in books[30:]} >= {"eval_a", "eval_b"}
