import numpy as np
import pytest

from ltm.scores.measures import FamilyTable
from ltm.scores.reliability import icc, judge, split_half
from ltm.scores.section import ScoresSection


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


def test_seed_noise_is_named_as_the_reason():
    row = judge(*simulated_lists(set_sd=0.1, seed_sd=2.0, mean=10.0), ScoresSection())[0]
    assert row.reason.startswith("the seed matters more than the set")


def test_few_runs_are_not_judged():
    row = judge(*simulated_lists(n_sets=3), ScoresSection())[0]
    assert row.reason == "too few runs to judge (6 of at least 8)"


def test_chance_error_is_clustered_by_book():
    rng = np.random.default_rng(3)
    table, chance, variants = simulated(mean=0.0, item_sd=0.5, books=10, per_book=20)
    effect = np.array([rng.normal(0, 3) for _ in range(10)])
    shifted = table.num_RI + np.tile(effect, 20)[None, :]
    row = judge([FamilyTable("linking", "L1", table.clusters, shifted, table.weight_RI, table.correct_RI)], [chance],
                variants, ScoresSection())[0]  # fmt: skip
    assert abs(row.z_over_chance) < 4  # items taken one by one would give a z of about 3 x the root of 20


def simulated_lists(**changes):
    table, chance, variants = simulated(**changes)
    return [table], [chance], variants
