"""Log-probabilities of a plan under one model, batch by batch; on a GPU batches have one shape and may be compiled.

Only places that predict go through the last layer's feed-forward part and the output layer. The log-softmax is float32
(float64 for a float64 model); sums are float64. On a CPU float32 products go through oneDNN: on processors for which
MKL has no AVX-512 code it is two to three times as fast, with the same precision (docs/scores.md). Letters: B batch, W
width, D width of the model, V vocabulary, N predictions, P places that predict.
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

from ltm.model.branches import Branches
from ltm.model.gpt import GPT
from ltm.runs.engine import keep_compiled_code
from ltm.scores.plan import Plan, Rows

_PLACE_STEP = 8  # oneDNN makes code for every number of rows that it meets, and keeps a thousand
_ROWS_AT_ONCE = 1024  # predicted tokens whose logits are held at a time
BATCH_TOKENS = {"cpu": 512, "cuda": 65_536}  # on a CPU what fits its cache is faster than large batches


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
        self.compiled = compiled
        if compiled:
            keep_compiled_code()
            self._compiled: Callable[..., Tensor] = torch.compile(_hidden, dynamic=False)

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
        for rows in self.layouts(plan, n_tokens):
            for batch in batches(rows, n_tokens, self.compiled):
                np.add.at(result, batch.request_N, self.answer(batch))
        return result

    def layouts(self, plan: Plan, n_tokens: int) -> list[Rows]:
        """Return a plan's tokens as suits the device: one shape for a compiler, no padding for a CPU without one."""
        if self.compiled:
            return [plan.rows]
        return plan.flat(n_tokens) if self.device.type == "cpu" else plan.narrow

    @torch.inference_mode()
    def answer(self, batch: Batch) -> Any:
        """Return the log-probability of each predicted token of a batch; options share their context's last place."""
        place_P, of_N = np.unique(batch.place_N, return_inverse=True)
        place_P = np.pad(place_P, (0, -len(place_P) % _PLACE_STEP), mode="edge")
        states_PD = self._states(*(torch.from_numpy(x).to(self.device) for x in (*batch.inputs, place_P)))
        order = np.argsort(of_N, kind="stable")
        bounds = np.searchsorted(of_N[order], np.arange(0, len(place_P) + _ROWS_AT_ONCE, _ROWS_AT_ONCE))
        result = np.empty(len(of_N))
        for chunk, low in enumerate(range(0, len(place_P), _ROWS_AT_ONCE)):
            logits_PV = self.model.head(states_PD[low : low + _ROWS_AT_ONCE])
            if logits_PV.dtype != torch.float64:
                logits_PV = logits_PV.float()
            members = order[bounds[chunk] : bounds[chunk + 1]]
            row = torch.from_numpy(of_N[members] - low).to(self.device)
            target = torch.from_numpy(batch.target_N[members]).to(self.device)
            result[members] = logits_PV.log_softmax(-1)[row, target].double().cpu().numpy()
        return result

    def _states(self, tokens_BW: Tensor, depth_BW: Tensor, end_BW: Tensor, place_P: Tensor) -> Tensor:
        """Return the last states of the places that predict, shape (P, D)."""
        if self.compiled:  # how many places predict differs: a shape of its own for every batch
            return self._compiled(self.model, tokens_BW, depth_BW, end_BW).flatten(0, 1)[place_P]
        return self.model.hidden(tokens_BW, branches=Branches(depth_BW, end_BW, place_P))


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


class OneDnnLinear(nn.Linear):
    """A linear layer whose float32 product is oneDNN's."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ weight.T + bias; where gradients are asked for, PyTorch's product has them."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return nn.functional.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
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
