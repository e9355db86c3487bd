"""Token ids to train on: drawn as words are, so that embeddings and loss meet frequent and rare ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POOL_TOKENS = 1 << 20
_SHIFT = 2.7  # Mandelbrot's correction of Zipf's law for the most frequent words


def zipf_tokens(vocab_size: int, count: int = POOL_TOKENS, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return ids whose frequency falls with their rank as 1 / (rank + 2.7), shape (count,); the same for a seed.

    Source:
        Mandelbrot 1953, An informational theory of the statistical structure of languages.
    """
    weights = 1.0 / (np.arange(vocab_size) + 1 + _SHIFT)
    ends = np.cumsum(weights) / weights.sum()
    drawn = np.random.default_rng(seed).random(count)
    return np.minimum(np.searchsorted(ends, drawn, side="right"), vocab_size - 1).astype(np.int64)
