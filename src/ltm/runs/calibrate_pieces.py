"""Time the pieces of a training step alone: the very code of `ltm.model`, forward and backward, without the rest.

Several replicas go forward before the first goes backward, as layers do, so that saved activations are as cold as in
a real step.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ltm.forecast.machine_fit import PieceTiming
from ltm.forecast.machine_work import flat_config
from ltm.model.gpt import GPT, NORM_EPS, Attention, GeluMlp, SwiGlu, rotary
from ltm.model.loss import linear_cross_entropy
from ltm.model.optimizer import Optimizer, OptimizerSettings
from ltm.model.sizes import ModelConfig
from ltm.model.weights import FlatWeights

_REPLICA_ELEMENTS = 4_000_000  # of all replicas of a piece together: beyond the caches, yet quick
_MOST_REPLICAS = 12
_MANY_WEIGHTS = 100_000
_NEAR_BYTES, _FAR_BYTES = 8 << 20, 64 << 20  # that empty the second and the third cache
_MOST_ROUNDS, _FEWEST_PIECES = 12, 60
_GPU_TOKENS = 16  # times the tokens of a CPU's pieces, to fill a GPU

Pass = Callable[[], float]  # runs a piece once and returns seconds of one forward and backward pass


@dataclass(frozen=True)
class Piece:
    """A piece with its sizes; see `ltm.forecast.machine_work.piece`."""

    name: str
    dtype: str
    sizes: tuple[tuple[str, int], ...]


def plan(device: str = "cpu") -> list[Piece]:
    """Return the pieces that a probe times: sizes spread, skinny ones included."""
    result = []
    for dtype in ("float32", "bfloat16"):
        for m, n, k in _PRODUCTS:
            result.append(_piece("forward", dtype, m=m, n=n, k=k))
            result.append(_piece("grad_input", dtype, m=m, n=k, k=n))
            result.append(_piece("grad_weight", dtype, m=n, n=k, k=m))
        result += [_piece("linear", dtype, m=m, n=n, k=k) for m, n, k in _LINEARS]
        for t, h, kv, c, m, w in _ATTENTION:
            for name in ("attention", "rotary_attention") if h == kv and not w else ("rotary_attention",):
                result.append(_piece(name, dtype, m=m, t=t, h=h, k=kv, c=c, w=w))
        for m, width in _ELEMENTS:
            for name in ("rms", "ln"):
                result.append(_piece(name, dtype, m=m, d=width))
            for name in ("swiglu", "gelu"):
                result.append(_piece(name, dtype, m=m, f=2 * width))
            result.append(_piece("bias", dtype, m=m, n=width))
        for m, d, v in _LOSSES:
            result.append(_piece("loss", dtype, m=m, d=d, v=v))
            result.append(_piece("embedding", dtype, m=m, d=d, v=v))
        for name in ("gather", "update", "average"):
            result += [_piece(name, dtype, layers=n, d=d, v=v) for n, d, v in _WEIGHTS]
    if device != "cpu":
        result = [_widened(p) for p in result]
    return result


_PRODUCTS = [
    (64, 32, 32),
    (256, 64, 64),
    (512, 512, 256),
    (1024, 288, 96),
    (2048, 768, 384),
    (2048, 96, 384),
    (4096, 128, 32),
    (4096, 48, 144),
    (8192, 256, 80),
    (384, 1536, 512),
    (1024, 1000, 128),
    (256, 4096, 64),
    (512, 8192, 48),
    (12288, 704, 96),
    (16384, 192, 48),
    (192, 1792, 512),
]
_ATTENTION = [  # T, H, K, C, M, window
    (32, 1, 1, 16, 32, 0),
    (64, 4, 4, 16, 1024, 0),
    (64, 2, 1, 64, 4096, 0),
    (96, 3, 3, 80, 1152, 0),
    (128, 3, 3, 32, 2048, 0),
    (128, 2, 2, 40, 1024, 0),
    (128, 8, 4, 24, 8192, 0),
    (192, 1, 1, 24, 2304, 0),
    (256, 2, 2, 48, 4096, 0),
    (256, 4, 2, 32, 1024, 128),
    (256, 4, 4, 16, 12288, 0),
    (320, 6, 6, 24, 640, 0),
    (384, 7, 7, 32, 768, 0),
    (512, 2, 2, 32, 2048, 0),
    (512, 4, 1, 64, 1024, 256),
    (768, 3, 3, 48, 768, 0),
    (1024, 2, 2, 16, 4096, 0),
    (1024, 1, 1, 64, 1024, 512),
]
_LINEARS = [
    (16, 32, 32),
    (256, 64, 192),
    (1024, 128, 128),
    (4096, 96, 32),
    (2048, 512, 192),
    (128, 1024, 512),
    (192, 512, 1792),
]
_ELEMENTS = [
    (16, 32),
    (256, 64),
    (4096, 32),
    (8192, 48),
    (2048, 96),
    (1024, 256),
    (8192, 96),
    (2048, 512),
    (16384, 192),
]
_LOSSES = [(16, 32, 64), (512, 32, 257), (4096, 32, 512), (2048, 128, 1024), (1024, 64, 2048), (1024, 32, 8192)]
_LOSSES += [(512, 256, 8192), (4096, 48, 4096)]
_WEIGHTS = [(1, 16, 64), (4, 32, 300), (2, 96, 1024), (12, 64, 512), (4, 192, 2048)]  # layers, width, vocabulary


def _widened(small: Piece) -> Piece:
    return Piece(small.name, small.dtype, tuple((k, v * _GPU_TOKENS if k == "m" else v) for k, v in small.sizes))


def _piece(name: str, dtype: str, **sizes: int) -> Piece:
    return Piece(name, dtype, tuple(sizes.items()))


def time_pieces(pieces: list[Piece], seconds: float, device: str = "cpu") -> list[PieceTiming]:
    """Return the fastest of several interleaved rounds for every piece; at the time's end those that had one."""
    end = time.perf_counter() + seconds
    one_thread()
    best: dict[Piece, float] = {}
    for _ in range(_MOST_ROUNDS):
        for wanted in pieces:
            if time.perf_counter() > end and len(best) >= _FEWEST_PIECES:
                break
            best[wanted] = min(best.get(wanted, math.inf), run_piece(wanted, device))
    return [PieceTiming(p.name, p.dtype, dict(p.sizes), s) for p, s in best.items()]


