"""nanoGPT: its own `model.py` from a clone, and the step of its `train.py`, line by line.

Two things differ from its script: the evaluation and the checkpoint between steps are left out, and on a CPU the
precision that was asked for is switched on - its script has `nullcontext()` there and trains in float32 whatever
`dtype` says.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltm.bench.gate import Gate
from ltm.bench.seat import Seat
from ltm.bench.words import zipf_tokens

_WEIGHT_DECAY, _LEARNING_RATE, _BETAS, _GRAD_CLIP = 1e-1, 6e-4, (0.9, 0.95), 1.0  # its defaults
_LOG_INTERVAL = 10  # of its small configurations: each time the loss is brought back from the device


def run(seat: Seat, gate: Gate) -> None:
    """Train until the gate closes."""
    torch.manual_seed(1337)
    if seat.case.dtype != "float32":  # its script always does; here float32 means float32 for everybody
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    model = _model(seat)
    fused_as_on = "cuda" if seat.device == "cuda" or seat.compiled else "cpu"  # at its hardest: fused on a CPU, too
    optimizer = model.configure_optimizers(_WEIGHT_DECAY, _LEARNING_RATE, _BETAS, fused_as_on)
    about = {
        "n_params": sum(p.numel() for p in model.parameters()),
        "n_multiplied": model.get_num_params(),  # its own count: position embeddings left out
        "attention": _attention(model),
    }
    compiled = torch.compile(model) if seat.compiled else model
    batches = _Batches(seat)
    X, Y = batches.get()  # noqa: N806 - its own names
    gate.begin(**about)
    going, step = True, 0
    while going:
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE
        with _precision(seat):
            _, loss = compiled(X, Y)
        X, Y = batches.get()  # noqa: N806
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % _LOG_INTERVAL == 0:
            loss.item()
        step += 1
        going = gate.passed()


def _model(seat: Seat) -> Any:
    shape = seat.case.config
    source = _import(Path(seat.nanogpt) / "model.py")
    config = source.GPTConfig(
        block_size=shape.block_size,
        vocab_size=shape.vocab_size,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.n_embd,
        dropout=0.0,
        bias=False,
    )
    model = source.GPT(config).to(seat.device)
    if seat.attention == "eager":
        mask = torch.tril(torch.ones(shape.block_size, shape.block_size, device=seat.device))
        for block in model.transformer.h:  # its own path for a PyTorch without fused attention
            block.attn.flash = False
            block.attn.register_buffer("bias", mask.view(1, 1, shape.block_size, shape.block_size))
    return model


def _attention(model: Any) -> str:
    return "sdpa" if model.transformer.h[0].attn.flash else "eager"


def _import(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None  # a .py file always has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # its dataclass and torch.compile look it up there
    spec.loader.exec_module(module)
    return module


def _precision(seat: Seat) -> contextlib.AbstractContextManager[Any]:
    if seat.case.dtype == "float32":
        return contextlib.nullcontext()
    return torch.amp.autocast(device_type=seat.device, dtype=torch.bfloat16)


class _Batches:
    """Its `get_batch`, over tokens in memory in place of a file that the system keeps in memory."""

    def __init__(self, seat: Seat) -> None:
        self.data = zipf_tokens(seat.case.config.vocab_size).astype(np.uint16)
        self.block_size = seat.case.config.block_size
        self.batch_size = seat.case.batch_tokens // self.block_size
        self.device = seat.device

    def get(self) -> tuple[torch.Tensor, torch.Tensor]:
        data, size = self.data, self.block_size
        starts = torch.randint(len(data) - size, (self.batch_size,)).tolist()
        x = torch.stack([torch.from_numpy(data[i : i + size].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + size].astype(np.int64)) for i in starts])
        if self.device == "cuda":
            return (
                x.pin_memory().to(self.device, non_blocking=True),
                y.pin_memory().to(self.device, non_blocking=True),
            )
        return x, y
