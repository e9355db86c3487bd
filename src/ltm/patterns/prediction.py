"""How well sets that were never trained are predicted, against what chance alone would seem to predict.

Each set is predicted from all others (leave one set out, in closed form). The rank correlation of predicted and scored
sets is the linear datamodelling score (LDS); its ceiling is the root of the reliability of a set's score. What is
correlated is how far a prediction lies from the mean of the others: that mean alone is lower where the set that is left
out is higher, so that predictions from nothing would seem to be the exact opposite of the scores. The errors calibrate
the conformal intervals of new sets. The same numbers from permuted scores are the band of chance.

Sources: Park et al. 2023 (LDS); Vovk, Gammerman and Shafer 2005 and Lei et al. 2018 (conformal intervals from held-out
errors); Allen 1974 (leave-one-out residuals of a linear smoother).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.inference import bh_adjusted, stream
from ltm.patterns.table import Floats

PERMUTED = 200  # score vectors behind the band of chance
_FEWEST_SETS = 20
_FEWEST_OF_KIND = 30
_COVERAGE = 0.90
_LARGEST_COMPARED = 3000  # sets; of more the mean of the others hardly hangs on the one that is left out
_NOTHING = 1e-6  # of the scores' standard deviation: a prediction that does not vary
_LARGEST_CELLS = 5e7  # sets x books up to which discoveries in permuted scores are counted


@dataclass(frozen=True)
class Prediction:
    """How well new sets can be predicted for one ability; NaN = too few sets to say."""

    n_sets: int
    lds: float  # Spearman of predicted with scored sets, each predicted from the others
    ceiling: float  # the highest LDS that the noise of the scores allows
    null_low: float  # 90 % of permuted score vectors lie between
    null_high: float
    null_discoveries: float  # mean number of books claimed in a permuted score vector
    null_any: float  # share of permuted score vectors with any book claimed
    half_width: float  # a new set's run lies within +- this of its prediction in 90 % of cases
    half_width_by_gap: dict[str, float] = field(default_factory=dict)  # the same by kind of gaps, where 30 runs have it


def predict_sets(solved: mixed.Solved, level: float, seed: int, name: str) -> Prediction:
    """Return how well the sets of a fitted model are predicted from one another.

    Args:
        solved: The mixed model of one ability.
        level: False discovery rate of the claims that are counted in permuted scores.
        seed: Seed of the study.
        name: Ability, for its own random stream.
    """
    problem = solved.problem
    n_sets = len(problem.root)
    nan = float("nan")
    observed = (problem.between[:, problem.q] - problem.between[:, : problem.q] @ solved.arms) / problem.root
    runs = float(np.mean(problem.layout.runs_per_set))
    ceiling = float(np.sqrt(solved.of_set / (solved.of_set + 1.0 / runs))) if solved.of_set > 0 else 0.0
    if n_sets < _FEWEST_SETS:
        return Prediction(n_sets, nan, ceiling, nan, nan, nan, nan, nan)
    leverage = np.maximum(np.asarray(np.diag(solved.projector), dtype=np.float64), 1e-9)
    errors = solved.residual / leverage / problem.root
    lds = float(_correlations(solved, observed[None, :])[0])
    low, high, discoveries, anything = _by_chance(solved, observed, level, stream(seed, name, "null band"))
    return Prediction(n_sets, lds, ceiling, low, high, discoveries, anything, *_conformal(solved, errors, observed))


def spearman(a: Floats, b: Floats) -> float:
    """Return the rank correlation; 0 where one of them does not vary."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _conformal(solved: mixed.Solved, errors: Floats, observed: Floats) -> tuple[float, dict[str, float]]:
    """Return the half width of the interval of a new set's run, over all and by kind of gaps."""
    problem, layout = solved.problem, solved.problem.layout
    predicted = observed - errors  # of each set, from the others
    of_run = problem.score - problem.arms @ solved.arms - predicted[layout.set_of]
    kinds = np.array([variant.gap_kind for variant in layout.variants])
    by_kind = {
        str(kind): _quantile(np.abs(of_run[kinds == kind]))
        for kind in np.unique(kinds)
        if np.sum(kinds == kind) >= _FEWEST_OF_KIND
    }
    return _quantile(np.abs(of_run)), by_kind


