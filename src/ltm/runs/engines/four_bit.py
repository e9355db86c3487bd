"""A base model in four bits without ever holding it whole: each matrix is quantised as it is read, and freed at once.

Source: NF4 with double quantisation, Dettmers et al. 2023 (bitsandbytes). transformers reads the same bits, but keeps
what it has read; here the peak is the four-bit model and one matrix. Models whose stored names are not their modules'
(fused experts, transposed matrices) are left to transformers.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ltm.errors import InputError
from ltm.runs.engines import base_model
from ltm.runs.executors.local import keep_freed_memory

_INDEX = "model.safetensors.index.json"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt
_OF_ITS_OWN_BYTES = 1 << 20  # pieces from this size are mapped one by one
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def load(folder: Path, dtype: torch.dtype, device: str, attention: str) -> Any | None:
    """Return a model in four bits, all else in `dtype`; None where transformers itself has to read it.

    Args:
        folder: Judged before; see `ltm.model.base`.
        dtype: Of products, and of what stays whole: embeddings, norms, the output layer.
        device: Where to.
        attention: transformers' name of the kernels.

    Raises:
        InputError: a file is damaged, or a package is missing.
    """
    transformers = base_model.need("transformers")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        return None
    model = _empty(transformers, config, dtype, attention)
    places = _places(folder, model)
    if places is None:
        return None
    _make_room(model, dtype)
    for name, (path, stored) in places.items():
        _put(model, name, _read(path, stored), dtype, device)
    model.tie_weights()
    model.to(device)
    model.is_loaded_in_4bit = model.is_quantized = True  # what peft asks
    model.config.quantization_config = quantization(dtype)
    return model.eval()


def quantization(dtype: torch.dtype) -> Any:
    """Return how matrices are quantised, in transformers' words."""
    return base_model.need("transformers").BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def exact_products(model: Any) -> None:
    """Let 4-bit layers multiply in the dtype that was asked for: bitsandbytes has a bfloat16 kernel for some
    processors that it takes in evaluation whatever was asked, so that scores would depend on the machine."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _empty(transformers: Any, config: Any, dtype: torch.dtype, attention: str) -> Any:
    """Return the model without weights; what it computes by itself (angles) is there."""
    init_empty_weights = base_model.need("accelerate").init_empty_weights

    with base_model.quiet(transformers), init_empty_weights():
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def _places(folder: Path, model: Any) -> dict[str, tuple[Path, str]] | None:
    """Return file and stored name of each parameter; None unless every one is found under its own name."""
    stored: dict[str, Path] = {}
    files = {folder / "model.safetensors"}
    if (folder / _INDEX).is_file():
        files = {folder / Path(name).name for name in json.loads((folder / _INDEX).read_text())["weight_map"].values()}
    for path in sorted(files):
        try:
            with safe_open(path, framework="pt") as file:
                stored |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged: {error}", "download the folder again") from None
    prefix = f"{model.base_model_prefix}."
    tied = set(getattr(model, "all_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    names = {name: name if name in stored else name.removeprefix(prefix) for name, _ in model.named_parameters()}
    if any(name not in stored for own, name in names.items() if own not in tied):
        return None
    if any(isinstance(module, _other_layers()) for module in model.modules()):
        return None
    return {own: (stored[name], name) for own, name in names.items() if name in stored and own not in tied}


def _other_layers() -> tuple[type, ...]:
    from transformers.pytorch_utils import Conv1D

    return (Conv1D,)


def _make_room(model: Any, dtype: torch.dtype) -> None:
    """Put 4-bit layers, still empty, where matrices are; the output layer stays whole."""
    bnb = base_model.need("bitsandbytes")
    head = model.get_output_embeddings()
    for path, module in list(model.named_modules()):
        if type(module) is not nn.Linear or module is head:
            continue
        with torch.device("meta"):
            layer = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=dtype,
                compress_statistics=True,
                quant_type="nf4",
            )
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)


def _read(path: Path, name: str) -> Tensor:
    """Return one tensor; the file is closed again, so that its pages do not stay in memory."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}", "download the folder again") from None


def _put(model: Any, name: str, tensor: Tensor, dtype: torch.dtype, device: str) -> None:
    bnb = base_model.need("bitsandbytes")
    path, _, kind = name.rpartition(".")
    module = model.get_submodule(path)
    wanted = tuple(module._parameters[kind].shape)
    if tuple(tensor.shape) != wanted:
        raise InputError(
            f"{name} has the shape {list(tensor.shape)}, not {list(wanted)} as config.json says",
            "download the folder again",
        )
    if tensor.dtype in _FLOATS:
        tensor = tensor.to(dtype)
    if isinstance(module, bnb.nn.Linear4bit) and kind == "weight":
        weight = bnb.nn.Params4bit(
            tensor.clone(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=module
        )
        module.weight = weight.to(device)  # quantises
        return
    module._parameters[kind] = nn.Parameter(tensor.to(device, copy=True), requires_grad=False)


@contextlib.contextmanager
def memory_given_back(device: str) -> Iterator[None]:
    """Let a process on a CPU return what it frees at once, for as long as the block lasts.

    glibc 2.36 seldom reuses the aligned pieces of its heap that PyTorch asks for: a run of 24 blocks held 850 MiB of
    which 215 were in use. Large pieces of their own cost half as much time again (new pages), and QLoRA is chosen for
    its memory. Does nothing without glibc.
    """
    libc = None
    if device == "cpu":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_MMAP_THRESHOLD, _OF_ITS_OWN_BYTES)
            libc.mallopt(_TRIM_THRESHOLD, _OF_ITS_OWN_BYTES)
            libc.malloc_trim(0)
    try:
        yield
    finally:
        if libc is not None:
            libc.malloc_trim(0)
            keep_freed_memory()
