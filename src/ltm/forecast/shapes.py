"""Shapes of models: ltm's own sizes, public models by name, a Hugging Face `config.json`, or a parameter count.

Reads: `data/models.csv`, taken from public configurations.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ltm.errors import InputError
from ltm.model.sizes import SIZES, ModelConfig, named_shape, nearest_sizes, usual_vocabulary
from ltm.units import parse_count

_LADDER = ((0, 2, 32), (1e6, 4, 64), (5e6, 6, 64), (15e6, 8, 64), (80e6, 12, 64), (250e6, 24, 64), (1e9, 24, 128),
           (2.5e9, 32, 128), (11e9, 40, 128), (28e9, 60, 128), (60e9, 80, 128))  # fmt: skip
_VOCABULARIES = ((0, 2048), (3e6, 8192), (40e6, 32000), (80e6, 50304), (5e9, 32000), (60e9, 32000))


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a decoder that time and memory depend on."""

    name: str
    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_size: int
    n_hidden: int
    vocab_size: int
    gated: bool = True
    tied: bool = False
    learned_positions: bool = False
    window: int = 0
    seq_len: int = 2048
    n_params: int = 0  # published count; 0 = from the shape

    def __post_init__(self) -> None:
        for field in ("n_layer", "n_embd", "n_head", "n_kv_head", "head_size", "n_hidden", "vocab_size", "seq_len"):
            if getattr(self, field) < 1:
                raise InputError(f"model {self.name}: {field} is {getattr(self, field)}", "it must be at least 1")
        if self.n_head % self.n_kv_head:
            nearest = min((h for h in range(1, self.n_head + 1) if self.n_head % h == 0), key=self._far)
            raise InputError(
                f"model {self.name}: n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}",
                f"nearest that does: {nearest}",
            )

    def _far(self, heads: int) -> int:
        return abs(heads - self.n_kv_head)

    @property
    def parameters(self) -> int:
        """Number of parameters; a tied embedding counts once."""
        attention = self.n_embd * 2 * (self.n_head + self.n_kv_head) * self.head_size
        block = attention + self.n_embd * self.n_hidden * (2 + self.gated) + 2 * self.n_embd
        positions = self.seq_len * self.n_embd if self.learned_positions else 0
        count = self.n_layer * block + self.vocab_size * self.n_embd * (1 if self.tied else 2) + positions + self.n_embd
        return self.n_params or count


def shape(model: str, **changes: Any) -> Shape:
    """Return a shape by what a user may call it, with single fields changed.

    Args:
        model: `llama-15m` and its kin, a public model (`llama-3.1-8b`, `gpt2-medium`, `qwen2.5-3b`), the path of a
            `config.json` or of its folder, or a parameter count (`125m`, `1.3B`, `7b`).
        changes: Fields of `Shape` in place of the model's own; `None` is passed over.

    Raises:
        InputError: nothing is called so, or the numbers contradict each other.
    """
    name = model.lower()
    # A public model goes before a shape that is made for a count: gpt2-345m is OpenAI's.
    found = (
        _from_sizes(model, SIZES.get(name))
        or _from_config(model)
        or public_shape(model)
        or _from_sizes(model, named_shape(name))
        or _from_count(model)
    )
    if found is None:
        raise InputError(
            f"unknown model: {model}",
            f"nearest: {', '.join(nearest_sizes(model))}; or a size such as 125m or 1.3b, a public model such as "
            "llama-3.1-8b, or the path of a config.json",
        )
    given = {key: value for key, value in changes.items() if value is not None}
    if "n_head" in given or "n_embd" in given:
        given.setdefault("n_kv_head", min(found.n_kv_head, given.get("n_head", found.n_head)))
        heads, width = given.get("n_head", found.n_head), given.get("n_embd", found.n_embd)
        if "head_size" not in given:
            if heads < 1 or width % heads:
                nearest = min((h for h in range(1, width + 1) if width % h == 0), key=lambda h: abs(h - heads))
                raise InputError(f"model {model}: n_head {heads} does not divide n_embd {width}", f"nearest: {nearest}")
            given["head_size"] = width // heads
    if given:
        given.setdefault("n_params", 0)
    return dataclasses.replace(found, **given)


def public_shape(name: str) -> Shape | None:
    """Return the shape of a public model whose name occurs in a text, or None."""
    text = re.sub(r"[\s_]+", "-", re.sub(r"(\d) (b|m)\b", r"\1\2", name.lower()))
    for pattern, found in _public():
        if re.search(pattern, text):
            return found
    return None


