"""Model shapes by name, from 0.1M to 7B parameters, and their parameter counts. No torch here."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BASE_HEAD_SIZE = 32  # at which muP's attention scale equals the standard one


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of one decoder.

    Raises:
        ValueError: the numbers contradict each other.
    """

    family: str  # llama, mistral or gpt2
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    n_hidden: int
    vocab_size: int
    block_size: int
    window: int = 0  # sliding window in tokens; 0 = full attention
    tie_embeddings: bool = True
    rope_theta: float = 10_000.0
    base_width: int = 0  # of muP: the width at which the learning rate was tuned; 0 = standard parametrisation

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            nearest = min((h for h in range(1, self.n_embd + 1) if self.n_embd % h == 0), key=self._far_from_heads)
            raise ValueError(f"n_head {self.n_head} does not divide n_embd {self.n_embd}; nearest: {nearest}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.family != "gpt2" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size; n_embd / n_head is {self.head_size}")

    def _far_from_heads(self, heads: int) -> int:
        return abs(heads - self.n_head)

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.n_embd // self.n_head

    @property
    def width_ratio(self) -> float:
        """Width over muP's base width; 1 in the standard parametrisation."""
        return self.n_embd / self.base_width if self.base_width else 1.0

    @property
    def attention_scale(self) -> float:
        """Factor on the scores before the softmax; under muP it falls with the head size instead of its root."""
        if self.base_width:
            return _BASE_HEAD_SIZE**0.5 / self.head_size
        return float(self.head_size**-0.5)

    @property
    def logit_scale(self) -> float:
        """Factor on the logits; falls with the width under muP."""
        return 1.0 / self.width_ratio

    @property
    def n_params(self) -> int:
        """Number of trained parameters; a tied embedding counts once."""
        attention = self.n_embd * self.head_size * (2 * self.n_head + 2 * self.n_kv_head)
        gpt2 = self.family == "gpt2"
        feed_forward = self.n_embd * self.n_hidden * (2 if gpt2 else 3)
        norm = self.n_embd * (2 if gpt2 else 1)
        embeddings = self.vocab_size * self.n_embd * (1 if self.tie_embeddings else 2)
        positions = self.block_size * self.n_embd if gpt2 else 0
        biases = 0
        if gpt2:
            biases = self.head_size * (self.n_head + 2 * self.n_kv_head) + 2 * self.n_embd + self.n_hidden
        return embeddings + positions + self.n_layer * (attention + feed_forward + 2 * norm + biases) + norm


