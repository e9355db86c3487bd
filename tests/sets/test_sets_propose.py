"""Proposals: high worth, different from each other, of more than one kind, and children of good sets."""

import itertools

import numpy as np
import pytest

from ltm.sets.propose import Rules, child, propose


def test_without_constraints_the_best_books_are_taken():
    worth = np.random.default_rng(0).standard_normal((1, 50))
    (found,), _ = propose(worth, Rules(10), [], np.random.default_rng(0))
    assert set(found) == set(np.argsort(-worth[0])[:10])


def test_draws_that_differ_give_sets_that_learn_what_is_doubtful():
    rng = np.random.default_rng(1)
    mean, sd = np.concatenate([np.full(5, 5.0), np.zeros(45)]), np.concatenate([np.full(5, 0.1), np.ones(45)])
    found, _ = propose(mean + sd * rng.standard_normal((20, 50)), Rules(10), [], rng)
    held = np.bincount(np.concatenate(found), minlength=50)
    assert (held[:5] == 20).all()
    assert (held[5:] > 0).sum() > 30


def test_proposals_share_no_more_than_allowed_even_if_all_draws_agree():
    worth = np.tile(np.arange(60.0), (8, 1))
    found, _ = propose(worth, Rules(10, most_shared=0.6), [], np.random.default_rng(0))
    assert set(found[0]) == set(range(50, 60))
    for one, two in itertools.combinations(found, 2):
        assert len(set(one) & set(two)) <= 6
    assert all(len(set(f)) == 10 for f in found)
    total = [worth[0][f].sum() for f in found]
    assert min(total) > 300  # ten random books have 295 on average


def test_a_library_too_small_for_diversity_still_gives_whole_sets():
    found, _ = propose(np.tile(np.arange(12.0), (6, 1)), Rules(10, most_shared=0.1), [], np.random.default_rng(0))
    assert all(len(set(f)) == 10 for f in found)
    with pytest.raises(ValueError, match="cannot be drawn"):
        propose(np.zeros((1, 5)), Rules(6), [], np.random.default_rng(0))


def test_no_kind_fills_a_set_alone():
    cluster = np.repeat(np.arange(4), 15)
    worth = np.tile(np.where(cluster == 2, 10.0, 0.0) + np.linspace(0, 1, 60), (4, 1))
    found, _ = propose(
        worth, Rules(12, 0.9, most_of_a_kind=0.5), [np.arange(30, 42)] * 3, np.random.default_rng(0), cluster
    )
    for units in found:
        assert np.bincount(cluster[units], minlength=4).max() == 6
        assert len(set(units)) == 12


def test_every_second_proposal_is_an_improved_child_of_good_sets():
    rng = np.random.default_rng(2)
    worth = rng.standard_normal((10, 100))
    good = [rng.permutation(100)[:20] for _ in range(4)]
    found, made = propose(worth, Rules(20, most_shared=1.0), good, rng)
    assert made == ["thompson", "crossover"] * 5
    bred = set(np.concatenate(good))
    for units, how, own in zip(found, made, worth, strict=True):
        if how == "crossover":
            assert len(bred & set(units)) >= 15  # at most a quarter is swapped
            assert own[units].sum() > np.mean([own[g].sum() for g in good])
    one, two = good[:2]
    assert set(np.intersect1d(one, two)) <= set(child(one, two, 20, rng)) <= set(one) | set(two)


def test_the_same_draws_give_the_same_proposals():
    worth = np.random.default_rng(3).standard_normal((6, 40))
    good = [np.arange(10), np.arange(5, 15)]
    one, two = (propose(worth, Rules(10, 0.7), good, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one[0], two[0], strict=True))
