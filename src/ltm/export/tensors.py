"""The weights of a model under the names and in the layout of Hugging Face, and back.

One table (`parts`) says how each of our tensors is made of theirs; both directions and the check of shapes read it.
GPT-2's matrices are stored input by output (its `Conv1D`), all others output by input.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltm.errors import InputError
from ltm.model.gpt import GPT
from ltm.model.sizes import ModelConfig

PREFIX = {"gpt2": "transformer.", "llama": "model.", "mistral": "model."}
HEAD = "lm_head.weight"
_STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BUFFERS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")  # masks and angles, which old folders hold too


@dataclass(frozen=True)
class Part:
    """One of our tensors and those of theirs that it is made of."""

    ours: str
    theirs: tuple[tuple[str, int], ...]  # name and rows of each, in the order in which they are stacked
    columns: int  # 0 = a vector
    transposed: bool = False  # theirs is stored columns by rows

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Give the name and stored shape of each of their tensors."""
        for name, rows in self.theirs:
            if not self.columns:
                yield name, (rows,)
            else:
                yield name, (self.columns, rows) if self.transposed else (rows, self.columns)


def parts(config: ModelConfig) -> Iterator[Part]:
    """Give the table for a shape, without the output layer's when it is tied."""
    prefix = PREFIX[config.family]
    vocab, width = config.vocab_size, config.n_embd
    gpt2 = config.family == "gpt2"
    yield Part("embed.weight", ((f"{prefix}{'wte' if gpt2 else 'embed_tokens'}.weight", vocab),), width)
    if gpt2:
        yield Part("positions.weight", ((f"{prefix}wpe.weight", config.block_size),), width)
    for layer in range(config.n_layer):
        if gpt2:
            yield from _gpt2_block(config, f"blocks.{layer}.", f"{prefix}h.{layer}.")
        else:
            yield from _llama_block(config, f"blocks.{layer}.", f"{prefix}layers.{layer}.")
    yield Part("norm.weight", ((f"{prefix}{'ln_f' if gpt2 else 'norm'}.weight", width),), 0)
    if gpt2:
        yield Part("norm.bias", ((f"{prefix}ln_f.bias", width),), 0)
    if not config.tie_embeddings:
        yield Part("unembed.weight", ((HEAD, vocab),), width)


