"""How many tokens go through the model at once: the largest micro batch that fits, and what to do when it did not.

The gradient of a step is the same however its batch is cut, up to rounding; a larger micro batch only takes fewer
calls and more memory. The forecast picks one, the first step confirms it, and running out of memory is answered with
half of it at the same global batch. No training loop in here, and PyTorch only where an error has to be told apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
from collections.abc import Callable
from typing import TypeVar

from ltm.errors import InputError, TrainError
from ltm.forecast import formulas, machine_work
from ltm.forecast.case import PRECISIONS, Case, case_columns
from ltm.forecast.constants import constants
from ltm.forecast.machine import load_machine, margin
from ltm.model.chunk import chunk_rows
from ltm.model.sizes import ModelConfig

T = TypeVar("T")

# A worker before its model: Python, PyTorch (240 MB), and the kernels and work space of the first step.
_PROCESS_BYTES = 400e6
# Measured over forecast memory of a worker beyond that, on a machine that is not calibrated: 1.20-1.61 for nine cases
# (1M to 15M parameters, three families, float32 and bfloat16, compiled or not, with checkpointing or without).
_UNCALIBRATED_SPREAD = 1.7
_PRECISION = {"float32": "fp32", "tf32": "tf32", "float16": "fp16", "bfloat16": "bf16"}
_ATTENTIONS = {"flash": 1.0, "flex": 3.0}
_AVERAGED_BYTES = 4  # of each parameter's running mean, which the formulas of other people's programs do not have
_LOSS_BYTES_PER_LOGIT = 3 * 4  # the logit, its softmax and its gradient, of one chunk: the output layer is never whole
_MESSAGES = (  # of RuntimeErrors that mean no memory and nothing else
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


def candidates(batch_tokens: int, block_size: int) -> list[int]:
    """Return every micro batch in tokens that divides the batch and holds whole sequences, largest first.

    Raises:
        InputError: the batch itself holds no whole sequences.

    >>> candidates(3072, 256)
    [3072, 1536, 1024, 768, 512, 256]
    """
    if block_size < 1 or batch_tokens < 1 or batch_tokens % block_size:
        nearest = max(1, round(batch_tokens / max(1, block_size))) * max(1, block_size)
        raise InputError(
            f"a batch of {batch_tokens} tokens does not hold whole sequences of {block_size}",
            f"nearest: --set runs.batch_tokens={nearest}",
        )
    n_sequences = batch_tokens // block_size
    small = [n for n in range(1, math.isqrt(n_sequences) + 1) if n_sequences % n == 0]
    return [block_size * n for n in sorted({*small, *(n_sequences // n for n in small)}, reverse=True)]


def nearest_micro(micro_tokens: int, batch_tokens: int, block_size: int) -> int:
    """Return the valid micro batch that is nearest to a wrong one; the smaller of two that are equally near."""
    return min(candidates(batch_tokens, block_size), key=lambda n: (abs(n - micro_tokens), n))


def halved(micro_tokens: int, batch_tokens: int, block_size: int) -> int | None:
    """Return the largest valid micro batch of at most half the size, or None where it is one sequence already.

    >>> halved(3072, 3072, 256), halved(768, 3072, 256), halved(256, 3072, 256)
    (1536, 256, None)
    """
    return next((n for n in candidates(batch_tokens, block_size) if n <= micro_tokens / 2), None)


def largest_that_fits(
    config: ModelConfig,
    batch_tokens: int,
    dtype: str,
    device: str,
    free_bytes: float,
    *,
    activation_checkpointing: bool = False,
    compiled: bool = False,
) -> int:
    """Return the largest micro batch in tokens that the forecast finds room for; one sequence where none fits.

    Args:
        config: The model's shape.
        batch_tokens: Tokens of one step.
        dtype: float32, tf32, bfloat16 or float16.
        device: cpu, cuda or mps.
        free_bytes: What one worker may take in all (see `free_memory.free_bytes`).
        activation_checkpointing: Whether blocks are computed again in the backward pass.
        compiled: Whether the model is compiled.

    Raises:
        InputError: the batch holds no whole sequences.
    """
    sizes = candidates(batch_tokens, config.block_size)
    for micro in sizes:
        needed = worker_bytes(
            config, micro, dtype, device, activation_checkpointing=activation_checkpointing, compiled=compiled
        )
        if needed <= free_bytes:
            return micro
    return sizes[-1]


def worker_bytes(
    config: ModelConfig,
    micro_tokens: int,
    dtype: str,
    device: str,
    *,
    activation_checkpointing: bool = False,
    compiled: bool = False,
) -> float:
    """Return the memory in bytes that a worker's process takes at most: the upper end of the forecast's range."""
    if device == "cuda":
        return _gpu_bytes(config, micro_tokens, dtype, activation_checkpointing, compiled)
    narrow = "float32" if dtype in ("float32", "tf32") else "bfloat16"
    # with room for averaged weights: what a worker takes at most
    parts = machine_work.memory_parts(machine_work.Case(config, micro_tokens, 0, narrow, averaged=True))
    if activation_checkpointing:
        entries = 4.0 * micro_tokens * config.n_embd * config.n_layer  # of each block; one block is held in full
        parts["activations"] = parts["activations"] / config.n_layer + entries
    record = load_machine("cpu") if device == "cpu" else None
    if record is None:
        return _PROCESS_BYTES + _UNCALIBRATED_SPREAD * sum(parts.values())
    total = sum(record.memory.get(name, 1.0) * size for name, size in parts.items())
    return (record.memory["framework_bytes"] + total) * margin(record.residuals["memory"])


def _gpu_bytes(config: ModelConfig, micro_tokens: int, dtype: str, checkpointing: bool, compiled: bool) -> float:
    """Return the upper end of the general forecast for a card, with the output layer in chunks as ltm has it."""
    case = Case(
        n_layer=config.n_layer, n_embd=config.n_embd, n_head=config.n_head, n_kv_head=config.n_kv_head,
        head_size=config.head_size, n_hidden=config.n_hidden, vocab_size=config.vocab_size,
        gated=float(config.family != "gpt2"), tied=float(config.tie_embeddings),
        learned_positions=float(config.family == "gpt2"), window=config.window, n_params=config.n_params,
        seq_len=config.block_size, micro_batch=micro_tokens / config.block_size, global_batch_tokens=micro_tokens,
        precision=float(PRECISIONS.index(_PRECISION[dtype])), mixed=float(dtype in ("float16", "bfloat16")),
        attention=_ATTENTIONS["flex" if config.window else "flash"], checkpointing=float(checkpointing),
        kernels=2.0 if compiled else 0.0,
    )  # fmt: skip
    columns, k = case_columns([case]), constants()
    parts = {name: float(value.max()) for name, value in formulas.memory_bytes(columns, None, k).items()}
    chunk = chunk_rows(config.vocab_size, "cuda") * config.vocab_size
    spared = max(0.0, parts["logits"] - _LOSS_BYTES_PER_LOGIT * chunk)
    high = math.exp(k.memory_spread_more * k.memory_spread_base)
    return (parts["total"] - spared + _AVERAGED_BYTES * config.n_params) * high


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device has no memory left, and not something else.

    Where memory runs out while a CUDA graph is recorded or code is compiled, the error that arrives is another one, of
    the recording or the compiler, with the true one behind it.
    """
    import torch

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(link, RuntimeError) and any(text in str(link) for text in _MESSAGES):
            return True
        # What was being handled when an error came counts only behind errors of the card or of PyTorch's compilers.
        from_torch = type(link).__module__.startswith("torch") or "CUDA error" in str(link)
        link = link.__cause__ or (link.__context__ if from_torch and not link.__suppress_context__ else None)
    return False


