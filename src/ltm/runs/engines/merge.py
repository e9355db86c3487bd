"""The whole model that adapters make of their base: every matrix with its addition, in float32, for stock programs.

Source: Hu et al. 2021 (the addition is `alpha / rank * B A`). A 4-bit base is not replaced by the model that it was
rounded from: what was trained, and scored, is the rounded one, so that its matrices are written as what they stand for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltm.runs.engines.base_model import need, quiet


def write_merged(model: Any, folder: Path) -> None:
    """Write what adapters make of their base to a folder: config and safetensors.

    Args:
        model: With adapters (peft), in evaluation mode; it is not changed.
        folder: Exists.
    """
    transformers = need("transformers")
    weights, tied = merged_weights(model)
    inner = model.get_base_model()
    config = copy.deepcopy(inner.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype, config.use_cache, config.tie_word_embeddings = torch.float32, True, tied
    with torch.device("meta"):
        plain = transformers.AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(weights, strict=False, assign=True)
    plain.tie_weights()
    if inner.generation_config is not None:
        plain.generation_config = copy.deepcopy(inner.generation_config)
    with quiet(transformers):
        plain.save_pretrained(folder)


@torch.no_grad()
def merged_weights(model: Any) -> tuple[dict[str, Tensor], bool]:
    """Return all weights by their name in the base model, float32, and whether the output layer is the input's.

    An output layer that has adapters of its own is no longer that of the input.
    """
    inner = model.get_base_model()
    head = inner.get_output_embeddings()
    tied = bool(getattr(inner.config, "tie_word_embeddings", False)) and not hasattr(head, "base_layer")
    return dict(_weights(inner)), tied


def _weights(inner: Any) -> Iterator[tuple[str, Tensor]]:
    """Give each weight once (a tied one under its first name, adapters under the name of their matrix)."""
    adapted = {name: module for name, module in inner.named_modules() if hasattr(module, "base_layer")}
    seen: set[int] = set()
    for path, module in inner.named_modules():
        owner, is_base, _ = path.partition(".base_layer")
        if ".lora_" in f".{path}":
            continue
        for kind, parameter in module.named_parameters(recurse=False):
            adapters = adapted[owner] if is_base else None
            if id(parameter) in seen and not (adapters is not None and kind == "weight"):
                continue
            seen.add(id(parameter))
            weight = plain_weight(parameter)
            if adapters is not None and kind == "weight":
                for name in adapters.active_adapters:
                    weight = weight + adapters.get_delta_weight(name).to(weight)
            yield f"{owner}.{kind}" if path else kind, weight.cpu().contiguous()
        for kind, buffer in module.named_buffers(recurse=False):
            if kind not in module._non_persistent_buffers_set:
                yield f"{owner}.{kind}" if path else kind, buffer.cpu()


def plain_weight(parameter: Tensor) -> Tensor:
    """Return a weight in float32; a 4-bit one as the numbers that it stands for."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach().float()
    functional = need("bitsandbytes").functional
    found: Tensor = functional.dequantize_4bit(parameter.data, state).float()
    return found
