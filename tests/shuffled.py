"""A damaged book: the words of a real one in random order."""

import numpy as np


def shuffled_words(text: str, seed: int) -> str:
    """Return the same words in random order, in lines of equal length: a book that teaches no grammar."""
    words = np.array(text.split())
    np.random.default_rng(seed).shuffle(words)
    return "\n\n".join(" ".join(words[i : i + 25]) for i in range(0, len(words), 25))
