"""Planted truth is found, and nothing is found where nothing is; larger campaigns are in bench/patterns_truth.py."""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import kstest

from ltm.patterns import effects
from ltm.patterns.effects import estimate_effects, share_that_lasts
from ltm.patterns.order import late_weight
from ltm.patterns.ranking import critical_value, rank
from ltm.patterns.simulate import Planted, near_balanced_sets, simulate, true_book_effects, true_mean
from ltm.patterns.table import make_table
from ltm.patterns.words import not_told_apart

HARMFUL = dict.fromkeys(range(10), -1.0)
ALL_GAPS = dict.fromkeys(("scattered", "blocks", "chapters", "head"), -2.0)


@cache
def _study(key: str, seed: int, redraws: int = 1999):
    planted = {
        "null": Planted(16, 8, n_single=6, n_seeds=5, n_order=8, n_gaps=8),
        "books": Planted(n_single=100, n_seeds=24, n_order=36, n_gaps=36, book_effects=HARMFUL),
        "within": Planted(
            n_seeds=8, n_order=40, n_gaps=40, gap_effects=ALL_GAPS, less_text=-1.0, shuffled=-0.6,
            late_effects={"feature_1": 0.8},
        ),
        "features": Planted(n_single=60, n_seeds=20, n_order=0, n_gaps=0, feature_effects={"feature_2": 0.25}),
    }[key]  # fmt: skip
    rows = simulate(planted, seed)
    return planted, rows, estimate_effects(make_table(rows), rows.books, 0.1, redraws, seed)


def _by_name(found, kind):
    return {e.name: e for e in found.effects if e.kind == kind}


def test_a_null_study_rarely_claims_anything_and_p_values_are_uniform():
    claims, p_of = 0, {kind: [] for kind in ("book", "feature", "order", "gap")}
    rng = np.random.default_rng(0)
    for seed in range(40):
        found = _study("null", seed, 999)[2]
        claims += any(e.claimed for e in found.effects)
        for kind, values in p_of.items():
            values.append(rng.choice([e.p for e in found.effects if e.kind == kind]))
    assert claims <= 9  # the nominal rate is 4; more than 9 has a probability below 1 %
    for kind, values in p_of.items():
        assert kstest(values, "uniform").pvalue > 0.005, kind


def test_harmful_books_are_found_and_few_others():
    power, false, claims = 0, 0, 0
    for seed in range(4):
        planted, rows, found = _study("books", seed)
        harmful = {sorted(rows.books)[i] for i in planted.book_effects}
        claimed = {e.name for e in found.effects if e.kind == "book" and e.claimed}
        power, false, claims = power + len(claimed & harmful), false + len(claimed - harmful), claims + len(claimed)
        books = _by_name(found, "book")
        assert all(books[name].estimate < 0 for name in claimed & harmful)
    assert power >= 16  # of 40
    assert false / claims <= 0.2


def test_book_intervals_cover_and_shrunk_effects_are_nearer_to_the_truth():
    inside, raw, shrunk = [], [], []
    for seed in range(4):
        planted, rows, found = _study("books", seed)
        truth = true_book_effects(planted, rows.books)
        for name, effect in _by_name(found, "book").items():
            inside.append(effect.low <= truth[name] <= effect.high)
            raw.append((effect.estimate - truth[name]) ** 2)
            shrunk.append((effect.shrunk - truth[name]) ** 2)
    assert 0.84 <= np.mean(inside) <= 0.96
    assert np.mean(shrunk) < np.mean(raw)


def test_gaps_are_told_from_less_text():
    _, rows, found = _study("within", 1)
    gap = _by_name(found, "gap")
    density = 0.5  # the mean share left out over the three densities
    heads = sum(v.gap_kind == "head" for v in rows.variants)
    assert gap["gaps_vs_truncated"].n == gap["gaps_vs_full"].n == gap["gap_dose"].n == 40 - heads  # heads have no gaps
    assert gap["head_vs_truncated"].n == heads
    assert gap["gaps_vs_truncated"].claimed
    assert gap["gaps_vs_truncated"].low <= -2.0 * density <= gap["gaps_vs_truncated"].high
    assert gap["truncated_vs_full"].low <= -1.0 * density <= gap["truncated_vs_full"].high
    # The planted loss of less text is the same on both sides: only the gaps' own slope is left.
    assert gap["gap_dose"].low <= -2.0 <= gap["gap_dose"].high
    assert {"scattered_vs_truncated", "head_vs_truncated", "gaps_vs_full"} <= gap.keys()


