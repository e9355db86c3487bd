"""Effects of books, features, orders and gaps on every ability, judged together.

A book's effect is the mean score of the sets that hold it minus the mean of those that do not. With half of the library
in a set this is its Banzhaf value (Wang and Jia 2023), the data value that seed noise disturbs least. All sets are of
one size, so only differences between books exist: the effect is against the average book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.gaps import gap_terms
from ltm.patterns.inference import permutation_p, stream, two_stage_q
from ltm.patterns.layout import Layout, interval, make_layout
from ltm.patterns.order import order_terms
from ltm.patterns.table import Floats, Table
from ltm.patterns.terms import MIN_BLOCKS, Estimate, Term, evaluate, shrink, usable
from ltm.records import Book, Effect

KINDS = ("book", "feature", "order", "gap")
RANDOM_ROUNDS = ("pilot", "exploration")
MIN_SETS = 8  # for anything that compares whole sets
MIN_SIDE = 3  # sets with a book, and sets without it
MIN_DF = 3  # of the sets, after the arms
_TINY = 1e-9


@dataclass(frozen=True)
class Summary:
    """What a study can know about one ability, from the variance of its own scores."""

    n_sets: int
    set_share: float  # share of a run's variance that is its set
    book_share: float  # of the set's variance, the part that is the sum of its books
    residual_sd: float
    smallest_book_effect: float  # found with 80 % power although all books are tested; NaN = no book can be tested
    expected_accuracy: float  # correlation of predicted with true scores of new sets


@dataclass(frozen=True)
class Estimated:
    """All effects of a study, and per ability and kind the reason where none could be estimated."""

    effects: list[Effect]
    skipped: dict[tuple[str, str], str]
    summaries: dict[str, Summary]


def standardised_features(books: Mapping[str, Book], used: set[str]) -> dict[str, dict[str, float]]:
    """Return feature -> book_id -> value in standard deviations over the books that sets may hold.

    A book without the feature counts as average; a feature that does not vary is left out.
    """
    names = sorted({name for book_id in used if book_id in books for name in books[book_id].features})
    found = {}
    for name in names:
        raw = {b: books[b].features[name] for b in sorted(used) if b in books and name in books[b].features}
        values = np.array([v for v in raw.values() if np.isfinite(v)])
        if len(values) < MIN_SIDE or values.std() <= _TINY * max(1.0, float(np.abs(values).max())):
            continue
        found[name] = {b: float((v - values.mean()) / values.std()) for b, v in raw.items() if np.isfinite(v)}
    return found


def estimate_effects(table: Table, books: Mapping[str, Book], level: float, redraws: int, seed: int) -> Estimated:
    """Estimate every effect on every ability and give each a p-value, a q-value and an interval.

    Args:
        table: Scores by run.
        books: book_id -> row; gives titles and features.
        level: False discovery rate of a claim.
        redraws: Redraws of the design per test.
        seed: Seed of the study; each (ability, kind) has its own stream of it.
    """
    used = {book_id for variant in table.variants for book_id in variant.book_ids}
    features = standardised_features(books, used)
    found: dict[tuple[str, str], list[Estimate]] = {}
    skipped: dict[tuple[str, str], str] = {}
    summaries = {}
    # Sets that were chosen after looking at scores have no randomisation law; they only enter the ranking.
    drawn_at_random = np.array([table.variants[v].round in RANDOM_ROUNDS for v in table.variant_of])
    for name, facts in table.abilities.items():
        if facts.constant:
            skipped.update({(name, kind): "constant" for kind in KINDS})
            continue
        layout = make_layout(table, np.where(drawn_at_random, table.scores[name], np.nan))
        if not len(layout.rows):
            skipped.update({(name, kind): "no_random_sets" for kind in KINDS})
            continue
        score = table.scores[name][layout.rows]
        fitted = mixed.fit(layout, score, mixed.spectra(layout))
        summaries[name] = _summary(layout, fitted, level)
        for kind, estimates in _by_kind(layout, score, fitted, features, books, (redraws, seed, name)).items():
            if estimates:
                found[name, kind] = estimates
            else:
                skipped[name, kind] = "too_few_sets" if kind in ("book", "feature") else "too_few_blocks"
        if not features:
            skipped[name, "feature"] = "no_features"
    return Estimated(_judge(table, found, level), skipped, summaries)


def _by_kind(
    layout: Layout,
    score: Floats,
    fitted: mixed.Fit | None,
    features: Mapping[str, Mapping[str, float]],
    books: Mapping[str, Book],
    drawing: tuple[int, int, str],
) -> dict[str, list[Estimate]]:
    redraws, seed, name = drawing

    def inside(kind: str, terms: list[Term]) -> list[Estimate]:
        ready = [term for term in terms if usable(term)]
        return evaluate(kind, ready, score, redraws, stream(seed, name, kind)) if ready else []

    titles = {book_id: book.title for book_id, book in books.items()}
    shrunk = fitted.book_effects if fitted else np.zeros(len(layout.book_ids))
    return {
        "book": _book_effects(layout, score, titles, shrunk, redraws, stream(seed, name, "book")),
        "feature": _feature_effects(layout, score, features, redraws, stream(seed, name, "feature")),
        "order": inside("order", order_terms(layout, features)),
        "gap": inside("gap", gap_terms(layout)),
    }


def _set_slopes(layout: Layout, score: Floats, columns: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Return (slopes, their information, residual variances, degrees of freedom) of set scores on (S, K) columns."""
    projector = layout.projector()
    set_scores = layout.set_scores(score)
    reduced = projector @ columns  # the columns with the arms regressed out, as in the scores
    size = np.maximum(np.sum(reduced**2, axis=0), _TINY)
    slopes = (reduced.T @ set_scores) / size
    df = float(np.sum(projector**2)) - 1.0  # what the arms leave of the sets, less the slope
    variances = np.sum((set_scores[:, None] - reduced * slopes) ** 2, axis=0) / max(df, 1.0)
    return slopes, size, variances, df


