"""Train a Hugging Face model on a variant's exact token stream: full, LoRA or QLoRA, in one process or several.

The loop is ltm's: the same steps, batches, schedule and stream as the native engine, so that variants are compared
on equal terms. transformers gives the model, peft the adapters, bitsandbytes the 4-bit base, PyTorch DDP and FSDP2,
DeepSpeed ZeRO-2. The processes of one run share every micro batch by rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.checkpoint import state_dict as states

from ltm.errors import TrainError
from ltm.model.loss import linear_cross_entropy
from ltm.runs.engines import base_model
from ltm.runs.engines.group import Group
from ltm.runs.schedule import learning_rate
from ltm.runs.section import RunsSection
from ltm.runs.train import FIRST_SCALE, LEAST_SCALE, NotFinite, TrainState, rescale
from ltm.store import write_bytes
from ltm.tokens.stream import Stream

_CURVE_POINTS = 64
_WHOLE_LOGITS = 1 << 26  # 256 MiB in float32: up to there one product is faster than chunks
_FULL = states.StateDictOptions(full_state_dict=True, cpu_offload=True)


class HfTrainer:
    """One run in progress.

    Args:
        section: How it is trained.
        model: A causal language model with the parameters to train marked; see `base_model.prepare`.
        stream: The variant's tokens, one longer than the budget.
        n_steps: Optimizer steps of the whole run.
        block_size: Tokens of one sequence.
        micro_tokens: Tokens of one forward pass, over all processes.
        dtype: Of matrix products.
        group: The processes that share the run.
    """

    def __init__(
        self,
        section: RunsSection,
        model: Any,
        stream: Stream,
        n_steps: int,
        block_size: int,
        micro_tokens: int,
        dtype: torch.dtype,
        group: Group,
    ) -> None:
        self.section, self.stream, self.n_steps = section, stream, n_steps
        self.block_size, self.dtype, self.group = block_size, dtype, group
        self.micro_tokens = max(micro_tokens, block_size * group.size)
        if section.batch_tokens % self.micro_tokens or self.micro_tokens % (block_size * group.size):
            raise TrainError(
                f"{group.size} processes cannot share a batch of {section.batch_tokens} tokens in sequences of "
                f"{block_size}",
                f"make runs.batch_tokens a multiple of {block_size * group.size}",
            )
        self.n_params, self.vocab_size = _count(model), len(base_model.parts(model)[1])
        self.plain_head = base_model.has_plain_head(model) and group.kind == "none"
        self._lay_out(model)
        self.half = dtype == torch.float16
        self.state = TrainState(loss_scale=FIRST_SCALE if self.half else 1.0)
        self._curve_every = max(1, n_steps // _CURVE_POINTS)

    def run(self, after_step: Callable[[HfTrainer], None]) -> None:
        """Train to the last step; `after_step` is called after each one.

        Raises:
            NotFinite: a loss or gradient is not a number any more.
        """
        while self.state.step < self.n_steps:
            began = time.perf_counter()
            self.one_step()
            self.state.seconds += time.perf_counter() - began
            after_step(self)

    def one_step(self) -> None:
        """Train one optimizer step."""
        state = self.state
        self._set_rate()
        loss = self._accumulate()
        self._update(loss)
        state.step += 1
        state.loss_sum += loss
        state.loss_count += 1
        if state.step == self.n_steps or state.step % self._curve_every == 0:
            state.curve_tokens.append(state.step * self.section.batch_tokens)
            state.curve_loss.append(state.loss_sum / state.loss_count)
            state.loss_sum, state.loss_count = 0.0, 0

    def _lay_out(self, model: Any) -> None:
        """Lay the model out over the processes, and make its optimizer."""
        self.model = self.group.wrap(model)
        self.inner = self.group.inner(self.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: Any = self._plain_optimizer()

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.section, self.state.step, self.n_steps)

    def _update(self, loss: float) -> None:
        """Clip the gradients and update the weights; with float16 leave an overflowing step out."""
        state = self.state
        for parameter in self.trained if self.half else ():
            if parameter.grad is not None:
                parameter.grad /= state.loss_scale
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.section.clip_norm)
        size = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if self._check(loss, size):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.half:
            rescale(state, math.isfinite(size))

    def _check(self, loss: float, norm: float) -> bool:
        """Return whether the step counts.

        Raises:
            NotFinite: it does not, and not because of float16's loss scale.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            return True
        if self.half and math.isfinite(loss) and self.state.loss_scale > LEAST_SCALE:
            return False
        raise self._not_finite(loss, norm)

    def _accumulate(self) -> float:
        """Make the gradients of one step; return the mean loss of all processes in nats."""
        n_micro = self.section.batch_tokens // self.micro_tokens
        total = torch.zeros((), device=self.group.device)
        for index in range(n_micro):
            start = self.state.step * self.section.batch_tokens + index * self.micro_tokens
            tokens_BT, targets_BT = self._read(start)
            loss = self.loss(tokens_BT, targets_BT)
            self._backward(loss, index == n_micro - 1)
            total += loss.detach() / n_micro
        return self.group.mean(total)

    def _backward(self, loss: Tensor, is_last: bool) -> None:
        """Add the gradients of a micro batch; they travel between processes with the last one."""
        n_micro = self.section.batch_tokens // self.micro_tokens
        with self.group.last(self.model, is_last):
            (loss * (self.state.loss_scale / n_micro)).backward()  # type: ignore[no-untyped-call]

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats; full logits are made only where the model's output layer needs it."""
        half = self.dtype != torch.float32
        with torch.autocast(self.group.device.split(":")[0], self.dtype) if half else contextlib.nullcontext():
            few = tokens_BT.numel() * self.vocab_size <= _WHOLE_LOGITS
            if self.plain_head and not few:
                body, weight_VD, bias_V = base_model.parts(self.model)
                if bias_V is None:
                    hidden_BTD = body(input_ids=tokens_BT, use_cache=False).last_hidden_state
                    return linear_cross_entropy(hidden_BTD.flatten(0, 1), weight_VD, targets_BT.flatten())
            logits_BTV = self.model(input_ids=tokens_BT, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())

    def _read(self, start: int) -> tuple[Tensor, Tensor]:
        """Return this process's rows of a micro batch, and their next tokens."""
        tokens = torch.from_numpy(self.stream.read(start, self.micro_tokens + 1))
        rows = slice(self.group.rank, None, self.group.size)
        pair = tokens[:-1].view(-1, self.block_size)[rows], tokens[1:].view(-1, self.block_size)[rows]
        return pair[0].to(self.group.device), pair[1].to(self.group.device)

    def _plain_optimizer(self) -> torch.optim.AdamW:
        """Return AdamW on what is trained; matrices decay, vectors (norms, biases) do not."""
        matrices = [p for p in self.trained if p.ndim >= 2]
        vectors = [p for p in self.trained if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.section.weight_decay}]
        groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
        section = self.section
        return torch.optim.AdamW(groups, lr=section.lr, betas=(section.beta1, section.beta2), eps=1e-8)

    def _not_finite(self, loss: float, norm: float) -> NotFinite:
        batch, step = self.section.batch_tokens, self.state.step
        return NotFinite(
            f"the loss is no longer finite at step {step + 1} of {self.n_steps}: loss {loss:.4g}, gradient {norm:.4g}; "
            f"the batch is tokens {step * batch} to {(step + 1) * batch} of the stream",
            f"lower the learning rate: --set runs.lr={self.section.lr / 3:.1g}",
            step * batch,
            batch,
        )

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save_checkpoint(self, path: Path) -> None:
        """Write what the run needs to go on: trained weights, optimizer, state; the first process writes."""
        tensors = self._tensors()
        if self.group.rank == 0:
            kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
            write_bytes(path, save(kept, {"state": json.dumps(asdict(self.state))}))
        self.group.wait()

    def load_checkpoint(self, path: Path) -> bool:
        """Set the run back to a checkpoint; returns False where there is none or it is damaged."""
        try:
            data = path.read_bytes()
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            tensors, state = dict(sorted(load(data).items())), TrainState(**json.loads(header["__metadata__"]["state"]))
        except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):
            return False
        # in one order everywhere: processes hand tensors round one after another
        weights = {n.removeprefix("weight:"): t for n, t in tensors.items() if n.startswith("weight:")}
        if weights.keys() != self._trained_names():
            return False
        about: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer:"):
                _, key, parameter = name.split(":", 2)
                about.setdefault(parameter, {})[key] = tensor
        self._restore(weights, about)
        self.state = state
        return True

    def _tensors(self) -> dict[str, Tensor]:
        """Return weights and optimizer states by name, whole; on the first process where they are sharded."""
        tensors = {f"weight:{name}": value for name, value in self._trained_weights().items()}
        about: Any = states.get_optimizer_state_dict(self.model, self.optimizer, options=_FULL).get("state", {})
        for name, values in about.items():
            tensors |= {f"optimizer:{key}:{name}": torch.as_tensor(value) for key, value in values.items()}
        return tensors

    def _restore(self, weights: dict[str, Tensor], moments: dict[str, dict[str, Tensor]]) -> None:
        options = states.StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
        states.set_model_state_dict(self.model, dict(weights), options=options)
        everywhere = states.StateDictOptions(full_state_dict=True)
        now = states.get_optimizer_state_dict(self.model, self.optimizer, options=everywhere)
        value: Any = {"state": moments, "param_groups": now["param_groups"]}
        states.set_optimizer_state_dict(self.model, self.optimizer, value, options=_FULL)

    def save_result(self, folder: Path, base: str) -> None:
        """Write what the run keeps: adapters alone, or a whole Hugging Face folder."""
        whole = self.section.method == "full"
        weights = self._all_weights() if whole else self._trained_weights()
        if self.group.rank == 0:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
            if whole:
                self.inner.save_pretrained(folder / base_model.MODEL, state_dict=weights)
            else:
                self.inner.save_pretrained(folder / base_model.ADAPTER, state_dict=weights)
                forget_the_place(folder / base_model.ADAPTER, base)
        self.group.wait()

    def _all_weights(self) -> dict[str, Tensor]:
        weights: Any = states.get_model_state_dict(self.model, options=_FULL)
        return dict(weights)

    def _trained_weights(self) -> dict[str, Tensor]:
        names = self._trained_names()
        return {name: tensor for name, tensor in self._all_weights().items() if name in names}

    def _trained_names(self) -> set[str]:
        return {name.removeprefix("module.") for name, p in self.model.named_parameters() if p.requires_grad}


def _count(model: Any) -> int:
    """Return all parameters of a model; a 4-bit matrix counts its entries, not its bytes."""
    sizes = []
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        sizes.append(math.prod(state.shape) if state is not None else parameter.numel())
    return sum(sizes)


def forget_the_place(folder: Path, base: str) -> None:
    """Name the base by its folder's name alone: where it lies is no part of an adapter."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["base_model_name_or_path"] = base
    write_bytes(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())