def test_a_late_feature_is_found_and_only_where_there_is_an_order():
    _, rows, found = _study("within", 1)
    order = _by_name(found, "order")
    assert order["late:feature_1"].claimed
    assert order["late:feature_1"].estimate == pytest.approx(0.8, abs=0.25)
    assert not any(order[f"late:feature_{i}"].claimed for i in (0, 2, 3))
    assert order["shuffled_vs_random"].claimed
    assert order["shuffled_vs_random"].estimate < 0
    # In the shuffled arms the order of the book list means nothing.
    table = make_table(rows)
    values = {b: book.features["feature_1"] for b, book in rows.books.items()}
    shuffled = [i for i in range(len(table.run_ids)) if table.variant(i).order == "shuffled"]
    lateness = [late_weight(table.variant(i), values) for i in shuffled]
    assert abs(np.corrcoef(lateness, table.scores["linking"][shuffled])[0, 1]) < 0.3


def test_a_feature_is_found_and_the_others_are_not():
    found = _by_name(_study("features", 2)[2], "feature")
    assert found["feature_2"].claimed
    assert found["feature_2"].estimate > 0
    assert not any(e.claimed for name, e in found.items() if name != "feature_2")


def test_books_of_uneven_worth_do_not_make_unrelated_features_real():
    # With sets as the unit, the features that strong books happen to have would be claimed in most of these studies.
    hits = [e.p <= 0.1 for seed in range(4) for e in _by_name(_study("books", seed)[2], "feature").values()]
    assert np.mean(hits) <= 0.4


def test_effects_do_not_change_when_scores_are_scaled_or_moved():
    from dataclasses import replace

    _, rows, found = _study("null", 0, 999)
    moved = replace(
        rows,
        measures=[replace(m, value=7.0 + 100.0 * m.value) for m in rows.measures],
        reliability=[replace(r, seed_sd=100.0 * r.seed_sd) for r in rows.reliability],
    )
    again = estimate_effects(make_table(moved), rows.books, 0.1, 999, 0)
    assert [e.name for e in again.effects] == [e.name for e in found.effects]
    for a, b in zip(again.effects, found.effects, strict=True):
        assert a.estimate == pytest.approx(b.estimate, abs=1e-9)
        assert (a.p, a.q) == pytest.approx((b.p, b.q), abs=1e-12)


def test_arms_are_not_books_merits():
    # A huge arm effect must leave every book's estimate as it is: arms are regressed out on both sides.
    from dataclasses import replace

    _, rows, found = _study("null", 3, 999)
    arm_of = {r.run_id: next(v for v in rows.variants if v.variant_id == r.variant_id).arm for r in rows.runs}
    pushed = [replace(m, value=m.value + 5.0 * (arm_of[m.run_id] == "truncated")) for m in rows.measures]
    again = estimate_effects(make_table(replace(rows, measures=pushed)), rows.books, 0.1, 999, 3)
    for name, effect in _by_name(found, "book").items():
        assert _by_name(again, "book")[name].estimate == pytest.approx(effect.estimate, abs=1e-6)


def test_ranking_is_honest():
    rng = np.random.default_rng(0)
    planted = Planted(
        n_single=40, n_order=10, n_gaps=10, n_seeds=10, set_sd=0.0, block_sd=0.0,
        book_effects={i: float(e) for i, e in enumerate(0.4 * rng.standard_normal(60))},
    )  # fmt: skip
    rows = simulate(planted, 4)
    ranked = rank(make_table(rows)).rows
    true = {v.variant_id: true_mean(planted, rows.books, v) for v in rows.variants}
    average = np.mean(list(true.values()))
    error = {
        kind: np.mean([(getattr(r, kind) - (true[r.variant_id] - average)) ** 2 for r in ranked])
        for kind in ("raw", "posterior")
    }
    assert error["posterior"] < 0.8 * error["raw"]
    assert [r.place for r in ranked] == list(range(1, len(ranked) + 1))
    assert all(a.posterior >= b.posterior - 1e-9 for a, b in pairwise(ranked))
    assert ranked[0].tied_with_best
    assert not ranked[-1].tied_with_best
    assert 0.8 <= np.mean([r.low <= true[r.variant_id] - average <= r.high for r in ranked]) <= 0.99


def test_a_null_study_rarely_tells_any_variant_from_the_best():
    broken = 0
    for seed in range(40):
        planted = Planted(12, 6, n_single=4, n_seeds=5, n_order=6, n_gaps=8, set_sd=0.0, block_sd=0.0)
        broken += not all(r.tied_with_best for r in rank(make_table(simulate(planted, 700 + seed))).rows)
    assert broken <= 9  # the nominal rate is 4; more than 9 has a probability below 1 %


def test_strong_conditions_are_told_from_the_best_and_the_true_best_is_tied():
    tied, apart = [], []
    for seed in range(8):
        planted = Planted(12, 6, n_seeds=5, n_order=12, n_gaps=12, set_sd=0.0, block_sd=0.0, shuffled=-2.5)
        rows = simulate(planted, seed)
        rows_of = {r.variant_id: r.tied_with_best for r in rank(make_table(rows)).rows}
        tied.append(np.mean([rows_of[v.variant_id] for v in rows.variants if v.order == "random"]))
        apart.append(np.mean([not rows_of[v.variant_id] for v in rows.variants if v.order == "shuffled"]))
    assert np.mean(tied) >= 0.9
    assert np.mean(apart) >= 0.8


