"""A model of transformers that remembers what it has read: the keys and values of every token, cut where texts part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ltm.runs.engines import base_model

LONGEST_TOKENS = 8192  # of a conversation; a base model may allow more than a memory of keys and values does


class ForeignReader:
    """A causal language model of transformers, with or without adapters.

    Args:
        model: In evaluation mode.
        block_size: The most tokens that it reads.
    """

    def __init__(self, model: Any, block_size: int) -> None:
        self.model, self.block_size = model, min(block_size, LONGEST_TOKENS)
        self._device = next(model.parameters()).device
        self._cache: Any = None
        self._length = 0
        # a model that keeps a running state in place of keys and values cannot forget a part of what it read
        self._remembers = not getattr(model, "_is_stateful", False) and _sees_all(model.config)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], known: int) -> Tensor:
        """Return the logits of the token that follows the last, shape (V,), float32."""
        if not self._remembers:
            return self._logits(tokens, None)
        if self._cache is None or known < 1:
            self._cache, self._length, known = base_model.need("transformers").DynamicCache(), 0, 0
        if known < self._length:
            self._cache.crop(known - self._length)  # how many to forget; a plain 0 would mean all
        self._length = len(tokens)
        return self._logits(tokens[known:], self._cache)

    def _logits(self, tokens: Sequence[int], cache: Any) -> Tensor:
        ids_1T = torch.tensor([list(tokens)], device=self._device)
        found = self.model(input_ids=ids_1T, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
        logits_V: Tensor = found.logits[0, -1].float()
        return logits_V


def _sees_all(config: Any) -> bool:
    """Return whether every layer keeps keys and values, be it inside a window."""
    kinds = getattr(config, "layer_types", None) or ()
    return all("attention" in kind and "linear" not in kind for kind in kinds)