def _book_effects(
    layout: Layout, score: Floats, titles: Mapping[str, str], shrunk: Floats, redraws: int, rng: np.random.Generator
) -> list[Estimate]:
    """Return the contrast of every book that enough sets hold and enough do not."""
    n_sets = len(layout.set_ids)
    holders = layout.membership.sum(axis=0)
    kept = np.flatnonzero((holders >= MIN_SIDE) & (n_sets - holders >= MIN_SIDE))
    if n_sets < MIN_SETS or not len(kept):
        return []
    columns = layout.membership[:, kept]
    slopes, size, variances, df = _set_slopes(layout, score, columns)
    if df < MIN_DF:
        return []
    se = np.sqrt(variances / size)
    low, high = interval(slopes, se, df)
    statistic = layout.projector().T @ layout.set_scores(score)
    p = permutation_p(columns, statistic, layout.strata, redraws, rng)
    ids = [layout.book_ids[k] for k in kept]
    values = np.column_stack([slopes, se, low, high, p, shrunk[kept]]).tolist()
    return [_estimate("book", b, titles.get(b, b), row, n_sets) for b, row in zip(ids, values, strict=True)]


def _estimate(kind: str, name: str, label: str, row: Sequence[float], n: int) -> Estimate:
    estimate, se, low, high, p, shrunk = row
    return Estimate(kind, name, label, estimate, se, low, high, p, shrunk, n)


