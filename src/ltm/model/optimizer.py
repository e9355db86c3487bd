"""AdamW and Muon over the flat weights: PyTorch's own, a tensor per segment instead of one per parameter."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltm.model.weights import FlatWeights, Segment

_MUON_MOMENTUM = 0.95


@dataclass(frozen=True)
class OptimizerSettings:
    """What a run says about its optimizer; units as in the `runs` section."""

    name: str  # adamw, or muon for hidden matrices and AdamW for the rest
    beta1: float
    beta2: float
    weight_decay: float


class Optimizer:
    """The optimizer of one run; its weights are the float32 ones, rounded for the model after each step."""

    def __init__(self, weights: FlatWeights, settings: OptimizerSettings) -> None:
        self.weights = weights
        muon = [s for s in weights.segments if settings.name == "muon" and s.group.name == "matrices"]
        self._parts: list[torch.optim.Optimizer] = [
            _adamw(weights, [s for s in weights.segments if s not in muon], settings)
        ]
        if muon:
            self._parts.append(_muon(weights, muon[0], settings))

    def step(self, lr: float, divisor: Tensor, overflow: Tensor | None = None) -> None:
        """Update the weights by the gradients they hold.

        Args:
            lr: Learning rate at the base width; groups scale it.
            divisor: Gradients are divided by it (clipping, loss scale), a float32 scalar on the weights' device.
            overflow: 1 where a gradient was not finite, so that nothing may change; a float32 scalar. None = 0.
        """
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr * group["lr_scale"]
            if isinstance(part, torch.optim.AdamW):
                part.grad_scale, part.found_inf = divisor, overflow  # type: ignore[attr-defined]
                part.step()
            elif overflow is None or not bool(overflow):
                for parameter in part.param_groups[0]["params"]:
                    parameter.grad.div_(divisor)
                part.step()
        self.weights.publish()

    def state(self) -> dict[str, Tensor]:
        """Return all state tensors by name, to be stored."""
        return {
            f"{i}.{j}.{key}": value
            for i, part in enumerate(self._parts)
            for j, parameter in enumerate(_parameters(part))
            for key, value in part.state[parameter].items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the stored state tensors."""
        for name, value in state.items():
            i, j, key = name.split(".", 2)
            part = self._parts[int(i)]
            parameter = _parameters(part)[int(j)]
            part.state[parameter][key] = value.to(parameter.device).clone()


def _adamw(weights: FlatWeights, segments: list[Segment], settings: OptimizerSettings) -> torch.optim.AdamW:
    groups = []
    for segment in segments:
        parameter = weights.master_N[segment.start : segment.end]
        parameter.grad = weights.grad_N[segment.start : segment.end]
        groups.append(_group([parameter], segment, settings))
    return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=1e-8, fused=True)


def _muon(weights: FlatWeights, segment: Segment, settings: OptimizerSettings) -> torch.optim.Muon:
    master, gradients = weights.named(weights.master_N), weights.named(weights.grad_N)
    for name in segment.group.names:
        master[name].grad = gradients[name]
    # Under muP: what an orthogonal update of fixed size a weight does to a layer's output grows with the root of the
    # width, where AdamW's, of low rank, grows with the width (Large et al. 2024; the coordinate check sees both).
    root = dataclasses.replace(segment, group=dataclasses.replace(segment.group, lr_scale=segment.group.lr_scale**0.5))
    group = _group([master[name] for name in segment.group.names], root, settings)
    return torch.optim.Muon([group], momentum=_MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw")


def _group(parameters: list[Tensor], segment: Segment, settings: OptimizerSettings) -> dict[str, Any]:
    group = segment.group
    decay = settings.weight_decay / group.lr_scale if group.decayed else 0.0  # lr x decay is the same at every width
    return {"params": parameters, "lr": 0.0, "lr_scale": group.lr_scale, "weight_decay": decay}


def _parameters(part: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in part.param_groups for parameter in group["params"]]
