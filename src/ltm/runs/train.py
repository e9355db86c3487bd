"""Train one model on one stream: the whole loop, top to bottom.

Nothing in it is random: the weights come from the init seed, the tokens from the stream, in its order. A run that is
resumed from a checkpoint therefore ends with the bits of the undisturbed one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ltm.errors import TrainError
from ltm.model.gpt import GPT
from ltm.runs.schedule import learning_rate
from ltm.runs.section import RunsSection
from ltm.tokens.stream import Stream

_CURVE_POINTS = 64
_AVERAGED_SNAPSHOTS = 32


@dataclass
class TrainState:
    """Everything that a run needs to go on from where it was."""

    step: int = 0
    seconds: float = 0.0
    curve_tokens: list[int] = field(default_factory=list)
    curve_loss: list[float] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    n_averaged: int = 0


class Stopped(Exception):
    """The run was asked to stop; its checkpoint stands."""


class Trainer:
    """One run in progress.

    Args:
        model: A freshly initialised model; trained in place.
        loss_fn: `model.loss`, or its compiled form.
        stream: The variant's tokens, one longer than the budget.
    """

    def __init__(
        self,
        section: RunsSection,
        model: GPT,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        stream: Stream,
        n_steps: int,
        dtype: torch.dtype,
    ) -> None:
        self.section, self.model, self.loss_fn, self.stream = section, model, loss_fn, stream
        self.n_steps, self.dtype = n_steps, dtype
        self.device = next(model.parameters()).device
        self.state = TrainState()
        self.optimizer = _optimizer(section, model)
        self.average = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        self._curve_every = max(1, n_steps // _CURVE_POINTS)
        self._average_from = n_steps - round(section.average_share * n_steps)
        self._average_every = max(1, (n_steps - self._average_from) // _AVERAGED_SNAPSHOTS)

    def run(self, after_step: Callable[[Trainer], None]) -> None:
        """Train to the last step; `after_step` is called after each one (heartbeat, checkpoint, stop).

        Raises:
            TrainError: the loss is no longer finite; says at which step.
        """
        while self.state.step < self.n_steps:
            start = time.perf_counter()
            self._step()
            self.state.seconds += time.perf_counter() - start
            after_step(self)

    def scored_weights(self) -> dict[str, Tensor]:
        """Return the weights to keep: the mean over the last steps, or the last ones."""
        if not self.state.n_averaged:
            return {name: p.detach() for name, p in self.model.named_parameters()}
        return self.average

    def _step(self) -> None:
        state, section = self.state, self.section
        lr = learning_rate(section, state.step, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), section.clip_norm)
        self.optimizer.step()
        state.step += 1
        state.loss_sum += float(loss)
        state.loss_count += 1
        if not math.isfinite(state.loss_sum):
            raise TrainError(
                f"the loss is no longer finite at step {state.step} of {self.n_steps}",
                f"lower the learning rate: --set runs.lr={section.lr / 3:.1g}",
            )
        if state.step % self._curve_every == 0 or state.step == self.n_steps:
            self._mark_curve()
        if state.step > self._average_from and (self.n_steps - state.step) % self._average_every == 0:
            self._average_weights()

    def _accumulate(self) -> Tensor:
        """Make the gradients of one step; micro batches add up to the gradient of the whole batch."""
        section, block_size = self.section, self.model.config.block_size
        micro = section.micro_batch_tokens or section.batch_tokens
        n_micro = section.batch_tokens // micro
        total = torch.zeros((), device=self.device)
        for index in range(n_micro):
            start = self.state.step * section.batch_tokens + index * micro
            tokens = torch.from_numpy(self.stream.read(start, micro + 1)).to(self.device, non_blocking=True)
            with self._autocast():
                loss = self.loss_fn(tokens[:-1].view(-1, block_size), tokens[1:].view(-1, block_size)) / n_micro
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _mark_curve(self) -> None:
        state = self.state
        state.curve_tokens.append(state.step * self.section.batch_tokens)
        state.curve_loss.append(state.loss_sum / state.loss_count)
        state.loss_sum, state.loss_count = 0.0, 0

    @torch.no_grad()
    def _average_weights(self) -> None:
        self.state.n_averaged += 1
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter, 1.0 / self.state.n_averaged)


def _optimizer(section: RunsSection, model: GPT) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": section.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=section.lr, betas=(section.beta1, section.beta2), eps=1e-8, fused=True)
