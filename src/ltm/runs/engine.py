"""A model made ready to be trained on this device: flat weights, one precision, and its loss, compiled if wanted.

An engine stays in its worker from run to run: the next run of the same shape only fills it with new weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltm.model.gpt import GPT
from ltm.model.sizes import ModelConfig
from ltm.model.weights import FlatWeights
from ltm.store import cache_folder, fingerprint

_GRAPHS_PARAMETERS = 200_000_000  # below, a GPU waits for its launches: CUDA graphs replay them at once

_MOST_SHAPES = 64  # that one worker may see

LossFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class EngineSettings:
    """What decides which code an engine runs."""

    config: ModelConfig
    device: str  # cpu, cuda or mps
    dtype: torch.dtype  # of matrix products and activations; weights are updated in float32
    compiled: bool = False
    recompute: bool = False  # activation checkpointing: memory for time
    tf32: bool = False  # float32 products by the tensor cores of a GPU, with 10 bits of mantissa

    @property
    def precision(self) -> str:
        """The precision by its name in a study."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")


class Engine:
    """A model with its buffers and its loss."""

    def __init__(self, settings: EngineSettings) -> None:
        if settings.device == "cuda":
            # Not by `torch.backends.cuda.matmul.fp32_precision`: where it says tf32, the compiler's own question for
            # the precision is an error (PyTorch 2.13).
            torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS promises no order of sums
        self.settings = settings
        self.model = GPT(settings.config).to(settings.device)
        self.model.recompute = settings.recompute
        self.weights = FlatWeights(self.model, settings.dtype)
        self._loss: LossFunction = self.model.loss
        self._compiled_for: set[tuple[int, bool]] = set()
        if settings.compiled:
            keep_compiled_code()
            torch._dynamo.config.recompile_limit = _MOST_SHAPES  # beyond it PyTorch would quietly run plain code
            graphs = settings.device == "cuda" and settings.config.n_params < _GRAPHS_PARAMETERS
            self._loss = torch.compile(self.model.loss, mode="reduce-overhead" if graphs else None, dynamic=False)

    def gradients(
        self, tokens_BT: Tensor, targets_BT: Tensor, scale: Tensor, documents_BT: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the mean loss in nats and the gradients of `scale` times it, in the order of the flat weights."""
        may_compile = self._first_time(tokens_BT.numel(), documents_BT is not None) if self.settings.compiled else None
        with may_compile or contextlib.nullcontext():
            return self._gradients(tokens_BT, targets_BT, scale, documents_BT)

    def _gradients(
        self, tokens_BT: Tensor, targets_BT: Tensor, scale: Tensor, documents_BT: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        on_card = self.settings.device == "cuda"
        if on_card and self.settings.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with same_bits() if on_card else contextlib.nullcontext():
            loss = self._loss(tokens_BT, targets_BT, scale, documents_BT)
            return loss.detach().clone(), torch.autograd.grad(loss, self.weights.parameters)

    @contextlib.contextmanager
    def _first_time(self, n_tokens: int, documents: bool) -> Iterator[None]:
        """Let one process of a machine compile a shape, while those that need the same one wait for its result."""
        shape = (n_tokens, documents)
        if shape in self._compiled_for:
            yield
            return
        key = fingerprint([str(self.settings), n_tokens, documents, torch.__version__])
        folder = compiled_folder()
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / f"{key}.done"
        if done.exists():
            yield
        else:
            with open(folder / f"{key}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
                done.touch()
        self._compiled_for.add(shape)


@contextlib.contextmanager
def same_bits() -> Iterator[None]:
    """Have a GPU sum in the same order each time: else the backward passes of attention and embeddings add up as their
    threads come, and the same run ends with other bits."""
    memory: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)  # only warning of it would leave FlashAttention as it is
    memory.fill_uninitialized_memory = False  # a pass over all memory, for nobody who reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills


def compiled_folder() -> Path:
    """Return where compiled code is kept, so that the next worker and the next study need not compile again."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_folder() / "compiled")


def keep_compiled_code() -> None:
    """Tell PyTorch where to keep compiled code; call it before anything is compiled in a process."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_folder()))
