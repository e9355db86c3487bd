"""The weights of a Hugging Face folder: safetensors in one file or in several; a pickle is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ltm.errors import InputError
from ltm.model.base import read_json_object, refuse_pickles

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_AGAIN = "download or export the folder again"


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
    refuse_pickles(folder)
    raise InputError(f"{folder} has no {WEIGHTS}", "give a folder with config.json and model.safetensors")


def _shards(folder: Path) -> list[Path]:
    places = read_json_object(folder / INDEX).get("weight_map")
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
