"""The design: balanced, paired, redrawable."""

from collections import Counter

import numpy as np
import pytest

from ltm.errors import LibraryError
from ltm.records import Book
from ltm.sets.balance import of_matrix as balance
from ltm.sets.choose import incidence
from ltm.sets.design import draw
from ltm.sets.section import SetsSection


def library(n):
    def book(i):
        year = 1800 + i if i % 3 else None
        return Book(f"{i:016x}", "t", "", year, "en", "", "", "", i, "train", 1, 1, [0], {"flesch": float(i * 7 % 50)})

    return [book(i) for i in range(n)]


@pytest.mark.parametrize(("n_sets", "n_books", "size"), [(40, 56, 20), (30, 60, 30), (7, 10, 3), (5, 8, 8)])
def test_every_book_as_often_as_any_other(n_sets, n_books, size):
    member = incidence(n_sets, n_books, size, np.random.default_rng(3))
    assert (member.sum(axis=1) == size).all()
    assert np.ptp(member.sum(axis=0)) <= 1


def test_pairs_are_more_even_than_by_chance():
    rng = np.random.default_rng(0)
    even = balance(incidence(100, 50, 20, rng))["sets_per_pair_sd"]
    plain = np.zeros((100, 50), dtype=bool)
    for row in plain:
        row[rng.choice(50, 20, replace=False)] = True
    assert even < 0.6 * balance(plain)["sets_per_pair_sd"]


def test_the_same_seed_draws_the_same_design_whatever_the_row_order():
    section = SetsSection(count=60)
    one, two = draw(section, library(56), 5), draw(section, library(56)[::-1], 5)
    assert one == two
    assert draw(section, library(56), 6)[0] != one[0]


@pytest.mark.parametrize("count", [1, 2, 7, 60, 96, 1000])
def test_exactly_count_variants(count):
    variants, design = draw(SetsSection(count=count, books_per_set=10), library(40), 1)
    assert len(variants) == count == design["n_variants"]
    assert [v.index for v in variants] == list(range(count))
    assert len({v.variant_id for v in variants}) == count


def test_blocks_share_books_and_seed_and_differ_in_one_thing():
    section = SetsSection(count=120, books_per_set=12, contrast_orders=["reverse", "shuffled", "chronological"])
    variants, _ = draw(section, library(40), 1)
    blocks = {}
    for v in variants:
        blocks.setdefault(v.block, []).append(v)
    for arms in blocks.values():
        base = arms[0]
        assert base.arm == "base"
        for v in arms:
            assert set(v.book_ids) == set(base.book_ids)
            assert v.stream_seed == base.stream_seed
            assert v.init_seeds == base.init_seeds
        if base.template == "order":
            assert [v.arm for v in arms] == ["base", "reverse", "shuffled", "chronological"]
            assert arms[1].book_ids == base.book_ids[::-1]
            assert arms[2].book_ids == base.book_ids
        if base.template == "gaps":
            assert [v.gap_kind for v in arms][0::2] == ["none", "truncated"]
            assert arms[1].density == arms[2].density < 1
        if base.template == "seeds":
            assert len(set(base.init_seeds)) == 2


def test_chronological_order_puts_books_without_a_year_last():
    section = SetsSection(count=30, books_per_set=12, contrast_orders=["chronological"])
    books = {b.book_id: b for b in library(40)}
    for v in draw(section, list(books.values()), 1)[0]:
        if v.order == "chronological":
            years = [books[i].year for i in v.book_ids]
            known = [y for y in years if y is not None]
            assert known == sorted(known)
            assert None not in years[: len(known)]


def test_gap_kinds_and_densities_are_dealt_evenly():
    variants, _ = draw(SetsSection(count=400, books_per_set=10), library(40), 1)
    counts = Counter((v.gap_kind, v.density) for v in variants if v.arm == "gap")
    assert len(counts) == 12
    assert max(counts.values()) - min(counts.values()) <= 1


def test_too_few_books_is_said_with_what_to_do():
    with pytest.raises(LibraryError, match="a set needs 20 books, but the library has 5") as caught:
        draw(SetsSection(), library(5), 1)
    assert "sets.books_per_set=2" in caught.value.hint
