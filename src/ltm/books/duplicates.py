"""Find books whose text is already in the library: the same text exactly, or most of it.

A sketch of a book is the set of those hashes of its word 5-grams that fall below a fixed threshold (FracMinHash, Irber
et al. 2022; the idea is Broder's MinHash, 1997). Unlike a sketch of fixed size it measures containment, so that a
truncated copy, a copy full of reading errors or a story inside a collection is found too: a book that reached both the
training and the eval pool would make every score of it worthless.

The sample gets thinner as the library grows, so that the index of a million novels fits in memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ltm.books.words import Hashes, Words, find_words

_SHINGLE_WORDS = 5
_KEEP_ONE_IN = 100
_DENSE_WORDS = 20_000  # shorter texts (stories, poems) are sampled more densely
_DENSE_ONE_IN = 8
_MIN_SHARED = 10  # fewer common hashes are chance
_MIN_THIN = 4  # in the sample of long books, where a story of 700 words has 7
CONTAINED = 0.6  # share of the smaller text that must be in the other
_NOISY = 0.28  # so little is enough where it lies evenly over the text: a copy full of reading errors
_BINS = 16  # parts of a text in which evenness is looked at
_EVEN_BINS = 0.85  # share of the parts that must have their share
MAX_INDEX = 60_000_000  # hashes held in memory (13 bytes each); above it the sample is halved
_MIX = np.uint64(0x9E3779B97F4A7C15)
_TOP = 2**64

Owners = npt.NDArray[np.int32]
Bins = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is compared of a book."""

    exact: str  # hash of its words alone
    hashes: Hashes  # sorted sample of its 5-gram hashes; of short texts one in 8, of long ones one in 100
    bins: Bins  # in which of the text's parts each hash first stands
    n_words: int


