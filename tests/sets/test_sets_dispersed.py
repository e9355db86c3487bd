"""Sets of large libraries: they lean towards kinds of books, evenly, and no book is an object of its own."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from ltm.records import Book
from ltm.sets import balance, kinds
from ltm.sets.design import Drawer, draw
from ltm.sets.disperse import Dealer, counts, laws, shares
from ltm.sets.section import SetsSection
from ltm.sets.shelf import blank_shelf, shelf_of


def library(n, n_kinds=10, seed=0):
    rng = np.random.default_rng(seed)
    centres = 4 * rng.standard_normal((n_kinds, 3))

    def book(i):
        x = centres[i % n_kinds] + 0.3 * rng.standard_normal(3)
        return Book(
            f"{i:016x}", f"t{i}", "a", 1800, "en", ("", "verse")[i % 2], "", "", i, "train", 1, 1, [0],
            {"a": float(x[0]), "b": float(x[1]), "c": float(x[2])},
        )  # fmt: skip

    return [book(i) for i in range(n)]


def test_clusters_find_kinds_of_books():
    shelf = shelf_of(library(600, 6))
    found = kinds.clusters(kinds.vectors(shelf), 12, np.random.default_rng(0))
    truth = np.array([int(i, 16) % 6 for i in shelf.ids(np.arange(600))])
    purity = sum(Counter(truth[found == c]).most_common(1)[0][1] for c in range(12)) / 600
    assert purity > 0.95
    assert np.bincount(found, minlength=12).min() > 0


def test_books_that_cannot_be_told_apart_are_divided_evenly():
    found = kinds.clusters(kinds.vectors(blank_shelf(4000)), 64, np.random.default_rng(0))
    sizes = np.bincount(found, minlength=64)
    assert sizes.min() > 0
    assert sizes.max() < 4 * sizes.mean()


@pytest.mark.parametrize("concentration", [0.02, 0.1, 0.5])
def test_shares_follow_the_dirichlet_law(concentration):
    """E[sum of squares] of a symmetric Dirichlet over C kinds is (concentration + 1) / (C x concentration + 1)."""
    drawn = shares([f"dirichlet {concentration}"] * 800, 20, np.random.default_rng(1))
    assert np.isfinite(drawn).all()
    assert np.allclose(drawn.sum(axis=1), 1)
    expected = (concentration + 1) / (20 * concentration + 1)
    assert np.mean((drawn**2).sum(axis=1)) == pytest.approx(expected, rel=0.06)
    assert np.ptp(np.bincount(drawn.argmax(axis=1), minlength=20)) <= 1  # every kind leads as many sets
    assert np.abs(drawn.mean(axis=0) - 0.05).max() < 0.03


def test_no_kind_gives_more_books_than_it_has():
    capacity = np.array([3, 10, 50])
    for seed in range(50):
        taken = counts(np.array([0.98, 0.02, 0.0]), 20, capacity, np.random.default_rng(seed))
        assert taken.sum() == 20
        assert (taken <= capacity).all()
    with pytest.raises(ValueError, match="cannot be drawn"):
        counts(np.array([1.0, 0.0, 0.0]), 64, capacity, np.random.default_rng(0))


def test_books_of_a_kind_are_dealt_like_cards():
    cluster = np.repeat(np.arange(5), 30)
    dealer = Dealer(cluster, np.random.default_rng(0))
    drawn = [dealer.dispersed(np.full(5, 0.2), 25) for _ in range(60)]
    assert all(len(set(s.tolist())) == 25 for s in drawn)
    times = np.bincount(np.concatenate(drawn), minlength=150)
    for kind in range(5):
        assert np.ptp(times[cluster == kind]) <= 1


def test_one_set_in_five_is_uniform_and_concentrations_are_dealt_evenly():
    named = Counter(laws(100, 0.2, [0.02, 0.1, 0.5], np.random.default_rng(0)))
    assert named == {"uniform": 20, "dirichlet 0.02": 27, "dirichlet 0.1": 27, "dirichlet 0.5": 26}


@pytest.fixture(scope="module")
def drawn():
    drawer = Drawer(SetsSection(count=150, books_per_set=40), shelf_of(library(1500)), 3)
    variants = drawer.blocks("exploration", 150, in_runs=False)
    return drawer, variants, drawer.describe(variants)


def test_a_thousand_books_are_drawn_by_kinds_and_fewer_are_not(drawn):
    _, variants, design = drawn
    assert design["design"] == "dispersed"
    assert design["kinds"]["spread_over_uniform"] > 5
    assert len({v.variant_id for v in variants}) == len(variants) == 150
    assert all(len(set(v.book_ids)) == 40 for v in variants)
    by_law = design["kinds"]["kinds_in_a_set"]
    assert by_law["dirichlet 0.02"] < by_law["dirichlet 0.1"] < by_law["dirichlet 0.5"] < by_law["uniform"]
    small = draw(SetsSection(count=30), library(999), 1)
    assert small[1]["design"] == "balanced"
    assert {v.law for v in small[0]} == {"balanced"}
    forced = draw(SetsSection(count=30, design="dispersed"), library(200), 1)
    assert {v.law for v in forced[0]} >= {"uniform", "dirichlet 0.1"}


def test_uniform_and_dispersed_sets_are_spread_over_all_templates(drawn):
    _, variants, _ = drawn
    by_template = {
        t: [v.law for v in variants if v.template == t and v.arm == "base"] for t in ("single", "order", "gaps")
    }
    for found in by_template.values():
        assert 0.1 <= found.count("uniform") / len(found) <= 0.35


def test_the_same_seed_draws_the_same_dispersed_design_whatever_the_row_order(drawn):
    _, variants, _ = drawn
    again = draw(SetsSection(count=150, books_per_set=40), library(1500)[::-1], 3)[0]
    assert again == variants


def test_filled_sets_of_a_leaning_set_lean_the_same_way():
    section = SetsSection(
        count=120, books_per_set=30, gap_arms=["gap", "filled", "truncated"], densities=[0.5],
        shares={"single": 0, "seeds": 0, "order": 0, "gaps": 1},
    )  # fmt: skip
    drawer = Drawer(section, shelf_of(library(1500)), 1)
    variants = drawer.blocks("exploration", 120, in_runs=False)
    blocks = {}
    for v in variants:
        blocks.setdefault(v.block, {})[v.arm] = v
    alike, strange = [], []
    laid_out = list(blocks.values())
    for one, other in zip(laid_out, laid_out[1:] + laid_out[:1], strict=True):
        assert [v.arm for v in one.values()] == ["base", "gap", "filled", "truncated"]
        assert len(set(one["filled"].book_ids)) == 60
        assert set(one["base"].book_ids) < set(one["filled"].book_ids)
        assert one["filled"].set_id != one["base"].set_id == one["gap"].set_id
        if one["base"].law == "dirichlet 0.02":
            more = drawer.shelf.rows(sorted(set(one["filled"].book_ids) - set(one["base"].book_ids)))
            for base, into in ((one["base"], alike), (other["base"], strange)):
                own = set(drawer.cluster_B[drawer.shelf.rows(base.book_ids)])
                into.append(np.mean([c in own for c in drawer.cluster_B[more]]))
    assert np.mean(alike) > 2 * np.mean(strange)
    assert len({v.set_id for v in variants}) == 2 * len(blocks)


def test_balance_counts_what_is_there():
    sets = [np.array([0, 1, 2]), np.array([0, 1, 3])]
    small, large = balance.of_sets(sets, 5), balance._of_rare_pairs(sets, 5)
    assert small["sets_per_book"] == [0, 2]
    assert small["books_never_drawn"] == 1
    assert small["sets_per_pair"] == [0, 0.6, 2]
    assert (large["sets_per_pair"], large["sets_per_pair_sd"]) == (
        [0, 0.6, 2],
        pytest.approx(small["sets_per_pair_sd"], abs=1e-3),
    )
    assert small["largest_correlation"] == 1.0  # books 2 and 3 never meet


def test_a_million_books_take_seconds_and_modest_memory():
    """In a process of its own, so that the peak is its own; 10 s of processor time is the bar for the whole stage."""
    code = (
        "import time, numpy as np\n"
        "from ltm.sets.design import Drawer\nfrom ltm.sets.section import SetsSection\n"
        "from ltm.sets.shelf import blank_shelf\n"
        "import dataclasses\n"
        "shelf = blank_shelf(1_000_000)\n"
        "rows = np.random.default_rng(0).standard_normal((1_000_000, 12)).astype(np.float32)\n"
        "shelf = dataclasses.replace(shelf, features_BF=rows, feature_names=tuple('abcdefghijkl'))\n"
        "began = time.process_time()\n"
        "drawer = Drawer(SetsSection(count=1000, books_per_set=100), shelf, 1)\n"
        "variants = drawer.blocks('exploration', 1000, in_runs=False)\n"
        "drawer.describe(variants)\n"
        "print(len(variants), time.process_time() - began)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    count, seconds, peak = done.stdout.split()
    assert int(count) == 1000
    assert float(seconds) < 10
    assert 1024 * float(peak) < 1.5e9


def test_editions_are_one_unit_unless_they_are_kept_apart():
    books = library(40)
    twins = [
        dataclasses.replace(b, book_id=f"{1000 + i:016x}", title=b.title.upper() + "!") for i, b in enumerate(books[:8])
    ]
    section = SetsSection(count=60, books_per_set=16)
    variants, design = draw(section, books + twins, 1)
    assert (design["n_books"], design["n_units"]) == (48, 40)
    unit = {b.book_id: b.title.rstrip("!").lower() for b in books + twins}
    for v in variants:
        assert len({unit[i] for i in v.book_ids}) == 16
    times = Counter(i for v in variants if v.arm == "base" for i in v.book_ids)
    assert all(times[b.book_id] > 0 for b in twins)  # either edition comes
    apart, described = draw(SetsSection(count=60, books_per_set=16, editions="apart"), books + twins, 1)
    assert described["n_units"] == 48
    assert any(len({unit[i] for i in v.book_ids}) < 16 for v in apart)


def test_units_of_the_catalogue_are_taken_where_it_has_any():
    books = library(30)
    other = [dataclasses.replace(b, title=f"another {b.title}", unit=books[0].book_id) for b in books[1:4]]
    section = SetsSection(count=40, books_per_set=10)
    variants, design = draw(section, [*other, dataclasses.replace(books[0], unit=books[0].book_id), *books[4:]], 1)
    assert (design["n_books"], design["n_units"]) == (30, 27)
    same = {books[0].book_id, *(b.book_id for b in other)}
    assert all(len(same & set(v.book_ids)) <= 1 for v in variants)
    assert len({i for v in variants for i in v.book_ids} & same) >= 2
