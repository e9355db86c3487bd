"""What a design can know, before it is run: pure formulas from numbers of runs, sets, blocks and the reliability h2.

h2 is the share of one run's variance that is its set, not its seed. All effects are in seed standard deviations, found
with 80 % power while the false discovery rate of a whole family of tests is kept.

Sources: Daetwyler, Villanueva and Woolliams 2008 (accuracy of predicted values); Bonferroni's bound at the first claim
of Benjamini-Hochberg for power; order statistics of the normal for what the best of many single runs is exaggerated by.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

_POWER = 0.80


@dataclass(frozen=True)
class Knowable:
    """What one design can know at one h2; infinite = it cannot tell."""

    h2: float
    expected_accuracy: float  # correlation of predicted with true scores of new sets
    smallest_book_effect: float  # with the book against without it
    smallest_feature_effect: float  # per standard deviation, between sets, of the set's mean feature
    smallest_order_effect: float  # mean difference of two orders of the same books
    smallest_gap_effect: float  # gaps against as much text without gaps
    runs_for_wanted_book: int  # single-run sets to find a book of `wanted_effect`; 0 = not asked for
    exaggeration_of_top: float  # share of the best ten single runs' lead that is luck


def expected_accuracy(n_sets: int, n_books: int, h2: float, book_share: float = 1.0) -> float:
    """Return the expected correlation of predicted with true scores of new sets, in [0, 1].

    Args:
        n_sets: Independent sets; runs of one set count once.
        n_books: Books that vary between sets; where only features are claimed, their number.
        h2: Share of a set score's variance that is the set.
        book_share: Of that, the part that is a sum over books; the rest cannot be predicted for new sets.

    >>> [round(expected_accuracy(1000, b, 0.8), 2) for b in (200, 1000, 5000, 20000)]
    [0.89, 0.67, 0.37, 0.2]
    """
    if n_sets <= 0 or n_books <= 0 or h2 <= 0:
        return 0.0
    useful = n_sets * h2 * book_share
    return math.sqrt(book_share * useful / (useful + n_books))


def smallest_effect(information: float, sd: float, n_tests: int, level: float = 0.10) -> float:
    """Return the effect that is found with 80 % power while `n_tests` are looked at.

    Args:
        information: The effect's standard error is sd / sqrt(information); 0 = nothing can be told.
        sd: Standard deviation of one unit, in seed sd.
        n_tests: Tests of the family.
        level: False discovery rate.
    """
    if information <= 0 or n_tests <= 0:
        return math.inf
    return wanted_z(n_tests, level) * sd / math.sqrt(information)


def wanted_z(n_tests: int, level: float = 0.10) -> float:
    """Return the expected z of an effect that is found four times in five among `n_tests`.

    >>> round(wanted_z(200), 2)
    4.32
    """
    from scipy.special import ndtri

    return float(ndtri(1.0 - level / (2.0 * n_tests)) + ndtri(_POWER))


def smallest_book_effect(
    n_sets: int, inclusion: float, n_books: int, h2: float, runs_per_set: float = 1.0, level: float = 0.10
) -> float:
    """Return the smallest effect of one book among `n_books` that is found.

    Args:
        n_sets: Sets.
        inclusion: Share of the sets that hold a book.
        n_books: Books tested.
        h2: Share of one run's variance that is its set; what the other books do is noise, less what is known of them.
        runs_per_set: Mean runs of a set.
        level: False discovery rate.
    """
    known = expected_accuracy(n_sets, n_books, h2) ** 2
    set_variance = h2 / (1.0 - h2) * (1.0 - known) if h2 < 1 else math.inf
    sd = math.sqrt(set_variance + 1.0 / runs_per_set)
    return smallest_effect(n_sets * inclusion * (1.0 - inclusion), sd, n_books, level)


def smallest_feature_effect(n_sets: int, n_features: int, h2: float, n_books: int, level: float = 0.10) -> float:
    """Return the smallest slope per standard deviation, between sets, of a feature that is found.

    A feature competes with what single books do by chance, which more sets do not lessen: its standard error is that of
    a slope over sets, but not below the set's own spread over the root of the number of books.
    """
    if n_sets <= 0 or n_books <= 0:
        return math.inf
    set_variance = h2 / (1.0 - h2) if h2 < 1 else math.inf
    se = math.sqrt((1.0 + set_variance) / n_sets + set_variance / n_books)
    return smallest_effect(1.0, se, n_features, level)


def smallest_block_effect(n_blocks: int, n_tests: int, level: float = 0.10) -> float:
    """Return the smallest difference between two arms of the same block: seed noise on both sides, nothing else."""
    return smallest_effect(float(n_blocks), math.sqrt(2.0), n_tests, level)


def runs_needed(effect: float, inclusion: float, n_books: int, h2: float = 0.0, level: float = 0.10) -> int:
    """Return how many single-run sets find one book of a given effect, N = z^2 sd^2 / (d^2 p (1 - p)).

    >>> runs_needed(0.3, 0.5, 200)
    831
    """
    spread = inclusion * (1.0 - inclusion)
    if effect <= 0 or spread <= 0 or h2 >= 1:
        return 0
    n = (wanted_z(n_books, level) / effect) ** 2 / spread
    for _ in range(20):  # what is known of the other books grows with the runs
        known = expected_accuracy(round(n), n_books, h2) ** 2
        n = (wanted_z(n_books, level) / effect) ** 2 * (1.0 + h2 / (1.0 - h2) * (1.0 - known)) / spread
    return math.ceil(n)


def exaggeration(h2: float) -> float:
    """Return which share of the best single runs' lead over the mean is luck: 1 - h2 (Lande and Arnold's selection).

    >>> exaggeration(0.8)
    0.19999999999999996
    """
    return 1.0 - min(max(h2, 0.0), 1.0)


def knowable(
    *,
    n_sets: int,
    n_books: int,
    inclusion: float,
    n_order_blocks: int,
    n_gap_blocks: int,
    h2: float,
    runs_per_set: float = 1.0,
    n_features: int = 20,
    n_order_tests: int = 10,
    n_gap_tests: int = 6,
    level: float = 0.10,
    wanted_effect: float = 0.0,
) -> dict[str, float]:
    """Return everything above for one design and one assumed or piloted h2, as plain values (see `Knowable`)."""
    found = Knowable(
        h2=h2,
        expected_accuracy=expected_accuracy(n_sets, n_books, set_reliability(h2, runs_per_set)),
        smallest_book_effect=smallest_book_effect(n_sets, inclusion, n_books, h2, runs_per_set, level),
        smallest_feature_effect=smallest_feature_effect(n_sets, n_features, h2, n_books, level),
        smallest_order_effect=smallest_block_effect(n_order_blocks, n_order_tests, level),
        smallest_gap_effect=smallest_block_effect(n_gap_blocks, n_gap_tests, level),
        runs_for_wanted_book=runs_needed(wanted_effect, inclusion, n_books, h2, level) if wanted_effect > 0 else 0,
        exaggeration_of_top=exaggeration(h2),
    )
    return asdict(found)


def set_reliability(h2: float, runs_per_set: float) -> float:
    """Return the share of the variance of a mean over a set's runs that is the set (Spearman-Brown).

    >>> set_reliability(0.5, 2)
    0.6666666666666666
    """
    return runs_per_set * h2 / (1.0 + (runs_per_set - 1.0) * h2) if h2 > 0 else 0.0
