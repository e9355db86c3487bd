"""The fast mixed model against the same formulas written out with whole covariance matrices."""

from __future__ import annotations

import numpy as np
import pytest

from ltm.patterns import mixed
from ltm.patterns.books import Whitened, book_contrasts, set_contrasts
from ltm.patterns.describe import describe
from ltm.patterns.layout import make_layout
from ltm.patterns.simulate import Planted, simulate
from ltm.patterns.table import make_table


@pytest.fixture(scope="module")
def study():
    effects = {i: float(e) for i, e in enumerate(np.random.default_rng(0).standard_normal(20))}
    rows = simulate(Planted(20, 10, n_single=6, n_seeds=5, n_order=8, n_gaps=8, book_effects=effects), 3)
    table = make_table(rows)
    layout = make_layout(table, table.scores["linking"])
    columns = describe(layout.book_ids, rows.books).columns()
    return layout, table.scores["linking"][layout.rows], mixed.make_factors(layout, columns)


RATIOS = {"books": 0.8, "features": 0.5, "rest": 0.3}


def _parts(layout, factors):
    """Return Z and the prior covariance of the sets, with nothing clever."""
    z = np.eye(len(layout.set_ids))[layout.set_of]
    x = layout.membership.toarray()
    x = x - x.mean(axis=0)
    prior = RATIOS["books"] * x @ x.T / np.mean(np.sum(x**2, axis=1)) + RATIOS["rest"] * np.eye(len(x))
    features = factors.small["features"]
    return z, prior + RATIOS["features"] * features @ features.T


def test_the_solution_is_hendersons(study):
    layout, score, factors = study
    solved = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    z, prior = _parts(layout, factors)
    v = np.eye(len(score)) + z @ prior @ z.T
    inverse, d = np.linalg.inv(v), layout.arms
    information = d.T @ inverse @ d
    arms = np.linalg.solve(information, d.T @ inverse @ score)
    p = inverse - inverse @ d @ np.linalg.solve(information, d.T @ inverse)
    assert np.allclose(solved.arms, arms)
    assert np.isclose(solved.seed_variance, score @ p @ score / (len(score) - d.shape[1]))
    column = np.random.default_rng(1).standard_normal(len(layout.set_ids))
    scaled = column * solved.problem.root
    assert np.isclose(scaled @ solved.residual, (z @ column) @ p @ score)
    assert np.isclose(scaled @ solved.projector @ scaled, (z @ column) @ p @ (z @ column))


def test_posterior_means_and_errors_are_hendersons(study):
    layout, score, factors = study
    solved = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    z, prior = _parts(layout, factors)
    v = np.eye(len(score)) + z @ prior @ z.T
    inverse, d = np.linalg.inv(v), layout.arms
    information = np.linalg.inv(d.T @ inverse @ d)
    wide = z @ prior @ z.T
    mean = d @ solved.arms + wide @ inverse @ (score - d @ solved.arms)
    lost = d - wide @ inverse @ d
    errors = solved.seed_variance * (wide - wide @ inverse @ wide + lost @ information @ lost.T)
    found = mixed.posterior(solved)
    first = found.places
    centring = np.eye(len(first)) - 1 / len(first)
    assert np.allclose(found.mean, mean - mean[first].mean())
    assert np.allclose(found.covariance, centring @ errors[np.ix_(first, first)] @ centring, atol=1e-8)
    best = int(np.argmax(found.mean[first]))
    spread = np.diag(found.covariance) + found.covariance[best, best] - 2 * found.covariance[best]
    assert np.allclose(found.with_best, spread, atol=1e-8)


