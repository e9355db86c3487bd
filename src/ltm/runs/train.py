"""Train one model on one stream: the whole loop, top to bottom.

Nothing in it is random: the weights come from the init seed, the tokens from the stream, in its order. A run that is
resumed from a checkpoint therefore ends with the bits of the undisturbed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ltm.errors import TrainError
from ltm.model.init import initial_weights
from ltm.model.optimizer import Optimizer, OptimizerSettings
from ltm.runs.engine import Engine
from ltm.runs.schedule import learning_rate
from ltm.runs.section import RunsSection
from ltm.tokens.stream import Stream

_CURVE_POINTS = 64
_SNAPSHOTS = 32  # of the weights that are averaged, over `average_share` of the run
_STEPS_UNSEEN = {"cpu": 1, "cuda": 16, "mps": 16}  # before losses are read back: reading one makes a GPU wait
FIRST_SCALE, _SCALE_GROWTH_STEPS = 2.0**16, 500  # of float16's gradients; runs are short, so it grows soon
LEAST_SCALE = 2.0**-14  # an overflow at this one does not come from the scale: the run is lost


@dataclass
class TrainState:
    """Everything besides tensors that a run needs to go on from where it was."""

    step: int = 0
    seconds: float = 0.0
    curve_tokens: list[int] = field(default_factory=list)
    curve_loss: list[float] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    n_averaged: int = 0
    loss_scale: float = 1.0
    good_steps: int = 0  # since the loss scale last changed


def rescale(state: TrainState, finite: bool) -> None:
    """Halve float16's loss scale after an overflow, and double it after many steps without."""
    state.good_steps = state.good_steps + 1 if finite else 0
    if not finite:
        state.loss_scale /= 2
    elif state.good_steps % _SCALE_GROWTH_STEPS == 0:
        state.loss_scale *= 2


class Stopped(Exception):
    """The run was asked to stop; its checkpoint stands."""


class NotFinite(TrainError):
    """A loss or a gradient is not a number any more.

    Args:
        start: First token of the batch in the stream.
        count: Tokens of the batch.
    """

    def __init__(self, message: str, hint: str, start: int, count: int) -> None:
        super().__init__(message, hint)
        self.start, self.count = start, count


