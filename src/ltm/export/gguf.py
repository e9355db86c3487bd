"""A model as one GGUF file that llama.cpp loads: Llama, Mistral (inside its window), Qwen 2 and 3, GPT-2.

Writes: `<run_id>-<dtype>.gguf`. The weights are those of the Hugging Face folder (`tensors`), with llama.cpp's names;
Llama's queries and keys are put in the order in which llama.cpp rotates them (pairs side by side, where Hugging Face
has halves; from llama.cpp's own conversion). Norms, biases and whatever does not divide by a quantisation's block keep
a finer type.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ltm.errors import MissingPartError
from ltm.export.gguf_tokenizer import Pieces, tokenizer_pieces
from ltm.export.hf import refuse_existing
from ltm.export.shapes import to_hf_config
from ltm.export.tensors import HEAD, to_hf_tensors
from ltm.model.gpt import GPT, NORM_EPS
from ltm.store import store_error
from ltm.tokens.tokenizer import Tokenizer

Array = npt.NDArray[Any]
DTypes = Literal["f32", "f16", "q8_0"]
DTYPES: tuple[DTypes, ...] = ("f32", "f16", "q8_0")
# model_type of config.json -> llama.cpp's name
ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ROTATED_IN_PAIRS = ("llama", "mistral")
_Q8_BLOCK = 32  # values that share a scale
_FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7}  # llama.cpp's llama_ftype
_LLAMA_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
_GPT2_NAMES = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
_TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "transformer.wte.weight": "token_embd.weight", "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight", "transformer.ln_f.bias": "output_norm.bias",
    HEAD: "output.weight",
}  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What a GGUF file is made from.

    Args:
        values: Of `config.json`.
        tensors: Name and weight, by Hugging Face name, one after another.
        pieces: The tokenizer.
        bos_id: The start mark.
        eos_id: The end mark.
        adds_bos: Whether the tokenizer puts the start mark before a text by itself.
        chat_template: How it is asked; empty = it only goes on.
        rope_factors: By what Llama 3 divides each angle of its rotation; None = none.
    """

    values: Mapping[str, Any]
    tensors: Iterable[tuple[str, Tensor]]
    pieces: Pieces
    bos_id: int
    eos_id: int
    adds_bos: bool = False  # as the Hugging Face folder: whoever begins a text puts the mark there
    chat_template: str = ""
    rope_factors: Array | None = None


def export_gguf(
    model: GPT,
    tokenizer: Tokenizer,
    path: Path,
    dtype: DTypes,
    about: Mapping[str, str] | None = None,
    chat_template: str = "",
) -> None:
    """Write one of ltm's own models as a GGUF file, whole.

    Args:
        model: The model.
        tokenizer: The one that it was trained with.
        path: The file to be made.
        dtype: Of the matrices: float32, float16, or 8 bits with a scale for every 32 values.
        about: `name`, `description`, `license`: what the file says of itself.
        chat_template: How it was asked when it was tuned on conversations; empty = it was not.

    Raises:
        InputError: the file exists, or llama.cpp has no such model or tokenizer; says which part.
        MissingPartError: the package `gguf` is not installed.
        StoreError: it cannot be written.
    """
    values = to_hf_config(model.config, _norm_eps(model), tokenizer.bos_id)
    pieces = tokenizer_pieces(json.loads(tokenizer.to_json()), model.config.vocab_size)
    bos_id = tokenizer.bos_id
    contents = Contents(values, to_hf_tensors(model).items(), pieces, bos_id, bos_id, chat_template=chat_template)
    write_gguf(contents, path, dtype, about or {})


