"""A Hugging Face folder as a GGUF file: what runs of a base model become.

Reads: `config.json`, safetensors, tokenizer, one tensor after another. Whatever llama.cpp would compute otherwise is
refused with the reason, before anything is written. Source of Llama 3's scaled rotation: transformers
(`modeling_rope_utils`), as in llama.cpp's own conversion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ltm.errors import InputError
from ltm.export.gguf import ARCHITECTURES, Array, Contents, DTypes, write_gguf
from ltm.export.gguf_tokenizer import Pieces, tokenizer_pieces
from ltm.export.stored import StoredTensors, open_tensors
from ltm.export.tensors import HEAD, is_buffer
from ltm.model.base import TOKENIZER, read_config
from ltm.tokens import adopted
from ltm.tokens.tokenizer import from_folder

_OTHERWISE = "export with --to hf; llama.cpp's own convert_hf_to_gguf.py may know the model"
_PLAIN_ROTATIONS = ("default", "linear", "llama3")
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


def check_folder(values: Mapping[str, Any], tokenizer: str) -> Pieces:
    """Return the tokenizer of a folder for llama.cpp, if that can be what the folder is.

    Args:
        values: Of its `config.json`.
        tokenizer: Text of its `tokenizer.json`.

    Raises:
        InputError: llama.cpp would compute something else; says what.
    """
    kind = values.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"model_type `{kind}` is not one that ltm writes for llama.cpp ({known})", _OTHERWISE)
    gelu = values.get("activation_function", "gelu_new")
    if (kind == "gpt2" and gelu not in _TANH_GELU) or (kind != "gpt2" and values.get("hidden_act", "silu") != "silu"):
        raise InputError(f"the model's activation ({values.get('hidden_act', gelu)}) is not llama.cpp's", _OTHERWISE)
    if values.get("mlp_bias"):
        raise InputError("the model has biases in its feed-forward parts, which llama.cpp's has not", _OTHERWISE)
    rotation = _rotation(values)
    if rotation.get("rope_type", "default") not in _PLAIN_ROTATIONS:
        raise InputError(f"rotary positions scaled by {rotation.get('rope_type')} are not written", _OTHERWISE)
    if kind != "gpt2" and float(rotation.get("partial_rotary_factor") or 1.0) != 1.0:
        raise InputError("only a part of each head is rotated, which is not written", _OTHERWISE)
    return tokenizer_pieces(json.loads(tokenizer), int(values["vocab_size"]))


def convert_folder(folder: Path, path: Path, dtype: DTypes, about: Mapping[str, str]) -> None:
    """Write the model of a Hugging Face folder as a GGUF file, whole.

    Args:
        folder: Complete, as `ltm export --to hf` writes it.
        path: The file to be made.
        dtype: Of the matrices.
        about: What the file says of itself.

    Raises:
        InputError: the file exists, or llama.cpp has no such model or tokenizer.
        MissingPartError: the package `gguf` is not installed.
        StoreError: it cannot be written.
    """
    values = {**read_config(folder)}
    values["rope_parameters"] = _rotation(values)
    text = (folder / TOKENIZER).read_text(encoding="utf-8")
    pieces = check_folder(values, text)
    tokenizer = from_folder(folder)
    marks = json.loads((folder / adopted.CONFIG).read_text(encoding="utf-8"))
    ends = _token(marks.get("eos_token"))
    eos_id = tokenizer.marks.get(ends, tokenizer.bos_id) if ends else _first(values.get("eos_token_id"))
    with open_tensors(folder) as tensors:
        contents = Contents(
            values,
            _named(tensors, values),
            pieces,
            tokenizer.bos_id,
            tokenizer.bos_id if eos_id is None else eos_id,
            adds_bos=_adds(text, tokenizer.bos_id),
            chat_template=str(marks.get("chat_template") or ""),
            rope_factors=_factors(values),
        )
        write_gguf(contents, path, dtype, about)


def _named(tensors: StoredTensors, values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Give tensors by their full name; a tied output layer and what every reader makes itself are left out."""
    prefix = "transformer." if values["model_type"] == "gpt2" else "model."
    tied = bool(values.get("tie_word_embeddings", values["model_type"] == "gpt2"))
    for name in tensors:
        full = name if name == HEAD or name.startswith(prefix) else prefix + name
        if not is_buffer(name) and not (tied and full == HEAD):
            yield full, tensors[name]


def _rotation(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return how positions are rotated, where transformers 5 or 4 write it."""
    found = values.get("rope_parameters") or values.get("rope_scaling") or {}
    found = {**found} if isinstance(found, Mapping) else {}
    found.setdefault("rope_type", found.get("type", "default"))
    found.setdefault("rope_theta", values.get("rope_theta") or 10_000.0)
    return found


def _factors(values: Mapping[str, Any]) -> Array | None:
    """Return by what each angle is divided: all by one factor, or (Llama 3) slow ones by it and quick ones not."""
    rope = values["rope_parameters"]
    if values["model_type"] == "gpt2" or rope["rope_type"] == "default":
        return None
    size = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    if rope["rope_type"] == "linear":
        return np.full(size // 2, float(rope["factor"]), dtype=np.float32)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    old = float(rope["original_max_position_embeddings"])
    wave = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2, dtype=np.float64) / size)
    part = np.clip((old / wave - low) / (high - low), 0.0, 1.0)
    factors: Array = (1.0 / ((1.0 - part) / float(rope["factor"]) + part)).astype(np.float32)
    return factors


def _adds(tokenizer: str, bos_id: int) -> bool:
    """Return whether the tokenizer puts its start mark before a text."""
    from tokenizers import Tokenizer as Backend

    ids = Backend.from_str(tokenizer).encode("a").ids
    return bool(ids) and ids[0] == bos_id


def _token(value: Any) -> str:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else None
