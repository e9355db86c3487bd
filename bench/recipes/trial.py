"""One run of the search in a worker: train a set under a recipe, score its weights on the held-out text."""

# ruff: noqa: N806  (names carry shapes)
from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from library import Library, variant
from recipe import AVERAGES, EMA_SHARES, Recipe
from torch import Tensor

from ltm.model.gpt import GPT
from ltm.runs import hardware
from ltm.runs.engine import Engine, EngineSettings, keep_compiled_code
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream, segments

_WARM_STEPS = 3
_GPT2_SD = 0.02
_EVAL_TOKENS = 1024  # a batch of held-out text: its logits stay in the cache


def run(recipe: Recipe, where: tuple[Any, ...], set_index: int, replicate: int) -> dict[str, Any]:
    """Return the nats of every held-out window, for each average of the weights, and how the training went."""
    torch.set_num_threads(1)
    trainer = make_trainer(recipe, where, set_index, replicate)
    keep = _Averages(trainer)
    trainer.run(keep)
    values = {name: window_nats(recipe, where, weights) for name, weights in keep.named().items()}
    return {
        "nats": values,
        "bytes": [len(text.encode()) for text in _library(where).windows()],
        "seconds": trainer.state.seconds,
        "loss": trainer.state.curve_loss[-1],
    }


def rate(recipe: Recipe, where: tuple[Any, ...], seconds: float) -> list[float]:
    """Return the CPU seconds of single training steps, the first ones left out: compiling, a heap that grows."""
    torch.set_num_threads(1)
    trainer = make_trainer(recipe, where, 0, 0)
    for _ in range(_WARM_STEPS):
        trainer.one_step()
    start, taken = time.perf_counter(), []
    while trainer.state.step < trainer.n_steps and time.perf_counter() - start < seconds:
        before = time.process_time()  # one thread: the same as the clock, were the core ours alone
        trainer.one_step()
        taken.append(time.process_time() - before)
    return taken


def make_trainer(recipe: Recipe, where: tuple[Any, ...], set_index: int, replicate: int) -> Trainer:
    library = _library(where)
    tokens, shards, bos_id = _tokens(where, recipe.vocab_size)
    own = np.random.default_rng([set_index, replicate, 0xF1D]).integers(1, 2**31, size=2)
    shared = np.random.default_rng([replicate, 0xC0]).integers(1, 2**31, size=2)
    init_seed = int(shared[0] if "init" in recipe.common else own[0])
    stream_seed = int(shared[1] if "stream" in recipe.common else own[1])
    books = library.sets(recipe.design, recipe.books_per_set)[set_index]
    stream = Stream(tokens, segments(variant(set_index, books, stream_seed), recipe.sets(), shards), bos_id)
    section, config = recipe.section(), recipe.model()
    engine = _engine(hardware.engine_settings(section, config, recipe.sets().run_tokens))
    trainer = Trainer(section, engine, stream, recipe.n_steps, init_seed)
    if not recipe.mup:
        trainer.weights.fill(_initial(engine.model, init_seed, recipe.init))
    return trainer


@functools.lru_cache(maxsize=1)
def _engine(settings: EngineSettings) -> Engine:
    keep_compiled_code()
    return Engine(settings)


def _initial(model: GPT, seed: int, sizes: str) -> dict[str, Tensor]:
    """Return weights of sd 0.02, or where a size is given for embeddings, blocks or outputs, size / root of width."""
    words = sizes.split()
    size_of = {what: float(size) for what, size in zip(words[::2], words[1::2], strict=True)}
    generator, config, weights = torch.Generator().manual_seed(seed), model.config, {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            weights[name] = torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0)
            continue
        outputs = name.endswith(("out.weight", "down.weight"))
        kinds = ("outputs", "blocks") if outputs else ("blocks",) if name.startswith("blocks.") else ("embed",)
        size = next((size_of[kind] for kind in kinds if kind in size_of), None)
        sd = _GPT2_SD if size is None else size / config.n_embd**0.5
        depth = (2 * config.n_layer) ** 0.5 if outputs else 1.0
        weights[name] = torch.empty(parameter.shape).normal_(0.0, sd / depth, generator=generator)
    return weights


class _Averages:
    """Averages of the last weights over several shares of the steps, taken beside one training.

    A mean counts the last share of the steps alike; a moving average forgets over that share.
    """

    def __init__(self, trainer: Trainer) -> None:
        n, start_N = trainer.n_steps, trainer.weights.master_N
        self._weights = trainer.weights
        self._from = {str(share): n - max(1, round(share * n)) for share in AVERAGES}
        self._means = {name: torch.zeros_like(start_N) for name in self._from}
        self._rates = {f"ema {share}": 1.0 / max(1.0, share * n) for share in EMA_SHARES}
        self._moving = {name: start_N.clone() for name in self._rates}

    def __call__(self, trainer: Trainer) -> None:
        for name, first in self._from.items():
            if trainer.state.step > first:
                self._means[name].lerp_(self._weights.master_N, 1.0 / (trainer.state.step - first))
        for name, rate in self._rates.items():
            self._moving[name].lerp_(self._weights.master_N, rate)

    def named(self) -> dict[str, dict[str, Tensor]]:
        return {name: self._weights.named(mean) for name, mean in (self._means | self._moving).items()}


@torch.no_grad()
def window_nats(recipe: Recipe, where: tuple[Any, ...], weights: dict[str, Tensor]) -> list[float]:
    """Return the code length of every window in nats; blocks do not overlap, the loss is in float32."""
    model = GPT(recipe.model())
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    x_NT, y_NT, window_N, n_windows = _blocks(where, recipe.vocab_size, recipe.block_size)
    nats, weight_VD = np.zeros(n_windows), model.unembed.weight
    step = max(1, _EVAL_TOKENS // recipe.block_size)
    for start in range(0, len(x_NT), step):
        rows = slice(start, start + step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden_ND = model.hidden(x_NT[rows]).flatten(0, 1)
        logits_NV = hidden_ND.float() @ weight_VD.T
        y_N = y_NT[rows].flatten()
        loss = logits_NV.logsumexp(1) - logits_NV.gather(1, y_N.clamp(min=0)[:, None])[:, 0]
        loss = torch.where(y_N < 0, 0.0, loss)
        np.add.at(nats, window_N[rows], loss.view(-1, recipe.block_size).sum(1).numpy())
    return [round(float(value), 3) for value in nats]


@functools.lru_cache(maxsize=2)
def _library(where: tuple[Any, ...]) -> Library:
    return Library(Path(where[0]), *where[1:])


@functools.lru_cache(maxsize=4)
def _tokens(where: tuple[Any, ...], vocab_size: int) -> tuple[Any, Any, int]:
    library = _library(where)
    return *library.tokens(vocab_size), library.tokenizer(vocab_size).bos_id


@functools.lru_cache(maxsize=4)
def _blocks(where: tuple[Any, ...], vocab_size: int, block_size: int) -> tuple[Tensor, Tensor, Any, int]:
    """Return inputs, targets (-1 = none) and the window of every row; each token of a window is a target once."""
    library = _library(where)
    tokenizer = library.tokenizer(vocab_size)
    inputs, targets, window = [], [], []
    texts = library.windows()
    for index, text in enumerate(texts):
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        for start in range(0, len(ids) - 1, block_size):
            y = ids[start + 1 : start + 1 + block_size]
            x = ids[start : start + len(y)]
            gap = block_size - len(y)
            inputs.append(x + [0] * gap)
            targets.append(y + [-1] * gap)
            window.append(index)
    return torch.tensor(inputs), torch.tensor(targets), np.array(window), len(texts)