def write_gguf(contents: Contents, path: Path, dtype: DTypes, about: Mapping[str, str]) -> None:
    """Write a GGUF file, whole; raises as `export_gguf`."""
    require_gguf()
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, contents, dtype, about)
        descriptor = os.open(temporary, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        refuse_existing(path)
        temporary.rename(path)
    except OSError as error:
        raise store_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def require_gguf() -> None:
    """Refuse to go on without the package that writes the format.

    Raises:
        MissingPartError: it is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingPartError("the package gguf is not installed", "pip install 'ltm[gguf]'")


def _norm_eps(model: GPT) -> float:
    norm: Any = model.norm
    return float(getattr(norm, "eps", NORM_EPS))


def _write(path: Path, contents: Contents, dtype: DTypes, about: Mapping[str, str]) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    values = contents.values
    arch = ARCHITECTURES[values["model_type"]]
    writer = GGUFWriter(path, arch, use_temp_file=True)  # a model may be larger than what is free of memory
    for name, text in about.items():
        getattr(writer, f"add_{name}")(text)
    _shape(writer, arch, values)
    writer.add_file_type(_FILE_TYPE[dtype])
    writer.add_quantization_version(2)
    _tokenizer(writer, contents)
    types = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
    for name, array in _tensors(contents):
        kind = types[_dtype_of(name, array, dtype)]
        writer.add_tensor(name, quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shape(writer: Any, arch: str, values: Mapping[str, Any]) -> None:
    if arch == "gpt2":
        writer.add_context_length(values["n_positions"])
        writer.add_embedding_length(values["n_embd"])
        writer.add_block_count(values["n_layer"])
        writer.add_feed_forward_length(values.get("n_inner") or 4 * values["n_embd"])
        writer.add_head_count(values["n_head"])
        writer.add_layer_norm_eps(values["layer_norm_epsilon"])
        return
    context = values["max_position_embeddings"]
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    heads = values["num_attention_heads"]
    head_size = values.get("head_dim") or values["hidden_size"] // heads
    writer.add_context_length(min(context, window or context))  # llama.cpp's has none: inside it both are the same
    writer.add_embedding_length(values["hidden_size"])
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(values.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    rope = values.get("rope_parameters") or {}
    writer.add_rope_freq_base(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0)
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_vocab_size(values["vocab_size"])


def _tokenizer(writer: Any, contents: Contents) -> None:
    pieces = contents.pieces
    writer.add_tokenizer_model(pieces.model)
    writer.add_tokenizer_pre(pieces.split)
    writer.add_token_list(pieces.tokens)
    if pieces.scores:
        writer.add_token_scores(pieces.scores)
    writer.add_token_types(pieces.kinds)
    if pieces.merges:
        writer.add_token_merges(pieces.merges)
    writer.add_bos_token_id(contents.bos_id)
    writer.add_eos_token_id(contents.eos_id)
    writer.add_add_bos_token(contents.adds_bos)
    writer.add_add_space_prefix(pieces.adds_space)
    if contents.chat_template:
        writer.add_chat_template(contents.chat_template)


def _tensors(contents: Contents) -> Iterator[tuple[str, Array]]:
    """Give llama.cpp's tensors: numpy's order of axes, float32."""
    values = contents.values
    gpt2, pairs = values["model_type"] == "gpt2", values["model_type"] in _ROTATED_IN_PAIRS
    if contents.rope_factors is not None:
        yield "rope_freqs.weight", contents.rope_factors
    for name, tensor in contents.tensors:
        array: Array = tensor.float().numpy()
        if name in _TOP_NAMES:
            yield _TOP_NAMES[name], array
            continue
        _, _, layer, rest = name.split(".", 3)
        part, kind = rest.rsplit(".", 1)
        if gpt2:
            yield f"blk.{layer}.{_GPT2_NAMES[part]}.{kind}", array.T if array.ndim == 2 else array
            continue
        if pairs and part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = values["num_attention_heads"]
            heads = heads if part.endswith("q_proj") else values.get("num_key_value_heads") or heads
            array = side_by_side(array, heads)
        yield f"blk.{layer}.{_LLAMA_NAMES[part]}.{kind}", array


def side_by_side(array: Array, n_heads: int) -> Array:
    """Return the rows of a query or key matrix so that the two numbers of a rotation are neighbours.

    >>> side_by_side(np.arange(4)[:, None], 1).ravel().tolist()
    [0, 2, 1, 3]
    """
    rows, *columns = array.shape  # a bias has none
    return array.reshape(n_heads, 2, rows // n_heads // 2, *columns).swapaxes(1, 2).reshape(array.shape)


def _dtype_of(name: str, array: Array, dtype: DTypes) -> DTypes:
    """Return the type of one tensor: llama.cpp wants vectors and positions in float32."""
    if array.ndim == 1 or name == "position_embd.weight":
        return "f32"
    if dtype == "q8_0" and array.shape[-1] % _Q8_BLOCK:
        return "f16"
    return dtype
