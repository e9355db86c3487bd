"""A text as a vector: its words, damped and projected at random; near vectors mean books about like things.

Self-contained on purpose: no model is downloaded and nothing is learned from other text. The projection is fixed by the
words' hashes (random signs, Achlioptas 2003; hashed features, Weinberger et al. 2009), so that a book's vector does not
depend on the rest of the library; `ltm.books.library` turns the vectors of a library into a few principal components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ltm.books.words import Hashes, Words

DIMENSIONS = 128
_COMMON = 1 / 1000  # words more frequent than this are grammar, not content
_MAX_TYPES = 6_000

Vector = npt.NDArray[np.float32]


def vector(words: Words) -> Vector:
    """Return the unit vector of a text, shape (`DIMENSIONS`,); zeros for a text without content words."""
    uniques, counts = np.unique(words.hashes, return_counts=True)
    content = (counts >= 2) & (counts <= max(2.0, _COMMON * len(words)))
    uniques, counts = uniques[content], counts[content]
    if len(uniques) > _MAX_TYPES:
        top = np.argsort(-counts, kind="stable")[:_MAX_TYPES]
        uniques, counts = uniques[top], counts[top]
    weights = np.log1p(counts).astype(np.float32)
    total = weights @ _signs(uniques) if len(uniques) else np.zeros(DIMENSIONS, np.float32)
    length = float(np.linalg.norm(total))
    return (total / length if length else total).astype(np.float32)


def _signs(hashes: Hashes) -> npt.NDArray[np.float32]:
    """Return a row of random signs for every hash, shape (n, `DIMENSIONS`)."""
    second = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    pair = np.stack([hashes * np.uint64(0xBF58476D1CE4E5B9), second ^ (second >> np.uint64(31))], axis=1)
    bits = np.unpackbits(pair.astype("<u8").view(np.uint8), axis=1)
    return bits.astype(np.float32) * 2 - 1