def sketch(text: str | Words) -> Sketch:
    """Return the sketch of a text; case, punctuation and spaces do not count."""
    words = find_words(text) if isinstance(text, str) else text
    exact = hashlib.sha256(words.hashes.tobytes()).hexdigest()
    stream = words.hashes
    n = len(stream) - _SHINGLE_WORDS + 1
    if n < 1:
        return Sketch(exact, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint8), len(stream))
    mixed = np.zeros(n, dtype=np.uint64)
    for place in range(_SHINGLE_WORDS):  # unsigned arithmetic wraps around, as a hash wants
        mixed ^= stream[place : place + n]
        mixed *= _MIX
        mixed ^= mixed >> np.uint64(29)
    one_in = _DENSE_ONE_IN if n < _DENSE_WORDS else _KEEP_ONE_IN
    places = np.flatnonzero(mixed < np.uint64(_TOP // one_in))
    hashes, first = np.unique(mixed[places], return_index=True)
    return Sketch(exact, hashes, (places[first] * _BINS // n).astype(np.uint8), len(stream))


@dataclass(frozen=True, slots=True)
class Match:
    """A kept book that shares text with another one."""

    owner: int  # number of the kept book
    of_new: float  # share of the new book's text that is in the kept one, 0 to 1
    of_kept: float  # share of the kept book's text that is in the new one
    exact: bool = False


@dataclass
class DuplicateFinder:
    """Remembers the sketches of the books that were kept; a book is known by the number that `add` returns."""

    threshold: int = _TOP // _DENSE_ONE_IN  # hashes below it are in the index
    _exact: dict[str, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=list)
    _dense: list[bool] = field(default_factory=list)
    _blocks: list[tuple[Hashes, Owners, Bins]] = field(default_factory=list)  # each sorted by hash, sizes falling

    def find(self, candidate: Sketch) -> list[Match]:
        """Return the kept books that share most of the smaller text, the greatest share first."""
        if candidate.exact in self._exact:
            return [Match(self._exact[candidate.exact], 1.0, 1.0, exact=True)]
        owner, at, bins = self._shared(candidate.hashes)
        thin = candidate.hashes[at] < np.uint64(_TOP // _KEEP_ONE_IN)
        found = []
        for number in np.unique(owner).tolist():
            mine = owner == number
            if not (self._dense[number] and _is_dense(candidate)):
                mine &= thin
            match = self._match(candidate, number, at[mine], bins[mine])
            if match is not None:
                found.append(match)
        return sorted(found, key=lambda match: (-max(match.of_new, match.of_kept), match.owner))

    def add(self, kept: Sketch) -> int:
        """Remember a book that stays and return its number."""
        number = len(self._sizes)
        self._exact[kept.exact] = number
        self._sizes.append(kept.n_words)
        self._dense.append(_is_dense(kept))
        n = int(np.searchsorted(kept.hashes, np.uint64(self.threshold)))
        self._blocks.append((kept.hashes[:n], np.full(n, number, np.int32), kept.bins[:n]))
        # blocks of like size are merged, as in a log-structured index: each hash is moved a few times in all
        while len(self._blocks) > 1 and len(self._blocks[-1][0]) * 2 > len(self._blocks[-2][0]):
            self._merge_last_two()
        if sum(len(block[0]) for block in self._blocks) > MAX_INDEX:
            self._thin_out()
        return number

    def novelty(self, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Return for each kept book the share of its sampled 5-grams that no other book of `numbers` has."""
        while len(self._blocks) > 1:
            self._merge_last_two()
        if not self._blocks:
            return np.zeros(len(numbers))
        hashes, owners, _ = self._blocks[0]
        wanted = np.zeros(len(self._sizes), dtype=bool)
        wanted[numbers] = True
        # one density for all, or long books would never repeat short ones
        use = wanted[owners] & (hashes < np.uint64(min(self.threshold, _TOP // _KEEP_ONE_IN)))
        hashes, owners = hashes[use], owners[use]
        alone = np.ones(len(hashes), dtype=bool)
        same = hashes[1:] == hashes[:-1]
        alone[1:] &= ~same
        alone[:-1] &= ~same
        total = np.bincount(owners, minlength=len(self._sizes))[numbers]
        new = np.bincount(owners[alone], minlength=len(self._sizes))[numbers]
        result: npt.NDArray[np.float64] = new / np.maximum(total, 1)
        return result

    def _shared(self, hashes: Hashes) -> tuple[Owners, npt.NDArray[np.int64], Bins]:
        """Return every place of a hash in a kept book: the book, the index of the hash, the part of the book."""
        hashes = hashes[: int(np.searchsorted(hashes, np.uint64(self.threshold)))]
        owner, at, bins = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
        for block, owners, parts in self._blocks:
            low, high = np.searchsorted(block, hashes, "left"), np.searchsorted(block, hashes, "right")
            for offset in range(int((high - low).max(initial=0))):
                hit = np.flatnonzero(low + offset < high)
                owner.append(owners[low[hit] + offset])
                bins.append(parts[low[hit] + offset])
                at.append(hit)
        return np.concatenate(owner), np.concatenate(at), np.concatenate(bins)

    def _match(self, candidate: Sketch, owner: int, at: npt.NDArray[np.int64], bins: Bins) -> Match | None:
        both_dense = self._dense[owner] and _is_dense(candidate)
        if len(at) < (_MIN_SHARED if both_dense else _MIN_THIN):
            return None
        rate = min(self.threshold, _TOP // (_DENSE_ONE_IN if both_dense else _KEEP_ONE_IN)) / _TOP
        words = len(at) / rate
        of_new = min(1.0, words / max(candidate.n_words, 1))
        of_kept = min(1.0, words / max(self._sizes[owner], 1))
        share = max(of_new, of_kept)
        if share < _NOISY or (share < CONTAINED and not _is_even(candidate.bins[at] if of_new >= of_kept else bins)):
            return None
        return Match(owner, of_new, of_kept)

    def _merge_last_two(self) -> None:
        last, first = self._blocks.pop(), self._blocks.pop()
        hashes = np.concatenate([first[0], last[0]])
        order = np.argsort(hashes, kind="stable")
        owners, bins = (np.concatenate([first[k], last[k]])[order] for k in (1, 2))
        self._blocks.append((hashes[order], owners, bins))

    def _thin_out(self) -> None:
        self.threshold //= 2
        cuts = [int(np.searchsorted(block[0], np.uint64(self.threshold))) for block in self._blocks]
        self._blocks = [(h[:n], o[:n], b[:n]) for (h, o, b), n in zip(self._blocks, cuts, strict=True)]


def _is_even(bins: Bins) -> bool:
    """Tell whether shared text lies all over a book: two collections share whole stories, a bad copy bits of all."""
    counts = np.bincount(bins, minlength=_BINS)
    return bool((counts >= 0.3 * len(bins) / _BINS).mean() >= _EVEN_BINS)


def _is_dense(of: Sketch) -> bool:
    return of.n_words - _SHINGLE_WORDS + 1 < _DENSE_WORDS
