"""A larger `sets.count` adds blocks: those that are there stay, and all together are nearly as even as at once."""

import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest

from ltm.progress import Progress
from ltm.records import Book
from ltm.sets import stage, steps
from ltm.sets.design import Drawer
from ltm.sets.section import SetsSection
from ltm.sets.shelf import shelf_of
from ltm.store import WorkFolder, write_rows

QUIET = Progress(quiet=True)


def library(n):
    rng = np.random.default_rng(3)
    return [
        Book(f"{i:016x}", f"t{i}", f"a{i}", 1800, "en", ("verse", "novel")[i % 2], "", "", i, "train", 1, 1, [0],
             {"flesch": float(rng.normal()), "mtld": float(rng.normal())})
        for i in range(n)
    ]  # fmt: skip


def drawer(n, **settings):
    return Drawer(SetsSection(**settings), shelf_of(library(n)), 5)


def sizes(variants):
    blocks = {v.block: v.template for v in variants}
    return Counter(blocks.values())


@pytest.mark.parametrize("counts", [(24, 25), (24, 31, 96), (60, 96), (1, 50)])
def test_blocks_that_are_there_stay_and_the_total_is_exact(counts):
    one = drawer(40, books_per_set=12)
    design = steps.grown(one, counts)
    assert design[: counts[0]] == one.blocks("exploration", counts[0], in_runs=False)
    assert len(design) == counts[-1] == len({v.variant_id for v in design})
    assert [v.index for v in design] == list(range(counts[-1]))
    arms = Counter(v.block for v in design)
    by_template = {"single": 1, "seeds": 1, "order": 3, "gaps": 3}
    assert all(arms[v.block] == by_template[v.template] for v in design)


def test_a_grown_design_is_nearly_as_even_as_one_drawn_at_once():
    grown, at_once = drawer(40, books_per_set=12), drawer(40, books_per_set=12)
    design = steps.grown(grown, [96, 200])
    balance = grown.describe(design)["balance"]
    best = at_once.describe(at_once.blocks("exploration", 200, in_runs=False))["balance"]
    low, high = balance["sets_per_book"]
    assert high - low <= 1
    # the pairs of the first 96 are fixed, so the ones that came later cannot undo all of their unevenness
    assert balance["sets_per_pair_sd"] <= 1.3 * best["sets_per_pair_sd"]
    assert balance["largest_correlation"] <= 1.3 * best["largest_correlation"]
    alone = drawer(40, books_per_set=12)
    alone.seed = 6
    apart = [*design[:96], *[dataclasses.replace(v, set_id=v.set_id + 1000, block=v.block + 1000)
                             for v in alone.blocks("exploration", 104, in_runs=False)]]  # fmt: skip
    assert balance["sets_per_pair_sd"] < grown.describe(apart)["balance"]["sets_per_pair_sd"]


def test_templates_and_gaps_of_a_grown_design_are_as_many_as_if_drawn_at_once():
    one = drawer(40, books_per_set=12)
    design = steps.grown(one, [96, 192])
    wanted = sizes(one.blocks("exploration", 192, in_runs=False))
    assert all(abs(sizes(design)[name] - wanted[name]) <= 2 for name in wanted)
    levels = Counter((v.gap_kind, v.density) for v in design if v.arm == "gap")
    assert max(levels.values()) - min(levels.values()) <= 1


def test_dispersed_sets_go_on_with_kinds_and_books_that_came_least():
    one = drawer(1200, books_per_set=20, clusters=8, shares={"single": 1, "seeds": 0, "order": 0, "gaps": 0})
    design = steps.grown(one, [40, 80])
    assert design[:40] == one.blocks("exploration", 40, in_runs=False)
    kinds = one.cluster_B[one.shelf.rows([b for v in design for b in v.book_ids])].reshape(80, 20)
    leaders = [
        np.bincount(row, minlength=8).argmax() for row, v in zip(kinds, design, strict=True) if v.law != "uniform"
    ]
    led = np.bincount(leaders, minlength=8)
    assert led.max() - led.min() <= 5
    used = Counter(b for v in design for b in v.book_ids)
    assert len(used) > 0.5 * 1200  # 1,600 places; books that came before come last
    laws = Counter(v.law for v in design)
    assert laws["uniform"] == 16


def test_counts_lead_to_each_other():
    assert steps.counts_for(200, [[96], [96, 160]]) == [96, 160, 200]
    assert steps.counts_for(96, [[96], [60]]) == [96]
    assert steps.counts_for(70, [[96], [60]]) == [60, 70]


@pytest.fixture
def work(tmp_path):
    folder = WorkFolder(tmp_path)
    write_rows(folder.path("books", "catalogue.parquet"), library(40), Book)
    return folder


def test_the_stage_grows_comes_back_and_starts_anew_where_something_else_changed(work):
    def ids(seed=7, **settings):
        stage.build(SetsSection(books_per_set=12, **settings), work, seed, QUIET)
        assert [v.variant_id for v in stage.drawn(SetsSection(books_per_set=12, **settings), work, seed)] == [
            v.variant_id for v in stage.read_variants(work)
        ]
        return [v.variant_id for v in stage.read_variants(work)]

    first = ids(count=30)
    more = ids(count=50)
    assert more[:30] == first
    assert stage.report(work)["counts"] == [30, 50]
    assert ids(count=30) == first
    assert ids(count=50) == more
    shutil.rmtree(work.path("sets"))  # as a message about an edited design says
    assert ids(count=50) == more
    assert ids(count=50, passage_tokens=64)[:5] != []  # passages do not change which books stand where
    assert stage.report(work)["counts"] == [50]
    assert ids(count=30) == first
    assert not set(ids(count=30, seed=8)) & set(first)


def test_a_library_that_changed_draws_anew(work):
    stage.build(SetsSection(books_per_set=12, count=30), work, 7, QUIET)
    write_rows(work.path("books", "catalogue.parquet"), library(41), Book)
    stage.build(SetsSection(books_per_set=12, count=50), work, 7, QUIET)
    assert stage.report(work)["counts"] == [50]
