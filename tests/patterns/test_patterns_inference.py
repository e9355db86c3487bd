"""p-values against brute force, and q-values against the two-stage procedure they stand for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from ltm.patterns import mixed
from ltm.patterns.inference import bh_adjusted, permutation_p, simes, stream, two_stage_q, within_block_p
from ltm.patterns.order import beside_each_other
from ltm.patterns.terms import Estimate


def _claimed(families, level):
    """The two-stage procedure as it is defined, one level at a time."""
    m = len(families)
    first = sorted(simes(p) for p in families)
    selected = max((k for k in range(1, m + 1) if first[k - 1] <= level * k / m), default=0)
    threshold = first[selected - 1] if selected else -1.0
    inner = level * selected / m
    return [(simes(p) <= threshold) & (bh_adjusted(p) <= inner) for p in families]


@pytest.mark.parametrize("seed", range(20))
def test_q_at_most_the_level_is_what_the_two_stage_procedure_claims(seed):
    rng = np.random.default_rng(seed)
    families = [rng.random(n) ** rng.choice([1, 4, 8]) for n in (1, 3, 8, 20)]
    q = two_stage_q(families)
    for level in (0.01, 0.05, 0.1, 0.2, 0.5):
        for ours, theirs in zip(q, _claimed(families, level), strict=True):
            assert np.array_equal(ours <= level, theirs)


def test_q_values_do_not_depend_on_the_order_of_families_and_are_never_below_their_p():
    rng = np.random.default_rng(5)
    families = [rng.random(6) ** 3, rng.random(2), rng.random(9) ** 2]
    forward, backward = two_stage_q(families), two_stage_q(families[::-1])[::-1]
    for p, a, b in zip(families, forward, backward, strict=True):
        assert np.array_equal(a, b)
        assert (a >= p).all()
        assert (a <= 1).all()
    assert two_stage_q([]) == []


def test_bh_is_scipys():
    p = np.random.default_rng(1).random(50) ** 2
    assert np.allclose(bh_adjusted(p), false_discovery_control(p))


def test_permutation_p_is_near_full_enumeration_within_strata():
    rng = np.random.default_rng(2)
    scores, strata = rng.standard_normal(8), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    coefficients = rng.standard_normal((8, 3))
    observed = np.abs(coefficients.T @ scores)
    orders = [(*a, *b) for a in itertools.permutations(range(4)) for b in itertools.permutations(range(4, 8))]
    exact = np.mean(np.abs(scores[np.array(orders)] @ coefficients) >= observed - 1e-12, axis=0)
    drawn = permutation_p(coefficients, scores, strata, 20_000, stream(1, "x"))
    assert np.allclose(drawn, exact, atol=0.015)


def test_permuting_stays_inside_strata():
    # The scores differ between strata only, so no redraw can change a statistic.
    strata = np.repeat([0, 1, 2], 5)
    p = permutation_p(np.random.default_rng(3).random((15, 2)), strata * 1.0, strata, 99, stream(1, "y"))
    assert (p == 1).all()


def test_few_pairs_are_enumerated_exactly():
    diffs = np.array([1.0, 2.0, 3.0, 4.0, -0.5])
    weights = [np.array([[1.0], [-1.0]])] * 5
    p = within_block_p(weights, [np.ones(1)] * 5, [np.array([d, 0.0]) for d in diffs], 999, stream(0, "z"))
    signs = np.array(list(itertools.product([1, -1], repeat=5)))
    assert p[0] == np.mean(np.abs(signs @ diffs) >= abs(diffs.sum()) - 1e-12) == 4 / 32


@pytest.mark.parametrize("sizes", [(2,) * 12, (3,) * 5, (2, 3, 2, 3, 3, 3, 2)])
def test_drawn_rearrangements_agree_with_enumerated_ones(sizes):
    rng = np.random.default_rng(4)
    weights = [rng.standard_normal((m, 2)) for m in sizes]
    weights = [w - w.mean(axis=0) for w in weights]
    doses = [rng.standard_normal(2) for _ in sizes]
    scores = [rng.standard_normal(m) + np.arange(m) for m in sizes]
    exact = within_block_p(weights, doses, scores, 10**6, stream(0, "a"))
    drawn = within_block_p(weights, doses, scores, 4000, stream(0, "a"))
    assert np.allclose(exact, drawn, atol=0.04)
    assert not np.array_equal(exact, drawn)


def test_streams_are_frozen_and_apart():
    assert stream(7, "linking", "book").integers(1 << 40) == stream(7, "linking", "book").integers(1 << 40)
    draws = {stream(s, *n).integers(1 << 40) for s in (7, 8) for n in (("a", "b"), ("b", "a"), ("ab",))}
    assert len(draws) == 6


def test_a_strong_term_does_not_leave_claims_to_its_kin():
    """Ten correlated columns of which one does something: it alone stands out beside the others."""
    rng = np.random.default_rng(2)
    hits, kin = 0, 0
    for _ in range(30):
        shared = rng.standard_normal((300, 1))
        columns = 0.6 * shared + 0.8 * rng.standard_normal((300, 10))
        score = 0.5 * columns[:, 3] + rng.standard_normal(300)
        terms = mixed.RunTerms(columns.T @ columns, columns.T @ score, float(score @ score), 299.0)
        alone = [
            Estimate("order", str(k), "", float(p / i), 1.0, 0.0, 0.0, 0.5, 0.0, 9)
            for k, (p, i) in enumerate(zip(terms.pull, np.diag(terms.information), strict=True))
        ]
        found = beside_each_other(alone, terms)
        hits += found[3].p < 0.01
        kin += sum(e.p < 0.01 for e in found if e.name != "3")
        assert abs(found[3].estimate - 0.5) < 4 * found[3].se
    assert hits == 30
    assert kin <= 8  # of 270


def test_columns_that_say_the_same_as_a_fixed_one_are_not_told_from_it():
    rng = np.random.default_rng(0)
    first = rng.standard_normal(300)
    columns = np.column_stack([first, first + 0.1 * rng.standard_normal(300), rng.standard_normal((300, 6))])
    score = first + rng.standard_normal(300)
    terms = mixed.RunTerms(columns.T @ columns, columns.T @ score, float(score @ score), 299.0)
    alone = [Estimate("order", str(k), "", 1.0, 1.0, 0.0, 0.0, 0.5, 0.0, 9) for k in range(8)]
    found = sorted(beside_each_other(alone, terms)[:2], key=lambda e: e.p)
    assert found[0].p < 1e-6
    assert found[1].p > 0.01
    assert found[1].se > 5 * found[0].se
