import dataclasses
import math

import numpy as np
import pytest

from ltm.records import Reliability, Variant
from ltm.scores.agreement import split_half
from ltm.scores.icc import Layout, icc
from ltm.scores.measures import FamilyTable
from ltm.scores.reliability import CODES, judge
from ltm.scores.section import ScoresSection
from ltm.store import read_rows, write_rows


def simulated(n_sets=60, seeds=2, set_sd=1.0, seed_sd=1.0, item_sd=3.0, books=20, per_book=10, mean=2.0, rng_seed=0):
    """Runs on items: mean + set + seed (per run) + noise (per run and item)."""
    rng = np.random.default_rng(rng_seed)
    variants = [f"v{k}" for k in range(n_sets) for _ in range(seeds)]
    level = np.repeat(rng.normal(0, set_sd, n_sets), seeds) + rng.normal(0, seed_sd, n_sets * seeds)
    n_items = books * per_book
    num = mean + level[:, None] + rng.normal(0, item_sd, (n_sets * seeds, n_items))
    clusters = [f"b{i % books}" for i in range(n_items)]
    table = FamilyTable("linking", "L1", clusters, num, np.ones_like(num), (num > 0).astype(float))
    noise = rng.normal(0, item_sd, (3, n_items))
    chance = FamilyTable("linking", "L1", clusters, noise, np.ones_like(noise), (noise > 0).astype(float))
    return table, chance, variants


def test_icc_recovers_the_truth_and_its_interval_covers():
    values, covered = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = [f"v{k}" for k in range(100) for _ in range(2)]
        y = np.repeat(rng.normal(0, 1, 100), 2) + rng.normal(0, 1, 200)
        found = icc(y, groups)
        values.append(found.value)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    assert 46 <= covered <= 60
    assert found.seed_sd == pytest.approx(1, abs=0.15)


def test_icc_with_few_replicates_uses_all_variants():
    rng = np.random.default_rng(1)
    groups = [f"v{k}" for k in range(200)] + [f"v{k}" for k in range(60)]
    level = rng.normal(0, 2, 200)
    y = np.concatenate([level, level[:60]]) + rng.normal(0, 1, 260)
    found = icc(y, groups)
    assert found.value == pytest.approx(0.8, abs=0.12)
    assert found.n_extra == 60
    assert np.isnan(icc(y[:200], groups[:200]).value)


def test_split_half_matches_theory():
    table, _, _ = simulated(n_sets=400, seeds=1, set_sd=1.0, seed_sd=0.0, item_sd=10.0)
    expected = 1.0 / (1.0 + 100 / 200)  # variance of runs over itself plus the noise of 200 items
    assert split_half([table], [1.0]) == pytest.approx(expected, abs=0.06)


def test_good_family_is_admitted_and_noise_is_not():
    gate = ScoresSection()
    family, ability = judge(*simulated_lists(), gate)
    assert family.admitted, family.reason
    assert ability.family == "*"
    assert ability.admitted, ability.reason
    assert family.z_over_chance > 5
    assert family.icc_low < 0.5 < family.icc_high
    weak = judge(*simulated_lists(set_sd=0.0, seed_sd=0.0, mean=0.0), gate)
    assert not weak[0].admitted
    assert "untrained" in weak[0].reason
    assert "halves" in weak[0].reason
    assert "none of its families" in weak[1].reason
    assert family.reasons == family.needed == {}
    assert list(weak[1].reasons) == ["no_family"]
    assert set(weak[0].reasons) == set(weak[0].needed) <= set(CODES)
    assert weak[0].reasons["untrained"] == weak[0].z_over_chance
    assert weak[0].needed["untrained"] == gate.min_z


def test_seed_noise_is_named_as_the_reason():
    row = judge(*simulated_lists(set_sd=0.1, seed_sd=2.0, mean=10.0), ScoresSection())[0]
    assert row.reason.startswith("the seed matters more than the set")
    assert row.reasons == {"icc": row.icc}
    assert row.needed == {"icc": 0.3}


def test_few_runs_are_not_judged():
    row = judge(*simulated_lists(n_sets=3), ScoresSection())[0]
    assert row.reason == "too few runs to judge (6 of at least 8)"
    assert (row.reasons, row.needed) == ({"too_few_runs": 6.0}, {"too_few_runs": 8.0})


