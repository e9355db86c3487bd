"""One question to the forecaster: a model, its data, a method, a machine - as numbers that formulas can use.

A `Case` is plain and scalar; `Columns` lays many of them side by side as arrays, which is what `formulas` eats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltm.forecast.devices import Device, numeric_fields

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8")
ATTENTIONS = ("eager", "flash", "flash3", "flex")
KERNELS = ("plain", "fused", "compiled")
LOOPS = ("usual", "tuned", "whole")
METHODS = ("full", "lora", "qlora")
OPTIMIZERS = ("adamw", "adamw8bit", "muon", "sgd")
CHECKPOINTING = {"none": 0.0, "selective": 0.15, "full": 1.0}


@dataclass(frozen=True, slots=True)
class Case:
    """One training setup on one kind of device. Codes count into the tuples of this module."""

    # the model
    n_layer: float
    n_embd: float
    n_head: float
    n_kv_head: float
    head_size: float
    n_hidden: float
    vocab_size: float
    gated: float = 1.0  # three matrices in the feed-forward part (SwiGLU) instead of two
    tied: float = 0.0  # input and output embedding are one
    learned_positions: float = 0.0
    window: float = 0.0  # sliding window in tokens; 0 = full attention
    n_params: float = 0.0  # all parameters, where known; 0 = from the shape
    # the batch
    seq_len: float = 1024.0
    micro_batch: float = 8.0  # sequences of one forward pass on one replica
    global_batch_tokens: float = 8192.0
    # how
    precision: float = 3.0
    mixed: float = 1.0  # weights kept in fp32 beside their 16-bit copies
    attention: float = 1.0
    checkpointing: float = 0.0  # share of the forward pass that is computed again
    kernels: float = 2.0  # plain calls, hand-fused ones (Megatron, FlashAttention layers), or compiled
    method: float = 0.0
    lora_rank: float = 0.0
    lora_attention: float = 1.0  # share of the attention matrices with adapters
    lora_mlp: float = 0.0
    lora_embeddings: float = 0.0  # embeddings and output layer trained too
    optimizer: float = 0.0
    loop: float = 1.0  # a usual training loop, one written for speed, or a whole run with its evaluations and restarts
    # the machine
    n_devices: float = 1.0
    devices_per_node: float = 8.0
    node_link: float = 200e9  # bytes/s of one node's network, all cards together
    tp: float = 1.0
    pp: float = 1.0
    cp: float = 1.0  # context parallel
    interleave: float = 1.0  # virtual pipeline stages
    zero: float = 0.0  # ZeRO stage; 3 = FSDP too
    # learned from runs of the same framework
    speed_scale: float = 1.0
    launch_scale: float = 1.0
    memory_extra: float = 0.0  # bytes
    allocated_only: float = 0.0  # 1 = the peak that the program allocates, without driver and allocator
    known: float = 0.0  # 1 = runs of this framework took part in the fit
    guesses: float = 0.0  # how many of shape, batch, length, cards had to be guessed
    continued: float = 0.0  # starts from given weights


class Columns:
    """Cases or devices side by side: every field an array of shape (n,)."""

    def __init__(self, **arrays: NDArray[np.float64]) -> None:
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:  # only for type checkers: real fields are found before
        raise AttributeError(name)


def case_columns(cases: Sequence[Case]) -> Columns:
    """Return the cases as arrays."""
    return _columns([f.name for f in fields(Case)], cases)


def device_columns(devices: Sequence[Device]) -> Columns:
    """Return the devices as arrays."""
    return _columns(numeric_fields(), devices)


def _columns(names: Iterable[str], rows: Sequence[Any]) -> Columns:
    return Columns(**{name: np.array([getattr(row, name) for row in rows], dtype=np.float64) for name in names})