def _llama(n_layer: int, n_head: int, n_embd: int, block_size: int, n_kv_head: int = 0, hidden: int = 0) -> ModelConfig:
    n_hidden = hidden or -(-8 * n_embd // 3 // 32) * 32  # SwiGLU: 8/3 of the width, rounded up to 32
    return ModelConfig("llama", n_layer, n_head, n_kv_head or n_head, n_embd, n_hidden, 257, block_size)


def _gpt2(n_layer: int, n_head: int, n_embd: int, block_size: int) -> ModelConfig:
    return ModelConfig("gpt2", n_layer, n_head, n_head, n_embd, 4 * n_embd, 257, block_size)


def _mistral(n_layer: int, n_head: int, n_embd: int, block_size: int, n_kv_head: int) -> ModelConfig:
    n_hidden = -(-7 * n_embd // 2 // 32) * 32
    return ModelConfig(
        "mistral", n_layer, n_head, n_kv_head, n_embd, n_hidden, 257, block_size, window=max(64, block_size // 2)
    )


# A name counts the parameters with the vocabulary that usually goes with its width, to a fifth.
SIZES: dict[str, ModelConfig] = {
    "llama-0.1m": _llama(2, 2, 48, 128),
    "llama-0.2m": _llama(3, 2, 64, 128),
    "llama-0.5m": _llama(4, 3, 96, 256),
    "llama-1m": _llama(4, 4, 128, 256),
    "llama-5m": _llama(6, 4, 256, 256),
    "llama-15m": _llama(8, 6, 384, 512),
    "llama-30m": _llama(8, 8, 512, 512),
    "llama-60m": _llama(10, 10, 640, 1024),
    "llama-125m": _llama(12, 12, 768, 1024),
    "llama-355m": _llama(24, 16, 1024, 1024),
    "llama-1b3": _llama(24, 16, 2048, 2048, n_kv_head=8),
    "llama-3b": _llama(28, 24, 3072, 2048, n_kv_head=8, hidden=8192),
    "llama-7b": _llama(32, 32, 4096, 4096, hidden=11008),
    "mistral-0.5m": _mistral(3, 4, 96, 256, 2),
    "mistral-5m": _mistral(5, 4, 256, 512, 2),
    "mistral-30m": _mistral(7, 8, 512, 1024, 4),
    "mistral-7b": _mistral(32, 32, 4096, 8192, 8),
    "gpt2-0.5m": _gpt2(3, 3, 96, 256),
    "gpt2-5m": _gpt2(6, 4, 256, 256),
    "gpt2-30m": _gpt2(8, 8, 512, 512),
    "gpt2-125m": _gpt2(12, 12, 768, 1024),
    "gpt2-355m": _gpt2(24, 16, 1024, 1024),
}


# The vocabulary that usually goes with a width: a table of embeddings that does not outweigh the rest.
_VOCABULARY = ((96, 1024), (128, 2048), (256, 4096), (512, 8192), (640, 16_384))
_LARGE_VOCABULARY = 32_768
_NAME = re.compile(r"(llama|mistral|gpt2)-(\d+(?:\.\d+)?)(k|m|b)(\d*)")
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9}
_LEAST, _MOST = 8e4, 1e10  # parameters of a shape made for a count


def usual_vocabulary(n_embd: int) -> int:
    """Return the size of the vocabulary that usually goes with a width.

    >>> usual_vocabulary(96), usual_vocabulary(4096)
    (1024, 32768)
    """
    return next((size for width, size in _VOCABULARY if n_embd <= width), _LARGE_VOCABULARY)


@functools.cache
def named_shape(name: str) -> ModelConfig | None:
    """Return the shape of a name: one of `SIZES`, or one made for a count (`llama-3m`, `gpt2-0.8m`, `mistral-2b5`).

    A shape that is made has the depth of the nearest named one of its family, give or take one block, its block size,
    and the width that comes closest to the count with the usual vocabulary.

    Returns:
        None where nothing is called so, or the count is below 80k or above 10B.

    >>> named_shape("llama-3m").n_embd, named_shape("llama-1.3b") == SIZES["llama-1b3"], named_shape("lama-3m")
    (192, True, None)
    """
    asked = _parsed(name)
    if asked is None:
        return None
    family, wanted = asked
    for known, config in SIZES.items():  # 1b3 and 1.3b are one count
        if _parsed(known) == asked:
            return config
    if not _LEAST <= wanted <= _MOST:
        return None
    kin = [config for config in SIZES.values() if config.family == family]
    near = min(kin, key=lambda config: abs(math.log(_usual_count(config) / wanted)))
    return min(_like(near), key=lambda config: abs(math.log(_usual_count(config) / wanted)))


def _parsed(name: str) -> tuple[str, int] | None:
    """Return the family and the count of a name, None where it is none."""
    found = _NAME.fullmatch(name)
    if not found or (found[4] and "." in found[2]):
        return None
    number = float(found[2] + ("." + found[4] if found[4] else ""))
    return found[1], round(number * _UNITS[found[3]])


def _usual_count(config: ModelConfig) -> int:
    return dataclasses.replace(config, vocab_size=usual_vocabulary(config.n_embd)).n_params


def _like(near: ModelConfig) -> Iterator[ModelConfig]:
    """Give shapes of about the depth of another one, over all widths that make good heads; the same depth first."""
    for n_layer in (near.n_layer, near.n_layer + 1, max(1, near.n_layer - 1)):
        for width in (*range(16, 128, 16), *range(128, 512, 32), *range(512, 2048, 64), *range(2048, 8192, 128)):
            n_head = width // _usual_head(width)
            if near.family == "gpt2":
                yield _gpt2(n_layer, n_head, width, near.block_size)
            elif near.family == "mistral":
                yield _mistral(n_layer, n_head, width, near.block_size, n_head // 2 if n_head % 2 == 0 else n_head)
            else:
                grouped = near.n_kv_head < near.n_head and n_head % 4 == 0
                yield _llama(n_layer, n_head, width, near.block_size, n_head // 4 if grouped else n_head)


def _usual_head(width: int) -> int:
    """Return the usual width of a head among those that divide a width."""
    most = 128 if width >= 2048 else 64 if width >= 256 else 32
    return next(size for size in (128, 64, 32, 24, 16) if size <= most and width % size == 0)


def nearest_sizes(name: str) -> list[str]:
    """Return the three names most like a wrong one."""
    return difflib.get_close_matches(name, list(SIZES), n=3, cutoff=0.0)