def test_random_arms_are_the_dense_ones_with_a_prior(study):
    layout, score, factors = study
    cells = sorted({(v.gap_kind, v.density) for v in layout.variants})
    w = np.array([[(v.gap_kind, v.density) == c for c in cells] for v in layout.variants], dtype=float)
    problem = mixed.Problem(layout, factors, score, np.column_stack([np.ones(len(score)), w]))
    fixed = mixed.Solved(problem, RATIOS)
    z, prior = _parts(layout, factors)

    def dense(sd):
        v = np.eye(len(score)) + z @ prior @ z.T + sd**2 * w @ w.T
        inverse, one = np.linalg.inv(v), np.ones(len(score))
        weight = one @ inverse @ one
        rest = score - one @ inverse @ score / weight
        df = len(score) - 1
        fits = df * np.log(rest @ inverse @ rest / df) + np.linalg.slogdet(v)[1] + np.log(weight)
        return -0.5 * fits + np.log(sd) - sd / mixed._LIKELY_ARM_SD

    sds = (0.1, 0.4, 1.0, 3.0)
    ours = np.array([mixed.arm_likelihood(fixed, len(cells), sd) for sd in sds])
    theirs = np.array([dense(sd) for sd in sds])
    assert np.allclose(ours - ours[0], theirs - theirs[0])


def test_no_dense_likelihood_near_the_fit_is_higher(study):
    layout, score, factors = study
    problem = mixed.Problem(layout, factors, score)
    fitted = mixed.fit(problem)
    z, _ = _parts(layout, factors)
    x = layout.membership.toarray()
    x = x - x.mean(axis=0)
    kernels = {
        "books": x @ x.T / np.mean(np.sum(x**2, axis=1)),
        "features": factors.small["features"] @ factors.small["features"].T,
        "rest": np.eye(len(x)),
    }

    def likelihood(ratios):
        v = np.eye(len(score)) + sum(r * z @ kernels[k] @ z.T for k, r in ratios.items())
        inverse, d = np.linalg.inv(v), layout.arms
        information = d.T @ inverse @ d
        p = inverse - inverse @ d @ np.linalg.solve(information, d.T @ inverse)
        df = len(score) - d.shape[1]
        return -0.5 * (
            df * np.log(score @ p @ score / df) + np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1]
        )

    best = likelihood(fitted.ratios)
    for name in kernels:
        for factor in (0.0, 0.5, 2.0):
            assert best >= likelihood({**fitted.ratios, name: factor * (fitted.ratios[name] + 0.01)}) - 0.02


def test_one_books_estimate_is_least_squares_with_the_others_random(study):
    """Against the model written out with that book taken out of all random parts."""
    layout, score, factors = study
    solved = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    z, prior = _parts(layout, factors)
    x = layout.membership.toarray()
    own = RATIOS["books"] / factors.book_scale
    features = factors.of_books["features"]
    for book in (0, 7):
        column = x[:, book]
        centred = column - column.mean()
        # What the book shares with the rest through its features stays a prediction; the rest of it is fixed.
        g = RATIOS["features"] * factors.small["features"] @ features[book]
        v = np.eye(len(score)) + z @ (prior - own * np.outer(centred, centred)) @ z.T
        inverse, d = np.linalg.inv(v), layout.arms
        p = inverse - inverse @ d @ np.linalg.solve(d.T @ inverse @ d, d.T @ inverse)
        zx, zg = z @ column, z @ g
        fixed = zx @ p @ score / (zx @ p @ zx)
        total = fixed + zg @ p @ (score - zx * fixed)
        error = RATIOS["features"] * features[book] @ features[book] - zg @ p @ zg
        error += (1 - zg @ p @ zx) ** 2 / (zx @ p @ zx)
        found = book_contrasts(solved, np.array([book]), 99, np.random.default_rng(0), 20.0)
        assert np.isclose(found.estimate[0], total)
        assert np.isclose(found.se[0] ** 2, solved.seed_variance * error)


def test_posterior_means_of_books_are_those_of_a_ridge_with_known_variances(study):
    layout, score, _ = study
    factors = mixed.make_factors(layout)
    solved = mixed.Solved(mixed.Problem(layout, factors, score), {"books": 0.8})
    x = layout.membership.toarray()
    x = x - x.mean(axis=0)
    rows = x[layout.set_of]
    d = layout.arms
    rows, target = rows - d @ (d.T @ rows), score - d @ (d.T @ score)
    ridge = np.linalg.solve(rows.T @ rows + factors.book_scale / 0.8 * np.eye(x.shape[1]), rows.T @ target)
    assert np.allclose(mixed.book_effects(solved), ridge)


