"""Find held-out text that training books also contain: 13 words in a row in common.

Source of the rule: the 13-gram overlap test of GPT-3 and of lm-evaluation-harness. Held-out n-grams are collected
first and training books streamed past them, so that memory follows the held-out books and not the library.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

N_GRAM = 13
_WORD = re.compile(r"\w+")
_MULTIPLIER = 0x9E3779B97F4A7C15
_SIEVE_BITS = 26  # 64 MB; five million n-grams of a hundred held-out books fill a twelfth of it
_SIEVE_SHIFT = np.uint64(64 - _SIEVE_BITS)
_SAMPLE_CHARS = 30_000  # of each training book, for word frequencies

Hashes = NDArray[np.uint64]


class Overlap:
    """Which n-grams of held-out books also stand in training books, and which words training books use."""

    def __init__(self, held_out: Iterable[str]) -> None:
        self._word_hashes: dict[str, int] = {}
        pieces = [self._ngrams(text) for text in held_out]
        self._held_out: Hashes = np.sort(np.concatenate(pieces)) if pieces else np.empty(0, np.uint64)
        self._maybe = np.zeros(1 << _SIEVE_BITS, dtype=bool)  # most n-grams of training books fall through here
        self._maybe[self._held_out >> _SIEVE_SHIFT] = True
        self._found = np.zeros(len(self._held_out), dtype=bool)
        self._shared: Hashes | None = None  # held-out n-grams found in training; made when first asked for
        self.words: set[str] = set()  # of training and held-out books, in small letters
        self.words.update(self._word_hashes)
        self.word_counts: dict[str, Counter[str]] = {}  # by language, in small letters

    def add_training(self, text: str, language: str) -> None:
        """Stream one training book past the held-out n-grams."""
        self._shared = None
        words = _WORD.findall(text.lower())
        self.words.update(words)
        counts = self.word_counts.setdefault(language, Counter())
        middle = max(0, (len(text) - _SAMPLE_CHARS) // 2)
        counts.update(_WORD.findall(text[middle : middle + _SAMPLE_CHARS].lower()))
        grams = self._hash(words)
        grams = grams[self._maybe[grams >> _SIEVE_SHIFT]]
        if len(grams):
            hits = grams[_present(grams, self._held_out)]
            self._found[np.searchsorted(self._held_out, hits)] = True

    def contains(self, texts: Sequence[str]) -> bool:
        """Say whether any text shares 13 words in a row with a training book."""
        if self._shared is None:
            self._shared = self._held_out[self._found]
        shared = self._shared
        if not len(shared):
            return False
        return any(bool(_present(self._ngrams(text), shared).any()) for text in texts)

    def _ngrams(self, text: str) -> Hashes:
        return self._hash(_WORD.findall(text.lower()))

    def _hash(self, words: Sequence[str]) -> Hashes:
        known = self._word_hashes
        for word in {word for word in words if word not in known}:
            known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        values = np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))
        n = len(values) - N_GRAM + 1
        if n <= 0:
            return np.empty(0, np.uint64)
        total = np.zeros(n, np.uint64)
        factor = np.array([_MULTIPLIER], np.uint64)
        for offset in range(N_GRAM):
            total = total * factor + values[offset : offset + n]
        return total


def _present(values: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    place = np.searchsorted(ascending, values).clip(max=len(ascending) - 1)
    same: NDArray[np.bool_] = ascending[place] == values
    return same
