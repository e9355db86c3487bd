"""The token stream of a variant: an index list over the one token file, read piece by piece in exactly that order.

Reads: `tokens/tokens.bin`, `tokens/shards.parquet`, one Variant. Nothing is copied or shuffled beyond what the
variant says: a book's excerpt, its gaps, the order of the books, and for `shuffled` the order of all passages, are
drawn from the variant's `stream_seed` alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm.errors import DataError
from ltm.records import Shard, Variant
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder
from ltm.tokens.index import read_index
from ltm.tokens.token_file import token_dtype

Segments = npt.NDArray[np.int64]  # shape (n, 2): first token in the file, number of tokens; start -1 = a start mark
IntArray = npt.NDArray[np.int64]
Piece = tuple[int, int, int]  # first token in the file, number of tokens, place of the book in the variant

_BLOCK_PASSAGES = 8  # passages in one dropped block
_FEWEST_UNITS = 8  # of a window: at the smallest density two or more are kept, with a gap between most of them
_CHAPTER_TOKENS = 2000  # stands in for chapters in books that have none


class Stream:
    """A variant's tokens as one long sequence that is read by position."""

    def __init__(self, tokens: npt.NDArray[Any], segments: Segments, bos_id: int) -> None:
        self.tokens = tokens
        self.segments = segments
        self.bos_id = bos_id
        self._ends = np.cumsum(segments[:, 1])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, count: int) -> IntArray:
        """Return `count` token ids from position `start`, shape (count,).

        Raises:
            DataError: the stream is shorter than that.
        """
        if start < 0 or start + count > len(self):
            raise DataError(f"stream has {len(self)} tokens; asked for {start}..{start + count}")
        out = np.empty(count, dtype=np.int64)
        filled = 0
        row = int(np.searchsorted(self._ends, start, side="right"))
        while filled < count:
            first, length = self.segments[row]
            offset = start + filled - (int(self._ends[row]) - int(length))
            take = min(int(length) - offset, count - filled)
            piece = self.bos_id if first < 0 else self.tokens[first + offset : first + offset + take]
            out[filled : filled + take] = piece
            filled += take
            row += 1
        return out

    def places(self, start: int, count: int) -> list[int]:
        """Return where in the token file the pieces begin that hold these positions, start marks left out."""
        first, last = np.searchsorted(self._ends, [start, start + count - 1], side="right")
        return [int(place) for place in self.segments[first : last + 1, 0] if place >= 0]


def open_stream(
    work: WorkFolder, variant: Variant, settings: SetsSection, shards: Mapping[str, Shard], bos_id: int, vocab_size: int
) -> Stream:
    """Return the stream of a variant over the memory-mapped token file; one token longer than the budget."""
    tokens = np.memmap(work.path("tokens", "tokens.bin"), dtype=token_dtype(vocab_size), mode="r")
    return Stream(tokens, segments(variant, settings, shards), bos_id)


def read_shards(work: WorkFolder) -> Mapping[str, Shard]:
    """Return the token index by book id."""
    return read_index(work.path("tokens", "shards.parquet"))


def segments(variant: Variant, settings: SetsSection, shards: Mapping[str, Shard]) -> Segments:
    """Return the index list of a variant: `run_tokens` + 1 tokens, in the order in which the model sees them.

    Sparse sets are shorter and are read more often, so that steps and tokens are equal for all runs. The last reading
    takes an equal share of every book, so that no book weighs more than another.

    Raises:
        DataError: a book of the variant has no tokens.
    """
    books = []
    for place, book_id in enumerate(variant.book_ids):
        shard = shards.get(book_id)
        if shard is None or shard.n_tokens == 0:
            raise DataError(f"book {book_id} has no tokens", "delete the tokens folder and run again")
        rng = np.random.default_rng([variant.stream_seed, int(book_id[:8], 16)])
        books.append([(first, n, place) for first, n in _book_pieces(variant, settings, shard, rng)])
    wanted = settings.run_tokens + 1
    if variant.spacing == 0 and variant.order != "shuffled":
        return _cut(np.array(_marked(_coming_back(books, wanted)), dtype=np.int64), wanted)
    rng = np.random.default_rng([variant.stream_seed, 0x0DE5])
    length = sum(n for book in books for _, n, _ in book)
    rows: list[tuple[int, int]] = []
    have = 0
    while have < wanted:
        share = min(1.0, (wanted - have) / length)
        epoch = _marked(_arranged(variant, settings, [_first_share(book, share) for book in books], rng))
        have += sum(n for _, n in epoch)
        rows += epoch
    return _cut(np.array(rows, dtype=np.int64), wanted)


