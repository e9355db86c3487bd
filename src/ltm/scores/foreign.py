"""Score models of transformers on the same packed rows as ltm's own, so that one plan serves every engine."""

from __future__ import annotations

import torch
from torch import Tensor

from ltm.runs.engines.base_model import Scored
from ltm.scores.forward import Scorer


class ForeignScorer(Scorer):
    """A Hugging Face model made ready to be scored.

    Args:
        model: In evaluation mode, on its device.
    """

    def __init__(self, model: Scored) -> None:
        self.model = model  # type: ignore[assignment]
        self.device = next(model.parameters()).device
        self._hidden = _hidden


def _hidden(model: Scored, tokens_BW: Tensor, depth_BW: Tensor, end_BW: Tensor) -> Tensor:
    place_W = torch.arange(tokens_BW.shape[1], device=tokens_BW.device)
    seen_BWW = (place_W[None, :, None] >= place_W[None, None]) & (place_W[None, :, None] < end_BW[:, None])
    return model.packed(tokens_BW, depth_BW, seen_BWW)
