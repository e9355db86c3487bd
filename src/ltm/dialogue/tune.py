"""Tune one trained model on conversations: the loss counts answers alone; all weights, or merged low-rank adapters.

Adapters: Hu et al. 2021, here for ltm's own decoder; models of transformers keep training the adapters they have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ltm.dialogue.conversations import Conversation
from ltm.dialogue.section import DialogueSection
from ltm.dialogue.template import Template
from ltm.errors import DataError, TrainError
from ltm.tokens.tokenizer import Tokenizer

_WARMUP_SHARE, _CLIP_NORM = 0.1, 1.0
_TEST_BATCH = 32


@dataclass(frozen=True)
class Example:
    """A conversation as tokens; the model is asked for those that are marked."""

    tokens: list[int]
    learned: list[bool]  # of each token but the first: whether it belongs to an answer
    n_bytes: int  # UTF-8 bytes of the answers


def encode(found: Sequence[Conversation], template: Template, tokenizer: Tokenizer, block_size: int) -> list[Example]:
    """Return conversations as tokens, cut from the left to the block; those without an answer in it are left out."""
    examples = []
    for one in found:
        tokens, learned, answers = list[int](), list[bool](), 0
        for text, is_answer in template.parts(_plain(one.messages, tokenizer)):
            ids = tokenizer.encode_marked(text)
            tokens += ids
            learned += [is_answer] * len(ids)
            answers += len(text.encode()) if is_answer else 0
        tokens, learned = tokens[-block_size - 1 :], learned[-block_size - 1 :]
        if any(learned[1:]):
            examples.append(Example(tokens, learned[1:], answers))
    return examples


def _plain(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> list[dict[str, str]]:
    """Return messages in which nobody can spell a special token: those are the template's alone."""
    clean = []
    for message in messages:
        content = message["content"]
        for mark in tokenizer.marks:
            content = content.replace(mark, mark[:1] + " " + mark[1:])
        clean.append({**message, "content": content})
    return clean


def tune(model: Any, examples: Sequence[Example], section: DialogueSection, seed: int) -> tuple[int, float]:
    """Train a model in place; returns the steps and the mean loss in nats per token of the last tenth of them.

    Args:
        model: Has `hidden` and `head`; on its device.
        examples: What it learns.
        section: How.
        seed: Of the order of conversations, and of adapters.

    Raises:
        DataError: there is nothing to learn.
        TrainError: the loss is no longer finite.
    """
    if not examples:
        raise DataError("there is not one conversation with an answer to learn from", "give a file: dialogue.path")
    parameters, merge = _trained(model, section, seed)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=section.lr, betas=(0.9, 0.95))
    n_steps = max(1, round(section.epochs * len(examples) / section.batch_conversations))
    order = _order(len(examples), n_steps * section.batch_conversations, seed)
    losses = []
    model.train()
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = section.lr * _rate(step, n_steps)
        chosen = [examples[i] for i in order[step * section.batch_conversations :][: section.batch_conversations]]
        total, count = _loss(model, chosen)
        loss = total / count
        if not math.isfinite(float(loss.detach())):
            raise TrainError(f"the loss is no longer finite at step {step + 1} of {n_steps}", "lower dialogue.lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        losses.append(float(loss.detach()))
    merge()
    model.eval()
    return n_steps, float(np.mean(losses[-max(1, n_steps // 10) :]))


@torch.no_grad()
def bits_per_byte(model: Any, examples: Sequence[Example]) -> float:
    """Return how well a model predicts the answers of conversations, in bits per byte; NaN without any."""
    bits, n_bytes = 0.0, 0
    for start in range(0, len(examples), _TEST_BATCH):
        batch = examples[start : start + _TEST_BATCH]
        bits += float(_loss(model, batch)[0].double()) / math.log(2)
        n_bytes += sum(example.n_bytes for example in batch)
    return bits / n_bytes if n_bytes else math.nan


def _loss(model: Any, batch: Sequence[Example]) -> tuple[Tensor, int]:
    """Return the summed loss in nats of the answers of a batch, and how many tokens they are."""
    width = max(len(example.tokens) for example in batch) - 1
    tokens_BT = torch.zeros(len(batch), width, dtype=torch.long)
    targets_BT = torch.full((len(batch), width), -1)
    for row, example in enumerate(batch):
        ids, n = torch.tensor(example.tokens), len(example.tokens) - 1
        tokens_BT[row, :n] = ids[:-1]
        targets_BT[row, :n] = torch.where(torch.tensor(example.learned), ids[1:], -1)
    device = next(model.parameters()).device
    kept_N = (targets_BT.flatten() >= 0).nonzero()[:, 0]
    hidden_ND = model.hidden(tokens_BT.to(device)).flatten(0, 1)[kept_N.to(device)]
    targets_N = targets_BT.flatten()[kept_N].to(device)
    return F.cross_entropy(model.head(hidden_ND).float(), targets_N, reduction="sum"), len(kept_N)


def _rate(step: int, n_steps: int) -> float:
    """Return the share of the peak learning rate."""
    warmup = max(1, round(_WARMUP_SHARE * n_steps))
    return (step + 1) / warmup if step < warmup else (n_steps - step) / max(1, n_steps - warmup)


def _order(count: int, wanted: int, seed: int) -> list[int]:
    """Return which conversations are read, epoch after epoch, each in an order of its own."""
    rng = np.random.default_rng([seed, 0xD1A])
    epochs = [rng.permutation(count) for _ in range(math.ceil(wanted / count))]
    return [int(i) for i in np.concatenate(epochs)[:wanted]]


class _LowRank(nn.Module):
    """A matrix plus the product of two narrow ones."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        start = torch.randn(rank, n_in, generator=generator) / n_in**0.5
        self.a = nn.Parameter(start.to(weight.device))
        self.b = nn.Parameter(torch.zeros(n_out, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the matrix with its addition."""
        return weight + self.b @ self.a


def _trained(model: Any, section: DialogueSection, seed: int) -> tuple[list[nn.Parameter], Any]:
    """Return what is trained, and what to call when it is: adapters are merged into their matrices."""
    own = [p for p in model.parameters() if p.requires_grad]
    if section.method == "full" or hasattr(model, "packed"):  # a model of transformers has its own adapters
        return own, lambda: None
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear)]
    for parameter in own:
        parameter.requires_grad_(False)
    trained: list[nn.Parameter] = []
    for layer in layers:
        adapter = _LowRank(layer.weight, section.lora_rank, generator)
        parametrize.register_parametrization(layer, "weight", adapter)
        trained += [adapter.a, adapter.b]

    def merge() -> None:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    return trained, merge
