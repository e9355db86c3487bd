"""Weights from a seed, and which parameters belong together: what initialisation and the optimizer need to know.

All matrices start with a standard deviation that falls with the root of the width. GPT-2's 0.02 belongs to its width
of 768; a model of width 64 that starts with it learns slower and remembers its seed longer (LOG.md: 4 % more bits per
byte and twice the seed noise). Two parametrisations: `standard`, and `mup` (Yang et al., Tensor Programs V, table 8),
which is the same at the base width, and away from it scaled such that activations keep their size and one learning
rate suits every width: embeddings start as at the base width, hidden matrices learn at a rate that falls with the
width, scores are divided by the head size instead of its root, and logits fall with the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ltm.model.gpt import GPT

_GAIN = 0.64  # sd times the root of the width; GPT-2's is 0.55


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike."""

    name: str  # matrices, embeddings or vectors
    names: tuple[str, ...]
    lr_scale: float  # times the run's learning rate
    decayed: bool  # whether weight decay applies


def parameter_groups(model: GPT) -> list[ParameterGroup]:
    """Return hidden matrices, embeddings, and vectors (norms, biases), in this order; a tied embedding counts once."""
    matrices, embeddings, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(name)
        elif name.split(".")[0] in ("embed", "unembed", "positions"):
            embeddings.append(name)
        else:
            matrices.append(name)
    return [
        ParameterGroup("matrices", tuple(matrices), 1.0 / model.config.width_ratio, True),
        ParameterGroup("embeddings", tuple(embeddings), 1.0, True),
        ParameterGroup("vectors", tuple(vectors), 1.0, False),
    ]


def initial_weights(model: GPT, seed: int) -> dict[str, Tensor]:
    """Return float32 weights by name, drawn from a seed on the CPU: the same on every device.

    Normal with sd 0.64 / sqrt(width); outputs into the residual path are scaled by depth (GPT-2's rule); gains 1,
    biases 0.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    matrix_sd = _GAIN / math.sqrt(config.n_embd)
    embedding_sd = matrix_sd * math.sqrt(config.width_ratio)
    residual_sd = matrix_sd / math.sqrt(2 * config.n_layer)
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            weights[name] = torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0)
            continue
        hidden = name.startswith("blocks.")
        sd = residual_sd if name.endswith(("out.weight", "down.weight")) else matrix_sd if hidden else embedding_sd
        weights[name] = torch.empty(parameter.shape).normal_(0.0, sd, generator=generator)
    return weights


def init_weights(model: GPT, seed: int) -> None:
    """Fill all weights from a seed."""
    with torch.no_grad():
        for name, drawn in initial_weights(model, seed).items():
            model.get_parameter(name).copy_(drawn)
