"""Seeds go where they decide: measured on simulated finals, against the same number for each."""

import numpy as np
import pytest

from ltm.sets.where_seeds import allocate


def test_all_runs_are_given_out_and_those_on_the_border_get_most():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n = int(rng.integers(1, 40))
        total = int(rng.integers(2 * n, 8 * n + 1))
        counts = allocate(rng.normal(size=n).tolist(), rng.uniform(0.1, 1, n).tolist(), 10, total, 2)
        assert sum(counts) == total
        assert min(counts) >= 2
    counts = allocate([4.0, 1.01, 0.99, -3.0], [0.5] * 4, 2, 40, 2)
    assert counts[1] > 5 * counts[0]
    assert allocate([], [], 10, 0) == []
    with pytest.raises(ValueError, match="too few"):
        allocate([1.0, 2.0], [1.0, 1.0], 1, 3, 2)


def test_more_of_the_best_are_found_than_with_equal_numbers():
    """20 finalists whose posterior is known, 80 runs: the ten best by the mean of prior and runs, 400 finals."""
    rng, right = np.random.default_rng(2), {"equal": 0, "decisive": 0}
    for _ in range(400):
        mean, spread = np.sort(rng.normal(0, 1.0, 20))[::-1], np.full(20, 0.5)
        truth = mean + rng.normal(0, spread)
        best = set(np.argsort(-truth)[:10].tolist())
        noise = rng.normal(0, 1.0, (20, 80))
        for name, counts in (("equal", [4] * 20), ("decisive", allocate(mean.tolist(), spread.tolist(), 10, 80, 2))):
            runs = np.array([truth[i] + noise[i, :k].mean() for i, k in enumerate(counts)])
            weight = spread**2 / (spread**2 + 1 / np.array(counts))
            found = np.argsort(-(mean + weight * (runs - mean)))[:10].tolist()
            right[name] += len(best & set(found))
    assert right["decisive"] > right["equal"]
