"""Items as tokens, laid out so that a prefix that cells share is computed once; made once for all models of a study.

A cell's input is <bos> + context + continuation without its last token. Context and continuation are turned into tokens
apart, so that the boundary is the same for every option, and the continuation carries the white space that joins them.
Equal cells are one request. The inputs of all requests are sorted, and neighbours that begin alike become one tree of
tokens (a trie), written depth first into rows: a token sees those before it whose branch it stands on, and the four
options of a choice cost their context once. Rows come in three layouts. For a compiler they have one width, so that
every forward pass has the same shape. For a mask of the whole row, as GPUs and other models want it, they are as wide
as their largest tree, since attention costs the square of the width; in both trees fill the rows by best fit. For a CPU
each row is a forward pass of its own, without padding: there attention reads the keys of a branch alone.

A context that does not fit the block is cut from the left, and where that may have cut off what the question is about
(all rules but gain, bits_per_byte) the cell has no answer: its log-probability is NaN. A continuation that does not fit
alone is cut from the right at a word, and its bytes are counted as cut. Letters: R rows, W width of a row in tokens,
N predicted tokens, Q requests, C cells.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ltm.errors import DataError
from ltm.records import Item
from ltm.scores.rules import CUT_IS_FINE, WITHOUT_LOGPROBS

LEAST_SHARED = 4  # tokens; a shorter common beginning is not worth the same row
_WIDTH_STEP = 64
_NARROW_STEP = 32
_FLAT_STEP = 16
_LARGEST_TREE = 2  # rows: a larger tree is cut, and its parts share nothing
_TREE_TOKENS = 384  # of a tree in a row of its own width: larger ones share more, and pay more for attention
_WORD_END = re.compile(r"\S+")

Ints = NDArray[np.int64]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Trees of tokens in rows of one width, and which tokens they predict, in the order of the rows."""

    tokens_RW: Ints
    depth_RW: Ints  # place of a token in its own text, from 0
    end_RW: Ints  # a token is seen by the places from its own to this one, exclusive
    place_N: Ints  # row x W + column that predicts the token
    target_N: Ints
    request_N: Ints
    first_R: Ints  # where the predictions of each row begin in the three arrays above; one more entry for the end

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return int(self.tokens_RW.shape[1])


