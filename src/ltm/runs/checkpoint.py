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
    """Write everything that the run needs to go on."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainer.model.named_parameters():
        tensors[f"weight:{name}"] = parameter.detach()
        tensors[f"average:{name}"] = trainer.average[name]
        for key, value in trainer.optimizer.state[parameter].items():
            tensors[f"optimizer:{key}:{name}"] = value
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(tensors, {"state": json.dumps(dataclasses.asdict(trainer.state))}))


def load_checkpoint(path: Path, trainer: Trainer) -> bool:
    """Set a trainer back to its last checkpoint; returns False where there is none or it is damaged."""
    if not path.exists():
        return False
    try:
        tensors, metadata = _read(path)
        state = TrainState(**json.loads(metadata["state"]))
    except (StoreError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)  # a damaged checkpoint costs time, not the run: it starts anew
        return False
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.copy_(tensors[f"weight:{name}"])
            trainer.average[name].copy_(tensors[f"average:{name}"])
            trainer.optimizer.state[parameter] = {
                key.split(":")[1]: _placed(value, parameter)
                for key, value in tensors.items()
                if key.startswith("optimizer:") and key.split(":", 2)[2] == name
            }
    trainer.state = state
    return True


def _placed(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    return value.to(parameter.device).clone()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data), header.get("__metadata__", {})
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run `ltm runs STUDY`") from None
    except (SafetensorError, ValueError, OSError):
        raise StoreError(f"{path} is damaged", "delete the run's folder and run again") from None
