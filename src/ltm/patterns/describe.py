"""What is known of books: standardised features, classes of like books, likeness to the eval books.

Reads: Book rows, and the clusters of the design where it used any. All of it is fixed before a score is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltm.patterns.table import Floats, Ints
from ltm.records import Book

MAX_CLASSES = 8  # of books, for precedence and interactions: 28 pairs can be told apart, pairs of books cannot
MIN_VALUES = 3  # books that must have a feature
MIN_BOOKS = 3  # of a class that features make
SIMILARITY = "eval_similarity"
NUMBERED = ("class ", "cluster ")  # of classes that have no name but a number
STANDS_OUT = 0.5  # from the mean, in standard deviations of all books
_MOST_TRAITS = 3  # of a class
_TINY = 1e-9
_KMEANS_STEPS = 50


@dataclass(frozen=True)
class Kind:
    """A class of books that is known by a number: how many books it has, and what they have more or less of."""

    name: str
    n_books: int
    traits: tuple[tuple[str, float], ...]  # (feature, mean of its books in standard deviations of all), strongest first


@dataclass(frozen=True)
class Described:
    """Columns by book, in the order of `book_ids`."""

    book_ids: tuple[str, ...]
    names: tuple[str, ...]  # (F,) features
    values: Floats  # (B, F) in standard deviations over these books; a book without the feature is average
    classes: Ints  # (B,) number of the class; -1 = none known
    class_names: tuple[str, ...]
    clusters: Ints  # (B,) of the design, else -1 everywhere
    similarity: Floats  # (B,) to the eval books, standardised; empty where unknown

    def part(self, book_ids: tuple[str, ...]) -> Described:
        """Return the rows of some of the books, on the scales of all."""
        at = {b: i for i, b in enumerate(self.book_ids)}
        rows = np.array([at[b] for b in book_ids], dtype=np.int64)
        similarity = self.similarity[rows] if len(self.similarity) else self.similarity
        return Described(
            book_ids,
            self.names,
            self.values[rows],
            self.classes[rows],
            self.class_names,
            self.clusters[rows],
            similarity,
        )

    def kinds(self) -> list[Kind]:
        """Return what stands out in the books of each class that has no name of its own."""
        found = []
        for number, name in enumerate(self.class_names):
            mine = self.values[self.classes == number]
            if not name.startswith(NUMBERED) or not len(mine):
                continue
            mean = mine.mean(axis=0)
            most = sorted(range(len(mean)), key=lambda k: (-abs(float(mean[k])), self.names[k]))[:_MOST_TRAITS]
            traits = tuple((self.names[k], float(mean[k])) for k in most if abs(mean[k]) >= STANDS_OUT)
            found.append(Kind(name, len(mine), traits))
        return found

    def columns(self) -> dict[str, Floats]:
        """Return the columns that get a variance of their own in the mixed model."""
        found: dict[str, Floats] = {}
        if len(self.names) and len(self.book_ids) > len(self.names) + 2:
            found["features"] = self.values
        known = np.unique(self.clusters[self.clusters >= 0])
        if len(known) > 1:
            found["clusters"] = (self.clusters[:, None] == known[None, :]).astype(np.float64)
        return found


def describe(
    book_ids: Sequence[str], books: Mapping[str, Book], clusters: Mapping[str, int] | None = None
) -> Described:
    """Return what is known of some books; `books` may hold more, among them those of the eval set."""
    ids = tuple(book_ids)
    features, values = feature_matrix(ids, books)
    similarity = _similarity(ids, books)
    if SIMILARITY in features:  # a nuisance, never a finding: it is adjusted for
        at = features.index(SIMILARITY)
        similarity = values[:, at]
        features, values = (*features[:at], *features[at + 1 :]), np.delete(values, at, axis=1)
    of_design = np.array([(clusters or {}).get(b, -1) for b in ids], dtype=np.int64)
    classes, names = _classes(ids, books, values, of_design)
    return Described(ids, features, values, classes, names, of_design, similarity)


def feature_matrix(book_ids: Sequence[str], books: Mapping[str, Book]) -> tuple[tuple[str, ...], Floats]:
    """Return (names, values (B, F)) of the features in standard deviations over these books.

    A book without a feature counts as average; a feature that does not vary, or that few books have, is left out.
    """
    place: dict[str, int] = {}
    for book_id in book_ids:
        for name in books[book_id].features if book_id in books else ():
            place.setdefault(name, len(place))
    raw = np.full((len(book_ids), len(place)), np.nan)
    for row, book_id in enumerate(book_ids):
        if book_id in books:
            for name, value in books[book_id].features.items():
                raw[row, place[name]] = value
    raw[~np.isfinite(raw)] = np.nan
    names, columns = [], []
    for name in sorted(place):
        column = raw[:, place[name]]
        known = column[~np.isnan(column)]
        spread = float(known.std()) if len(known) else 0.0
        if len(known) < MIN_VALUES or spread <= _TINY * max(1.0, float(np.abs(known).max())):
            continue
        names.append(name)
        columns.append(np.nan_to_num((column - known.mean()) / spread, nan=0.0))
    return tuple(names), np.column_stack(columns) if columns else np.zeros((len(book_ids), 0))


def _classes(
    ids: Sequence[str], books: Mapping[str, Book], values: Floats, clusters: Ints
) -> tuple[Ints, tuple[str, ...]]:
    """Return at most eight classes of books: the design's clusters, else genres, else k-means on the features."""
    known = np.unique(clusters[clusters >= 0])
    if 2 <= len(known) <= MAX_CLASSES:
        place = {int(c): i for i, c in enumerate(known)}
        return np.array([place.get(int(c), -1) for c in clusters]), tuple(f"cluster {int(c)}" for c in known)
    genres = [books[b].genre if b in books else "" for b in ids]
    named = sorted({g for g in genres if g})
    counts = [genres.count(g) for g in named] if len(named) <= MAX_CLASSES else []
    if 2 <= len(named) <= MAX_CLASSES and min(counts) >= 2:
        return np.array([named.index(g) if g else -1 for g in genres]), tuple(named)
    if values.shape[1] and len(ids) >= 4 * MAX_CLASSES:
        label = _without_small(values, k_means(values, min(MAX_CLASSES, len(ids) // 8)))
        return label, tuple(f"class {i + 1}" for i in range(int(label.max()) + 1))
    return np.full(len(ids), -1), ()


def _without_small(values: Floats, label: Ints) -> Ints:
    """Return the classes, numbered by size, with books of very small ones in the nearest other: no class is a book."""
    n_kept = max(1, int(np.sum(np.bincount(label) >= MIN_BOOKS)))
    alone = label >= n_kept
    centres = np.array([values[label == c].mean(axis=0) for c in range(n_kept)])
    distance = np.sum(centres**2, axis=1)[None, :] - 2.0 * values[alone] @ centres.T
    result = label.copy()
    result[alone] = np.argmin(distance, axis=1)
    return result


def k_means(values: Floats, k: int) -> Ints:
    """Return the class of each row by Lloyd's k-means from farthest points; the same rows give the same classes.

    Classes are numbered by size, the largest first.
    """
    centres = [values[int(np.argmin(np.sum((values - values.mean(axis=0)) ** 2, axis=1)))]]
    nearest = np.full(len(values), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, np.sum((values - centres[-1]) ** 2, axis=1))
        centres.append(values[int(np.argmax(nearest))])
    middle = np.array(centres)
    label = np.zeros(len(values), dtype=np.int64)
    for _ in range(_KMEANS_STEPS):
        distance = np.sum(middle**2, axis=1)[None, :] - 2.0 * values @ middle.T
        fresh = np.argmin(distance, axis=1)
        if np.array_equal(fresh, label) and _:
            break
        label = fresh
        for c in range(k):
            if (label == c).any():
                middle[c] = values[label == c].mean(axis=0)
    order = np.argsort(-np.bincount(label, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    return rank[label]


def _similarity(ids: Sequence[str], books: Mapping[str, Book]) -> Floats:
    """Return how near each book's features lie to those of the eval books, standardised; empty where none are known.

    The distance to the nearest eval book, over features that both have, in standard deviations of the training books.
    """
    evaluated = sorted(b for b, book in books.items() if book.pool.startswith("eval"))
    if not evaluated:
        return np.zeros(0)
    names, values = feature_matrix([*ids, *evaluated], books)
    if not names:
        return np.zeros(0)
    mine, theirs = values[: len(ids)], values[len(ids) :]
    nearest = np.full(len(mine), np.inf)
    for row in theirs:
        nearest = np.minimum(nearest, np.mean((mine - row) ** 2, axis=1))
    closeness = -np.sqrt(nearest)
    spread = float(closeness.std())
    return np.asarray((closeness - closeness.mean()) / spread) if spread > _TINY else np.zeros(0)
