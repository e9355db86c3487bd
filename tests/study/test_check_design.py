"""What `check` says of designs and rounds that cannot be what they are called."""

import pytest

import ltm
from ltm.errors import ConfigError

LIBRARY = {"sets.books_per_set": 4, "sets.book_tokens": 5000, "books.min_words": 10}


def problems(**changes):
    return ltm.load("demo", changes).check()


def warned(**changes):
    return ltm.load("demo", changes).notes().warnings


@pytest.fixture
def library(tmp_path):
    def make(columns, rows, suffix=".txt"):
        for i in range(12):
            (tmp_path / f"{i}{suffix}").write_text("word " * 2000, encoding="utf-8")
        lines = [",".join(["file", *columns]), *(",".join([f"{i}{suffix}", *row]) for i, row in enumerate(rows))]
        (tmp_path / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
        return {**LIBRARY, "books.path": str(tmp_path), "sets.base_order": "random"}

    return make


def test_an_order_whose_fact_the_manifest_does_not_give_is_a_problem(library):
    given = library(["title", "genre"], [[f"t{i}", "law"] for i in range(12)])
    found = problems(**given, **{"sets.contrast_orders": ["chronological", "genre_blocked"]})
    assert len(found) == 1
    assert "`sets.contrast_orders` has `chronological`, which needs the year of the books" in found[0]
    empty = library(["title", "year"], [[f"t{i}", ""] for i in range(12)])
    assert "needs the year" in problems(**empty, **{"sets.contrast_orders": ["chronological"]})[0]
    full = library(["title", "year"], [[f"t{i}", "1850"] for i in range(12)])
    assert problems(**full, **{"sets.contrast_orders": ["chronological"]}) == []


def test_files_that_may_tell_their_own_year_are_waited_for(library):
    given = library(["title"], [[f"t{i}"] for i in range(12)], suffix=".epub")
    assert not any(
        "needs the year" in text for text in problems(**given, **{"sets.contrast_orders": ["chronological"]})
    )


def test_an_order_that_is_not_asked_for_needs_nothing(library):
    given = library(["title"], [[f"t{i}"] for i in range(12)])
    quiet = {"sets.contrast_orders": ["chronological"], "sets.shares.order": 0}
    assert not any("needs the year" in text for text in problems(**given, **quiet))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"books.path": "x"}, "recipe 1 changes books.path; it may change runs.*"),
        ({"sets.books_per_set": 3}, "recipe 1 changes sets.books_per_set"),
        ({}, "recipe 1 changes nothing"),
        ({"runs.lrr": 1}, "recipe 1: runs.lrr: no such setting"),
        ({"runs.batch_tokens": 1000}, "is 1000, not a multiple of the block size"),
        ({"model.n_head": 5}, "recipe 1: model"),
    ],
)
def test_recipes_that_cannot_be_compared_or_trained_are_problems(recipe, said):
    found = problems(**{"rounds.enabled": True, "sets.count": 1000, "rounds.pilot.recipes": [recipe]})
    assert any("`rounds.pilot.recipes`" in text and said in text for text in found), found


def test_bank_b_stays_sealed_when_there_are_rounds():
    found = problems(**{"rounds.enabled": True, "sets.count": 1000, "scores.bank": "b"})
    assert any("`scores.bank` is b, but with rounds bank B stays sealed" in text for text in found)
    assert problems(**{"scores.bank": "b"}) == []


def test_spaced_repetition_of_what_is_read_once_is_a_problem():
    assert "read once; nearest: sets.epochs 2" in problems(**{"sets.spacing": 0})[0]
    assert problems(**{"sets.spacing": 0, "sets.epochs": 2}) == []
    found = problems(**{"sets.contrast_orders": ["repetition", "random"]})
    assert any("`sets.contrast_orders` asks for spaced repetition" in text for text in found)


def test_a_list_of_books_that_is_too_short_or_missing_is_a_problem(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("a\nb\n")
    assert "names 2 books, fewer than the 20 of a set" in problems(**{"sets.among": str(path)})[0]
    assert "cannot read" in problems(**{"sets.among": str(path) + "x"})[0]


def test_a_kind_of_block_without_a_block_is_warned_of():
    found = warned(**{"sets.count": 5, "sets.shares.single": 0.9, "sets.shares.gaps": 0.05})
    assert any("`sets.shares.gaps`" in text and "leave no block of that kind" in text for text in found)


def test_gap_arms_without_gaps_are_refused():
    with pytest.raises(ConfigError, match="gap_arms has no arm with gaps"):
        ltm.load("demo", {"sets.gap_arms": ["truncated"]})
    with pytest.raises(ConfigError, match="densities names a value twice"):
        ltm.load("demo", {"sets.densities": [0.5, 0.5]})
