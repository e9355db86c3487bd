"""Log-probabilities of a plan under one model: batches of one shape, compiled where training is.

The log-softmax is float32 (float64 for a float64 model), only where something is predicted; sums are float64. On a CPU
float32 products go through oneDNN: on processors for which MKL has no AVX-512 code it is two to three times as fast,
with the same precision (docs/scores.md). Letters: B batch, W width, D width of the model, V vocabulary, N predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltm.model.attention import Branches
from ltm.model.gpt import GPT
from ltm.runs.engine import keep_compiled_code
from ltm.scores.plan import Plan, Rows

_ROWS_AT_ONCE = 1024  # predicted tokens whose logits are held at a time
BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}  # on a CPU what fits its cache is faster than large batches


class Scorer:
    """A model made ready to be scored: kept by a worker, filled with the weights of one run after the other.

    Args:
        model: In evaluation mode, on its device.
        compiled: Compile the forward pass; its code is kept for the next worker and study.
    """

    compiled = False

    def __init__(self, model: GPT, compiled: bool = False) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        if self.device.type == "cpu" and model.embed.weight.dtype == torch.float32 and _has_onednn():
            use_onednn(self.model)
        self._hidden: Callable[..., Tensor] = _hidden
        self.compiled = compiled
        if compiled:
            keep_compiled_code()
            self._hidden = torch.compile(_hidden, dynamic=False)

    def fill(self, model: GPT) -> None:
        """Take over the weights of another model of the same shape."""
        with torch.no_grad():
            for own, other in zip(self.model.parameters(), model.parameters(), strict=True):
                own.copy_(other)

    def logprobs(self, plan: Plan, batch_tokens: int = 0) -> NDArray[np.float64]:
        """Return the log-probability in nats of every request.

        Args:
            plan: For the model's tokenizer and block size.
            batch_tokens: Tokens of one forward pass; 0 takes what suits the device.
        """
        result = np.zeros(len(plan.requests))
        n_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, 16_384)
        for rows in [plan.rows] if self.compiled else plan.narrow:
            for batch in batches(rows, n_tokens, self.compiled):
                np.add.at(result, batch.request_N, self.answer(batch))
        return result

    @torch.inference_mode()
    def answer(self, batch: Batch) -> Any:
        """Return the log-probability of each predicted token of a batch."""
        hidden_BWD = self._hidden(self.model, *(torch.from_numpy(x).to(self.device) for x in batch.inputs))
        return self._chosen(hidden_BWD.flatten(0, 1), batch.place_N, batch.target_N)

    def _chosen(self, hidden_PD: Tensor, place_N: NDArray[np.int64], target_N: NDArray[np.int64]) -> Any:
        """Return the log-probability of each target; options that share a context share its last place."""
        unique, inverse = np.unique(place_N, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(0, len(unique) + _ROWS_AT_ONCE, _ROWS_AT_ONCE))
        result = np.empty(len(place_N))
        for chunk, low in enumerate(range(0, len(unique), _ROWS_AT_ONCE)):
            rows = torch.from_numpy(unique[low : low + _ROWS_AT_ONCE]).to(self.device)
            logits_NV = self.model.head(hidden_PD[rows])
            if logits_NV.dtype != torch.float64:
                logits_NV = logits_NV.float()
            members = order[bounds[chunk] : bounds[chunk + 1]]
            row_of = torch.from_numpy(inverse[members] - low).to(self.device)
            target = torch.from_numpy(target_N[members]).to(self.device)
            chosen = logits_NV[row_of, target] - logits_NV.logsumexp(-1)[row_of]
            result[members] = chosen.double().cpu().numpy()
        return result


@dataclass(frozen=True)
class Batch:
    """Some rows of a plan, and what they predict."""

    inputs: tuple[NDArray[np.int64], ...]  # tokens, depth and end of some rows
    place_N: NDArray[np.int64]  # within the batch
    target_N: NDArray[np.int64]
    request_N: NDArray[np.int64]


def batches(rows: Rows, batch_tokens: int, same_shape: bool = True) -> Iterator[Batch]:
    """Give rows in batches; with `same_shape` the last one is filled up with rows that predict nothing."""
    n_rows, width = rows.tokens_RW.shape
    size = max(1, min(batch_tokens // width, n_rows))
    for begin in range(0, n_rows, size):
        stop = min(begin + size, n_rows)
        span = slice(rows.first_R[begin], rows.first_R[stop])
        lacking = ((0, begin + size - stop if same_shape else 0), (0, 0))
        inputs = tuple(np.pad(x[begin:stop], lacking) for x in (rows.tokens_RW, rows.depth_RW, rows.end_RW))
        inputs[2][stop - begin :] = np.arange(1, width + 1)
        yield Batch(inputs, rows.place_N[span] - begin * width, rows.target_N[span], rows.request_N[span])


def _hidden(model: GPT, tokens_BW: Tensor, depth_BW: Tensor, end_BW: Tensor) -> Tensor:
    return model.hidden(tokens_BW, branches=Branches(depth_BW, end_BW))


@torch.library.custom_op("ltm::onednn_linear", mutates_args=())
def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x @ weight.T + bias; an operator of its own, so that a compiler leaves it as it is."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@_onednn_linear.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class OneDnnLinear(nn.Linear):
    """A linear layer whose float32 product is oneDNN's."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ weight.T + bias; where gradients are asked for, PyTorch's product has them."""
        if torch.is_grad_enabled():
            return nn.functional.linear(x, self.weight, self.bias)
        product: Tensor = _onednn_linear(x, self.weight, self.bias)
        return product


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model take oneDNN's product; weights and names stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


@functools.cache
def _has_onednn() -> bool:
    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")
