"""RMSNorm whose backward pass is written out: autograd's own chain reads and writes the activations twice as often."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = x.float().square().mean(-1, keepdim=True).add_(eps).rsqrt_().to(x.dtype)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        grad = grads[0]
        product = grad * normed
        grad_weight = product.flatten(0, -2).sum(0).to(weight.dtype)
        correction = (product @ weight.to(product.dtype)[:, None]).div_(normed.shape[-1])
        grad_x = grad * weight.to(grad.dtype)
        return grad_x.addcmul_(normed, correction, value=-1).mul_(scale), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `x / sqrt(mean(x^2) + eps) * weight` over the last dimension, same shape as x."""
    if torch.is_grad_enabled():
        out: Tensor = _RmsNorm.apply(x, weight, eps)
        return out
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)