def test_whitened_scores_have_no_correlation_left(study):
    layout, score, factors = study
    rng = np.random.default_rng(0)
    z, prior = _parts(layout, factors)
    root = np.linalg.cholesky(np.eye(len(score)) + z @ prior @ z.T)
    drawn = []
    for _ in range(3000):
        problem = mixed.Problem(layout, factors, root @ rng.standard_normal(len(score)))
        drawn.append(Whitened(mixed.Solved(problem, RATIOS)).scores)
    covariance = np.cov(np.array(drawn).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.4  # the arms leave a little
    assert np.diag(covariance).min() > 0.5
    assert np.diag(covariance).max() < 1.3


def test_a_term_of_whole_sets_has_least_squares_estimate(study):
    layout, score, factors = study
    solved = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    column = np.random.default_rng(5).standard_normal(len(layout.set_ids))
    found = set_contrasts(solved, column[:, None], np.zeros(1), 99, np.random.default_rng(0), 10.0)
    z, prior = _parts(layout, factors)
    inverse, d = np.linalg.inv(np.eye(len(score)) + z @ prior @ z.T), layout.arms
    both = np.column_stack([d, z @ column])
    slope = np.linalg.solve(both.T @ inverse @ both, both.T @ inverse @ score)[-1]
    assert np.isclose(found.estimate[0], slope)


@pytest.mark.parametrize("seed", range(3))
def test_variances_of_a_known_study_come_back(seed):
    effects = {i: float(e) for i, e in enumerate(0.4 * np.random.default_rng(seed).standard_normal(50))}
    planted = Planted(
        50, 25, n_single=0, n_seeds=250, n_order=0, n_gaps=0, book_effects=effects, set_sd=0.6, block_sd=0
    )
    table = make_table(simulate(planted, seed))
    layout = make_layout(table, table.scores["linking"])
    problem = mixed.Problem(layout, mixed.make_factors(layout), table.scores["linking"])
    fitted = mixed.fit(problem)
    centred = np.array(list(effects.values())) - np.mean(list(effects.values()))
    assert fitted.seed_variance == pytest.approx(1.0, rel=0.2)
    assert fitted.ratios["books"] == pytest.approx(float(np.sum(centred**2)) / 4, rel=0.35)
    assert fitted.ratios["rest"] == pytest.approx(0.36, abs=0.2)
    found = mixed.book_effects(fitted)
    assert np.corrcoef(found, centred)[0, 1] > 0.8


def test_more_sets_than_are_fitted_at_once_give_the_same_variances(monkeypatch):
    effects = {i: float(e) for i, e in enumerate(0.3 * np.random.default_rng(4).standard_normal(40))}
    rows = simulate(Planted(40, 20, n_single=400, n_seeds=0, n_order=0, n_gaps=0, book_effects=effects, set_sd=0.0), 1)
    table = make_table(rows)
    layout = make_layout(table, table.scores["linking"])
    problem = mixed.Problem(layout, mixed.make_factors(layout), table.scores["linking"][layout.rows])
    whole = mixed.fit(problem)
    monkeypatch.setattr(mixed, "_LARGEST_REML", 250)
    part = mixed.fit(problem)
    assert part.ratios["books"] == pytest.approx(whole.ratios["books"], rel=0.4)


def test_single_precision_says_the_same(study, monkeypatch):
    layout, score, factors = study
    exact = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    monkeypatch.setattr(mixed, "_SINGLE_FROM", 1)
    single = mixed.Solved(mixed.Problem(layout, factors, score), RATIOS)
    assert single.projector.dtype == np.float32
    assert np.allclose(single.projector, exact.projector, atol=1e-4)
    assert np.allclose(single.residual, exact.residual, atol=1e-3)


def test_arms_that_use_up_all_runs_give_no_fit():
    table = make_table(simulate(Planted(6, 3, n_seeds=0, n_order=1, n_gaps=0), 1))
    layout = make_layout(table, table.scores["linking"])
    problem = mixed.Problem(layout, mixed.make_factors(layout), table.scores["linking"])
    assert mixed.fit(problem) is None