@functools.cache
def _public() -> list[tuple[str, Shape]]:
    text = (files("ltm.forecast") / "data" / "models.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        numbers = {
            key: int(row[key])
            for key in ("n_layer", "n_embd", "n_head", "n_kv_head", "head_size", "n_hidden", "vocab_size")
        }
        flags = {key: row[key] == "1" for key in ("gated", "tied", "learned_positions")}
        rows.append((row["pattern"], Shape(row["name"], **numbers, **flags)))  # type: ignore[arg-type]
    return rows


def _from_sizes(model: str, config: ModelConfig | None) -> Shape | None:
    if config is None:
        return None
    if config in SIZES.values():
        guess = next(v for least, v in reversed(_VOCABULARIES) if config.n_params >= least)
    else:
        guess = usual_vocabulary(config.n_embd)  # the one with which it has the count of its name
    gpt2 = config.family == "gpt2"
    return Shape(
        model, config.n_layer, config.n_embd, config.n_head, config.n_kv_head, config.head_size, config.n_hidden, guess,
        gated=not gpt2, tied=config.tie_embeddings, learned_positions=gpt2, window=config.window,
        seq_len=config.block_size,
    )  # fmt: skip


def _from_config(model: str) -> Shape | None:
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if path.suffix != ".json":
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "give the path of a config.json") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", "give the config.json of a Hugging Face model") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no model", "give the config.json of a Hugging Face model")
    return from_huggingface(config, str(model))


def from_huggingface(config: Mapping[str, Any], name: str = "config.json") -> Shape:
    """Return the shape that a Hugging Face configuration describes (Llama, Mistral, Qwen, Gemma, GPT-2, NeoX, ...).

    Raises:
        InputError: it names no layers, width or heads.
    """

    def first(*keys: str, default: Any = None) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), default)

    if any((config.get(key) or 0) > 1 for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        raise InputError(f"{name} is a mixture of experts", "forecasts are for dense decoders")
    layers, width = first("num_hidden_layers", "n_layer", "num_layers"), first("hidden_size", "n_embd", "d_model")
    heads = first("num_attention_heads", "n_head", "num_heads")
    if not all(isinstance(value, int) and value > 0 for value in (layers, width, heads)):
        raise InputError(f"{name} names no layers, width or heads", "give the config.json of a decoder")
    if width % heads and not config.get("head_dim"):
        raise InputError(f"{name}: {heads} heads do not divide the width {width}", "mend the config")
    kind = str(config.get("model_type", "")).lower()
    plain = kind in ("gpt2", "gpt_neox", "opt", "phi", "falcon", "mpt", "bloom", "gpt_bigcode", "gptj", "starcoder2")
    return Shape(
        name,
        layers,
        width,
        heads,
        first("num_key_value_heads", "n_head_kv", default=1 if config.get("multi_query") else heads),
        first("head_dim", default=width // heads),
        first("intermediate_size", "n_inner", "ffn_dim", default=4 * width),
        first("vocab_size", default=50257),
        gated=not plain,
        tied=bool(first("tie_word_embeddings", default=kind in ("gpt2", "gemma", "gemma2", "opt", "falcon", "bloom"))),
        learned_positions=kind in ("gpt2", "opt", "gpt_bigcode"),
        window=int(first("sliding_window", default=0) or 0) if config.get("use_sliding_window", True) else 0,
        seq_len=min(4096, first("max_position_embeddings", "n_positions", default=2048)),
    )


def _from_count(model: str) -> Shape | None:
    """Return a Llama-like shape with about so many parameters, as its makers would choose depth and width."""
    text = model.lower().removeprefix("llama-").removeprefix("llama")
    text = re.sub(r"^(\d+)b(\d)$", r"\1.\2b", text)
    try:
        n_params = parse_count(text)
    except ValueError:
        return None
    if not 5e4 <= n_params <= 2e12:
        raise InputError(f"a model of {model} parameters is outside 50k to 2T", "write 125m, 1.3b, 7b")
    return of_size(n_params, model)


def of_size(n_params: float, name: str = "") -> Shape:
    """Return a Llama-like shape whose parameter count is as near to `n_params` as a width in whole heads allows."""
    n_layer, head_size = next((layers, head) for least, layers, head in reversed(_LADDER) if n_params >= least)
    vocab = next(v for least, v in reversed(_VOCABULARIES) if n_params >= least)
    tied = n_params < 9e8

    def made(heads: int) -> Shape:
        width = heads * head_size
        hidden = -(-8 * width // 3 // 64) * 64
        kv = heads if n_params < 3e10 else max(h for h in range(1, 9) if heads % h == 0)
        return Shape(name or f"{n_params:.3g}", n_layer, width, heads, kv, head_size, hidden, vocab, True, tied)

    return min((made(heads) for heads in range(1, 400)), key=lambda s: abs(s.parameters - n_params))