def _quantile(sizes: Floats) -> float:
    """Return the conformal quantile: the smallest size that covers 90 % of n + 1 exchangeable ones."""
    rank = int(np.ceil((len(sizes) + 1) * _COVERAGE))
    return float(np.sort(sizes)[rank - 1]) if rank <= len(sizes) else float("nan")


def _correlations(solved: mixed.Solved, scores: Floats) -> Floats:
    """Return the rank correlation of each row of scores, (P, S), with its predictions beyond the mean of the others."""
    alone = {mixed.REST: solved.of_set}  # sets that have nothing to do with each other
    from_mean = mixed.Solved(solved.problem, alone) if len(solved.problem.root) <= _LARGEST_COMPARED else None
    if from_mean is None:
        ahead = scores - _errors(solved, scores)
    else:
        ahead = _errors(from_mean, scores) - _errors(solved, scores)
    says = ahead.std(axis=1) > _NOTHING * scores.std(axis=1)
    rows = zip(ahead, scores, says, strict=True)
    return np.array([spearman(a, y) if told else 0.0 for a, y, told in rows])


def _errors(solved: mixed.Solved, scores: Floats) -> Floats:
    """Return how far each set lies from its prediction from the others, shape (P, S)."""
    root = solved.problem.root
    leverage = np.maximum(np.asarray(np.diag(solved.projector), dtype=np.float64), 1e-9)
    return np.asarray(solved.project((scores * root).T).T / leverage / root)


def _by_chance(
    solved: mixed.Solved, observed: Floats, level: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return (low, high) of the LDS, mean number of claimed books and share of any claim in permuted scores."""
    problem = solved.problem
    strata = problem.layout.strata
    shuffled = np.tile(observed, (PERMUTED, 1))
    for s in np.unique(strata):
        rows = np.flatnonzero(strata == s)
        shuffled[:, rows] = rng.permuted(shuffled[:, rows], axis=1)
    residual = solved.project((shuffled * problem.root).T)
    found = _correlations(solved, shuffled)
    low, high = (float(q) for q in np.quantile(found, [0.05, 0.95]))
    books = problem.factors.books
    if books.shape[0] * books.shape[1] > _LARGEST_CELLS or not books.shape[1]:
        return low, high, float("nan"), float("nan")
    return low, high, *_claims(solved, residual, level)


def _claims(solved: mixed.Solved, residual: Floats, level: float) -> tuple[float, float]:
    from scipy.special import ndtr

    problem = solved.problem
    holders = problem.layout.holders
    kept = np.flatnonzero((holders >= 3) & (len(problem.root) - holders >= 3))
    if not len(kept):
        return 0.0, 0.0
    scaled = problem.factors.books[:, kept].multiply(problem.root[:, None]).tocsr()
    pull = np.asarray(scaled.T @ residual)
    spread = np.maximum(pull.std(axis=1), 1e-300)
    counts = [int(np.sum(bh_adjusted(2.0 * ndtr(-np.abs(z))) <= level)) for z in (pull / spread[:, None]).T]
    return float(np.mean(counts)), float(np.mean(np.array(counts) > 0))


def exaggeration(raw: Floats, posterior: Floats, top: int) -> dict[str, float]:
    """Return what the best single scores are expected to lose: the mean of the `top` raw ones, and their posterior.

    Args:
        raw: Shape (V,), above the average variant.
        posterior: Shape (V,).
        top: How many of the highest raw scores.
    """
    best = np.argsort(-raw, kind="stable")[:top]
    lead, kept = float(np.mean(raw[best])), float(np.mean(posterior[best]))
    return {"n": len(best), "raw": lead, "posterior": kept, "share_of_luck": 1.0 - kept / lead if lead > 0 else 0.0}