def test_the_critical_value_is_tukeys_where_the_variants_are_alike():
    from scipy.stats import studentized_range

    centred = np.eye(6) - 1 / 6
    tukey = studentized_range.ppf(0.9, 6, 40) / np.sqrt(2.0)
    assert critical_value(centred, 40.0, 0.1) == pytest.approx(tukey, rel=0.03)


def test_the_order_of_the_base_arm_may_be_any():
    from dataclasses import replace

    _, rows, found = _study("within", 1)
    swap = {"random": "shuffled", "shuffled": "random"}
    turned = [replace(v, order=swap.get(v.order, v.order)) if v.template == "order" else v for v in rows.variants]
    table = make_table(replace(rows, variants=[v for v in turned if v.arm != "reverse"]))
    order = _by_name(estimate_effects(table, rows.books, 0.1, 999, 1), "order")
    assert order["shuffled_vs_random"].estimate > 0 > _by_name(found, "order")["shuffled_vs_random"].estimate
    assert len(rank(table).rows) == len(table.variants)


def test_expected_accuracy_counts_only_what_books_add_up_to():
    books = {i: float(e) for i, e in enumerate(np.random.default_rng(2).standard_normal(20))}
    accuracy = {}
    for name, planted in {
        "books": Planted(20, 10, n_seeds=80, n_order=0, n_gaps=0, book_effects=books, set_sd=0.0, block_sd=0.0),
        "sets": Planted(20, 10, n_seeds=80, n_order=0, n_gaps=0, set_sd=2.0, block_sd=0.0),
    }.items():
        rows = simulate(planted, 1)
        summary = estimate_effects(make_table(rows), rows.books, 0.1, 99, 1).summaries["linking"]
        assert summary.set_share > 0.5
        assert summary.expected_accuracy**2 <= summary.book_share + 1e-12
        accuracy[name] = summary.expected_accuracy
    assert accuracy["books"] > 0.8
    assert accuracy["sets"] < 0.6


@pytest.mark.slow
def test_a_thousand_runs_take_seconds():
    planted = Planted(200, 100, n_single=1000, n_seeds=0, n_order=0, n_gaps=0, book_effects={0: 1.0})
    rows = simulate(planted, 1)
    table = make_table(rows)
    started = time.process_time()  # of all threads: a busy machine must not fail the test
    found = estimate_effects(table, rows.books, 0.1, 9999, 1)
    assert time.process_time() - started < 20
    assert _by_name(found, "book")["book00000"].claimed


def test_simulated_sets_are_near_balanced():
    sets = near_balanced_sets(31, 20, 7, np.random.default_rng(0))
    assert (sets.sum(axis=1) == 7).all()
    assert np.ptp(sets.sum(axis=0)) <= 1
    together = (sets.T @ sets)[~np.eye(20, dtype=bool)]
    assert together.std() < 2.5


def test_a_trait_is_not_claimed_for_what_one_strong_book_does():
    rows = simulate(Planted(40, 20, n_single=90, n_seeds=12, n_order=0, n_gaps=0, book_effects={7: 2.5}), 83_122)
    strong = sorted(rows.books)[7]
    rows.books[strong].features["feature_2"] = 6.0  # the trait itself does nothing
    found = estimate_effects(make_table(rows), rows.books, 0.1, 999, 1)
    assert [e.name for e in found.effects if e.claimed and e.kind == "book"] == [strong]
    assert not any(e.claimed for e in found.effects if e.kind == "feature")
    assert found.through == {("linking", "feature_2"): [rows.books[strong].title]}
    assert _by_name(found, "feature")["feature_2"].q == 1.0
    text = not_told_apart(found.effects, make_table(rows).abilities, found.through)
    told = [row["text"] for row in text if row["kind"] == "feature"]
    title = rows.books[strong].title
    assert told[0]["en"].endswith(
        f"cannot be told apart from what this book does by itself (“{title}”); it is not claimed."
    )
    assert told[0]["ru"].endswith(
        f"нельзя отличить от действия самой этой книги («{title}»); его влияние не утверждается."
    )
    n = len(_by_name(found, "feature"))  # it differs from no effect, so it is not counted among those that do not
    assert f"the other {n - 1} of {n} features could not be told apart from no effect" in told[1]["en"]
    assert len(told) == 2