def one_thread() -> None:
    """Train with one thread, as a study's workers do, even if the caller's script imported PyTorch before."""
    torch.set_num_threads(1)


def run_piece(wanted: Piece, device: str = "cpu") -> float:
    """Run a piece twice and return the seconds of the second time, for one pass."""
    sizes, dtype = dict(wanted.sizes), getattr(torch, wanted.dtype)
    build = _BUILDERS[wanted.name]
    passes = build(wanted.name, dtype, device, **sizes)
    passes()
    return passes()


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _replicas(elements: int) -> int:
    return max(2, min(_MOST_REPLICAS, _REPLICA_ELEMENTS // max(1, elements)))


def _forward_backward(
    function: Callable[[Tensor], Tensor], make: Callable[[], Tensor], count: int, device: str, cold: bool = False
) -> Pass:
    """Return a pass of `count` replicas: all forward, then all backward, as layers do.

    `cold` empties all caches before either: weights are used once in each direction of a whole step.
    """

    def run() -> float:
        inputs = [make().requires_grad_() for _ in range(count)]
        if cold:
            _evict(device, _FAR_BYTES)
        start = _clock(device)
        outputs = [function(x) for x in inputs]
        middle = _clock(device)
        gradients = [torch.ones_like(y) for y in outputs]
        _evict(device, _FAR_BYTES if cold else _NEAR_BYTES)
        resumed = _clock(device)
        torch.autograd.backward(outputs, gradients)
        return (middle - start + _clock(device) - resumed) / count

    return run


def _product(name: str, dtype: torch.dtype, device: str, m: int, n: int, k: int) -> Pass:
    count = _replicas(m * k + n * k + m * n)

    def run() -> float:
        if name == "forward":  # x (M, K) by a weight that lies as (N, K)
            pairs = [(_randn(dtype, device, m, k), _randn(dtype, device, n, k).t()) for _ in range(count)]
        elif name == "grad_input":
            pairs = [(_randn(dtype, device, m, k), _randn(dtype, device, k, n)) for _ in range(count)]
        else:  # the gradient lies as (K, M): tokens first
            pairs = [(_randn(dtype, device, k, m).t(), _randn(dtype, device, k, n)) for _ in range(count)]
        start = _clock(device)
        for a, b in pairs:
            a @ b
        return (_clock(device) - start) / count

    return run


def _attention(name: str, dtype: torch.dtype, device: str, m: int, t: int, h: int, k: int, c: int, w: int) -> Pass:
    family = "gpt2" if name == "attention" else "llama"
    module = Attention(ModelConfig(family, 1, h, k, h * c, h * c, 257, t, w))
    module.qkv = nn.Identity()  # type: ignore[assignment]
    module.out = nn.Identity()  # type: ignore[assignment]
    cos, sin = (x.to(device) for x in rotary(c, t, 10_000.0))

    def make() -> Tensor:
        return _randn(dtype, device, m // t, t, (h + 2 * k) * c)

    return _forward_backward(lambda x: module(x, (cos, sin)), make, _replicas(2 * m * h * t), device)


def _norm(name: str, dtype: torch.dtype, device: str, m: int, d: int) -> Pass:
    norm = (nn.RMSNorm(d, eps=NORM_EPS) if name == "rms" else nn.LayerNorm(d)).to(device, dtype)

    def function(x: Tensor) -> Tensor:
        result: Tensor = x + norm(x)
        return result

    return _forward_backward(function, lambda: _randn(dtype, device, m, d), _replicas(4 * m * d), device)


def _activation(name: str, dtype: torch.dtype, device: str, m: int, f: int) -> Pass:
    config = ModelConfig("llama", 1, 1, 1, 64, f, 257, 64)
    module: Any = SwiGlu(config) if name == "swiglu" else GeluMlp(config)
    for layer in ("gate_up", "up", "down"):
        setattr(module, layer, nn.Identity())
    width = 2 * f if name == "swiglu" else f
    return _forward_backward(module, lambda: _randn(dtype, device, m, width), _replicas(2 * m * width), device)


def _bias(_: str, dtype: torch.dtype, device: str, m: int, n: int) -> Pass:
    count = _replicas(m * n)

    def run() -> float:
        gradients = [_randn(dtype, device, m, n) for _ in range(count)]
        start = _clock(device)
        for gradient in gradients:
            gradient.sum(0, keepdim=True).view(n)
        return (_clock(device) - start) / count

    return run


def _loss(_: str, dtype: torch.dtype, device: str, m: int, d: int, v: int) -> Pass:
    weight = nn.Parameter((torch.randn(v, d, device=device) * 0.02).to(dtype))
    targets = torch.randint(0, v, (m,), device=device)
    scale = torch.ones((), device=device)

    def run() -> float:
        x = _randn(dtype, device, m, d).requires_grad_()
        start = _clock(device)
        torch.autograd.grad(linear_cross_entropy(x, weight, targets, scale), (x, weight))
        return _clock(device) - start

    return run


def _embedding(_: str, dtype: torch.dtype, device: str, m: int, d: int, v: int) -> Pass:
    table = nn.Embedding(v, d, device=device, dtype=dtype)
    tokens = torch.randint(0, v, (1, m), device=device)
    of_head = torch.zeros_like(table.weight)

    def run() -> float:
        gradient = _randn(dtype, device, 1, m, d)
        start = _clock(device)
        (found,) = torch.autograd.grad(table(tokens), (table.weight,), gradient)
        found + of_head  # a tied embedding has the head's gradient too
        return _clock(device) - start

    return run


def _flat(dtype: torch.dtype, device: str, **d: int) -> FlatWeights:
    return FlatWeights(GPT(flat_config(**d)).to(device), dtype)


def _update(_: str, dtype: torch.dtype, device: str, **d: int) -> Pass:
    weights = _flat(dtype, device, **d)
    optimizer = Optimizer(weights, OptimizerSettings("adamw", 0.9, 0.95, 0.1))
    weights.grad_N.fill_(1e-3)

    def run() -> float:
        _evict(device, _FAR_BYTES)
        start = _clock(device)
        norm = torch.linalg.vector_norm(weights.grad_N)
        optimizer.step(1e-5, norm.clamp(min=1.0))
        return _clock(device) - start

    return run


def _gather(_: str, dtype: torch.dtype, device: str, **d: int) -> Pass:
    weights = _flat(dtype, device, **d)
    gradients = [torch.ones_like(parameter) for parameter in weights.parameters]

    def run() -> float:
        _evict(device, _NEAR_BYTES)  # gradients are fresh from the backward pass
        start = _clock(device)
        weights.gather(gradients, add=False)
        return _clock(device) - start

    return run


def _average(_: str, dtype: torch.dtype, device: str, **d: int) -> Pass:
    weights = _flat(dtype, device, **d)
    average_N = torch.zeros_like(weights.master_N)

    def run() -> float:
        _evict(device, _FAR_BYTES)
        start = _clock(device)
        average_N.lerp_(weights.master_N, 0.5)
        return _clock(device) - start

    return run


def _linear(_: str, dtype: torch.dtype, device: str, m: int, n: int, k: int) -> Pass:
    count = _replicas(m * k + n * k + m * n)
    layers = itertools.cycle([nn.Linear(k, n, bias=False, device=device, dtype=dtype) for _ in range(count)])
    cold = n * k > _MANY_WEIGHTS

    def one_after_another(x: Tensor) -> Tensor:
        result: Tensor = next(layers)(x)
        return result

    return _forward_backward(one_after_another, lambda: _randn(dtype, device, m, k), count, device, cold)


def _evict(device: str, n_bytes: int) -> None:
    """Push what a piece will read out of the near caches, or out of all, as the rest of a step does."""
    _evicting(device, n_bytes).add_(1.0)


@functools.cache
def _evicting(device: str, n_bytes: int) -> Tensor:
    return torch.zeros(n_bytes // 4, device=device)


def _randn(dtype: torch.dtype, device: str, *shape: int) -> Tensor:
    """Return fresh normal values; copied from one pool, since drawing them takes longer than what is timed."""
    n = math.prod(shape)
    pool = _pool(device)
    return (pool[:n] if n <= len(pool) else pool.repeat(-(-n // len(pool)))[:n]).to(dtype, copy=True).view(shape)


@functools.cache
def _pool(device: str) -> Tensor:
    return torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).to(device)


_BUILDERS: dict[str, Callable[..., Pass]] = {
    "linear": _linear,
    "forward": _product,
    "grad_input": _product,
    "grad_weight": _product,
    "attention": _attention,
    "rotary_attention": _attention,
    "rms": _norm,
    "ln": _norm,
    "swiglu": _activation,
    "gelu": _activation,
    "bias": _bias,
    "loss": _loss,
    "embedding": _embedding,
    "update": _update,
    "gather": _gather,
    "average": _average,
}
