"""Output layer and cross-entropy in one, whose gradients are made in the forward pass.

The logits of all positions never exist at once: they are made, turned into gradients and dropped a chunk at a time.
That saves the largest tensor of a micro model and one pass over it. Shape letters: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 21  # logits of one chunk: 8 MiB in float32, small enough to stay in the cache


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        N, V = len(x_ND), len(weight_VD)
        total = torch.zeros((), device=x_ND.device, dtype=torch.float32)
        grad_x, grad_weight = torch.empty_like(x_ND), torch.zeros_like(weight_VD, dtype=torch.float32)
        for rows in range(0, N, max(1, _CHUNK_ELEMENTS // V)):
            x, targets = x_ND[rows : rows + _CHUNK_ELEMENTS // V], targets_N[rows : rows + _CHUNK_ELEMENTS // V]
            probs = (x @ weight_VD.to(x.dtype).T).float()
            probs -= probs.amax(1, keepdim=True)
            right = probs.gather(1, targets[:, None])
            probs.exp_()
            sums = probs.sum(1, keepdim=True)
            total += (sums.log() - right).sum()
            probs /= sums
            probs.scatter_add_(1, targets[:, None], torch.full_like(right, -1.0))
            probs *= 1.0 / N
            grad_logits = probs.to(x.dtype)
            torch.mm(grad_logits, weight_VD.to(x.dtype), out=grad_x[rows : rows + len(x)])
            grad_weight += (grad_logits.T @ x).float()
        ctx.save_for_backward(grad_x, grad_weight.to(weight_VD.dtype))
        return total / N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grads[0].to(grad_x.dtype), grad_weight * grads[0].to(grad_weight.dtype), None


def linear_cross_entropy(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the mean cross-entropy of `softmax(x @ weight.T)` against targets, in nats, as a float32 scalar.

    Without gradients the same loss is computed without making them.
    """
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _LinearCrossEntropy.apply(x_ND, weight_VD, targets_N)
        return loss
    logits = (x_ND @ weight_VD.to(x_ND.dtype).T).float()
    return torch.nn.functional.cross_entropy(logits, targets_N)
