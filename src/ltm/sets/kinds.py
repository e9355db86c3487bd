"""Kinds of books: clusters by features, and how alike books are.

Reads: a Shelf. Writes: nothing. Dispersed sets lean towards clusters, and orders by similarity go from book to book;
both look at the same standardised features. Clusters are k-means on a sample (Lloyd, from random books), then every
book goes to its nearest centre: exact enough for groups to draw from, and seconds for a million books.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ltm.sets.shelf import Ints, Shelf

Vectors = npt.NDArray[np.float32]

_SAMPLE = 20_000  # books that the centres are found from
_ROUNDS = 12
_CHUNK = 20_000  # books whose distances are in memory at once
_MOST_SD = 3.0  # an odd book shall not be a kind of its own
_NAMED_WEIGHT = 2.0  # of one genre or language against another, in standard deviations of a feature
_MOST_NAMES = 40  # genres or languages with a column each; rarer ones share none
_FEWEST_CLUSTERS, _MOST_CLUSTERS = 64, 256
_FEWEST_BOOKS = 8  # in a cluster on average


def n_clusters(section_clusters: int, n_books: int) -> int:
    """Return how many kinds of books to tell apart: as set, or 64 at 1,000 books to 256 from 100,000 on."""
    wanted = section_clusters
    if not wanted:
        grown = _FEWEST_CLUSTERS * (n_books / 1000) ** (np.log(4) / np.log(100))
        wanted = int(np.clip(round(grown), _FEWEST_CLUSTERS, _MOST_CLUSTERS))
    return max(1, min(wanted, n_books // _FEWEST_BOOKS))


def vectors(shelf: Shelf) -> Vectors:
    """Return one row per book: standardised features (0 where not known, at most 3 sd), genre, language."""
    named = []
    for codes in (shelf.genre_B, shelf.language_B):
        counts = np.bincount(codes[codes >= 0], minlength=1)
        if (counts > 0).sum() > 1:
            named.append((codes, np.argsort(-counts, kind="stable")[:_MOST_NAMES]))
    n, width = shelf.features_BF.shape
    rows_BV = np.empty((n, width + sum(len(common) for _, common in named)), dtype=np.float32)
    _standardise(shelf.features_BF, rows_BV[:, :width])
    for codes, common in named:
        np.multiply(codes[:, None] == common, np.float32(_NAMED_WEIGHT), out=rows_BV[:, width : width + len(common)])
        width += len(common)
    return rows_BV


def _standardise(features_BF: npt.NDArray[np.float32], out_BF: Vectors) -> None:
    """Write the features in standard deviations; piece by piece, so that a million books need no second copy."""
    pieces = [slice(start, start + _CHUNK) for start in range(0, len(features_BF), _CHUNK)]
    count = np.maximum(sum(np.isfinite(features_BF[piece]).sum(axis=0) for piece in pieces), 1)
    total = np.zeros(features_BF.shape[1])
    for piece in pieces:
        out_BF[piece] = np.where(np.isfinite(features_BF[piece]), features_BF[piece], np.float32(0))
        total += out_BF[piece].sum(axis=0, dtype=np.float64)
    mean = (total / count).astype(np.float32)
    squares = np.zeros(features_BF.shape[1])
    for piece in pieces:
        out_BF[piece] -= mean
        out_BF[piece][~np.isfinite(features_BF[piece])] = 0
        squares += np.einsum("bf,bf->f", out_BF[piece], out_BF[piece], dtype=np.float64)
    sd = np.sqrt(squares / count)
    scale = np.where(sd > 1e-12, sd, 1.0).astype(np.float32)
    for piece in pieces:
        out_BF[piece] /= scale
        np.clip(out_BF[piece], -_MOST_SD, _MOST_SD, out=out_BF[piece])


def clusters(rows_BV: Vectors, count: int, rng: np.random.Generator) -> Ints:
    """Return the cluster of every book, 0 .. count - 1, none of them empty.

    Books that cannot be told apart (no features, or the same ones) are divided at random.
    """
    n = len(rows_BV)
    if count <= 1:
        return np.zeros(n, dtype=np.int64)
    noise = rng.standard_normal((n, 1)).astype(np.float32) * np.float32(1e-3)  # parts what is equal, evenly
    chosen = rng.choice(n, min(n, _SAMPLE), replace=False)
    sample = np.concatenate([rows_BV[chosen], noise[chosen]], axis=1)
    centres = sample[:count].copy()
    for _ in range(_ROUNDS):
        nearest = _nearest(sample[:, :-1], sample[:, -1:], centres)
        sizes = np.bincount(nearest, minlength=count)
        for axis in range(sample.shape[1]):
            total = np.bincount(nearest, weights=sample[:, axis], minlength=count)
            centres[:, axis] = np.where(sizes > 0, total / np.maximum(sizes, 1), centres[:, axis])
        for empty in np.flatnonzero(sizes == 0):  # an empty one takes a random book of the largest
            members = np.flatnonzero(nearest == sizes.argmax())
            centres[empty] = sample[members[int(rng.random() * len(members))]]
    found = _nearest(rows_BV, noise, centres)
    used, dense = np.unique(found, return_inverse=True)
    return _filled_up(dense.astype(np.int64), len(used), count)


def _filled_up(cluster_B: Ints, used: int, count: int) -> Ints:
    """Halve the largest clusters until there are as many as are wanted."""
    cluster_B = cluster_B.copy()
    for new in range(used, count):
        sizes = np.bincount(cluster_B)
        if sizes.max() < 2:
            break
        members = np.flatnonzero(cluster_B == sizes.argmax())
        cluster_B[members[len(members) // 2 :]] = new
    return cluster_B


def _nearest(rows_BV: Vectors, noise_B1: Vectors, centres: Vectors) -> Ints:
    norms = (centres**2).sum(axis=1)
    result = np.empty(len(rows_BV), dtype=np.int64)
    for start in range(0, len(rows_BV), _CHUNK):
        piece = slice(start, start + _CHUNK)
        points = np.concatenate([rows_BV[piece], noise_B1[piece]], axis=1)
        result[piece] = (norms - 2 * points @ centres.T).argmin(axis=1)
    return result
