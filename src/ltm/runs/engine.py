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
            torch.backends.cuda.matmul.fp32_precision = "tf32" if settings.tf32 else "ieee"
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
        if self.settings.compiled:
            with self._first_time(tokens_BT.numel(), documents_BT is not None):
                return self._gradients(tokens_BT, targets_BT, scale, documents_BT)
        return self._gradients(tokens_BT, targets_BT, scale, documents_BT)

    def _gradients(
        self, tokens_BT: Tensor, targets_BT: Tensor, scale: Tensor, documents_BT: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.settings.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
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


def compiled_folder() -> Path:
    """Return where compiled code is kept, so that the next worker and the next study need not compile again."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_folder() / "compiled")


def keep_compiled_code() -> None:
    """Tell PyTorch where to keep compiled code; call it before anything is compiled in a process."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_folder()))
