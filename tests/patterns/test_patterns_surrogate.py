"""The surrogate against its own posterior, knowledge against the design guide, emergence and confirmation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ltm.errors import DataError
from ltm.patterns import confirmed, knowledge
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
    found = recommend(surrogate, [], ranking.rows[0].variant_id, 3, 1)
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


def test_only_confirmation_runs_confirm():
    rows = simulate(Planted(12, 6, n_single=20, n_seeds=10, n_order=0, n_gaps=0, book_effects={0: 2.0}), 3)
    ranking = rank(make_table(rows))
    best = {row.variant_id for row in ranking.rows[:3]}
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
            value = 0.1 + 0.02 * (2.0 * ("book00000" in v.book_ids) + rng.standard_normal())
            runs.append(run)
            measures.append(dataclasses.replace(rows.measures[0], run_id=run.run_id, value=value))
    both = dataclasses.replace(
        rows, variants=[*rows.variants, *extra], runs=[*rows.runs, *runs], measures=[*rows.measures, *measures]
    )
    table = make_table(both)
    assert {r.variant_id for r in rank(table).rows} == {v.variant_id for v in rows.variants}
    found = confirm(table, ranking)
    assert found["n_controls"] == 4
    assert len(found["finalists"]) == 3
    assert all(row["n_runs"] == 4 and row["expected"] is not None for row in found["finalists"])
    assert found["finalists"][0]["low"] < found["finalists"][0]["confirmed"] < found["finalists"][0]["high"]
    assert "Confirmed on bank B" in found["text"]["en"]
    assert confirm(make_table(rows), ranking) is None


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


def test_finalists_that_disappoint_are_said_to():
    row = {"variant_id": "v", "n_runs": 4, "confirmed": 1.0, "low": -1.0, "high": 3.0, "expected": 5.0}
    found = {"finalists": [row], "n_controls": 3, "mean_expected": 5.0, "mean_confirmed": 0.5, "mean_low": -1.0,
             "mean_high": 2.0}  # fmt: skip
    text = confirmed._words(found, "en")
    assert "0 of 1 can be called better" in text
    assert "does not hold on bank B" in text
    assert "does not hold" not in confirmed._words({**found, "mean_expected": 1.5}, "en")
