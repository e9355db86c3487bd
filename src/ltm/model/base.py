"""A model to start from: a Hugging Face folder, or a run of ltm, read and judged before anything is loaded.

Reads: `config.json`, file names and, for its identity, the weights. No torch here. Nothing is executed: a folder that
asks for its own code or holds its weights as a pickle is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltm.errors import InputError
from ltm.model.sizes import ModelConfig
from ltm.seal import file_digest
from ltm.store import cache_folder, fingerprint, read_json, write_json

CONFIG, TOKENIZER, OWN_WEIGHTS = "config.json", "tokenizer.json", "weights.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_LARGEST_JSON_BYTES = 64 << 20  # an index of a million tensors is smaller
_AGAIN = "download or export the folder again"
_SAVE_TOKENIZER = "save it from the model's tokenizer: AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
# Licence texts that forbid what a study makes of a model; matched in the README's `license:` line.
_NO_DERIVATIVES = ("cc-by-nd", "cc-by-nc-nd", "no-derivatives")


@dataclasses.dataclass(frozen=True)
class Base:
    """What a study needs to know of a base model before it is loaded."""

    folder: Path
    model_type: str
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    n_hidden: int
    vocab_size: int
    n_positions: int
    tie_embeddings: bool
    licence: str  # as the folder's README names it, or empty

    def shape(self, block_size: int | None) -> ModelConfig:
        """Return the nearest shape of ltm's own decoder: what forecasts and batches are reckoned with."""
        family = "gpt2" if self.model_type == "gpt2" else "llama"
        return ModelConfig(
            family,
            self.n_layer,
            self.n_head,
            self.n_kv_head,
            self.n_embd,
            self.n_hidden,
            self.vocab_size,
            min(block_size or self.n_positions, self.n_positions),
            tie_embeddings=self.tie_embeddings,
        )

    @property
    def forbids_derivatives(self) -> bool:
        """Whether the licence that its README names forbids passing on what is made of it."""
        return any(word in self.licence.lower() for word in _NO_DERIVATIVES)


def read_base(folder: Path) -> Base:
    """Return what a Hugging Face folder says of its model.

    Raises:
        InputError: no such folder, or it wants its own code, holds a pickle, lacks weights, a tokenizer or a shape.
    """
    values = read_config(folder)
    if "auto_map" in values:
        raise InputError(
            f"{folder} wants to run its own code (`auto_map` in {CONFIG}), which is never done",
            "choose a model that transformers knows by itself",
        )
    _check_weights(folder)
    if not (folder / TOKENIZER).is_file():
        raise InputError(f"{folder} has no {TOKENIZER}", _SAVE_TOKENIZER)
    text = values.get("text_config") if isinstance(values.get("text_config"), dict) else values
    assert isinstance(text, dict)
    heads = _number(folder, text, "num_attention_heads", "n_head")
    width = _number(folder, text, "hidden_size", "n_embd")
    return Base(
        folder,
        str(values.get("model_type", "")),
        n_layer=_number(folder, text, "num_hidden_layers", "n_layer"),
        n_head=heads,
        n_kv_head=int(text.get("num_key_value_heads") or heads),
        n_embd=width,
        n_hidden=int(text.get("intermediate_size") or text.get("n_inner") or 4 * width),
        vocab_size=_number(folder, text, "vocab_size"),
        n_positions=int(text.get("max_position_embeddings") or text.get("n_positions") or 2048),
        tie_embeddings=bool(text.get("tie_word_embeddings", True)),
        licence=_licence(folder),
    )


def is_own(folder: Path) -> bool:
    """Return whether a folder is that of a run of ltm, and not a Hugging Face folder."""
    return (folder / OWN_WEIGHTS).is_file() and not (folder / CONFIG).is_file()


def base_shape(folder: Path, block_size: int | None) -> ModelConfig:
    """Return the shape of a base model: exactly for a run of ltm, nearly for a Hugging Face folder.

    Raises:
        InputError: it is neither, or cannot be used.
    """
    if not is_own(folder):
        return read_base(folder).shape(block_size)
    path = folder / OWN_WEIGHTS
    try:
        with open(path, "rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(n_bytes, _LARGEST_JSON_BYTES)))
        config = ModelConfig(**json.loads(header["__metadata__"]["config"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged", "choose another run of that study, or train it again") from None
    return config if block_size is None else dataclasses.replace(config, block_size=block_size)


def base_tokenizer(folder: Path) -> Path:
    """Return the `tokenizer.json` that a base model was trained with.

    Raises:
        InputError: it is not there.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "give a Hugging Face folder, or the folder of a run of ltm")
    path = folder.parent.parent / "tokens" / TOKENIZER if is_own(folder) else folder / TOKENIZER
    if not path.is_file():
        raise InputError(f"{path}, the tokenizer of the base model {folder}, is missing", _SAVE_TOKENIZER)
    return path


def identity(folder: Path) -> str:
    """Return a fingerprint of a base model's shape, weights and tokenizer: part of what makes two runs the same.

    Weights are hashed whole, once: the answer is kept in the cache folder until a file's size or time changes.
    """
    files = [*sorted(folder.glob("*.safetensors")), base_tokenizer(folder)]
    files += [] if is_own(folder) else [folder / CONFIG]
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    kept = cache_folder() / "bases" / f"{fingerprint([str(folder.resolve()), stamps])}.json"
    if kept.exists():
        return str(read_json(kept))
    value = fingerprint([[path.name, file_digest(path)] for path in files])
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, value)
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of a Hugging Face folder's `config.json`.

    Raises:
        InputError: it is no folder, or has no such file, or a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "give a folder with config.json, safetensors and tokenizer.json")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is no model folder: it has no {CONFIG}", "give a folder that transformers can load")
    return read_json_object(folder / CONFIG)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that others have written.

    Raises:
        InputError: it cannot be read, is too large, or holds something else.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise InputError(f"{path} is too large to be read: {path.stat().st_size} bytes", _AGAIN)
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InputError(f"{path} is damaged: not JSON", _AGAIN) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the file's permissions") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: not a JSON object", _AGAIN)
    return value


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are a pickle: loading one can run any program.

    Raises:
        InputError: it holds a pickle and no safetensors; says how to convert it.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickles:
        raise InputError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which is never loaded: it can run any program",
            "ask for safetensors, or convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )


def _check_weights(folder: Path) -> None:
    refuse_pickles(folder)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no weights in safetensors", "download the folder again")


def _number(folder: Path, values: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(values.get(name), int) and values[name] > 0:
            return int(values[name])
    raise InputError(f"{folder / CONFIG} has no {names[0]}", "give the folder of a causal language model")


def _licence(folder: Path) -> str:
    """Return the licence that the head of the folder's README names."""
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return ""
    if not head.startswith("---"):
        return ""
    for line in head.split("---", 2)[1].splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("license", "license_name") and value.strip():
            return value.strip().strip("'\"")
    return ""
