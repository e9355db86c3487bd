"""The processes that train one run together: alone, copies (DDP), shards (FSDP2), or DeepSpeed's ZeRO-2."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from torch import Tensor, distributed

from ltm.runs.engines import base_model


class Group:
    """One process's place among those that share a run.

    Args:
        kind: none, ddp, fsdp or zero2.
        device: cpu, cuda or mps; with CUDA every process takes the card of its number.
    """

    def __init__(self, kind: str, device: str) -> None:
        self.kind = kind
        self.rank, self.size = 0, 1
        self.device = device
        if kind != "none":
            self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            if device == "cuda":
                self.device = f"cuda:{os.environ['LOCAL_RANK']}"
                torch.cuda.set_device(self.device)
            if not distributed.is_initialized():
                distributed.init_process_group("nccl" if device == "cuda" else "gloo")

    def wrap(self, model: Any) -> Any:
        """Return the model laid out over the processes."""
        if self.kind == "ddp":
            return torch.nn.parallel.DistributedDataParallel(model)
        if self.kind == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.split(":")[0], (self.size,))
            for block in base_model.blocks_of(model):
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
        return model

    def inner(self, model: Any) -> Any:
        """Return the model inside its layout."""
        return model.module if self.kind == "ddp" else model

    def last(self, model: Any, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Let gradients travel only in the last micro batch of a step."""
        if self.kind == "ddp" and not is_last:
            return model.no_sync()  # type: ignore[no-any-return]
        if self.kind == "fsdp":
            model.set_requires_gradient_sync(is_last)
        return contextlib.nullcontext()

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        if self.size > 1:
            distributed.all_reduce(value)
            value = value / self.size
        return float(value)

    def any(self, value: bool) -> bool:
        """Return whether it is true in one of the processes."""
        return self.mean(torch.tensor(float(value), device=self.device)) > 0

    def wait(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Say good-bye."""
        if distributed.is_initialized():
            distributed.destroy_process_group()
