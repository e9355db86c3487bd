"""A model as one GGUF file that llama.cpp loads: Llama (and Mistral inside its window) or GPT-2, tokenizer included.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ltm.errors import InputError, MissingPartError
from ltm.export.hf import refuse_existing
from ltm.export.shapes import to_hf_config
from ltm.export.tensors import HEAD, to_hf_tensors
from ltm.model.gpt import GPT, NORM_EPS
from ltm.store import store_error
from ltm.tokens.tokenizer import Tokenizer

DTypes = Literal["f32", "f16", "q8_0"]
DTYPES: tuple[DTypes, ...] = ("f32", "f16", "q8_0")
_Q8_BLOCK = 32  # values that share a scale
_FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7}  # llama.cpp's llama_ftype
_NORMAL, _CONTROL = 1, 3  # llama.cpp's token types
_GPT2_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_LLAMA_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
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
Array = npt.NDArray[Any]


def export_gguf(
    model: GPT, tokenizer: Tokenizer, path: Path, dtype: DTypes, about: Mapping[str, str] | None = None
) -> None:
    """Write a model as a GGUF file, whole.

    Args:
        model: The model.
        tokenizer: The one that it was trained with.
        path: The file to be made.
        dtype: Of the matrices: float32, float16, or 8 bits with a scale for every 32 values.
        about: `name`, `description`, `license`: what the file says of itself.

    Raises:
        InputError: the file exists, or llama.cpp has no such model or tokenizer; says which part.
        MissingPartError: the package `gguf` is not installed.
        StoreError: it cannot be written.
    """
    require_gguf()
    refuse_existing(path)
    values = to_hf_config(model.config, _norm_eps(model), tokenizer.bos_id)
    pieces = tokenizer_pieces(json.loads(tokenizer.to_json()), model.config.vocab_size)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, values, to_hf_tensors(model), pieces, dtype, about or {})
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


def tokenizer_pieces(value: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Return a `tokenizer.json` as llama.cpp wants it: tokens and their types by id, merges, the kind of splitting.

    Raises:
        InputError: it is not a byte-level BPE that splits as GPT-2's does: llama.cpp would cut texts otherwise.
    """
    model = value["model"]
    before = value.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or any(before.get(key) != wanted for key, wanted in _GPT2_SPLIT.items()):
        raise InputError(
            f"the tokenizer is not a byte-level BPE that splits texts as GPT-2's does ({before.get('type')}): "
            "llama.cpp would cut texts into other tokens",
            "export with --to hf",
        )
    if value.get("normalizer") is not None:
        raise InputError("the tokenizer changes texts before it cuts them, which llama.cpp does not", "--to hf")
    tokens = [f"[UNUSED{i}]" for i in range(vocab_size)]  # rows of the model that no token uses
    kinds = [_CONTROL] * vocab_size
    for token, index in model["vocab"].items():
        tokens[index], kinds[index] = token, _NORMAL
    for row in value.get("added_tokens", []):
        tokens[row["id"]], kinds[row["id"]] = row["content"], _CONTROL if row["special"] else _NORMAL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {"tokens": tokens, "kinds": kinds, "merges": merges}


def _norm_eps(model: GPT) -> float:
    norm: Any = model.norm
    return float(getattr(norm, "eps", NORM_EPS))


def _write(
    path: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    pieces: Mapping[str, Any],
    dtype: DTypes,
    about: Mapping[str, str],
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    arch = "gpt2" if values["model_type"] == "gpt2" else "llama"
    writer = GGUFWriter(path, arch)
    for name, text in about.items():
        getattr(writer, f"add_{name}")(text)
    _shape(writer, arch, values)
    writer.add_file_type(_FILE_TYPE[dtype])
    writer.add_quantization_version(2)
    _tokenizer(writer, values, pieces)
    types = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
    for name, array in _tensors(values, tensors):
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
        writer.add_feed_forward_length(values["n_inner"])
        writer.add_head_count(values["n_head"])
        writer.add_layer_norm_eps(values["layer_norm_epsilon"])
        return
    context = values["max_position_embeddings"]
    window = values.get("sliding_window") or context  # llama.cpp's Llama has none: inside it both are the same
    writer.add_context_length(min(context, window))
    writer.add_embedding_length(values["hidden_size"])
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(values["num_attention_heads"])
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_rope_freq_base(values["rope_theta"])
    writer.add_rope_dimension_count(values["head_dim"])
    writer.add_vocab_size(values["vocab_size"])


def _tokenizer(writer: Any, values: Mapping[str, Any], pieces: Mapping[str, Any]) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces["tokens"])
    writer.add_token_types(pieces["kinds"])
    writer.add_token_merges(pieces["merges"])
    writer.add_bos_token_id(values["bos_token_id"])
    writer.add_eos_token_id(values["eos_token_id"])
    writer.add_add_bos_token(False)  # as the Hugging Face folder: whoever begins a text puts the mark there
    writer.add_add_space_prefix(False)


def _tensors(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Array]]:
    """Give llama.cpp's tensors: numpy's order of axes, float32."""
    gpt2 = values["model_type"] == "gpt2"
    for name, tensor in tensors.items():
        array: Array = tensor.numpy()
        if name in _TOP_NAMES:
            yield _TOP_NAMES[name], array
            continue
        _, _, layer, rest = name.split(".", 3)
        part, kind = rest.rsplit(".", 1)
        if gpt2:
            yield f"blk.{layer}.{_GPT2_NAMES[part]}.{kind}", array.T if array.ndim == 2 else array
            continue
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = values["num_attention_heads" if part.endswith("q_proj") else "num_key_value_heads"]
            array = side_by_side(array, heads)
        yield f"blk.{layer}.{_LLAMA_NAMES[part]}.{kind}", array


def side_by_side(array: Array, n_heads: int) -> Array:
    """Return the rows of a query or key matrix so that the two numbers of a rotation are neighbours.

    >>> side_by_side(np.arange(4)[:, None], 1).ravel().tolist()
    [0, 2, 1, 3]
    """
    rows, columns = array.shape
    return array.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _dtype_of(name: str, array: Array, dtype: DTypes) -> DTypes:
    """Return the type of one tensor: llama.cpp wants vectors and positions in float32."""
    if array.ndim == 1 or name == "position_embd.weight":
        return "f32"
    if dtype == "q8_0" and array.shape[-1] % _Q8_BLOCK:
        return "f16"
    return dtype
