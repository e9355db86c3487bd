"""Weights and training state on disk: safetensors and JSON, never pickle, each file written whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ltm.errors import StoreError
from ltm.model.gpt import GPT
from ltm.model.sizes import ModelConfig
from ltm.runs.train import Trainer, TrainState
from ltm.store import WorkFolder, write_bytes

WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"


def save_weights(path: Path, weights: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """Write a model's weights with its shape in the file's metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_bytes(path, save(tensors, {"config": json.dumps(dataclasses.asdict(config))}))


def load_model(work: WorkFolder, run_id: str, device: str) -> tuple[GPT, int]:
    """Return a run's trained model in evaluation mode, and its block size.

    Raises:
        StoreError: the weights are missing or damaged.
    """
    path = work.path("runs", run_id, WEIGHTS)
    weights, metadata = _read(path)
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
    write_bytes(path, save(tensors, {"run": json.dumps(about)}))


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
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data), header.get("__metadata__", {})
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run `ltm runs STUDY`") from None
    except (SafetensorError, ValueError, OSError):
        raise StoreError(f"{path} is damaged", "delete the run's folder and run again") from None
