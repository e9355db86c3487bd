"""Weights and training state on disk: safetensors and JSON, never pickle, each file written whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ltm.errors import DamagedError, StoreError
from ltm.model.gpt import GPT
from ltm.model.sizes import ModelConfig
from ltm.runs.train import Trainer, TrainState
from ltm.seal import BLANK, is_whole, sealed
from ltm.store import WorkFolder, write_bytes

WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"


def save_weights(path: Path, weights: dict[str, torch.Tensor], config: ModelConfig) -> str:
    """Write a model's weights with its shape in the file's metadata; returns their digest (see `digest_of`)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_bytes(path, sealed(save(tensors, {"config": json.dumps(dataclasses.asdict(config)), "seal": BLANK})))
    return digest_of(tensors)


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors by name: equal where all bits are, whatever else the file holds."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file.

    Raises:
        StoreError: it is missing or damaged.
    """
    return _read(path)[0]


def load_model(work: WorkFolder, run_id: str, device: str) -> tuple[GPT, int]:
    """Return a run's trained model in evaluation mode, and its block size.

    Raises:
        StoreError: the weights are missing or damaged.
    """
    return load_file(work.path("runs", run_id, WEIGHTS), device)


def load_file(path: Path, device: str) -> tuple[GPT, int]:
    """Return the model of a weights file in evaluation mode, and its block size; raises as `load_model`."""
    weights, metadata = _read(path)
    if "config" not in metadata:
        raise StoreError(f"{path} does not say the shape of its model", "choose a file that ltm wrote")
    config = ModelConfig(**json.loads(metadata["config"]))
    model = GPT(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"unembed.weight"}:
        raise StoreError(f"{path} does not fit its own shape", "delete the run's folder and run again")
    return model.to(device).eval(), config.block_size


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Write everything that the run needs to go on.

    Raises:
        NotFinite: the steps since the last look were not finite: nothing worth keeping.
    """
    trainer.settle()
    tensors = {"master": trainer.weights.master_N, "average": trainer.average_N}
    tensors |= {f"optimizer:{name}": value for name, value in trainer.optimizer.state().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"state": dataclasses.asdict(trainer.state), "micro_tokens": trainer.micro_tokens}
    write_bytes(path, sealed(save(tensors, {"run": json.dumps(about), "seal": BLANK})))


def load_checkpoint(path: Path, trainer: Trainer) -> bool:
    """Set a trainer back to its last checkpoint; returns False where there is none or it is damaged."""
    if not path.exists():
        return False
    try:
        tensors, metadata = _read(path)
        about = json.loads(metadata["run"])
        state = TrainState(**about["state"])
        master_N, average_N = tensors.pop("master"), tensors.pop("average")
        if (master_N.shape, average_N.shape) != (trainer.weights.master_N.shape, trainer.average_N.shape):
            raise ValueError("another shape")
    except (StoreError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)  # a damaged checkpoint costs time, not the run: it starts anew
        return False
    trainer.weights.master_N.copy_(master_N)
    trainer.weights.publish()
    trainer.average_N.copy_(average_N)
    trainer.optimizer.load({name.removeprefix("optimizer:"): value for name, value in tensors.items()})
    trainer.state, trainer.micro_tokens = state, about["micro_tokens"]  # other micro batches would round differently
    return True


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        data = path.read_bytes()
        if not is_whole(data):
            raise DamagedError(path)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data), header.get("__metadata__", {})
    except FileNotFoundError:
        raise DamagedError(path, missing=True) from None
    except (SafetensorError, ValueError, OSError):
        raise DamagedError(path) from None
