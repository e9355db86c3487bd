"""Raw rates of a GPU: matrix products by precision, memory, attention, launches, optimizer, copies from the host.

Timed with the device's own events on CUDA, by the clock around a synchronised loop on Apple's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

_REPEATS = 20
_SIZES = (1024, 2048, 4096, 8192)
_COPY_BYTES = 1 << 28


def gpu_rates(device: str) -> dict[str, float]:
    """Return FLOP/s, bytes/s and seconds per launch by name; what the card cannot do is left out."""
    found: dict[str, float] = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for size in _SIZES:
            a = torch.randn(size, size, device=device).to(dtype)
            found[f"matmul_{name}_{size}_flops_per_second"] = 2 * size**3 / _seconds(lambda a=a: a @ a, device)  # type: ignore[misc]
        q = torch.randn(8, 12, 1024, 64, device=device).to(dtype)
        attend: Callable[[], object] = lambda q=q: scaled_dot_product_attention(q, q, q, is_causal=True)  # type: ignore[misc]  # noqa: E731
        found[f"attention_{name}_flops_per_second"] = 2 * 2 * 8 * 12 * 1024**2 * 64 / 2 / _seconds(attend, device)
    found |= _float8(device)
    x = torch.ones(_COPY_BYTES // 4, device=device)
    y = torch.empty_like(x)
    found["bandwidth_bytes_per_second"] = 2 * _COPY_BYTES / _seconds(lambda: y.copy_(x), device)
    one = torch.ones(1, device=device)
    found["launch_seconds"] = _seconds(lambda: one.add_(1.0), device, repeats=1000)
    found |= _optimizer(device)
    if device == "cuda":
        found["memory_bytes"] = float(torch.cuda.get_device_properties(0).total_memory)
        host = torch.ones(_COPY_BYTES // 4, pin_memory=True)
        copy = _seconds(lambda: x.copy_(host, non_blocking=True), device)
        found["host_to_device_bytes_per_second"] = _COPY_BYTES / copy
    return found


def _optimizer(device: str) -> dict[str, float]:
    parameters = [torch.nn.Parameter(torch.randn(1 << 20, device=device)) for _ in range(32)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    return {"adamw_seconds_per_parameter": _seconds(optimizer.step, device) / (32 << 20)}


def _float8(device: str) -> dict[str, float]:
    """Return the rate of scaled 8-bit products, where the card and PyTorch have them (8.9 and newer)."""
    if device != "cuda" or torch.cuda.get_device_capability() < (8, 9):
        return {}
    found = {}
    scale = torch.ones((), device=device)
    for size in _SIZES:
        a = torch.randn(size, size, device=device).to(torch.float8_e4m3fn)
        b = torch.randn(size, size, device=device).to(torch.float8_e4m3fn).t()  # columns must lie together
        multiply: Callable[[], object] = lambda a=a, b=b: torch._scaled_mm(  # type: ignore[misc]  # noqa: E731
            a, b, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16
        )
        try:
            found[f"matmul_float8_{size}_flops_per_second"] = 2 * size**3 / _seconds(multiply, device)
        except RuntimeError:  # this build of PyTorch has no such kernel for this card
            break
    return found


def _seconds(function: Callable[[], object], device: str, repeats: int = _REPEATS) -> float:
    """Return the seconds of one call: the best of three loops, after a warm-up."""
    for _ in range(3):
        function()
    best = float("inf")
    for _ in range(3):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            begin.record()
            for _ in range(repeats):
                function()
            end.record()
            torch.cuda.synchronize()
            best = min(best, begin.elapsed_time(end) / 1000 / repeats)
        else:
            _synchronize(device)
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            _synchronize(device)
            best = min(best, (time.perf_counter() - start) / repeats)
    return best


def _synchronize(device: str) -> None:
    if device == "mps":
        torch.mps.synchronize()
