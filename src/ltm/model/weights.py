"""All weights of a model in one buffer: updated in float32, multiplied in the precision of the run.

One buffer makes every step over all weights (rounding, clipping, AdamW, averaging, checkpoints) a few passes over
memory instead of a few calls per tensor. Shape letter: N parameters, hidden matrices first, then embeddings, then
vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltm.model.gpt import GPT
from ltm.model.init import ParameterGroup, parameter_groups


@dataclass(frozen=True)
class Segment:
    """A run of the buffer that is updated alike."""

    group: ParameterGroup
    start: int
    end: int


class FlatWeights:
    """The weights of a model, whose parameters become views of one buffer.

    Args:
        model: Its parameters are moved into the buffer.
        dtype: Of the weights that the model multiplies with; float32 keeps no second copy.
    """

    def __init__(self, model: GPT, dtype: torch.dtype) -> None:
        groups = parameter_groups(model)
        parameters = dict(model.named_parameters())
        self.parameters: list[nn.Parameter] = [parameters[name] for group in groups for name in group.names]
        self.names = [name for group in groups for name in group.names]
        self.segments: list[Segment] = []
        end = 0
        for group in groups:
            start, end = end, end + sum(parameters[name].numel() for name in group.names)
            self.segments.append(Segment(group, start, end))
        device = self.parameters[0].device
        self.master_N = torch.zeros(end, device=device)
        self.compute_N = self.master_N if dtype == torch.float32 else torch.zeros(end, device=device, dtype=dtype)
        self.grad_N = torch.zeros(end, device=device)
        for parameter, view in zip(self.parameters, self._views(self.compute_N), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.master_N.copy_(self.compute_N)

    def fill(self, weights: Mapping[str, Tensor]) -> None:
        """Set all weights, given by name."""
        for name, view in zip(self.names, self._views(self.master_N), strict=True):
            view.copy_(weights[name])
        self.publish()

    def publish(self) -> None:
        """Round the float32 weights to what the model multiplies with."""
        if self.compute_N is not self.master_N:
            self.compute_N.copy_(self.master_N)

    def gather(self, gradients: Sequence[Tensor], add: bool) -> None:
        """Take the gradients of all parameters, in their order, in place of those held or on top of them."""
        flat_N = torch.cat([gradient.reshape(-1) for gradient in gradients])
        if add:
            self.grad_N.add_(flat_N)
        else:
            self.grad_N.copy_(flat_N)

    def named(self, flat_N: Tensor) -> dict[str, Tensor]:
        """Return a buffer of the same layout as views by parameter name."""
        return dict(zip(self.names, self._views(flat_N), strict=True))

    def _views(self, flat_N: Tensor) -> list[Tensor]:
        parts = flat_N.split([parameter.numel() for parameter in self.parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]
