"""Features that compare a book with the rest of its library: its subject, its novelty, its nearness to the eval set.

Arrays in, arrays out: nothing here holds an object per book, because a library may have a million.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COMPONENTS = 16
DEFINITIONS: dict[str, str] = {
    "novelty": "share of the book's word 5-grams (a sample) that stand in no other book of the library",
    "eval_similarity": "cosine of the book's text vector and the mean one of the held-out books of its language, "
    "after the language's mean is taken off; a covariate, not a virtue",
    **{
        f"vector_{k:02d}": f"principal component {k} of the library's text vectors, means of languages taken off, "
        "standard deviation 1"
        for k in range(1, COMPONENTS + 1)
    },
}

Floats = npt.NDArray[np.float64]


def library_features(
    vectors: npt.NDArray[np.float32], languages: Sequence[str], held_out: npt.NDArray[np.bool_], novelty: Floats
) -> Floats:
    """Return the features of `DEFINITIONS` for all books, shape (n_books, len(DEFINITIONS)), all finite.

    Args:
        vectors: Text vectors, shape (n_books, D).
        languages: Of each book.
        held_out: Which books are in an eval pool.
        novelty: Of each book, 0 to 1.
    """
    centred = _without_language_means(vectors, languages)
    columns = [novelty, _eval_similarity(centred, languages, held_out), *_components(centred).T]
    return np.round(np.stack(columns, axis=1), 6) + 0.0


def _without_language_means(vectors: npt.NDArray[np.float32], languages: Sequence[str]) -> Floats:
    centred = vectors.astype(np.float64)
    names, which = np.unique(np.asarray(languages), return_inverse=True)
    for number in range(len(names)):
        rows = which == number
        centred[rows] -= centred[rows].mean(axis=0)
    return centred


def _eval_similarity(centred: Floats, languages: Sequence[str], held_out: npt.NDArray[np.bool_]) -> Floats:
    result = np.zeros(len(centred))
    named = np.asarray(languages)
    for language in np.unique(named):
        rows = named == language
        pool = centred[rows & held_out]
        if not len(pool):
            continue
        mean = pool.mean(axis=0)
        norms = np.linalg.norm(centred[rows], axis=1) * np.linalg.norm(mean)
        result[rows] = (centred[rows] @ mean) / np.where(norms > 0, norms, 1.0)
    return result


def _components(centred: Floats) -> Floats:
    """Return the first principal components, each with standard deviation 1 and the sign of its largest loading."""
    n_books, dimensions = centred.shape
    result = np.zeros((n_books, COMPONENTS))
    if n_books < 2:
        return result
    values, axes = np.linalg.eigh(centred.T @ centred / n_books)
    order = np.argsort(-values)[: min(COMPONENTS, n_books - 1, dimensions)]
    axes = axes[:, order]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(axes.shape[1])])
    scores = centred @ axes
    spread = scores.std(axis=0)
    keep = spread > 1e-9
    result[:, : len(order)][:, keep] = scores[:, keep] / spread[keep]
    return result
