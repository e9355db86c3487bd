"""A local Hugging Face causal language model: load it, give it adapters, and lay it out for training or scoring.

Only safetensors are read, nothing is fetched, and a folder's own code is never run (`ltm.model.base` refuses it).
Source of the adapters: peft; of the 4-bit base: bitsandbytes (NF4 with double quantisation, Dettmers et al. 2023).
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltm.errors import InputError
from ltm.model.base import read_base
from ltm.model.sizes import ModelConfig
from ltm.runs.section import LoraSection, RunsSection

ADAPTER, MODEL = "adapter", "model"  # folders below a run's: what it keeps of a base model
_INSTALL = "pip install 'ltm[tune]'"


def need(package: str) -> Any:
    """Import an optional package.

    Raises:
        InputError: it is not installed; names the line that installs it.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a base is a folder on this disk: nothing is asked for
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    if not torch.cuda.is_available():  # DeepSpeed, where it is installed, would say so on standard output
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it names kernels that it would like to have
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(f"models of transformers need {package}: {error}", _INSTALL) from None


def load_base(folder: Path, dtype: torch.dtype, device: str, *, four_bit: bool = False) -> Any:
    """Return a base model with its weights in `dtype`, or in four bits with `dtype` in its products.

    Raises:
        InputError: the folder cannot be used, a package is missing, or transformers does not know the model.
    """
    read_base(folder)
    return read_model(folder, dtype, device, four_bit=four_bit)


def read_model(folder: Path, dtype: torch.dtype, device: str, *, four_bit: bool = False) -> Any:
    """Return the model of a folder that was judged before, or that ltm wrote; see `load_base`."""
    try:
        model = _four_bit(folder, dtype, device) if four_bit else _whole(folder, dtype, device)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"transformers cannot load {folder}: {line}", "check that it loads there by itself") from None
    model.config.use_cache = False
    return model


def _whole(folder: Path, dtype: torch.dtype, device: str, **options: Any) -> Any:
    transformers = need("transformers")
    with quiet(transformers):
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation=_attention(device, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, in words
            **options,
        )
    others = [key if isinstance(key, str) else key[0] for key in told["mismatched_keys"]]
    if lacking := sorted({*told["missing_keys"], *others}):
        raise InputError(  # transformers would go on with random numbers in their place
            f"the weights in {folder} are not all of the model that its config.json names: {len(lacking)} are missing "
            f"or of another shape ({lacking[0]})",
            "download the folder again",
        )
    return model if options else model.to(device)


def _four_bit(folder: Path, dtype: torch.dtype, device: str) -> Any:
    need("bitsandbytes")
    from ltm.runs.engines import four_bit

    model = four_bit.load(folder, dtype, device, _attention(device, dtype))
    if model is None:
        model = _whole(folder, dtype, device, quantization_config=four_bit.quantization(dtype), device_map={"": device})
    four_bit.exact_products(model)
    return model


def random_weights(base: str | Path, seed: int) -> Any:
    """Return a model of a base's shape with random weights."""
    folder = Path(base)
    read_base(folder)
    transformers = need("transformers")
    torch.manual_seed(seed)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    return transformers.AutoModelForCausalLM.from_config(config)


def with_adapters(model: Any, lora: LoraSection, seed: int) -> Any:
    """Return the model with fresh low-rank adapters; all else is frozen. Equal seeds give equal adapters.

    Raises:
        InputError: no layer is called like the targets.
    """
    peft = need("peft")
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    try:
        model = peft.get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"runs.lora.targets: {error}", "`all-linear` takes every layer but the output") from None
    for parameter in model.parameters():
        if parameter.requires_grad:  # small, and updated: kept in float32 whatever the base is in
            parameter.data = parameter.data.float()
    return model


def from_shape(shape: ModelConfig, seed: int, bos_id: int | None = None) -> Any:
    """Return a model of one of ltm's shapes with transformers' own random weights, in float32.

    Raises:
        InputError: the shape has muP's scales, which transformers' decoders lack.
    """
    transformers = need("transformers")
    if shape.base_width:
        raise InputError("engine hf has no muP", "use --set model.parametrization=standard")
    torch.manual_seed(seed)
    shared = {"vocab_size": shape.vocab_size, "bos_token_id": bos_id, "eos_token_id": bos_id, "use_cache": False}
    shared |= {"tie_word_embeddings": shape.tie_embeddings}
    if shape.family == "gpt2":
        config = transformers.GPT2Config(
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_inner=shape.n_hidden,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **shared,
        )
        return transformers.GPT2LMHeadModel(config)
    values = {
        "hidden_size": shape.n_embd,
        "intermediate_size": shape.n_hidden,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "max_position_embeddings": shape.block_size,
        **shared,
    }
    if shape.family == "mistral":
        return transformers.MistralForCausalLM(
            transformers.MistralConfig(sliding_window=shape.window or None, **values)
        )
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**values))


