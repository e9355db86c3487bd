"""The words of a text as arrays: where they begin and end, a hash of each, whether it starts with a capital.

Everything that counts words (features, sketches of duplicates, text vectors) reads these arrays, so that a text is
taken apart once and in compiled code. A word is a run of letters and digits, joined by inner apostrophes and hyphens;
its hash does not see case, and takes the Russian letter io as ie, because printers do.

The hash is a polynomial over code points modulo 2^64, from running sums: the sum of a word is the difference of two of
them, and the power of its place is taken off by the inverse of the odd base.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

_CHUNK = 1 << 16  # characters hashed at a time: their arrays stay in the cache
_BASE = 0x9E3779B97F4A7C15 | 1
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LETTER, _DIGIT, _UPPER, _JOINER = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one text, in order; all arrays have one element a word."""

    codes: npt.NDArray[np.uint32]  # code points of the text
    starts: Places
    ends: Places
    hashes: Hashes
    capital: Bools  # the first letter is a capital

    def __len__(self) -> int:
        return len(self.starts)


def count_words(text: str) -> int:
    """Return the number of words: runs of letters and digits, joined by inner apostrophes and hyphens.

    >>> count_words("Don't look back, half-wit!")
    4
    """
    return len(_bounds(_classes(_codes(text)))[0])


def find_words(text: str) -> Words:
    """Take a text apart into words."""
    codes = _codes(text)
    classes = _classes(codes)
    starts, ends = _bounds(classes)
    capital = (classes[starts] & _UPPER) != 0
    return Words(codes, starts, ends, _hash(codes, starts, ends), capital)


def hash_words(words: Iterable[str]) -> Hashes:
    """Return the hashes that `find_words` gives to single words, sorted; for looking up lists of words."""
    joined = " ".join(words)
    return np.unique(find_words(joined).hashes) if joined else np.empty(0, np.uint64)


@functools.lru_cache(maxsize=2)
def lowered(text: str) -> str:
    """Return a text in lower case; most steps of cleaning leave a text as it is, and the next one asks again."""
    return text.lower()


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list written in one line."""
    return frozenset(text.split())


def belongs(values: Hashes, ascending: Hashes) -> Bools:
    """Tell which values are in a sorted list."""
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    place = np.searchsorted(ascending, values).clip(max=len(ascending) - 1)
    same: Bools = ascending[place] == values
    return same


def class_table() -> npt.NDArray[np.uint8]:
    """Return what every code point is, as bits: letter 1, digit 2, capital 4, apostrophe or hyphen 8."""
    return _tables()[0]


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype=np.uint32)


def _classes(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    table = _tables()[0]
    classes: npt.NDArray[np.uint8] = table[np.minimum(codes, len(table) - 1)]
    return classes


def _bounds(classes: npt.NDArray[np.uint8]) -> tuple[Places, Places]:
    inside = np.zeros(len(classes) + 2, dtype=bool)
    solid = (classes & (_LETTER | _DIGIT)) != 0
    inside[1:-1] = solid
    if len(classes) > 2:
        inside[2:-2] |= ((classes[1:-1] & _JOINER) != 0) & solid[:-2] & solid[2:]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _hash(codes: npt.NDArray[np.uint32], starts: Places, ends: Places) -> Hashes:
    if not len(starts):
        return np.empty(0, np.uint64)
    fold = _tables()[1]
    powers, inverse = _powers()
    out = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        base = int(starts[first])
        last = int(np.searchsorted(ends, base + _CHUNK, side="right"))
        last = max(last, first + 1)
        stop = min(int(ends[last - 1]), base + _CHUNK)  # a word longer than the chunk is hashed by its beginning
        values = fold[np.minimum(codes[base:stop], len(fold) - 1)].astype(np.uint64)
        values += np.uint64(1)
        values *= powers[: stop - base]
        sums = np.zeros(stop - base + 1, np.uint64)
        np.cumsum(values, out=sums[1:])
        begin, end = starts[first:last] - base, np.minimum(ends[first:last] - base, stop - base)
        out[first:last] = (sums[end] - sums[begin]) * inverse[begin]
        first = last
    out ^= out >> np.uint64(31)
    out *= _MIX
    out ^= out >> np.uint64(29)
    return out


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    base, inverse = np.uint64(_BASE), np.uint64(pow(_BASE, -1, 1 << 64))
    ones = np.ones(_CHUNK + 1, np.uint64)
    up, down = ones * base, ones * inverse
    up[0] = down[0] = 1
    return np.cumprod(up), np.cumprod(down)


@functools.cache
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return class and folded code point of every code point of the first plane; those above count as letters."""
    classes = np.zeros(0x10001, np.uint8)
    fold = np.arange(0x10001, dtype=np.uint32)
    for code in range(0x10000):
        if 0xD800 <= code < 0xE000:
            continue
        letter = chr(code)
        if letter.isalnum():
            classes[code] = _LETTER if letter.isalpha() else _DIGIT
            if letter.isupper() or letter.istitle():
                classes[code] |= _UPPER
            lower = letter.lower()
            fold[code] = ord(lower) if len(lower) == 1 else code
        elif unicodedata.category(letter).startswith("M"):
            classes[code] = _LETTER  # an accent written apart belongs to its word
    for joiner in "'’-‐":
        classes[ord(joiner)] = _JOINER
        fold[ord(joiner)] = ord("'") if joiner in "'’" else ord("-")
    fold[ord("ё")] = fold[ord("Ё")] = ord("е")
    classes[0x10000] = _LETTER
    return classes, fold
