"""Log-probabilities of items under one model.

A text is <bos> + context + continuation; context and continuation are turned into tokens apart, so that the boundary
is the same for every option, and the continuation carries the white space that joins them. A context that does not
fit is cut from the left, and where that may have cut off what the question is about (rules choice, pair, contrast) the
cell has no answer: its log-probability is NaN. A continuation that does not fit alone is cut from the right at a word,
and its bytes are counted as cut. Shape letters: B batch, T tokens, D width, V vocabulary, N predicted tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltm.errors import DataError
from ltm.records import Item
from ltm.scores.measures import CUT_IS_FINE

_ROWS_AT_ONCE = 4096  # predicted tokens whose logits are held at a time
_BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}  # on a CPU what fits its cache is twice as fast as large batches
_WORD_END = re.compile(r"\S+")

CellScore = tuple[str, int, float, int, int, int]


@dataclass(frozen=True)
class Request:
    """One continuation to be scored: where it is predicted, and which tokens are right."""

    sequence: int  # index into `Prepared.sequences`
    first: int  # position that predicts the first token of the continuation
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Prepared:
    """Items as tokens; the same for every model with this tokenizer and block size.

    Equal cells are one request, and a request whose input begins another one's shares its sequence: attention is
    causal, so nothing to the right can change it.
    """

    sequences: list[tuple[int, ...]]
    requests: list[Request]
    item_ids: list[str]
    cells: NDArray[np.int64]
    request_of: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    n_context_tokens: NDArray[np.int64]
    lost: NDArray[np.bool_]  # cells without an answer: their context was cut, and the premise may have gone
    n_cut_contexts: int
    n_cut_continuations: int

    def answers(self, logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-probability of every cell from those of the requests; NaN where a cell has no answer."""
        return np.where(self.lost, np.nan, logprobs[self.request_of])


def score_items(
    model: Any,
    encode: Callable[[str], list[int]],
    bos_id: int,
    items: Sequence[Item],
    block_size: int,
    device: str = "cpu",
    batch_tokens: int | None = None,
) -> list[CellScore]:
    """Return (item_id, cell, logprob, n_bytes, n_tokens, n_context_tokens) of every cell, in the order of the items.

    The log-probability is NaN where the context of a choice, pair or contrast was cut.

    Args:
        model: Maps tokens (B, T) to logits (B, T, V); where it has `hidden` and `head`, logits are made only where
            they are needed.
        encode: Text to tokens, without a start mark.
        bos_id: The start mark.
        items: Questions.
        block_size: Longest input of the model in tokens.
        device: Where the model is.
        batch_tokens: Tokens of one forward pass; None takes what suits the device.

    Raises:
        DataError: a continuation has no tokens, or not one word of it fits.
    """
    prepared = prepare(items, encode, bos_id, block_size)
    logprobs = prepared.answers(logprobs_of(model, prepared, device, batch_tokens))
    columns = (logprobs, prepared.n_bytes, prepared.n_tokens, prepared.n_context_tokens)
    return list(zip(prepared.item_ids, prepared.cells.tolist(), *(c.tolist() for c in columns), strict=True))