def prepare(section: RunsSection, source: Path | ModelConfig, dtype: torch.dtype, device: str, seed: int) -> Any:
    """Return the model that a run trains: all weights in float32, or adapters on a base in `dtype` or four bits.

    Args:
        section: How it is trained.
        source: The folder of a base model, or a shape that starts from random weights.
        dtype: Of matrix products.
        device: Where.
        seed: Of random weights and adapters.
    """
    if isinstance(source, ModelConfig):
        model = from_shape(source, seed).to(device)
    elif section.method == "full":
        model = load_base(source, torch.float32, device)  # products run in `dtype` by autocast
    else:
        model = load_base(source, dtype, device, four_bit=section.method == "qlora")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model = with_adapters(model, section.lora, seed)
    if section.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def parts(model: Any) -> tuple[nn.Module, Tensor, Tensor | None]:
    """Return the part of a model that makes hidden states, and the weight and bias of its output layer."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    return inner.base_model, head.weight, getattr(head, "bias", None)


def blocks_of(model: Any) -> nn.ModuleList:
    """Return the layers between embedding and output: the longest list of modules; empty where there is none."""
    lists = [module for module in parts(model)[0].modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def has_plain_head(model: Any) -> bool:
    """Return whether logits are no more than hidden states times the output layer (no caps, no scale, no adapter)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    values = inner.config
    altered = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")
    return type(inner.get_output_embeddings()) is nn.Linear and not any(getattr(values, n, None) for n in altered)


class Scored(nn.Module):
    """A Hugging Face model as the scores ask it: hidden states of packed texts, then logits where they are wanted."""

    def __init__(self, model: Any, shape: ModelConfig) -> None:
        super().__init__()
        self.model, self.config = model, shape
        self.plain = has_plain_head(model)
        self.body, weight_VD, bias_V = parts(model)
        self._weight_VD, self._bias_V = weight_VD, bias_V

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers between embedding and output."""
        return blocks_of(self.model)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return hidden states (or logits, see `packed`) of one text a row, shape (B, T, D)."""
        if self.plain:
            states_BTD: Tensor = self.body(input_ids=tokens_BT, use_cache=False).last_hidden_state
            return states_BTD
        logits_BTV: Tensor = self.model(input_ids=tokens_BT, use_cache=False).logits
        return logits_BTV

    def packed(self, tokens_BW: Tensor, place_BW: Tensor, seen_BWW: Tensor) -> Tensor:
        """Return hidden states (logits, where a model does more than multiply by its output layer), (B, W, D).

        Args:
            tokens_BW: Several texts side by side in each row.
            place_BW: Place of each token in its own text, from 0.
            seen_BWW: Whether the token of a row (second axis) sees that of a column.
        """
        kind = next(self.model.parameters()).dtype
        kind = kind if kind.is_floating_point else torch.float32
        hidden = torch.zeros(seen_BWW.shape, dtype=kind, device=tokens_BW.device)
        hidden.masked_fill_(~seen_BWW, torch.finfo(kind).min)
        values = {"input_ids": tokens_BW, "position_ids": place_BW, "attention_mask": hidden[:, None]}
        if self.plain:
            states_BWD: Tensor = self.body(**values, use_cache=False).last_hidden_state
            return states_BWD
        logits_BWV: Tensor = self.model(**values, use_cache=False).logits
        return logits_BWV

    def head(self, x_ND: Tensor) -> Tensor:
        """Return the logits of some positions."""
        return nn.functional.linear(x_ND, self._weight_VD.to(x_ND.dtype), self._bias_V) if self.plain else x_ND


def _attention(device: str, dtype: torch.dtype) -> str:
    """FlashAttention's own kernels where its package is there, else PyTorch's, which hold FlashAttention too."""
    from importlib.util import find_spec

    half = dtype in (torch.bfloat16, torch.float16)
    return "flash_attention_2" if device == "cuda" and half and find_spec("flash_attn") else "sdpa"


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Load without bars and notices; errors still raise."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
