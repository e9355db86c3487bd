"""The `model` section of a study: a named size, or an explicit shape, or a named size with changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ltm.config import Section
from ltm.model.base import base_shape, identity
from ltm.model.sizes import ModelConfig, named_shape, nearest_sizes

Positive = Annotated[int, Field(ge=1)]


class ModelSection(Section):
    """The micro model that every run trains."""

    size: str = "llama-0.5m"
    """A named size such as `llama-0.5m`, `llama-15m`, `gpt2-125m`, `mistral-30m`, or any other count (`llama-2m`); the
    fields below change it."""
    family: Literal["llama", "mistral", "gpt2"] | None = None
    """`llama`: RMSNorm, rotary positions, SwiGLU; `mistral`: the same with a sliding window; `gpt2`: LayerNorm,
    learned positions, GELU."""
    n_layer: Positive | None = None
    """Number of blocks."""
    n_head: Positive | None = None
    """Query heads; divides n_embd."""
    n_kv_head: Positive | None = None
    """Key and value heads; divides n_head."""
    n_embd: Positive | None = None
    """Width."""
    n_hidden: Positive | None = None
    """Width inside the feed-forward part."""
    block_size: Positive | None = None
    """Context length in tokens."""
    window: Positive | None = None
    """Sliding window in tokens (mistral)."""
    tie_embeddings: bool | None = None
    """Share the input and output embedding."""
    parametrization: Literal["standard", "mup"] = "mup"
    """`mup`: weights, scores, logits and learning rates scale with the width such that one `runs.lr` suits all widths;
    it is the learning rate at `base_width`. `standard`: it is the learning rate of all weights."""
    base_width: Positive = 64
    """The width at which muP equals the standard parametrisation."""
    base: str | None = None
    """Start from a trained model: a Hugging Face folder on this disk (`runs.engine` hf or axolotl), or the folder of a
    run of ltm, `work/STUDY/runs/ID` (`native`). Shape and tokenizer are then its own; `block_size` may be
    shorter. Until the folder is there, checks and plans reckon with `size`."""

    @model_validator(mode="after")
    def _valid(self) -> ModelSection:
        if named_shape(self.size) is None:
            raise ValueError(f"unknown size `{self.size}`; nearest: {', '.join(nearest_sizes(self.size))}")
        if self.base is None:
            self.shape(vocab_size=257)
        return self

    @property
    def name(self) -> str:
        """What people call the model: its size, or its base's folder."""
        return self.size if self.base is None else Path(self.base).name

    @property
    def is_here(self) -> bool:
        """Whether the base model lies on this disk."""
        return self.base is not None and Path(self.base).is_dir()

    def outcome(self) -> dict[str, Any]:
        """Return what can change a run: the settings, and the contents of the base model in place of its path."""
        values = self.model_dump(exclude={"base"})
        return values if self.base is None else values | {"base": identity(Path(self.base))}

    def shape(self, vocab_size: int) -> ModelConfig:
        """Return the full shape of the model for a vocabulary.

        Raises:
            ValueError: heads do not divide the width, or similar; names the nearest valid value.
            InputError: the base model cannot be used.
        """
        if self.base is not None and self.is_here:
            return base_shape(Path(self.base), self.block_size)
        named = named_shape(self.size)
        assert named is not None  # judged when the section was made
        own = {"size", "parametrization", "base_width", "base"}
        changes = {k: v for k, v in self.model_dump(exclude=own).items() if v is not None}
        if self.parametrization == "mup":
            changes["base_width"] = self.base_width
        return dataclasses.replace(named, vocab_size=vocab_size, **changes)
