"""The fast mixed model against the same formulas written out with whole covariance matrices."""

from __future__ import annotations

import numpy as np
import pytest

from ltm.patterns import mixed
from ltm.patterns.layout import make_layout
from ltm.patterns.simulate import Planted, simulate
from ltm.patterns.table import make_table


@pytest.fixture(scope="module")
def study():
    effects = {i: float(e) for i, e in enumerate(np.random.default_rng(0).standard_normal(20))}
    rows = simulate(Planted(20, 10, n_single=6, n_seeds=5, n_order=8, n_gaps=8, book_effects=effects), 3)
    table = make_table(rows)
    layout = make_layout(table, table.scores["linking"])
    return layout, table.scores["linking"][layout.rows]


def _dense(layout, score, share, ratio):
    """REML likelihood, posterior and error covariance by Henderson's formulas, nothing clever."""
    z = np.eye(len(layout.set_ids))[layout.set_of]
    centred = layout.membership - layout.membership.mean(axis=0)
    kernel = centred @ centred.T
    mix = share * kernel / np.mean(np.diag(kernel)) + (1 - share) * np.eye(len(kernel))
    v = np.eye(len(score)) + ratio * z @ mix @ z.T
    inverse, d = np.linalg.inv(v), layout.arms
    information = d.T @ inverse @ d
    arms = np.linalg.solve(information, d.T @ inverse @ score)
    rest = score - d @ arms
    df = len(score) - d.shape[1]
    variance = rest @ inverse @ rest / df
    likelihood = -0.5 * (df * np.log(variance) + np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1])
    posterior = d @ arms + ratio * z @ mix @ z.T @ inverse @ rest
    prior = ratio * z @ mix @ z.T
    lost = d - prior @ inverse @ d  # how an error of the arms shows in the posterior
    errors = variance * (prior - prior @ inverse @ prior + lost @ np.linalg.inv(information) @ lost.T)
    return likelihood, variance, posterior, errors


def test_the_fit_is_the_dense_one_at_its_own_variances(study):
    layout, score = study
    fitted = mixed.fit(layout, score, mixed.spectra(layout))
    _, variance, posterior, errors = _dense(
        layout, score, fitted.book_share, fitted.set_variance / fitted.residual_variance
    )
    first = mixed._first_places(layout)
    centring = np.eye(len(first)) - 1 / len(first)
    assert np.isclose(fitted.residual_variance, variance)
    assert np.allclose(fitted.posterior, posterior - posterior[first].mean())
    assert np.allclose(fitted.covariance, centring @ errors[np.ix_(first, first)] @ centring, atol=1e-8)
    assert fitted.set_variance > 0


def test_random_arms_are_the_dense_ones_with_a_prior(study):
    from dataclasses import replace

    layout, score = study
    conditions = sorted({(v.gap_kind, v.density) for v in layout.variants})
    w = np.array([[(v.gap_kind, v.density) == c for c in conditions] for v in layout.variants], dtype=float)
    shrunk = replace(layout, arms=np.column_stack([np.ones(len(score)), w]))
    reduced = mixed._Reduced(shrunk, score, len(conditions))
    spectrum, ratio, sd = mixed.spectra(layout)[2], 0.7, 0.4
    fitted = mixed._predict(reduced, spectrum, ratio, sd, spectrum.vectors.T @ reduced.between)
    z = np.eye(len(layout.set_ids))[layout.set_of]
    signal = ratio * z @ spectrum.kernel @ z.T + sd**2 * w @ w.T
    inverse, one = np.linalg.inv(signal + np.eye(len(score))), np.ones(len(score))
    rest = score - one @ inverse @ score / (one @ inverse @ one)
    variance = rest @ inverse @ rest / (len(score) - 1)
    posterior = signal @ inverse @ rest
    lost = one - signal @ inverse @ one
    errors = variance * (signal - signal @ inverse @ signal + np.outer(lost, lost) / (one @ inverse @ one))
    first = mixed._first_places(layout)
    centring = np.eye(len(first)) - 1 / len(first)
    assert np.isclose(fitted.residual_variance, variance)
    assert np.allclose(fitted.posterior, posterior - posterior[first].mean())
    assert np.allclose(fitted.covariance, centring @ errors[np.ix_(first, first)] @ centring, atol=1e-8)

    def dense(sd):
        v = ratio * z @ spectrum.kernel @ z.T + sd**2 * w @ w.T + np.eye(len(score))
        inverse = np.linalg.inv(v)
        weight = one @ inverse @ one
        rest = score - one @ inverse @ score / weight
        df = len(score) - 1
        fits = df * np.log(rest @ inverse @ rest / df) + np.linalg.slogdet(v)[1] + np.log(weight)
        return -0.5 * fits + np.log(sd) - sd / mixed._LIKELY_ARM_SD

    ours = reduced.likelihoods(spectrum, ratio, spectrum.vectors.T @ reduced.between)
    theirs = np.array([dense(float(sd)) for sd in reduced.arm_sds])
    assert np.allclose(ours - ours[0], theirs - theirs[0])


def test_no_dense_likelihood_on_a_grid_beats_the_fit(study):
    layout, score = study
    fitted = mixed.fit(layout, score, mixed.spectra(layout))
    ours = _dense(layout, score, fitted.book_share, fitted.set_variance / fitted.residual_variance)[0]
    others = [_dense(layout, score, s, r)[0] for s in (0, 0.25, 0.5, 0.75, 1) for r in (0, 0.1, 0.5, 1, 2, 5, 20)]
    assert ours >= max(others) - 1e-6


def test_book_effects_sum_to_the_books_part_of_the_sets(study):
    layout, score = study
    fitted = mixed.fit(layout, score, [s for s in mixed.spectra(layout) if s.share == 1.0])
    centred = layout.membership - layout.membership.mean(axis=0)
    arms_out = fitted.posterior - layout.arms @ (layout.arms.T @ fitted.posterior)
    books = (centred @ fitted.book_effects)[layout.set_of]
    assert np.allclose(arms_out, books - layout.arms @ (layout.arms.T @ books), atol=1e-8)


def test_variances_of_a_known_study_come_back():
    effects = {i: float(e) for i, e in enumerate(0.4 * np.random.default_rng(1).standard_normal(50))}
    planted = Planted(
        50, 25, n_single=0, n_seeds=250, n_order=0, n_gaps=0, book_effects=effects, set_sd=0.6, block_sd=0
    )
    table = make_table(simulate(planted, 1))
    layout = make_layout(table, table.scores["linking"])
    fitted = mixed.fit(layout, table.scores["linking"], mixed.spectra(layout))
    books = sum(e**2 for e in effects.values()) / 4
    assert fitted.residual_variance == pytest.approx(1.0, rel=0.2)
    assert fitted.set_variance == pytest.approx(books + 0.36, rel=0.3)
    assert fitted.book_share in (0.5, 0.75, 1.0)
    assert np.corrcoef(fitted.book_effects, list(effects.values()))[0, 1] > 0.8


def test_arms_that_use_up_all_runs_give_no_fit():
    table = make_table(simulate(Planted(6, 3, n_seeds=0, n_order=1, n_gaps=0), 1))
    layout = make_layout(table, table.scores["linking"])
    assert mixed.fit(layout, table.scores["linking"], mixed.spectra(layout)) is None