def _coming_back(books: Sequence[Sequence[Piece]], wanted: int) -> list[Piece]:
    """Return spaced repetition: reading r of book i comes where book i + 2 ** r - 1 is read for the first time.

    So a book comes back after 1, then 2, then 4 more books (expanding rehearsal, Landauer and Bjork 1978). As many
    readings as in whole epochs one after another; the last one, too, takes an equal share of every book.
    """
    length = sum(n for book in books for _, n, _ in book)
    whole = max(0, wanted // (length + len(books)))  # every reading of a book has a start mark
    left = wanted - whole * (length + len(books)) - len(books)
    readings = [1.0] * whole + [max(1.0, left) / length]
    visits = sorted((i + 2**r - 1, r, i) for r in range(len(readings)) for i in range(len(books)))
    return [piece for _, r, i in visits for piece in _first_share(books[i], readings[r])]


def _first_share(book: Sequence[Piece], share: float) -> list[Piece]:
    """Return the first part of what an epoch reads of a book, rounded up."""
    left = math.ceil(share * sum(n for _, n, _ in book))
    kept: list[Piece] = []
    for first, n, place in book:
        if left <= 0:
            break
        kept.append((first, min(n, left), place))
        left -= n
    return kept


def _book_pieces(
    variant: Variant, settings: SetsSection, shard: Shard, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Return what one epoch reads of one book: (start, length) pieces, repeated when the book is below its quota."""
    quota = settings.book_tokens
    window = min(quota, shard.n_tokens)
    start = int(rng.integers(0, shard.n_tokens - window + 1))
    kept = _sparse(variant, settings, shard, start, window, rng)
    wanted = max(1, round(quota * variant.density))
    pieces: list[tuple[int, int]] = []
    have = 0
    while have < wanted:
        for first, length in kept:
            take = min(length, wanted - have)
            if take > 0:
                pieces.append((shard.start + first, take))
                have += take
    return pieces


def _sparse(
    variant: Variant, settings: SetsSection, shard: Shard, start: int, window: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Return which parts of a book's window a gap kind keeps, as (offset in the book, length), in book order."""
    wanted = max(1, round(window * variant.density))
    if variant.gap_kind == "none" or wanted >= window:
        return [(start, window)]
    if variant.gap_kind == "head":
        return [(start, wanted)]
    if variant.gap_kind == "truncated":
        return [(start + int(rng.integers(0, window - wanted + 1)), wanted)]
    units = _units(variant.gap_kind, settings, shard, start, window)
    return _keep_units(units, wanted, rng)


def _units(kind: str, settings: SetsSection, shard: Shard, start: int, window: int) -> list[tuple[int, int]]:
    if kind == "chapters":
        inside = [c for c in shard.chapter_starts if start < c < start + window]
        bounds = [start, *inside, start + window]
        if len(bounds) < 4:  # fewer than three chapters: nothing to drop by chapter
            size = min(_CHAPTER_TOKENS, max(1, window // _FEWEST_UNITS))
            bounds = [*range(start, start + window, size), start + window]
    else:
        size = settings.passage_tokens * (_BLOCK_PASSAGES if kind == "blocks" else 1)
        size = min(size, max(1, window // _FEWEST_UNITS))
        bounds = [*range(start, start + window, size), start + window]
    return [(a, b - a) for a, b in itertools.pairwise(bounds)]


def _keep_units(units: Sequence[tuple[int, int]], wanted: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Keep random units until `wanted` tokens are kept; the last one is cut, and neighbours are joined."""
    kept: dict[int, int] = {}
    have = 0
    for index in rng.permutation(len(units)):
        take = min(units[index][1], wanted - have)
        if take <= 0:
            break
        kept[int(index)] = take
        have += take
    joined: list[tuple[int, int]] = []
    for index in sorted(kept):
        first, length = units[index][0], kept[index]
        if joined and sum(joined[-1]) == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((first, length))
    return joined


def _arranged(
    variant: Variant, settings: SetsSection, books: Sequence[Sequence[Piece]], rng: np.random.Generator
) -> list[Piece]:
    """Return one epoch: books one after another, in turns of `spacing` books, or all passages mixed."""
    if variant.order == "shuffled":
        passages = [p for book in books for p in _passages(book, settings.passage_tokens)]
        return [passages[i] for i in rng.permutation(len(passages))]
    if variant.spacing == 1:
        return [piece for book in books for piece in book]
    result: list[Piece] = []
    for first in range(0, len(books), variant.spacing):
        queues = [_passages(book, settings.passage_tokens) for book in books[first : first + variant.spacing]]
        for turn in range(max(len(queue) for queue in queues)):
            result += [queue[turn] for queue in queues if turn < len(queue)]
    return result


def _passages(book: Sequence[Piece], size: int) -> list[Piece]:
    return [(s, min(size, first + n - s), place) for first, n, place in book for s in range(first, first + n, size)]


def _marked(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Put a start mark where another book begins, or the same one begins anew.

    A gap inside a book gets none: the arm with gaps must not have more marks than its control without.
    """
    result: list[tuple[int, int]] = []
    end, last = -1, -1
    for first, length, place in pieces:
        if place == last and first == end:
            result[-1] = (result[-1][0], result[-1][1] + length)
        elif place == last and first > end:
            result.append((first, length))
        else:
            result += [(-1, 1), (first, length)]
        end, last = first + length, place
    return result


def _cut(index: Segments, wanted: int) -> Segments:
    """Return the index list cut to exactly `wanted` tokens."""
    ends = np.cumsum(index[:, 1])
    rows = int(np.searchsorted(ends, wanted)) + 1
    index = index[:rows].copy()
    index[-1, 1] -= int(ends[rows - 1]) - wanted
    return index
