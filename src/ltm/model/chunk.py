"""How many rows of logits exist at once: what the loss trains by, and what forecasts reckon with. No torch here."""

from __future__ import annotations

# On a CPU 8 MiB in float32, small enough to stay in the cache; a GPU needs many rows to be busy, 1024 at a vocabulary
# of 32k.
_ELEMENTS = {"cpu": 1 << 21, "mps": 1 << 24, "cuda": 1 << 25}
# Each chunk reads and writes the whole gradient of the output layer: with fewer rows that outweighs what the cache
# saves (LOG.md: a third of the layer's time at a vocabulary of 32k).
_LEAST_ROWS = 256


def chunk_rows(vocab_size: int, device: str) -> int:
    """Return how many positions' logits are held at once.

    >>> chunk_rows(2048, "cpu"), chunk_rows(50_257, "cpu"), chunk_rows(32_768, "cuda")
    (1024, 256, 1024)
    """
    return max(_LEAST_ROWS, _ELEMENTS[device] // vocab_size)
