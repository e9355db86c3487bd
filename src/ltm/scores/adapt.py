"""T-adapt: how fast a model learns a new system of rules, measured as the area under the loss curve of a tiny adapter.

The adapter (LoRA, Hu et al. 2021) is the same for every model: rank, start, order of the examples, learning rate and
number of steps are fixed, and plain float32 AdamW moves it; so that what differs is what the model brings. A model that
has learned to carry rules over needs fewer examples. The weights of the model itself are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltm.model.gpt import GPT
from ltm.records import Item
from ltm.tokens.tokenizer import Tokenizer

RANK = 4
LEARNING_RATE = 5e-3
BATCH = 4  # examples a step
MOST_STEPS = 64
PROBES = 8  # looks at the probes, evenly over the steps, the first before any step
_SEED = 20_240_611


def steps_within(items: Sequence[Item], tokenizer: Tokenizer, budget_tokens: int) -> int:
    """Return the steps of an adapter such that all of a bank together cost at most so many trained tokens.

    A step costs its examples; a look at the probes a third of its tokens, for want of a backward pass.
    """
    own = [item for item in items if item.rule == "adapt"]
    step = look = 0.0
    for item in own:
        lengths = [len(tokenizer.encode(c + k)) for c, k in zip(item.contexts, item.continuations, strict=True)]
        step += BATCH * sum(lengths[: item.gold]) / max(1, item.gold)
        look += sum(lengths[item.gold :]) / 3
    return int(min(MOST_STEPS, max(PROBES - 1, (budget_tokens - PROBES * look) / step))) if own and step else 0


def adapted(model: GPT, item: Item, tokenizer: Tokenizer, n_steps: int) -> float:
    """Return minus the mean probe loss over the steps of a fixed adapter, in nats per byte.

    Args:
        model: In evaluation mode; unchanged when this returns.
        item: The first `gold` cells are examples to learn from, the others are probes.
        tokenizer: The model's.
        n_steps: Optimizer steps.
    """
    cells = list(zip(item.contexts, item.continuations, strict=True))
    examples, probes = cells[: item.gold], cells[item.gold :]
    n_bytes = sum(len(text.encode()) for _, text in probes)
    adapters = _Adapters(model)
    try:
        train = [_encoded(model, tokenizer, *cell, whole=True) for cell in examples]
        held_out = [_encoded(model, tokenizer, *cell, whole=False) for cell in probes]
        looks = {round(k * n_steps / (PROBES - 1)) for k in range(PROBES)}
        optimizer = torch.optim.AdamW(adapters.parameters, lr=LEARNING_RATE, weight_decay=0.0)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(_SEED)).tolist()
        losses = []
        for step in range(n_steps + 1):
            if step in looks:
                with torch.no_grad():
                    losses.append(float(_loss(model, held_out).double()) / n_bytes)
            if step < n_steps:
                chosen = [train[order[(step * BATCH + k) % len(train)]] for k in range(BATCH)]
                loss = _loss(model, chosen) / sum(len(targets) for _, targets, _ in chosen)
                gradients = torch.autograd.grad(loss, adapters.parameters)
                for parameter, gradient in zip(adapters.parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
        return -sum(losses) / len(losses)
    finally:
        adapters.remove()


class _Adapters:
    """Low-rank additions to all linear layers inside the blocks, hung on as hooks."""

    def __init__(self, model: GPT) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self.parameters: list[Tensor] = []
        self._hooks = []
        for layer in model.blocks.modules():
            if isinstance(layer, nn.Linear):
                a, b = _pair(layer, generator)
                self.parameters += [a, b]
                self._hooks.append(layer.register_forward_hook(_adding(a, b)))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _pair(layer: nn.Linear, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    device = layer.weight.device
    start = torch.randn(RANK, layer.in_features, generator=generator) / layer.in_features**0.5
    a = start.to(device).requires_grad_()
    b = torch.zeros(layer.out_features, RANK, device=device, requires_grad=True)
    return a, b


def _adding(a: Tensor, b: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added: Tensor = output + F.linear(F.linear(inputs[0], a), b)
        return added

    return hook


_Text = tuple[list[int], list[int], int]  # input, right tokens, first place that predicts one of them


def _encoded(model: GPT, tokenizer: Tokenizer, context: str, continuation: str, whole: bool) -> _Text:
    """Return a text as tokens, cut from the left to the block size; `whole`: the context is learned too."""
    left, right = tokenizer.encode(context), tokenizer.encode(continuation)
    ids = [tokenizer.bos_id, *left, *right][-model.config.block_size - 1 :]
    n_targets = len(ids) - 1 if whole else min(len(right), len(ids) - 1)
    return ids[:-1], ids[-n_targets:], len(ids) - 1 - n_targets


def _loss(model: GPT, texts: Sequence[_Text]) -> Tensor:
    """Return the summed loss in nats of the right tokens of some texts."""
    device = next(model.parameters()).device
    width = max(len(inputs) for inputs, _, _ in texts)
    tokens = torch.zeros(len(texts), width, dtype=torch.long)
    targets = torch.full((len(texts), width), -100)
    for row, (inputs, right, first) in enumerate(texts):
        tokens[row, : len(inputs)] = torch.tensor(inputs)
        targets[row, first : first + len(right)] = torch.tensor(right)
    kept = targets.flatten() >= 0
    hidden_ND = model.hidden(tokens.to(device)).flatten(0, 1)[kept.to(device)]
    return F.cross_entropy(model.head(hidden_ND).float(), targets.flatten()[kept].to(device), reduction="sum")