def prepare(items: Sequence[Item], encode: Callable[[str], list[int]], bos_id: int, block_size: int) -> Prepared:
    """Turn items into tokens; see `score_items`."""
    known: dict[str, tuple[int, ...]] = {}

    def tokens_of(text: str) -> tuple[int, ...]:
        if text not in known:
            known[text] = tuple(encode(text)) if text else ()
        return known[text]

    wanted: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    item_ids: list[str] = []
    rows: list[tuple[int, int, int, int, int, bool]] = []
    cut_contexts = cut_continuations = 0
    for item in items:
        for cell, (context, continuation) in enumerate(zip(item.contexts, item.continuations, strict=True)):
            text = _fitting(continuation, tokens_of, block_size, item.item_id)
            right, left = tokens_of(text), tokens_of(context)
            room = block_size - len(right)
            cut = len(left) > room
            cut_contexts += cut
            cut_continuations += len(text) < len(continuation)
            left = left[max(0, len(left) - room) :]
            request = wanted.setdefault((left, right), len(wanted))
            item_ids.append(item.item_id)
            rows.append(
                (cell, request, len(text.encode()), len(right), len(left), cut and item.rule not in CUT_IS_FINE)
            )
    sequences, places = _share([(bos_id, *left, *right[:-1]) for left, right in wanted])
    requests = [Request(places[i], len(left), right) for i, (left, right) in enumerate(wanted)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    cells, request_of, n_bytes, n_tokens, n_context_tokens, lost = (table[:, i].copy() for i in range(6))
    return Prepared(
        sequences=sequences,
        requests=requests,
        item_ids=item_ids,
        cells=cells,
        request_of=request_of,
        n_bytes=n_bytes,
        n_tokens=n_tokens,
        n_context_tokens=n_context_tokens,
        lost=lost.astype(bool),
        n_cut_contexts=cut_contexts,
        n_cut_continuations=cut_continuations,
    )


def logprobs_of(
    model: Any, prepared: Prepared, device: str = "cpu", batch_tokens: int | None = None
) -> NDArray[np.float64]:
    """Return the log-probability in nats of every request; float32 log-softmax, summed in float64."""
    of_sequence: list[list[int]] = [[] for _ in prepared.sequences]
    for index, request in enumerate(prepared.requests):
        of_sequence[request.sequence].append(index)
    room = batch_tokens or _BATCH_TOKENS.get(device.split(":")[0], 16_384)
    result = np.zeros(len(prepared.requests))
    order = sorted(range(len(prepared.sequences)), key=lambda i: (-len(prepared.sequences[i]), i))
    start = 0
    while start < len(order):
        longest = len(prepared.sequences[order[start]])
        batch = order[start : start + max(1, room // longest)]
        start += len(batch)
        _score_batch(model, prepared, batch, of_sequence, device, result)
    return result


def _score_batch(
    model: Any,
    prepared: Prepared,
    batch: Sequence[int],
    of_sequence: Sequence[Sequence[int]],
    device: str,
    result: NDArray[np.float64],
) -> None:
    width = len(prepared.sequences[batch[0]])
    tokens = np.zeros((len(batch), width), dtype=np.int64)  # what stands right of a text cannot change it
    places: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for row, sequence in enumerate(batch):
        text = prepared.sequences[sequence]
        tokens[row, : len(text)] = text
        for index in of_sequence[sequence]:
            request = prepared.requests[index]
            begin = row * width + request.first
            places += range(begin, begin + len(request.targets))
            targets += request.targets
            owners += [index] * len(request.targets)
    logprobs = _target_logprobs(model, torch.from_numpy(tokens).to(device), np.array(places), np.array(targets))
    np.add.at(result, np.array(owners), logprobs)


@torch.inference_mode()
def _target_logprobs(
    model: Any, tokens_BT: torch.Tensor, places_N: NDArray[np.int64], targets_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    split = hasattr(model, "hidden") and hasattr(model, "head")
    values_BTX = model.hidden(tokens_BT) if split else model(tokens_BT)  # X is D, or V where the model has no parts
    flat = values_BTX.flatten(0, 1)
    unique, inverse = np.unique(places_N, return_inverse=True)  # options that share a context share its last position
    result = np.empty(len(places_N))
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(0, len(unique) + _ROWS_AT_ONCE, _ROWS_AT_ONCE))
    for chunk, low in enumerate(range(0, len(unique), _ROWS_AT_ONCE)):
        rows = flat[torch.from_numpy(unique[low : low + _ROWS_AT_ONCE]).to(flat.device)]
        logits = (model.head(rows) if split else rows).float()
        members = order[bounds[chunk] : bounds[chunk + 1]]
        row_of = torch.from_numpy(inverse[members] - low).to(flat.device)
        target = torch.from_numpy(targets_N[members]).to(flat.device)
        chosen = logits[row_of, target] - logits.logsumexp(-1)[row_of]
        result[members] = chosen.double().cpu().numpy()
    return result


def _fitting(text: str, tokens_of: Callable[[str], tuple[int, ...]], block_size: int, item_id: str) -> str:
    """Return the continuation, or as many whole words of it as fit the block."""
    n_tokens = len(tokens_of(text))
    if n_tokens == 0:
        raise DataError(f"item {item_id} has a continuation without text", "give every option some text")
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
            f"item {item_id}: not one word of its continuation fits a block of {block_size} tokens",
            "raise model.block_size, or lower evalset.context_words",
        )
    return text[: ends[low - 1]]


def _share(inputs: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Return the inputs that begin no other input, and for every input the index of one that it begins."""
    order = sorted(range(len(inputs)), key=lambda i: inputs[i])
    sequences: list[tuple[int, ...]] = []
    places = [0] * len(inputs)
    for index in reversed(order):  # in this order an input comes right after those that it begins
        text = inputs[index]
        if not sequences or sequences[-1][: len(text)] != text:
            sequences.append(text)
        places[index] = len(sequences) - 1
    return sequences, places
