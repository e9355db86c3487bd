"""Find books whose text is already in the library: the same text exactly, or most of it.

A sketch of a book is the set of those hashes of its word 5-grams that fall below a fixed threshold (FracMinHash, Irber
et al. 2022; the idea is Broder's MinHash, 1997). Unlike a sketch of fixed size it measures containment, so that an
abridged edition or a play inside collected works is found too: a book that reached both the training and the eval
pool would make every score of it worthless.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_SHINGLE_WORDS = 5
_KEEP_ONE_IN = 100
_MIN_SHARED = 10  # fewer common hashes are chance; books below about 1,000 words are compared exactly only
CONTAINED = 0.5  # share of the smaller book that must be in the other
_WORD = re.compile(r"[^\W_]+")
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is compared of a book."""

    exact: str  # hash of its letters alone
    hashes: npt.NDArray[np.uint64]  # sorted sample of its 5-gram hashes


def sketch(text: str) -> Sketch:
    """Return the sketch of a text; case, punctuation and spaces do not count."""
    words = _WORD.findall(text.casefold())
    exact = hashlib.sha256(" ".join(words).encode()).hexdigest()
    codes = {word: int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) for word in set(words)}
    stream = np.fromiter((codes[word] for word in words), dtype=np.uint64, count=len(words))
    n = len(stream) - _SHINGLE_WORDS + 1
    if n < 1:
        return Sketch(exact, np.empty(0, dtype=np.uint64))
    mixed = np.zeros(n, dtype=np.uint64)
    for place in range(_SHINGLE_WORDS):  # unsigned arithmetic wraps around, as a hash wants
        mixed = (mixed ^ stream[place : place + n]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    kept = np.unique(mixed[mixed < np.uint64(2**64 // _KEEP_ONE_IN)])
    return Sketch(exact, kept)


@dataclass
class DuplicateFinder:
    """Remembers the sketches of the books that were kept."""

    _exact: dict[str, str] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _owners: dict[int, list[int]] = field(default_factory=dict)  # hash -> kept books

    def find(self, candidate: Sketch, exact_only: bool = False) -> str | None:
        """Return in words which kept book this one repeats, or None."""
        if candidate.exact in self._exact:
            return f"the same text as {self._exact[candidate.exact]}"
        if exact_only:
            return None
        shared = Counter(owner for value in candidate.hashes.tolist() for owner in self._owners.get(value, ()))
        best = (0.0, -1)
        for owner, count in sorted(shared.items()):
            share = count / min(len(candidate.hashes), self._sizes[owner])
            if count >= _MIN_SHARED and share >= CONTAINED and share > best[0]:
                best = (share, owner)
        if best[1] < 0:
            return None
        other, size = self._names[best[1]], self._sizes[best[1]]
        if len(candidate.hashes) > 1.5 * size:
            return f"about {best[0]:.0%} of {other} is inside this book"
        return f"about {best[0]:.0%} of it is the text of {other}"

    def add(self, kept: Sketch, name: str) -> None:
        """Remember a book that stays."""
        self._exact[kept.exact] = name
        for value in kept.hashes.tolist():
            self._owners.setdefault(value, []).append(len(self._names))
        self._names.append(name)
        self._sizes.append(len(kept.hashes))