class Trainer:
    """One run in progress.

    Args:
        section: How it is trained.
        engine: The model; filled with new weights and trained in place.
        stream: The variant's tokens, one longer than the budget.
        n_steps: Optimizer steps of the whole run.
        init_seed: Of the weights.
        micro_tokens: Tokens of one forward pass; 0 = the section's, or the whole batch.
    """

    def __init__(
        self,
        section: RunsSection,
        engine: Engine,
        stream: Stream,
        n_steps: int,
        init_seed: int,
        micro_tokens: int = 0,
    ) -> None:
        self.section, self.engine, self.stream, self.n_steps = section, engine, stream, n_steps
        self.micro_tokens = micro_tokens or section.micro_batch_tokens or section.batch_tokens
        self.model, self.weights = engine.model.train(), engine.weights
        self.device = self.weights.master_N.device
        self.weights.fill(initial_weights(self.model, init_seed))
        self.optimizer = Optimizer(self.weights, _optimizer_settings(section))
        half = engine.settings.dtype == torch.float16
        self.state = TrainState(loss_scale=FIRST_SCALE if half else 1.0)
        self._unseen: list[tuple[Tensor, Tensor]] = []  # loss and gradient norm of steps that were not checked yet
        self._curve_every = max(1, n_steps // _CURVE_POINTS)
        averaged_steps = round(section.average_share * n_steps)
        n_averaged = len(self.weights.master_N) if averaged_steps else 0  # one that is not asked for takes no room
        self.average_N = torch.zeros(n_averaged, device=self.device)
        self._average_from = 0 if section.average == "ema" else n_steps - averaged_steps
        self._average_every = max(1, averaged_steps // _SNAPSHOTS)
        self._averaged_steps = averaged_steps

    def run(self, after_step: Callable[[Trainer], None]) -> None:
        """Train to the last step; `after_step` is called after each one (heartbeat, checkpoint, stop).

        Raises:
            NotFinite: the loss or its gradient is no longer finite; says where.
        """
        while self.state.step < self.n_steps:
            start = time.perf_counter()
            self.one_step()
            self.state.seconds += time.perf_counter() - start
            after_step(self)

    def one_step(self) -> None:
        """Train one optimizer step, and check losses when it is time."""
        state, section = self.state, self.section
        loss = self.accumulate()
        lr = learning_rate(section, state.step, self.n_steps)
        norm = torch.linalg.vector_norm(self.weights.grad_N) / state.loss_scale
        divisor = (norm / section.clip_norm).clamp(min=1.0) * state.loss_scale
        if self.engine.settings.dtype == torch.float16:
            finite = bool(torch.isfinite(norm))
            self.optimizer.step(lr, divisor, torch.tensor(float(not finite), device=self.device))
            rescale(state, finite)
            if not finite and self.state.loss_scale >= LEAST_SCALE:
                norm = torch.zeros_like(norm)  # expected now and then; the step was left out
        else:
            self.optimizer.step(lr, divisor)
        self._unseen.append((loss, norm))
        state.step += 1
        ending = state.step == self.n_steps or state.step % self._curve_every == 0
        if ending or len(self._unseen) >= _STEPS_UNSEEN[self.device.type]:
            self.settle()
        if ending:
            self._mark_curve()
        since = state.step - self._average_from
        if self._averaged_steps and since > 0 and (self.n_steps - state.step) % self._average_every == 0:
            self._average_weights()

    def accumulate(self) -> Tensor:
        """Make the gradients of one step, times the loss scale, and return the mean loss; micro batches add up."""
        section, block_size = self.section, self.model.config.block_size
        n_micro = section.batch_tokens // self.micro_tokens
        scale = torch.full((), self.state.loss_scale / n_micro, device=self.device)  # filled there: no wait for a copy
        total = torch.zeros((), device=self.device)
        for index in range(n_micro):
            tokens = self._read(self.state.step * section.batch_tokens + index * self.micro_tokens)
            tokens_BT, targets_BT = tokens[:-1].view(-1, block_size), tokens[1:].view(-1, block_size)
            documents_BT = None
            if section.document_mask:  # a start mark stands wherever another book begins
                documents_BT = (tokens_BT == self.stream.bos_id).cumsum(1)
            loss, gradients = self.engine.gradients(tokens_BT, targets_BT, scale, documents_BT)
            self.weights.gather(gradients, add=index > 0)
            total += loss / n_micro
        return total

    def settle(self) -> None:
        """Read back the losses of the steps since the last time, and stop where one is not finite.

        Raises:
            NotFinite: one is not.
        """
        if not self._unseen:
            return
        losses, norms = (torch.stack(column).tolist() for column in zip(*self._unseen, strict=True))
        first = self.state.step - len(losses)
        self._unseen.clear()
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._not_finite(step, loss, norm)
            self.state.loss_sum += loss
            self.state.loss_count += 1

    def scored_weights(self) -> dict[str, Tensor]:
        """Return the weights to keep, float32 by name: the average over the last steps, or the last ones."""
        flat_N = self.average_N if self.state.n_averaged else self.weights.master_N
        return self.weights.named(flat_N)

    def _read(self, start: int) -> Tensor:
        """Return a micro batch and the token after it; a GPU gets them while it still works on those before."""
        tokens = torch.from_numpy(self.stream.read(start, self.micro_tokens + 1))
        if self.device.type != "cuda":  # Apple's copies must not outlive the memory that they read from
            return tokens.to(self.device)
        return tokens.pin_memory().to(self.device, non_blocking=True)

    def _mark_curve(self) -> None:
        state = self.state
        state.curve_tokens.append(state.step * self.section.batch_tokens)
        state.curve_loss.append(state.loss_sum / state.loss_count)
        state.loss_sum, state.loss_count = 0.0, 0

    @torch.no_grad()
    def _average_weights(self) -> None:
        state = self.state
        state.n_averaged += 1
        share = 1.0 / state.n_averaged
        if self.section.average == "ema":
            share = max(share, 1.0 - math.exp(-self._average_every / self._averaged_steps))
        self.average_N.lerp_(self.weights.master_N, share)

    def _not_finite(self, step: int, loss: float, norm: float) -> NotFinite:
        batch = self.section.batch_tokens
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the loss is {loss:.4g}, its gradient {norm}"
        return NotFinite(
            f"the loss is no longer finite at step {step + 1} of {self.n_steps}: {what}; "
            f"the batch is tokens {step * batch} to {(step + 1) * batch} of the stream",
            f"lower the learning rate: --set runs.lr={self.section.lr / 3:.1g}",
            step * batch,
            batch,
        )


def _optimizer_settings(section: RunsSection) -> OptimizerSettings:
    return OptimizerSettings(section.optimizer, section.beta1, section.beta2, section.weight_decay)