def test_a_trait_that_one_strong_book_has_alone_is_that_books():
    rows = simulate(Planted(40, 20, n_single=90, n_seeds=12, n_order=0, n_gaps=0, book_effects={7: 2.5}), 5)
    strong = sorted(rows.books)[7]
    for name, book in rows.books.items():
        book.features["feature_2"] = float(name == strong)
    found = estimate_effects(make_table(rows), rows.books, 0.1, 199, 1)
    assert found.through == {("linking", "feature_2"): [rows.books[strong].title]}
    assert not _by_name(found, "feature")["feature_2"].claimed


def test_only_books_that_have_the_trait_are_named():
    planted = Planted(40, 20, n_single=90, n_seeds=12, n_order=0, n_gaps=0, book_effects={7: 3.0, 8: 1.5, 9: -1.5})
    rows = simulate(planted, 4)
    ids = sorted(rows.books)
    for i, value in ((7, 6.0), (8, 0.1), (9, 0.8)):  # the last has the trait, but does the opposite
        rows.books[ids[i]].features["feature_2"] = value
    found = estimate_effects(make_table(rows), rows.books, 0.1, 499, 1)
    assert {ids[7], ids[8], ids[9]} <= {e.name for e in found.effects if e.kind == "book" and e.claimed}
    assert found.through == {("linking", "feature_2"): [rows.books[ids[7]].title]}


def test_a_true_trait_of_a_small_library_is_not_denied_by_the_few_books_that_are_left():
    """Eight of twelve books stand out because of it; the other four cannot say that it does nothing."""
    planted = Planted(
        12, 6, n_single=14, n_seeds=3, n_order=0, n_gaps=0, feature_effects={"feature_1": 3.0}, set_sd=0.05,
        block_sd=0.05,
    )  # fmt: skip
    rows = simulate(planted, 2)
    found = estimate_effects(make_table(rows), rows.books, 0.1, 199, 2)
    assert sum(e.claimed for e in found.effects if e.kind == "book") == 8
    assert [e.name for e in found.effects if e.kind == "feature" and e.claimed] == ["feature_1"]
    assert not found.through


def test_a_fit_without_a_value_denies_nothing(monkeypatch):
    rows = simulate(Planted(n_single=60, n_seeds=20, n_order=0, n_gaps=0, feature_effects={"feature_2": 0.25}), 3)
    monkeypatch.setattr(effects._Analysis, "beside", lambda self, books: {})
    found = estimate_effects(make_table(rows), rows.books, 0.1, 199, 3)
    assert any(e.claimed for e in found.effects if e.kind == "book")
    assert _by_name(found, "feature")["feature_2"].claimed
    assert not found.through


def test_a_book_has_much_of_a_term_of_sets_where_its_sets_do():
    from ltm.patterns.describe import describe
    from ltm.patterns.interactions import LIKENESS, much_of, set_columns
    from ltm.patterns.layout import make_layout

    rows = simulate(Planted(12, 6, n_single=30, n_seeds=0, n_order=0, n_gaps=0), 1)
    table = make_table(rows)
    layout = make_layout(table, table.scores["linking"])
    known = describe(layout.book_ids, rows.books)
    names, _, columns = set_columns(layout, known)
    column, held = columns[:, names.index(LIKENESS)], layout.membership.toarray() > 0
    expected = [column[has].mean() - column[~has].mean() for has in held.T]
    assert much_of(LIKENESS, layout, known) == pytest.approx(expected)
    assert much_of("feature_1", layout, known) == pytest.approx(known.values[:, known.names.index("feature_1")])


def test_a_trait_that_does_something_stays_claimed_beside_its_books():
    _, _, found = _study("features", 3)
    assert any(e.claimed for e in found.effects if e.kind == "book")
    assert _by_name(found, "feature")["feature_2"].claimed
    assert not found.through


def test_claimed_sizes_are_expected_to_shrink():
    """Effects that are found one time in three are claimed where luck helped."""
    claimed, truth, lasting = 0.0, 0.0, 0.0
    planted = Planted(40, 20, n_single=60, n_seeds=12, n_order=0, n_gaps=0, book_effects=dict.fromkeys(range(6), 0.7))
    for seed in range(6):
        rows = simulate(planted, 660_100 + seed)
        table = make_table(rows)
        found = estimate_effects(table, rows.books, 0.1, 499, seed).effects
        true = true_book_effects(planted, rows.books)
        mine = [e for e in found if e.kind == "book"]
        picked = [e for e in mine if e.claimed]
        claimed += sum(abs(e.estimate) for e in picked)
        truth += sum(np.sign(e.estimate) * true[e.name] / table.abilities["linking"].unit_sd for e in picked)
        lasting += (share_that_lasts(mine) or 0.0) * sum(abs(e.estimate) for e in picked)
    assert truth < 0.9 * claimed
    assert abs(lasting - truth) < 0.25 * claimed
    assert share_that_lasts([e for e in mine if not e.claimed]) is None