def _gpt2_block(config: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    width, hidden = config.n_embd, config.n_hidden
    for our_name, their_name in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
        for kind in ("weight", "bias"):
            yield Part(f"{ours}{our_name}.{kind}", ((f"{theirs}{their_name}.{kind}", width),), 0)
    for our_name, their_name, rows, columns in (
        ("attention.qkv", "attn.c_attn", 3 * width, width),
        ("attention.out", "attn.c_proj", width, width),
        ("mlp.up", "mlp.c_fc", hidden, width),
        ("mlp.down", "mlp.c_proj", width, hidden),
    ):
        yield Part(f"{ours}{our_name}.weight", ((f"{theirs}{their_name}.weight", rows),), columns, transposed=True)
        yield Part(f"{ours}{our_name}.bias", ((f"{theirs}{their_name}.bias", rows),), 0)


def _llama_block(config: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    width, hidden = config.n_embd, config.n_hidden
    kv_rows = config.n_kv_head * config.head_size
    for our_name, their_names, columns in (
        ("attention_norm", (("input_layernorm", width),), 0),
        (
            "attention.qkv",
            (("self_attn.q_proj", width), ("self_attn.k_proj", kv_rows), ("self_attn.v_proj", kv_rows)),
            width,
        ),
        ("attention.out", (("self_attn.o_proj", width),), width),
        ("mlp_norm", (("post_attention_layernorm", width),), 0),
        ("mlp.gate_up", (("mlp.gate_proj", hidden), ("mlp.up_proj", hidden)), width),
        ("mlp.down", (("mlp.down_proj", width),), hidden),
    ):
        stacked = tuple((f"{theirs}{name}.weight", rows) for name, rows in their_names)
        yield Part(f"{ours}{our_name}.weight", stacked, columns)


def to_hf_tensors(model: GPT) -> dict[str, Tensor]:
    """Return a model's weights by Hugging Face name, float32, on the CPU; a tied output layer is left out."""
    config, weights = _plain(model)
    found: dict[str, Tensor] = {}
    for part in parts(config):
        pieces = torch.split(weights[part.ours], [rows for _, rows in part.theirs])
        for (name, _), piece in zip(part.theirs, pieces, strict=True):
            found[name] = (piece.T if part.transposed else piece).contiguous()
    return found


def _plain(model: GPT) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return an equivalent model as Hugging Face knows it: attention divided by the root of the head size, logits as
    they leave the output layer, and in GPT-2 as many heads of keys and values as of queries.

    A factor on the logits goes into the last norm's gain and bias, before a matrix that may be tied to the input; a
    factor on the attention goes into the queries, before a rotation that does not care (both under muP).
    """
    config = model.config
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    logit_scale, query_scale = _scales(config)
    if logit_scale != 1.0:
        for name in ("norm.weight", "norm.bias"):
            if name in weights:
                weights[name] = weights[name] * logit_scale
    heads = (config.n_head, config.n_kv_head, config.n_kv_head)
    groups = config.n_head // config.n_kv_head if config.family == "gpt2" else 1
    for name in [n for n in weights if ".attention.qkv." in n]:
        q, k, v = torch.split(weights[name], [n * config.head_size for n in heads])
        if groups > 1:
            k, v = (_repeated(x, config.head_size, groups) for x in (k, v))
        weights[name] = torch.cat((q * query_scale if query_scale != 1.0 else q, k, v))
    if groups > 1:
        config = dataclasses.replace(config, n_kv_head=config.n_head)
    return config, weights


def _repeated(rows: Tensor, head_size: int, groups: int) -> Tensor:
    """Return the rows of each head, `groups` times one after another."""
    heads = rows.view(-1, head_size, *rows.shape[1:])
    return heads.repeat_interleave(groups, 0).flatten(0, 1)


def _scales(config: ModelConfig) -> tuple[float, float]:
    """Return what the factors on logits and queries are beyond the usual ones; exactly 1 without muP."""
    query_scale = config.attention_scale * math.sqrt(config.head_size)
    return config.logit_scale, 1.0 if math.isclose(query_scale, 1.0, rel_tol=1e-12) else query_scale


def is_buffer(name: str) -> bool:
    """Return whether a stored tensor is a mask or an angle that every reader makes itself."""
    return name.endswith(_BUFFERS)


def check_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the names and shapes of stored tensors with those of a shape, before anything is built.

    Raises:
        InputError: tensors are missing, too many, or have other shapes; names them.
    """
    what = f"a {config.family} of {config.n_layer} layers, as config.json says"
    if config.n_layer > len(shapes):  # and the table is not made for a number that no file can back
        raise InputError(f"the weights have {len(shapes)} tensors, too few for {what}", "download the folder again")
    wanted = {name: shape for part in parts(config) for name, shape in part.shapes()}
    problems = []
    if missing := sorted(wanted.keys() - shapes.keys()):
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if extra := sorted(shapes.keys() - wanted.keys()):
        problems.append(f"{len(extra)} that it has not ({_some(extra)})")
    if other := [n for n, shape in wanted.items() if n in shapes and shapes[n] != shape]:
        first = other[0]
        problems.append(f"{len(other)} of another shape ({first}: {list(shapes[first])}, not {list(wanted[first])})")
    if problems:
        raise InputError(
            f"the weights do not fit {what}; tensors: {'; '.join(problems)}", "config.json and weights belong together"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def fill(model: GPT, stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into a model of the same shape; half precision becomes float32.

    Of learned positions only as many are taken as the model has.

    Raises:
        InputError: a tensor holds whole numbers or 8-bit floats, which mean something only with their scales.
    """
    own = model.state_dict()
    with torch.no_grad():
        for part in parts(model.config):
            pieces = [stored[name] for name, _ in part.theirs]
            for (name, _), piece in zip(part.theirs, pieces, strict=True):
                if piece.dtype not in _STORED_DTYPES:
                    dtype = str(piece.dtype).removeprefix("torch.")
                    raise InputError(f"{name} is stored as {dtype}", "load a model of float32, bfloat16 or float16")
            whole = torch.cat([piece.T if part.transposed else piece for piece in pieces])
            own[part.ours].copy_(whole[: len(own[part.ours])])
