"""The surrogate against its own posterior, knowledge against the design guide, emergence and confirmation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ltm.errors import DataError
from ltm.patterns import confirmed, knowledge
from ltm.patterns.adaptive_shrinkage import shrink
from ltm.patterns.confirmed import confirm
from ltm.patterns.emergence import emergence_table, tokens_needed
from ltm.patterns.order import KERNEL, LATE, position_weights, schedule_kernel
from ltm.patterns.ranking import rank
from ltm.patterns.recommend import as_plain, recommend
from ltm.patterns.simulate import Planted, simulate
from ltm.patterns.surrogate import fit
from ltm.patterns.table import make_table
from ltm.records import Reliability, Snapshot


@pytest.fixture(scope="module")
def study():
    effects = {i: float(e) for i, e in enumerate(0.4 * np.random.default_rng(0).standard_normal(40))}
    planted = Planted(40, 20, n_single=150, n_seeds=30, n_order=6, n_gaps=6, book_effects=effects, set_sd=0.3)
    rows = simulate(planted, 5)
    return effects, rows, fit(make_table(rows), rows.books)


def test_draws_have_the_mean_and_the_spread_of_the_posterior(study):
    effects, rows, surrogate = study
    draws = surrogate.draws(600, 3)
    assert draws.shape == (600, 40)
    assert np.array_equal(draws[:5], surrogate.draws(600, 3)[:5])
    sd = draws.std(axis=0)
    assert np.abs(draws.mean(axis=0) - surrogate.mean_B).max() < 0.25 * sd.mean()
    truth = np.array(list(effects.values()))
    z = (surrogate.mean_B - (truth - truth.mean())) / sd
    assert 0.7 < z.std() < 1.35
    sets = [v.book_ids for v in rows.variants[:40]]
    member = np.array([[b in set(s) for b in surrogate.book_ids] for s in sets], dtype=float)
    _, whole = surrogate.predict(sets)
    of_books = np.sqrt(whole**2 - surrogate.rest_sd**2)
    assert np.median((draws @ member.T).std(axis=0) / of_books) == pytest.approx(1.0, abs=0.15)


def test_books_that_no_set_held_are_described_by_their_features():
    rows = simulate(
        Planted(40, 20, n_single=200, n_seeds=0, n_order=0, n_gaps=0, feature_effects={"feature_1": 0.4}), 2
    )
    stranger = dataclasses.replace(rows.books["book00000"], book_id="zz", features={"feature_1": 3.0})
    surrogate = fit(make_table(rows), {**rows.books, "zz": stranger})
    assert surrogate.book_ids[-1] == "zz"
    assert surrogate.mean_B[-1] > 0.5
    mean, sd = surrogate.predict([[*surrogate.book_ids[:19], "zz"]])
    assert np.isfinite(mean[0])
    assert sd[0] > 0
    with pytest.raises(DataError, match="say nothing about 1 books"):
        surrogate.predict([["nobody"]])


def test_too_few_runs_are_refused():
    rows = simulate(Planted(6, 3, n_single=2, n_seeds=0, n_order=0, n_gaps=0), 1)
    with pytest.raises(DataError):
        fit(make_table(rows), rows.books)


def test_the_recommended_set_is_better_than_every_tried_one(study):
    effects, rows, surrogate = study
    ranking = rank(make_table(rows))
    found = recommend(surrogate, [], ranking.rows[0].variant_id, 3, 1, told=True)
    value = {b: effects[i] for i, b in enumerate(sorted(rows.books))}
    mine = sum(value[b] for b in found.book_ids)
    assert mine > max(sum(value[b] for b in v.book_ids) for v in rows.variants) - 0.5
    middle = sum(effects.values()) * 20 / 40
    assert found.low <= mine - middle <= found.high
    assert set(found.sure) <= set(found.book_ids)
    text = as_plain(found, rows.books)["text"]
    assert text["en"].startswith("Recommended: a set of 20 books")
    assert text["ru"].startswith("Рекомендуется набор из 20 книг")


def test_knowledge_is_the_design_guides():
    assert knowledge.expected_accuracy(1000, 1000, 0.8) == pytest.approx(math.sqrt(800 / 1800))
    assert knowledge.expected_accuracy(0, 10, 0.5) == 0
    one = knowledge.smallest_book_effect(1000, 0.5, 200, 0.0)
    assert 0.25 < one < 0.3  # N = 20 / (d^2 p (1 - p)) at d = .28
    assert knowledge.runs_needed(one, 0.5, 200) == pytest.approx(1000, rel=0.01)
    assert math.isinf(knowledge.smallest_block_effect(0, 10))
    assert knowledge.smallest_block_effect(400, 10) < knowledge.smallest_block_effect(100, 10)
    values = knowledge.knowable(
        n_sets=1000, n_books=200, inclusion=0.5, n_order_blocks=100, n_gap_blocks=50, h2=0.5, wanted_effect=0.3
    )
    assert values["runs_for_wanted_book"] > 800
    assert values["exaggeration_of_top"] == 0.5
    assert values["smallest_gap_effect"] > values["smallest_order_effect"] * 0.9


def test_the_kernel_is_what_each_step_leaves_in_adamws_weights():
    rates = np.array([0.1, 0.2, 0.2, 0.05])
    weight, left = [], 0.5
    for step in range(4):  # a unit update at one step only, followed to the end
        value = 0.0
        for t in range(4):
            value = value * (1 - rates[t] * left) + rates[t] * (t == step)
        weight.append(value)
    kernel = schedule_kernel(rates, left)
    assert np.allclose(kernel, np.array(weight) / np.mean(weight))
    assert set(position_weights(None)) == {"late:", "middle:", "first:", "last:"}
    shapes = position_weights(kernel)
    assert next(iter(shapes)) == KERNEL
    assert abs(shapes[KERNEL] @ shapes[LATE]) < 1e-6
    assert KERNEL not in position_weights(np.ones(10))


def test_tokens_needed_are_read_between_checkpoints():
    assert math.isinf(tokens_needed([1, 2, 4], np.array([0.0, 5.0, 1.0])))
    assert tokens_needed([100, 200], np.array([3.0, 4.0])) == 100
    assert tokens_needed([100, 200, 400], np.array([0.0, 2.0, 9.0])) == pytest.approx(200)


def test_emergence_is_analysed_like_a_score():
    rows = simulate(Planted(12, 6, n_single=20, n_seeds=10, n_order=0, n_gaps=0), 1)
    table = make_table(rows)
    rng = np.random.default_rng(0)
    held = {v.variant_id: "book00003" in v.book_ids for v in rows.variants}
    need = {r.run_id: 2.0 ** (12 - held[r.variant_id] + 0.1 * rng.standard_normal()) for r in rows.runs}
    snapshots = [
        Snapshot(run, tokens, "linking", "L1", 0.1 + 0.02 * 2.0 * math.log2(tokens / (need[run] / 2)), 0.5)
        for run in need
        for tokens in (1024, 2048, 4096, 8192)
    ]
    reliability = [Reliability("linking", "L1", 9, 9, 0, 0.1, 9, 0.5, 0.9, 0.5, 0.4, 0.6, 0.02, True, "")]
    found, summary = emergence_table(snapshots, reliability, table)
    assert summary["linking"].n_never == 0
    score = dict(zip(found.run_ids, found.scores["linking"], strict=True))
    assert all(score[run] == pytest.approx(-math.log2(tokens), abs=0.05) for run, tokens in need.items())
    never = [dataclasses.replace(s, value=0.1) for s in snapshots]
    nothing, summary = emergence_table(never, reliability, table)
    assert summary["linking"].n_never == len(need)
    assert not nothing.scores


def with_confirmation(n_seeds, effect=2.0):
    """Return the rows of a study with one strong book, before and after a confirmation of its three best sets."""
    rows = simulate(Planted(12, 6, n_single=20, n_seeds=n_seeds, n_order=0, n_gaps=0, book_effects={0: effect}), 3)
    best = {row.variant_id for row in rank(make_table(rows)).rows[:3]}
    chosen = [v for v in rows.variants if v.variant_id in best]
    control = [v for v in rows.variants if v.variant_id not in best][:4]
    rounds = [("finalist", v) for v in chosen] + [("control", v) for v in control]
    extra = [
        dataclasses.replace(
            v, variant_id=f"c-{v.variant_id}", index=1000 + i, round="confirmation", template=template, set_id=1000 + i,
            block=1000 + i, init_seeds=[1, 2, 3, 4], drawn=False,
        )
        for i, (template, v) in enumerate(rounds)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    measures, runs = [], []
    for v in extra:
        for seed in v.init_seeds:
            run = dataclasses.replace(
                rows.runs[0], run_id=f"{v.variant_id}-{seed}", variant_id=v.variant_id, init_seed=seed
            )
            value = 0.1 + 0.02 * (effect * ("book00000" in v.book_ids) + rng.standard_normal())
            runs.append(run)
            measures.append(dataclasses.replace(rows.measures[0], run_id=run.run_id, value=value))
    return rows, dataclasses.replace(
        rows, variants=[*rows.variants, *extra], runs=[*rows.runs, *runs], measures=[*rows.measures, *measures]
    )


def test_only_confirmation_runs_confirm():
    rows, both = with_confirmation(n_seeds=10)
    ranking, table = rank(make_table(rows)), make_table(both)
    assert {r.variant_id for r in rank(table).rows} == {v.variant_id for v in rows.variants}
    found = confirm(table, ranking, make_table(rows))
    assert found["n_controls"] == 4
    assert len(found["finalists"]) == 3
    assert all(row["n_runs"] == 4 and row["expected"] is not None for row in found["finalists"])
    assert found["finalists"][0]["low"] < found["finalists"][0]["confirmed"] < found["finalists"][0]["high"]
    assert found["unit"] == "seed"
    assert f" {found['mean_confirmed']:+.2f} seed sd (90 %".replace("-", "−") in found["text"]["en"]
    assert found["n_better"] == sum(row["low"] > 0 for row in found["finalists"])
    assert confirm(make_table(rows), ranking) is None


def test_what_is_confirmed_is_told_in_the_unit_in_which_it_was_expected():
    """Fresh runs make the seed known, but the ranking knew only what is left within sets: one unit for both."""
    rows, both = with_confirmation(n_seeds=0)
    before, table = make_table(rows), make_table(both)
    assert (before.abilities["linking"].unit, table.abilities["linking"].unit) == ("residual", "seed")
    found = confirm(table, rank(before), before)
    assert found["unit"] == "residual"
    assert " residual sd (" in found["text"]["en"]
    assert " остаточной σ (" in found["text"]["ru"]
    in_seeds = confirm(table, rank(before))["mean_confirmed"]
    same = [before.run_ids.index(run) for run in table.run_ids if run in before.run_ids]
    rate = np.std(before.scores["linking"][same]) / np.std(table.scores["linking"][: len(same)])
    assert found["mean_confirmed"] == pytest.approx(in_seeds * rate, rel=1e-5)


@pytest.mark.parametrize(
    ("finalists", "mean", "en", "ru"),
    [
        ([(1.0, 0.5, 1.5), (0.2, -0.3, 0.7)], (0.6, 0.2, 1.0), "1 of 2 can be called better", "назвать 1 из 2."),
        ([(0.5, -0.1, 1.1), (0.4, -0.2, 1.0)], (0.45, 0.1, 0.8), "no single one can be called so", "ни об одном"),
        ([(0.1, -0.4, 0.6), (0.0, -0.5, 0.5)], (0.05, -0.3, 0.4), "None of them can be called", "Ни одного из них"),
        ([(0.1, -0.4, 0.6)], (0.1, -0.4, 0.6), "It cannot be told from random sets", "его не отличить"),
        ([(0.1, None, None), (0.0, None, None)], (0.05, None, None), "nothing can be said", "сказать ничего нельзя"),
    ],
)
def test_a_confirmation_is_worded_by_what_its_intervals_allow(finalists, mean, en, ru):
    rows = [dict(zip(("confirmed", "low", "high"), values, strict=True), variant_id="v") for values in finalists]
    found = {"finalists": rows, "n_controls": 4, "unit": "seed", "mean_expected": 1.2}
    found["n_better"] = sum((row["low"] or 0.0) > 0 for row in rows)
    found |= dict(zip(("mean_confirmed", "mean_low", "mean_high"), mean, strict=True))
    text = {language: confirmed._words(found, language) for language in ("en", "ru")}
    assert en in text["en"]
    assert ru in text["ru"]
    assert "?" not in text["en"] + text["ru"]
    assert ("More was expected" in text["en"]) == (mean[2] is not None)
    assert ("не подтвердилось на банке B" in text["ru"]) == (mean[2] is not None)
    assert "More was expected" not in confirmed._words({**found, "mean_expected": 0.0}, "en")


def test_the_best_of_several_finalists_is_not_confirmed_by_luck():
    """Finalists no better than controls: that any one is called better happens in at most a tenth of the cases."""
    rng = np.random.default_rng(5)
    wrong, inside = 0, 0
    for _ in range(400):
        finalists = rng.standard_normal(12)
        runs = [m + rng.standard_normal(4) for m in finalists]
        controls = [m + rng.standard_normal(2) for m in rng.standard_normal(6)]
        base = np.array([np.mean(c) for c in controls])
        spread = confirmed._spread(base, {i: float(np.mean(r)) for i, r in enumerate(runs)})
        against = confirmed._Controls(base, *spread, *confirmed._noise([*runs, *controls]))
        leads = [against.lead([own], 0.1 / 12) for own in runs]
        wrong += any(abs(lead - true) > half for (lead, half), true in zip(leads, finalists, strict=True))
        mean, half = against.lead(runs, 0.1)
        inside += abs(mean - finalists.mean()) <= half
    assert wrong <= 0.1 * 400 + 12
    assert 0.86 <= inside / 400 <= 0.96


def test_one_strong_book_does_not_lend_its_size_to_the_luck_of_the_others():
    """A normal prior promised 2.3 seed sd for a set that is worth .9, and called more books sure than the one."""
    rows = simulate(Planted(40, 20, n_single=60, n_seeds=10, n_order=0, n_gaps=0, book_effects={7: 1.8}), 552_004)
    surrogate = fit(make_table(rows), rows.books)
    found = recommend(surrogate, [], "", 0, 1, told=True)
    assert found.low <= 0.9 <= found.high
    assert found.predicted < 1.8
    assert found.sure == [sorted(rows.books)[7]]
    assert float(surrogate.predict([found.book_ids])[0][0]) > found.predicted + 0.5
    few = simulate(Planted(40, 20, n_single=20, n_seeds=0, n_order=0, n_gaps=0, book_effects={7: 1.8}), 1)
    assert fit(make_table(few), few.books).alone() is None  # fewer sets than books


def test_draws_of_shrunk_effects_have_their_means_and_variances():
    rng = np.random.default_rng(2)
    estimate = np.concatenate([rng.standard_normal(30), [4.0, -5.0]])
    found = shrink(estimate, np.ones(32))
    draws = found.draws(4000, rng)
    assert np.allclose(draws.mean(axis=0), found.means(), atol=0.08)
    assert np.allclose(draws.var(axis=0), found.variances(), atol=0.15)
    assert abs(found.means()[-1]) < 5.0
