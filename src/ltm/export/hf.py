"""A model as a folder that stock transformers load, and such a folder as a model.

Reads and writes: `config.json`, `model.safetensors`, and beside them (written only) the tokenizer's two files,
`generation_config.json` and `README.md`. Both directions keep the function: the logits agree to float32 rounding.
Neither needs transformers, which is only the judge in the tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ltm.errors import InputError, StoreError
from ltm.export.shapes import from_hf_config, to_hf_config
from ltm.export.stored import WEIGHTS, StoredTensors, open_tensors
from ltm.export.tensors import HEAD, PREFIX, check_tensors, fill, is_buffer, to_hf_tensors
from ltm.model.base import CONFIG, read_config
from ltm.model.gpt import GPT
from ltm.model.sizes import ModelConfig
from ltm.store import store_error, write_text
from ltm.tokens.tokenizer import BOS, Tokenizer

_LONGEST_BLOCK_TOKENS = 1 << 20  # the angles of all positions are kept in memory


def export_hf(model: GPT, tokenizer: Tokenizer | None, folder: Path, readme: str = "", chat_template: str = "") -> None:
    """Write a model as a Hugging Face folder, whole: it appears when all of its files stand.

    Args:
        model: The model; it is written as float32, wherever it lies.
        tokenizer: The tokenizer that it was trained with; None writes a folder without one.
        folder: The folder to be made.
        readme: Text of `README.md`; empty writes none.
        chat_template: How it was asked when it was tuned on conversations; empty = it was not.

    Raises:
        InputError: the folder exists, the tokenizer does not fit the model, or Hugging Face has no such model.
        StoreError: it cannot be written.
    """
    config = model.config
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model's vocabulary {config.vocab_size}",
            "give the tokenizer that the model was trained with",
        )
    bos_id = None if tokenizer is None else tokenizer.bos_id
    values = to_hf_config(config, _norm_eps(model), bos_id)
    with whole_folder(folder) as temporary:
        write_json(temporary / CONFIG, values)
        write_json(temporary / "generation_config.json", _generation_values(bos_id))
        save_file(to_hf_tensors(model), temporary / WEIGHTS, {"format": "pt"})
        (temporary / WEIGHTS).chmod((temporary / CONFIG).stat().st_mode & 0o777)  # safetensors lets only its owner read
        if tokenizer is not None:
            write_text(temporary / "tokenizer.json", tokenizer.to_json())
            write_json(temporary / "tokenizer_config.json", tokenizer_values(config.block_size, chat_template))
        if readme:
            write_text(temporary / "README.md", readme)


def import_hf(folder: Path | str, block_size: int | None = None) -> GPT:
    """Return the model of a Hugging Face folder (GPT-2, Llama or Mistral), float32, on the CPU, in evaluation mode.

    Args:
        folder: Holds `config.json` and safetensors, in one file or several; a pickle is refused.
        block_size: The longest input in tokens, at most the folder's own; None is the folder's own.

    Raises:
        InputError: the folder is not one, is incomplete, or holds a model that this decoder cannot be; says why.
    """
    folder = Path(folder)
    config, norm_eps = from_hf_config(read_config(folder))
    with open_tensors(folder) as tensors:
        names = _full_names(tensors, config.family)
        if config.tie_embeddings and HEAD in names:
            config = _judge_tie(config, names, tensors)
        check_tensors(config, {full: tensors.shape(name) for full, name in names.items()})
        model = GPT(dataclasses.replace(config, block_size=_block_size(config, block_size)))
        fill(model, tensors.renamed(names))
    for module in model.modules():
        if isinstance(module, (nn.RMSNorm, nn.LayerNorm)):
            module.eps = norm_eps
    return model.eval()


def _full_names(stored: Iterable[str], family: str) -> dict[str, str]:
    """Return the stored name of each tensor by its full one: a folder of the bare decoder leaves the prefix out."""
    prefix = PREFIX[family]
    names: dict[str, str] = {}
    for name in stored:
        if is_buffer(name):
            continue
        full = name if name == HEAD or name.startswith(prefix) else prefix + name
        if full in names:
            raise InputError(
                f"the weights hold `{names[full]}` and `{name}`, which are one", "download the folder again"
            )
        names[full] = name
    return names


def _judge_tie(config: ModelConfig, names: dict[str, str], tensors: StoredTensors) -> ModelConfig:
    """Drop a stored output layer that equals the input's; one that differs is kept, as transformers do."""
    embed = f"{PREFIX[config.family]}{'wte' if config.family == 'gpt2' else 'embed_tokens'}.weight"
    if embed in names and not torch.equal(tensors[names[embed]].float(), tensors[names[HEAD]].float()):
        return dataclasses.replace(config, tie_embeddings=False)
    del names[HEAD]
    return config


def _block_size(config: ModelConfig, wanted: int | None) -> int:
    own = config.block_size
    if wanted is None and own > _LONGEST_BLOCK_TOKENS:
        raise InputError(
            f"the folder's context of {own} tokens is too long", "ask for less: import_hf(folder, block_size=8192)"
        )
    if wanted is not None and not 1 <= wanted <= own:
        raise InputError(f"block_size {wanted} is not between 1 and the folder's own {own}", f"nearest: {own}")
    return wanted or own


def _norm_eps(model: GPT) -> float:
    norm: Any = model.norm
    return float(norm.eps)


def _generation_values(bos_id: int | None) -> dict[str, Any]:
    return {"bos_token_id": bos_id, "eos_token_id": bos_id, "pad_token_id": bos_id}


def tokenizer_values(block_size: int, chat_template: str = "") -> dict[str, Any]:
    """Return the `tokenizer_config.json` of a study's own tokenizer."""
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "pad_token": BOS,
        "padding_side": "left",  # a decoder goes on from the last token
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that spells the start mark out is still only text
    }
    if chat_template:  # its own marks must count
        values |= {"chat_template": chat_template, "split_special_tokens": False}
    return values


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as people read it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that takes its name when the block ends without an error, and else is deleted.

    Raises:
        InputError: the folder exists.
        StoreError: it cannot be written.
    """
    refuse_existing(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a dead process that had our number
        temporary.mkdir(parents=True)
        yield temporary
        _flush(temporary)
        refuse_existing(folder)
        temporary.rename(folder)
    except OSError as error:
        raise store_error(error, folder) from error
    except SafetensorError as error:  # how safetensors says that the disk is full
        raise StoreError(f"cannot write {folder}: {error}", "free some space and run the same command again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Refuse a folder that exists: nothing is ever overwritten."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists already", "delete it, or choose another --out")


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
