"""A score of how sound a text is, 0 to 1: a filter against bad scans and lists, not a judgement of literature.

The score is the product of soft limits, each 1 in the range where well-made books lie and falling outside it. The
ranges are those of the middle 98 % of 340 public-domain books in English and Russian (`bench/books_quality.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ltm.books.words import Words, class_table

_LIMITS: tuple[tuple[str, float, float, float], ...] = (  # feature, least, most, width of the fall
    ("mean_sentence_words", 5.0, 45.0, 15.0),
    ("mean_word_letters", 3.3, 6.6, 0.8),
    ("word_entropy", 7.2, 11.5, 0.8),
    ("compression_ratio", 0.24, 0.55, 0.06),
    ("common_word_share", 0.2, 0.65, 0.1),
    ("number_share", 0.0, 0.05, 0.05),
    ("foreign_share", 0.0, 0.1, 0.15),
)
_NOISE_WIDTH = 0.02
_SAMPLE_WORDS = 10_000


def noise_share(words: Words) -> float:
    """Return the share of words that no writer writes: digits or another alphabet inside, capitals in the middle."""
    if not len(words):
        return 0.0
    starts, ends = words.starts[:_SAMPLE_WORDS], words.ends[:_SAMPLE_WORDS]
    table = class_table()
    codes = words.codes[: ends[-1]]
    classes = table[np.minimum(codes, len(table) - 1)]
    letter, digit, upper = (classes & 1) != 0, (classes & 2) != 0, (classes & 4) != 0
    cyrillic = letter & (codes >= 0x400) & (codes < 0x530)
    latin = letter & (codes < 0x250)

    def has(mask: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(mask)
        count: np.ndarray = np.searchsorted(places, ends) - np.searchsorted(places, starts)
        return count

    n_upper, n_letters = has(upper), has(letter)
    lower_before = np.zeros(len(codes), dtype=bool)
    lower_before[1:] = upper[1:] & letter[:-1] & ~upper[:-1]
    mixed = (has(digit) > 0) & (n_letters > 2) | (has(cyrillic) > 0) & (has(latin) > 0)
    inner = (has(lower_before) > 0) & (n_upper < n_letters) & (n_letters > 3)
    return float((mixed | inner).mean())


def quality(features: Mapping[str, float], noise: float) -> float:
    """Return the score of a text from its features and its share of impossible words."""
    score = 1.0
    for name, least, most, width in _LIMITS:
        outside = max(least - features[name], features[name] - most, 0.0)
        score *= 1.0 / (1.0 + (outside / width) ** 2)
    return round(score / (1.0 + (noise / _NOISE_WIDTH) ** 2), 4)
