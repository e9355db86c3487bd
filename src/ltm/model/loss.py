"""Output layer and cross-entropy in one, whose gradients are made in the forward pass.

The logits of all positions never exist at once: they are made, turned into gradients and dropped a chunk at a time.
That saves the largest tensor of a micro model and one pass over it. Shape letters: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltm.model.chunk import chunk_rows


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: Tensor) -> Tensor:
        N, V = len(x_ND), len(weight_VD)
        rows = chunk_rows(V, x_ND.device.type)
        weight = weight_VD.to(x_ND.dtype)
        total = torch.zeros((), device=x_ND.device, dtype=torch.float32)
        frozen = not ctx.needs_input_grad[1]  # beside adapters: a third of the work is not needed
        grads_x, grad_weight = [], torch.zeros_like(weight_VD, dtype=torch.float32) if not frozen else None
        for start in range(0, N, rows):
            x, targets = x_ND[start : start + rows], targets_N[start : start + rows, None]
            logits = (x @ weight.T).float()
            log_sums = logits.logsumexp(1, keepdim=True)
            total = total + (log_sums - logits.gather(1, targets)).sum()
            right = torch.arange(V, device=x.device) == targets  # compared, not scattered: compiled into one pass
            grad_logits = (((logits - log_sums).exp() - right.float()) * (scale / N)).to(x.dtype)
            grads_x.append(grad_logits @ weight)
            if grad_weight is not None:
                grad_weight = grad_weight + (grad_logits.T @ x).float()
        ctx.save_for_backward(torch.cat(grads_x), None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        return total / N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        if grad_weight is not None:
            grad_weight = grad_weight * grads[0].to(grad_weight.dtype)
        return grad_x * grads[0].to(grad_x.dtype), grad_weight, None, None


def linear_cross_entropy(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of `softmax(x @ weight.T)` against targets, in nats, as a float32 scalar.

    Args:
        x_ND: Hidden states.
        weight_VD: The output layer.
        targets_N: Right tokens, int64.
        scale: Factor on the gradients alone (one over the number of micro batches, times the loss scale of float16);
            it works before they are rounded to the precision of `x_ND`. None = 1.
    """
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        if scale is None:
            scale = torch.ones((), device=x_ND.device)
        loss: Tensor = _LinearCrossEntropy.apply(x_ND, weight_VD, targets_N, scale)
        return loss
    logits = (x_ND @ weight_VD.to(x_ND.dtype).T).float()
    return torch.nn.functional.cross_entropy(logits, targets_N)