def test_what_could_not_be_measured_is_said_so_and_survives_the_disk(tmp_path):
    tables, untrained, names = simulated_lists()
    blind = [dataclasses.replace(table, weight_RI=table.weight_RI * 0) for table in untrained]
    row = judge(tables, blind, names, ScoresSection())[0]
    assert "z not measured" in row.reason
    assert math.isnan(row.reasons["untrained"])
    write_rows(tmp_path / "rows.parquet", [row], Reliability)
    (back,) = read_rows(tmp_path / "rows.parquet", Reliability)
    assert back.needed == row.needed
    assert math.isnan(back.reasons["untrained"])


def test_chance_error_is_clustered_by_book():
    rng = np.random.default_rng(3)
    table, chance, variants = simulated(mean=0.0, item_sd=0.5, books=10, per_book=20)
    effect = np.array([rng.normal(0, 3) for _ in range(10)])
    shifted = table.num_RI + np.tile(effect, 20)[None, :]
    row = judge([FamilyTable("linking", "L1", table.clusters, shifted, table.weight_RI, table.correct_RI)], [chance],
                variants, ScoresSection())[0]  # fmt: skip
    assert abs(row.z_over_chance) < 4  # items taken one by one would give a z of about 3 x the root of 20


def variant(name, template="order", arm="base", order="random", gap_kind="none", density=1.0):
    return Variant(name, 0, "exploration", 0, 0, template, arm, [], order, gap_kind, density, 1, 0, [0, 1])


def with_arms(effect=6.0, **changes):
    """Half of the variants are shuffled arms, which are `effect` better than the base arms."""
    table, chance, names = simulated(**changes)
    distinct = list(dict.fromkeys(names))
    design = [
        variant(name) if k % 2 else variant(name, arm="shuffled", order="shuffled") for k, name in enumerate(distinct)
    ]
    layout = Layout.of(names, range(len(names)), design)
    shifted = table.num_RI + np.where(layout.base, 0.0, effect)[:, None]
    table = FamilyTable("linking", "L1", table.clusters, shifted, table.weight_RI, table.correct_RI)
    return [table], [chance], names, layout


def test_difference_between_arms_is_no_difference_between_sets():
    tables, chance, names, layout = with_arms(set_sd=0.0, seed_sd=1.0)
    mixed, own = (judge(tables, chance, names, ScoresSection(), given)[0] for given in (None, layout))
    assert mixed.icc > 0.8
    assert own.icc < 0.3
    assert own.seed_sd == pytest.approx(1, abs=0.25)
    assert own.reason.startswith("the seed matters more than the set")
    tables, chance, names, layout = with_arms(set_sd=2.0, seed_sd=1.0, n_sets=400)
    for row in judge(tables, chance, names, ScoresSection(), layout):  # 200 base variants
        assert row.icc == pytest.approx(0.8, abs=0.1)


def test_difference_between_arms_is_no_agreement_of_halves():
    tables, chance, names, layout = with_arms(set_sd=0.0, seed_sd=0.0)
    mixed, own = (judge(tables, chance, names, ScoresSection(), given) for given in (None, layout))
    assert all(row.split_half > 0.9 for row in mixed)
    assert all(row.split_half < 0.4 for row in own)
    few = ["a", "a", "a", "b", "b", "b", "b", *(f"alone{k}" for k in range(len(names) - 7))]
    assert split_half(tables, [1.0], few) == split_half(tables, [1.0])  # 7 runs with company are too few


def test_layout_takes_the_commonest_base_order_and_knows_strangers():
    design = [variant("a", order="shuffled"), variant("b", order="shuffled"), variant("c", template="gaps"),
              variant("d", template="gaps", arm="gap", gap_kind="head", density=0.5)]  # fmt: skip
    layout = Layout.of(["a", "b", "c", "d", "x", "y"], [1] * 6, design)
    assert layout.base.tolist() == [True, True, False, False, False, False]
    assert layout.cells[0] == layout.cells[1]
    assert len(set(layout.cells)) == 5


def test_family_without_answers_is_told_and_harms_no_other():
    table, chance, names = simulated()

    def empty(of):
        gone = np.zeros_like(of.num_RI)
        return FamilyTable("linking", "L3", of.clusters, gone, gone, gone)

    rows = judge([table, empty(table)], [chance, empty(chance)], names, ScoresSection())
    assert rows[0].admitted
    assert rows[1].n_items == 0
    assert rows[1].reason == "no items"
    assert rows[2].admitted
    weak = judge([table, empty(table)], [table, empty(table)], names, ScoresSection())[2]
    assert np.isfinite(weak.accuracy)


def simulated_lists(**changes):
    table, chance, variants = simulated(**changes)
    return [table], [chance], variants
