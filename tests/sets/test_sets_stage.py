"""The stored design: it can be redrawn, an edit is noticed, and bad input is said."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ltm.errors import InputError, LibraryError, StoreError
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.sets import stage
from ltm.sets.order import Arranger, known_share
from ltm.sets.section import SetsSection
from ltm.sets.shelf import read_shelf, shelf_of
from ltm.store import WorkFolder, read_rows, write_rows

QUIET = Progress(quiet=True)


def library(n, **changes):
    def book(i):
        values = dict(year=1800 + i, genre=("verse", "novel", "law")[i % 3], features={"flesch": float(i * 7 % 50)})
        values |= {key: value(i) for key, value in changes.items()}
        return Book(
            f"{i:016x}", f"t{i}", "a", values["year"], "en", values["genre"], "", "", i, "train", 1, 1, [0],
            values["features"],
        )  # fmt: skip

    return [book(i) for i in range(n)]


@pytest.fixture
def work(tmp_path):
    folder = WorkFolder(tmp_path)
    eval_book = dataclasses.replace(library(1)[0], book_id="f" * 16, pool="eval_a")
    write_rows(folder.path("books", "catalogue.parquet"), [*library(40), eval_book], Book)
    return folder


def test_the_stage_writes_what_redraws_the_design(work):
    stage.build(SetsSection(count=50, books_per_set=12), work, 7, QUIET)
    first = stage.read_variants(work)
    design = stage.report(work)
    assert {"seed", "settings", "hash", "method", "balance", "orders", "gaps"} <= set(design)
    again = stage.open_drawer(SetsSection(**design["settings"]), work, design["seed"])
    assert stage.hash_of(again.blocks("exploration", 50, in_runs=False)) == design["hash"] == stage.hash_of(first)
    assert all("f" * 16 not in v.book_ids for v in first)  # held out


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: dataclasses.replace(v, book_ids=v.book_ids[::-1]),
        lambda v: dataclasses.replace(v, template="order", arm="reverse"),
        lambda v: dataclasses.replace(v, set_id=0),
        lambda v: dataclasses.replace(v, drawn=False),
        lambda v: dataclasses.replace(v, init_seeds=[1, 2, 3]),
    ],
)
def test_an_edited_design_is_noticed(work, edit):
    stage.build(SetsSection(count=50, books_per_set=12), work, 7, QUIET)
    rows = stage.read_variants(work)
    write_rows(work.path("sets", "variants.parquet"), [*rows[:-1], edit(rows[-1])], Variant)
    assert "was changed after it was drawn" in stage.verify(work)
    with pytest.raises(StoreError, match="its hash is not the one") as caught:
        stage.report(work)
    assert "delete the folder `sets`" in caught.value.hint


def test_duplicated_variants_are_noticed(work):
    stage.build(SetsSection(count=50, books_per_set=12), work, 7, QUIET)
    rows = stage.read_variants(work)
    write_rows(work.path("sets", "variants.parquet"), [*rows, rows[0]], Variant)
    assert stage.verify(work) == "sets/variants.parquet has 1 duplicated variants"


def test_sets_are_drawn_from_the_books_of_a_list_alone(work, tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("# the best\n" + "\n".join(f"{i:016x}  # book {i}" for i in range(20, 36)) + "\n\n")
    section = SetsSection(count=20, books_per_set=8, among=str(path))
    stage.build(section, work, 1, QUIET)
    used = {i for v in read_rows(work.path("sets", "variants.parquet"), Variant) for i in v.book_ids}
    assert used == {f"{i:016x}" for i in range(20, 36)}
    before = stage.inputs(section)
    path.write_text(path.read_text().replace("23", "19"))
    assert stage.inputs(section) != before
    path.write_text("f" * 16)
    with pytest.raises(LibraryError, match="1 books that are not among the training books, the first: ffff"):
        read_shelf(work, among=str(path))
    path.write_text("\n")
    with pytest.raises(InputError, match="names no book"):
        read_shelf(work, among=str(path))
    with pytest.raises(InputError, match="cannot read"):
        read_shelf(work, among=str(path) + "x")


def order_section(order):
    shares = {"single": 0.0, "seeds": 0.0, "order": 1.0, "gaps": 0.0}
    return SetsSection(count=20, books_per_set=6, contrast_orders=[order], shares=shares)


@pytest.mark.parametrize(
    ("order", "change", "said"),
    [
        ("chronological", {"year": lambda i: None}, "needs the year of the books, but none of 40 has it"),
        ("genre_blocked", {"genre": lambda i: ""}, "needs the genre of the books, but none of 40 has it"),
        ("genre_interleaved", {"genre": lambda i: "law"}, "needs two genres"),
        ("readability_up", {"features": lambda i: {"mtld": 1.0}}, "needs the readability of the books"),
        ("similarity_chain", {"features": lambda i: {}}, "needs the features of the books"),
    ],
)
def test_an_order_that_needs_a_missing_column_is_refused_by_name(tmp_path, order, change, said):
    work = WorkFolder(tmp_path)
    write_rows(work.path("books", "catalogue.parquet"), library(40, **change), Book)
    with pytest.raises(LibraryError, match=said) as caught:
        stage.build(order_section(order), work, 1, QUIET)
    assert f"leave `{order}` out of sets.contrast_orders" in caught.value.hint
    stage.build(order_section("reverse"), work, 1, QUIET)


def test_orders_are_what_they_are_called():
    books = library(30)
    shelf = shelf_of(books)
    rng = np.random.default_rng(0)
    rows = rng.permutation(30)[:12]
    arranger = Arranger(shelf, turns=5)
    genre = lambda order: [books[i].genre for i in arranger.arrange(order, rows)]  # noqa: E731
    blocked = genre("genre_blocked")
    assert sum(a != b for a, b in itertools.pairwise(blocked)) == len(set(blocked)) - 1
    spread = genre("genre_interleaved")
    assert sum(a != b for a, b in itertools.pairwise(spread)) > len(spread) - 3
    flesch = shelf.feature("flesch")
    chain, away = (arranger.arrange(order, rows) for order in ("similarity_chain", "anti_chain"))
    jumps = [float(np.abs(np.diff(flesch[o])).mean()) for o in (chain, rows, away)]
    assert jumps[0] < jumps[1] < jumps[2]
    for order in ("genre_blocked", "genre_interleaved", "similarity_chain", "anti_chain", "chronological", "in_turns"):
        assert sorted(arranger.arrange(order, rows)) == sorted(rows)
    assert (arranger.spacing("in_turns", 1), arranger.spacing("repetition", 1), arranger.spacing("reverse", 3)) == (
        5,
        0,
        3,
    )
    assert known_share("chronological", shelf_of(library(10, year=lambda i: None if i < 4 else 1900))) == 0.6


def test_contrast_orders_are_dealt_evenly_when_a_block_holds_some():
    section = SetsSection(
        count=180, books_per_set=6, orders_per_block=2,
        contrast_orders=["reverse", "shuffled", "chronological", "genre_blocked", "in_turns"],
        shares={"single": 0, "seeds": 0, "order": 1, "gaps": 0},
    )  # fmt: skip
    drawer = stage.Drawer(section, shelf_of(library(40)), 1)
    variants = drawer.blocks("exploration", 180, in_runs=False)
    arms = [[v.arm for v in variants if v.block == b] for b in range(60)]
    assert all(a[0] == "base" and len(set(a)) == 3 for a in arms)
    times = [sum(name in a for a in arms) for name in section.contrast_orders]
    assert max(times) - min(times) <= 1


def test_one_run_in_place_of_one_variant_counts_both_seeds():
    drawer = stage.Drawer(SetsSection(books_per_set=6), shelf_of(library(40)), 1)
    for total in (7, 60, 100):
        variants = drawer.blocks("exploration", total, in_runs=True)
        assert sum(len(v.init_seeds) for v in variants) == total


def test_a_library_too_small_for_different_sets_says_so(work, tmp_path, capsys):
    path = tmp_path / "few.txt"
    path.write_text("\n".join(f"{i:016x}" for i in range(5)))
    stage.build(SetsSection(count=40, books_per_set=4, among=str(path)), work, 1, Progress())
    assert "only 5 of them differ: the library is small" in capsys.readouterr().err
    assert json.loads(work.path("sets", "design.json").read_text())["notes"]


def test_the_largest_correlation_of_two_books_is_cut():
    from ltm.sets import choose
    from ltm.sets.balance import of_matrix

    rng = np.random.default_rng(0)
    none = np.zeros((0, 60), dtype=bool)
    squares_only = choose._deal(120, 20, rng, none)
    choose._even_pairs(squares_only, rng, 12_000, none)
    peaks_cut = squares_only.copy()
    choose._cut_peaks(peaks_cut, rng, 4800, none)
    before, after = of_matrix(squares_only), of_matrix(peaks_cut)
    assert after["largest_correlation"] < 0.9 * before["largest_correlation"]
    assert np.array_equal(peaks_cut.sum(axis=0), squares_only.sum(axis=0))
    assert np.array_equal(peaks_cut.sum(axis=1), squares_only.sum(axis=1))
