"""The yardstick: nothing but square matrix products, at the size that this machine multiplies fastest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ltm.bench.gate import Gate
from ltm.bench.seat import Seat

_CPU_SIZES, _GPU_SIZES = (512, 1024, 2048), (2048, 4096, 8192)
_TRY_SECONDS = 0.15
_STEP_SECONDS = 0.02  # products between two looks at the clock


def run(seat: Seat, gate: Gate) -> None:
    """Multiply until the gate closes; the gate counts FLOPs."""
    dtype = getattr(torch, seat.case.dtype)
    rates = {}
    for size in _CPU_SIZES if seat.device == "cpu" else _GPU_SIZES:
        for flipped in (False, True):
            rates[size, flipped] = _rate(_product(size, flipped, dtype, seat.device), size, seat.device)
    size, flipped = max(rates, key=rates.__getitem__)
    product = _product(size, flipped, dtype, seat.device)
    repeats = max(1, round(_STEP_SECONDS * rates[size, flipped] / (2 * size**3)))
    gate.amount = repeats * 2.0 * size**3
    gate.begin(size=size)
    going = True
    while going:
        for _ in range(repeats):
            product()
        if seat.device == "cuda":  # else a queue of products runs on long after the turn
            torch.cuda.synchronize()
        going = gate.passed()


def _product(size: int, flipped: bool, dtype: torch.dtype, device: str) -> Callable[[], Any]:
    a, b, c = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    right = b.t() if flipped else b  # a linear layer multiplies by a transposed weight
    return lambda: torch.mm(a, right, out=c)


def _rate(product: Callable[[], Any], size: int, device: str) -> float:
    for _ in range(2):
        product()
    if device == "cuda":
        torch.cuda.synchronize()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < _TRY_SECONDS:
        product()
        count += 1
        if device == "cuda":
            torch.cuda.synchronize()
    return count * 2.0 * size**3 / (time.perf_counter() - began)