def _feature_effects(
    layout: Layout, score: Floats, features: Mapping[str, Mapping[str, float]], redraws: int, rng: np.random.Generator
) -> list[Estimate]:
    """Return slopes per standard deviation, between sets, of a set's mean feature.

    Books are the unit: their features are permuted among them, which the random columns of the design justify, and the
    standard error comes from how far the books scatter about the slope. Sets as the unit would call any feature real
    that a few strong books happen to have.
    """
    n_books = len(layout.book_ids)
    if len(layout.set_ids) < MIN_SETS or n_books < MIN_SETS or not features:
        return []
    by_book = np.array([[values.get(b, 0.0) for b in layout.book_ids] for values in features.values()]).T
    by_book = by_book - by_book.mean(axis=0)
    by_set = layout.membership @ by_book / layout.membership.sum(axis=1)[:, None]
    spread = by_set.std(axis=0)
    kept = np.flatnonzero(spread > _TINY)
    if not len(kept):
        return []
    by_book, columns = by_book[:, kept] / spread[kept], by_set[:, kept] / spread[kept]
    slopes, size, _, df = _set_slopes(layout, score, columns)
    if df < MIN_DF:
        return []
    weighted = layout.membership / layout.membership.sum(axis=1)[:, None]
    pull = weighted.T @ (layout.projector().T @ layout.set_scores(score))  # (B,): slope = pull @ by_book / size
    pull = pull - pull.mean()
    lengths = np.sum(by_book**2, axis=0)
    rest = pull[:, None] - by_book * (pull @ by_book / lengths)
    se = np.sqrt(np.sum(rest**2, axis=0) / (n_books - 2) * lengths) / size
    low, high = interval(slopes, se, n_books - 2)
    p = permutation_p(by_book, pull, np.zeros(n_books, dtype=np.int64), redraws, rng)
    names = [list(features)[k] for k in kept]
    values = np.column_stack([slopes, se, low, high, p, slopes]).tolist()
    labels = [name.replace("_", " ") for name in names]
    return shrink(
        [_estimate("feature", f, text, row, n_books) for f, text, row in zip(names, labels, values, strict=True)]
    )


def _judge(table: Table, found: Mapping[tuple[str, str], list[Estimate]], level: float) -> list[Effect]:
    """Return effects with q-values; abilities that are not admitted are not tested, so their q is 1."""
    tested = [key for key in found if table.abilities[key[0]].admitted]
    q_of = dict(zip(tested, two_stage_q([np.array([e.p for e in found[key]]) for key in tested]), strict=True))
    effects = []
    for (name, kind), estimates in found.items():
        q_values = q_of.get((name, kind), np.ones(len(estimates)))
        effects += [
            Effect(
                e.kind,
                e.name,
                e.label,
                name,
                e.estimate,
                e.se,
                e.low,
                e.high,
                e.p,
                float(q),
                e.shrunk,
                e.n,
                (name, kind) in q_of and bool(q <= level),
            )
            for e, q in zip(estimates, q_values, strict=True)
        ]
    return effects


def _summary(layout: Layout, fitted: mixed.Fit | None, level: float) -> Summary:
    """Return the variance components and what they allow to be found (Daetwyler et al. 2008; 80 % power)."""
    from scipy.special import ndtri

    n_sets, n_books = layout.membership.shape
    holders = layout.membership.mean(axis=0)
    varying = holders[(holders > 0) & (holders < 1)]
    if fitted is None or not len(varying):
        return Summary(n_sets, fitted.set_share if fitted else 0.0, 0.0, float("nan"), float("nan"), float("nan"))
    runs = float(np.mean(layout.runs_per_set))
    sd = float(np.sqrt(fitted.set_variance + fitted.residual_variance / runs))
    spread = float(np.mean(varying * (1 - varying)))
    z = float(ndtri(1 - level / (2 * n_books)) + ndtri(0.8))
    smallest = z * sd / np.sqrt(n_sets * spread) if n_sets >= MIN_SETS else float("nan")
    # Only the sum of books carries over to new sets; what a set is beyond it is noise here and unknown there.
    heritable = n_sets * fitted.book_share * fitted.set_variance / sd**2 if sd > 0 else 0.0
    accuracy = float(np.sqrt(fitted.book_share * heritable / (heritable + n_books)))
    return Summary(
        n_sets, fitted.set_share, fitted.book_share, float(np.sqrt(fitted.residual_variance)), float(smallest), accuracy
    )


__all__ = ["KINDS", "MIN_BLOCKS", "MIN_SETS", "Estimated", "Summary", "estimate_effects", "standardised_features"]