@dataclass(frozen=True)
class Plan:
    """Items as requests; the same for every model with this tokenizer and block size."""

    bos_id: int
    width: int  # of the rows of one width, in tokens
    requests: list[tuple[Tokens, Tokens]]  # context and continuation
    item_ids: list[str]  # per cell, as all that follow
    cells: Ints
    request_of: Ints  # -1: the cell is answered another way (generate, adapt)
    n_bytes: Ints
    n_tokens: Ints
    n_context_tokens: Ints
    lost: NDArray[np.bool_]  # without an answer: the context was cut, and the premise may have gone
    n_cut_contexts: int
    n_cut_continuations: int
    _flat: dict[int, list[Rows]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> Rows:
        """All requests in rows of one width."""
        return _lay_out(self.requests, self.bos_id, self.width, self.width)[0]

    @cached_property
    def narrow(self) -> list[Rows]:
        """All requests in rows that are no wider than they must be, one group for each width."""
        return _lay_out(self.requests, self.bos_id, _TREE_TOKENS, _NARROW_STEP)

    def flat(self, n_tokens: int) -> list[Rows]:
        """Return all requests in rows of at least `n_tokens` tokens, each of its own width."""
        if n_tokens not in self._flat:
            self._flat[n_tokens] = _in_line(self.requests, self.bos_id, n_tokens)
        return self._flat[n_tokens]

    def answers(self, logprobs_Q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-probability of every cell from those of the requests; NaN where a cell has no answer."""
        if not len(logprobs_Q):
            return np.full(len(self.cells), np.nan)
        return np.where(self.lost | (self.request_of < 0), np.nan, logprobs_Q[self.request_of])

    @property
    def n_input_tokens(self) -> int:
        """Tokens of all cells, as if each were computed alone."""
        known = self.request_of >= 0
        return int((self.n_context_tokens + self.n_tokens)[known].sum())


def make_plan(
    items: Sequence[Item], encode: Callable[[str], list[int]], bos_id: int, block_size: int, width: int = 0
) -> Plan:
    """Turn items into tokens and rows.

    Args:
        items: Questions.
        encode: Text to tokens, without a start mark.
        bos_id: The start mark.
        block_size: Longest input of the model in tokens.
        width: Of a row in tokens; 0 takes what suits the block size.

    Raises:
        DataError: a continuation has no tokens, not one word of it fits, or two options are the same tokens.
    """
    known: dict[str, Tokens] = {}

    def tokens_of(text: str) -> Tokens:
        if text not in known:
            known[text] = tuple(encode(text)) if text else ()
        return known[text]

    wanted: dict[tuple[Tokens, Tokens], int] = {}
    item_ids: list[str] = []
    table: list[tuple[int, int, int, int, int, bool]] = []
    n_cut_contexts = n_cut_continuations = 0
    for item in items:
        by_logprobs = item.rule not in WITHOUT_LOGPROBS
        asked: dict[tuple[Tokens, Tokens], int] = {}
        for cell, (context, continuation) in enumerate(zip(item.contexts, item.continuations, strict=True)):
            item_ids.append(item.item_id)
            if not by_logprobs:
                table.append((cell, -1, len(continuation.encode()), 0, 0, True))
                continue
            text = _fitting(continuation, tokens_of, block_size, item)
            left, right = tokens_of(context), tokens_of(text)
            cut = len(left) > block_size - len(right)
            n_cut_contexts += cut
            n_cut_continuations += len(text) < len(continuation)
            left = left[max(0, len(left) + len(right) - block_size) :]
            if not cut and text == continuation:
                _refuse_twins(item, cell, asked.setdefault((left, right), cell))
            request = wanted.setdefault((left, right), len(wanted))
            lost = cut and item.rule not in CUT_IS_FINE
            table.append((cell, request, len(text.encode()), len(right), len(left), lost))
    columns = np.array(table, dtype=np.int64).reshape(-1, 6).T.copy()
    return Plan(
        bos_id=bos_id,
        width=width or _up(block_size, _WIDTH_STEP),
        requests=list(wanted),
        item_ids=item_ids,
        cells=columns[0],
        request_of=columns[1],
        n_bytes=columns[2],
        n_tokens=columns[3],
        n_context_tokens=columns[4],
        lost=columns[5].astype(bool),
        n_cut_contexts=n_cut_contexts,
        n_cut_continuations=n_cut_continuations,
    )


def _refuse_twins(item: Item, cell: int, first: int) -> None:
    """Refuse two cells that are the same tokens although an item has them to tell apart."""
    if cell != first:
        where = f"{item.source}: " if item.source else ""
        raise DataError(
            f"{where}item {item.item_id}: options {first} and {cell} are the same tokens after the same context",
            "give options that differ by more than what the tokenizer drops",
        )


def _lay_out(requests: Sequence[tuple[Tokens, Tokens]], bos_id: int, largest: int, step: int) -> list[Rows]:
    """Return all requests in rows whose widths are multiples of `step`, one group for each width.

    A tree of several texts has at most `largest` tokens.
    """
    inputs = [(bos_id, *left, *right[:-1]) for left, right in requests]
    trees = [_Tree(group, inputs) for group in _groups(inputs, largest)]
    by_width: dict[int, list[list[_Tree]]] = {} if trees else {step: []}
    for members, wide in _best_fit([len(tree.tokens) for tree in trees], step):
        by_width.setdefault(wide, []).append([trees[member] for member in members])
    return [_filled(by_width[wide], wide, requests, bos_id) for wide in sorted(by_width)]


def _in_line(requests: Sequence[tuple[Tokens, Tokens]], bos_id: int, n_tokens: int) -> list[Rows]:
    """Return all requests in single rows: trees one after the other, until a row has `n_tokens`.

    A row is filled up to a multiple of `_FLAT_STEP`: oneDNN makes code for every number of rows that it meets.
    """
    inputs = [(bos_id, *left, *right[:-1]) for left, right in requests]
    rows: list[list[_Tree]] = []
    used = n_tokens
    for group in _groups(inputs, _LARGEST_TREE * n_tokens):
        if used >= n_tokens:
            rows.append([])
            used = 0
        rows[-1].append(_Tree(group, inputs))
        used += len(rows[-1][-1].tokens)
    widths = [_up(sum(len(tree.tokens) for tree in trees), _FLAT_STEP) for trees in rows]
    return [_filled([trees], width, requests, bos_id) for trees, width in zip(rows, widths, strict=True)]


def _filled(
    bins: Sequence[Sequence[_Tree]], width: int, requests: Sequence[tuple[Tokens, Tokens]], bos_id: int
) -> Rows:
    tokens, depth = (np.zeros((len(bins), width), dtype=np.int64) for _ in range(2))
    tokens += bos_id
    end = np.tile(np.arange(1, width + 1), (len(bins), 1))  # padding sees itself alone
    places, targets, owners, first = [], [], [], [0]
    for row, members in enumerate(bins):
        column = 0
        for tree in members:
            span = slice(column, column + len(tree.tokens))
            tokens[row, span], depth[row, span], end[row, span] = tree.tokens, tree.depth, column + tree.end
            for request, path in zip(tree.members, tree.paths, strict=True):
                left, right = requests[request]
                places.append(row * width + column + path[len(left) :])
                targets.append(right)
                owners.append(np.full(len(right), request))
            column = span.stop
        first.append(len(places))
    return _rows(tokens, depth, end, places, targets, owners, first)


def _rows(
    tokens: Ints,
    depth: Ints,
    end: Ints,
    places: list[Ints],
    targets: list[Tokens],
    owners: list[Ints],
    first: list[int],
) -> Rows:
    lengths = np.concatenate([[0], np.cumsum([len(place) for place in places])]).astype(np.int64)

    def joined(parts: Sequence[Ints | Tokens]) -> Ints:
        return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts] or [np.zeros(0, np.int64)])

    return Rows(tokens, depth, end, joined(places), joined(targets), joined(owners), lengths[np.array(first)])


class _Tree:
    """Inputs in sorted order as one tree, depth first."""

    def __init__(self, members: Sequence[tuple[int, int]], inputs: Sequence[Tokens]) -> None:
        total = sum(len(inputs[index]) - shared for index, shared in members)
        self.members = [index for index, _ in members]
        self.tokens, self.depth, self.end = (np.zeros(total, dtype=np.int64) for _ in range(3))
        self.paths: list[Ints] = []
        path, used = np.zeros(0, dtype=np.int64), 0
        for index, shared in members:
            new = np.arange(used, used + len(inputs[index]) - shared)
            self.end[path[shared:]] = used
            self.tokens[new] = inputs[index][shared:]
            self.depth[new] = np.arange(shared, len(inputs[index]))
            path = np.concatenate([path[:shared], new])
            self.paths.append(path)
            used += len(new)
        self.end[path] = used


def _groups(inputs: Sequence[Tokens], width: int) -> Iterator[list[tuple[int, int]]]:
    """Give runs of sorted inputs that make a tree of at most `width` tokens: index, and tokens shared with the last."""
    order = sorted(range(len(inputs)), key=lambda i: inputs[i])
    group: list[tuple[int, int]] = []
    used = 0
    for index in order:
        shared = _common(inputs[group[-1][0]], inputs[index]) if group else 0
        if shared < LEAST_SHARED or used + len(inputs[index]) - shared > width:
            if group:
                yield group
            group, used, shared = [], 0, 0
        group.append((index, shared))
        used += len(inputs[index]) - shared
    if group:
        yield group


def _common(one: Tokens, two: Tokens) -> int:
    """Return how many tokens two inputs begin with alike."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == two[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _best_fit(sizes: Sequence[int], step: int) -> list[tuple[list[int], int]]:
    """Return which trees share a row, and its width: the largest first, each into the row that it fills most nearly.

    A row is as wide as its first tree, rounded up to a multiple of `step`.
    """
    bins: list[tuple[list[int], int]] = []
    room: list[tuple[int, int]] = []  # free tokens and row, ascending
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        at = bisect_left(room, (sizes[index], -1))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = _up(sizes[index], step), len(bins)
            bins.append(([], free))
        bins[row][0].append(index)
        left = (free - sizes[index], row)
        room.insert(bisect_left(room, left), left)
    return bins


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _fitting(text: str, tokens_of: Callable[[str], Tokens], block_size: int, item: Item) -> str:
    """Return the continuation, or as many whole words of it as fit the block."""
    named = f"{item.source}: item {item.item_id}" if item.source else f"item {item.item_id}"
    n_tokens = len(tokens_of(text))
    if n_tokens == 0:
        raise DataError(f"{named} has a continuation without text", "give every option some text")
    if n_tokens <= block_size:
        return text
    ends = [match.end() for match in _WORD_END.finditer(text)]
    low, high = 0, len(ends) - 1  # invariant: `low` words fit, the whole text does not
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokens_of(text[: ends[middle - 1]])) <= block_size:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise DataError(
            f"{named}: not one word of its continuation fits a block of {block_size} tokens",
            "raise model.block_size, or lower evalset.context_words",
        )
    return text[: ends[low - 1]]