def run_with_halving(
    attempt: Callable[[int], T],
    micro_tokens: int,
    batch_tokens: int,
    block_size: int,
    on_halve: Callable[[int, int], None] | None = None,
) -> T:
    """Return `attempt(micro)` with the first micro batch that memory is enough for, going down by halves.

    Args:
        attempt: Called with a micro batch in tokens. It has to begin anew each time: gradients of a failed attempt
            are half made.
        micro_tokens: The first one tried.
        batch_tokens: Tokens of one step; stays what it is.
        block_size: Tokens of one sequence.
        on_halve: Told the micro batch that failed and the next one.

    Raises:
        TrainError: not even one sequence fits.
        Exception: whatever else `attempt` raises, as it is.
    """
    micro = micro_tokens
    while True:
        try:
            return attempt(micro)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        # Only here is the error gone, and with it the frames that hold the tensors of the failed attempt.
        smaller = halved(micro, batch_tokens, block_size)
        free_caches()
        if smaller is None:
            raise TrainError(
                f"one sequence of {block_size} tokens does not fit into the memory of this device ({reason})",
                "choose a smaller --set model.size, a shorter --set model.block_size, fewer --set runs.workers, "
                "or --set runs.activation_checkpointing=true",
            )
        if on_halve:
            on_halve(micro, smaller)
        micro = smaller


def free_caches() -> None:
    """Give back what no tensor holds any more: to the card, and to the system."""
    import torch

    on_card = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if on_card and "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # recorded CUDA graphs keep the memory of the shape that did not fit
    gc.collect()
    if on_card:
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
