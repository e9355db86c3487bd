"""Reads a Hugging Face folder: its `config.json`, and its safetensors in one file or in several.

Reads nothing else: a pickle can run any program when it is loaded, and is refused by name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ltm.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LARGEST_JSON_BYTES = 64 << 20  # an index of a million tensors is smaller
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_AGAIN = "download or export the folder again"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of a folder's `config.json`.

    Raises:
        InputError: it is no folder, or has no such file, or a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "give a folder with config.json and model.safetensors")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}", "give a folder that Hugging Face transformers can load")
    return _read_json(folder / CONFIG)


def _read_json(path: Path) -> dict[str, Any]:
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


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read from its file when it is asked for."""

    def __init__(self, places: dict[str, tuple[Any, str]]) -> None:
        self._places = places  # open file and name in it

    def __getitem__(self, name: str) -> Tensor:
        file, stored_name = self._places[name]
        tensor: Tensor = file.get_tensor(stored_name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        file, stored_name = self._places[name]
        return tuple(file.get_slice(stored_name).get_shape())

    def renamed(self, names: Mapping[str, str]) -> StoredTensors:
        """Return some of the tensors under other names; `names` leads from the new name to the old one."""
        return StoredTensors({new: self._places[old] for new, old in names.items()})


@contextlib.contextmanager
def open_tensors(folder: Path) -> Iterator[StoredTensors]:
    """Open a folder's weights.

    Raises:
        InputError: there are none in safetensors, a file of several is missing, or one is damaged.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, tuple[Any, str]] = {}
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                names = list(file.keys())
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged: {error}", _AGAIN) from None
            if twice := sorted(found.keys() & set(names)):
                raise InputError(f"{path} holds {twice[0]} a second time", _AGAIN)
            found |= {name: (file, name) for name in names}
        yield StoredTensors(found)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which is never loaded: it can run any program",
            "ask for safetensors, or convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    raise InputError(f"{folder} has no {WEIGHTS}", "give a folder with config.json and model.safetensors")


def _shards(folder: Path) -> list[Path]:
    places = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{folder / INDEX} has no weight_map", _AGAIN)
    files = []
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{folder / INDEX} names `{name}`, which is not a safetensors file beside it", _AGAIN)
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}, which its index names", _AGAIN)
        files.append(folder / name)
    return files
