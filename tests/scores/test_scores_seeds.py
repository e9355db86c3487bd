"""A start that many runs share is taken out; a private one is left alone."""

import numpy as np
import pytest

from ltm.scores.icc import icc
from ltm.scores.seeds import without_seed_effects


def crossed(rng, n_sets=200, shift=5.0, noise=0.5):
    """Sets x two common starts, the second one luckier by `shift`, and as many sets from the first start alone."""
    sets = rng.standard_normal(2 * n_sets)
    rows = [
        (f"v{i}", seed, sets[i] + shift * (seed == 22) + noise * rng.standard_normal())
        for i in range(n_sets)
        for seed in (11, 22)
    ]
    rows += [(f"v{i}", 11, sets[i] + noise * rng.standard_normal()) for i in range(n_sets, 2 * n_sets)]
    variants, seeds, values = zip(*rows, strict=True)
    return list(variants), list(seeds), np.array(values), sets


def test_the_effect_of_a_common_start_is_found_and_taken_out():
    variants, seeds, values, _ = crossed(np.random.default_rng(0))
    adjusted, n_effects = without_seed_effects(values, variants, seeds)
    assert n_effects == 1
    lucky = np.array(seeds) == 22
    assert np.mean(values[lucky] - adjusted[lucky]) == pytest.approx(5.0, abs=4 * 0.5 * 2**0.5 / 200**0.5)
    assert np.array_equal(values[~lucky], adjusted[~lucky])


def test_the_icc_is_that_of_the_sets():
    variants, seeds, values, _ = crossed(np.random.default_rng(1))
    adjusted, n_effects = without_seed_effects(values, variants, seeds)
    found = icc(adjusted, variants, n_effects)
    assert found.value == pytest.approx(1 / (1 + 0.25), abs=0.05)
    assert found.seed_sd == pytest.approx(0.5, rel=0.15)
    assert icc(values, variants).value < 0.3  # the start would have passed for noise


def test_private_starts_are_left_alone():
    rng = np.random.default_rng(2)
    variants = [f"v{i // 2}" for i in range(40)]
    values = rng.standard_normal(40)
    adjusted, n_effects = without_seed_effects(values, variants, list(range(40)))
    assert n_effects == 0
    assert np.array_equal(values, adjusted)


def test_one_start_for_all_says_nothing_of_starts():
    values = np.arange(6.0)
    adjusted, n_effects = without_seed_effects(values, [f"v{i}" for i in range(6)], [7] * 6)
    assert n_effects == 0
    assert np.array_equal(values, adjusted)


def test_three_starts_and_missing_values():
    rng = np.random.default_rng(3)
    shift = {1: 0.0, 2: 3.0, 3: -2.0}
    rows = [(f"v{i}", s, rng.standard_normal() * 0 + i + shift[s]) for i in range(30) for s in shift]
    variants, seeds, values = (list(column) for column in zip(*rows, strict=True))
    values = np.array(values)
    values[4] = np.nan
    adjusted, n_effects = without_seed_effects(values, variants, seeds)
    assert n_effects == 2
    kept = np.isfinite(values)
    assert np.allclose(adjusted[kept], np.array([int(v[1:]) for v in variants])[kept])
    assert np.isnan(adjusted[4])
