"""Score models of transformers on the same packed rows as ltm's own, so that one plan serves every engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltm.runs.engines.base_model import Scored
from ltm.scores.forward import Scorer
from ltm.scores.plan import Plan, Rows


class ForeignScorer(Scorer):
    """A Hugging Face model made ready to be scored.

    Args:
        model: In evaluation mode, on its device.
    """

    def __init__(self, model: Scored) -> None:
        self.model = model  # type: ignore[assignment]
        self.device = next(model.parameters()).device

    def layouts(self, plan: Plan, _n_tokens: int) -> list[Rows]:
        """Return rows no wider than they must be: their attention is told by a mask of the whole row."""
        return plan.narrow

    def _states(self, tokens_BW: Tensor, depth_BW: Tensor, end_BW: Tensor, place_P: Tensor) -> Tensor:
        place_W = torch.arange(tokens_BW.shape[1], device=tokens_BW.device)
        seen_BWW = (place_W[None, :, None] >= place_W[None, None]) & (place_W[None, :, None] < end_BW[:, None])
        model: Any = self.model
        states_BWD: Tensor = model.packed(tokens_BW, depth_BW, seen_BWW)
        return states_BWD.flatten(0, 1)[place_P]
