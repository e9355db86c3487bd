"""Measure what surrounds training: building a model, tokenizing, scoring, writing weights, compiling, raw rates."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ltm.forecast.machine_work import Case
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import SIZES, ModelConfig
from ltm.runs import checkpoint
from ltm.runs.calibrate_pieces import one_thread
from ltm.runs.calibrate_steps import make_trainer, one_step, typical
from ltm.tokens import tokenizer

_BUILD_CONFIG = ModelConfig("llama", 4, 4, 4, 256, 704, 2048, 128)
_TEXT_BYTES = 400_000
_VOCAB_SIZE = 1024
_SCORE_CASE = Case(ModelConfig("llama", 4, 4, 4, 128, 352, 1024, 256), 2048)
_ROUNDS = 3
_BANDWIDTH_BYTES = (1 << 16, 1 << 19, 1 << 22, 1 << 25, 1 << 27)  # of one operand: first cache to main memory
_MATMUL_SIZES = (64, 128, 256, 512, 1024)


def ready() -> int:
    """Return this worker's threads once PyTorch is there: the time to this answer is a worker's start."""
    return torch.get_num_threads()


def costs(device: str) -> dict[str, float]:
    """Return the costs around training; the names carry the units."""
    one_thread()
    return {**_build(device), **_tokenizing(), **_scoring(device), **_writing()}


def _build(device: str) -> dict[str, float]:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        init_weights(GPT(_BUILD_CONFIG).to(device), 0)
        best = min(best, time.perf_counter() - start)
    return {"build_seconds_per_parameter": best / _BUILD_CONFIG.n_params}


def _tokenizing() -> dict[str, float]:
    """Time training and encoding on text with the statistics of words: frequent ones short, rare ones many."""
    text = _made_up_text()
    n_bytes = len(text.encode())
    start = time.perf_counter()
    made = tokenizer.train([text], _VOCAB_SIZE)
    trained = time.perf_counter()
    made.encode_many([text[i : i + 20_000] for i in range(0, len(text), 20_000)])
    return {
        "tokenizer_train_bytes_per_second": n_bytes / (trained - start),
        "encode_bytes_per_second": n_bytes / (time.perf_counter() - trained),
    }


def _made_up_text() -> str:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    share = 1.0 / np.arange(1, 27)
    words = [
        "".join(rng.choice(letters, size=2 + int(rng.poisson(1.5 + i / 2000)), p=share / share.sum()))
        for i in range(5000)
    ]
    rank = 1.0 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), size=_TEXT_BYTES // 6, p=rank / rank.sum())
    return " ".join(words[i] for i in drawn)


def _scoring(device: str) -> dict[str, float]:
    """Return scored tokens per second over trained ones: forward alone, logits where they are needed."""
    trainer = make_trainer(_SCORE_CASE, device)
    for _ in range(2):
        one_step(trainer)
    config = _SCORE_CASE.config
    tokens = torch.randint(0, config.vocab_size, (_SCORE_CASE.batch_tokens // config.block_size, config.block_size))
    tokens = tokens.to(device)
    trained, scored = [], []
    for _ in range(2 * _ROUNDS):
        trained.append(one_step(trainer)[0])
        start = time.perf_counter()
        with torch.inference_mode():
            float(trainer.model.head(trainer.model.hidden(tokens)[:, -32:]).float().logsumexp(-1).sum())
        scored.append(time.perf_counter() - start)
    return {"score_tokens_per_trained_token": typical(trained) / typical(scored)}


def _writing() -> dict[str, float]:
    model = GPT(SIZES["llama-5m"])
    weights = {name: p.detach() for name, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        best = float("inf")
        for index in range(_ROUNDS):
            start = time.perf_counter()
            checkpoint.save_weights(Path(folder) / f"{index}.safetensors", weights, model.config)
            best = min(best, time.perf_counter() - start)
    return {"weights_write_bytes_per_second": 4 * model.config.n_params / best}


def rates(device: str) -> dict[str, float]:
    """Return FLOP/s of square products by precision and size, and bytes/s by working set; best of a few."""
    found: dict[str, float] = {}
    one_thread()
    for dtype in (torch.float32, torch.bfloat16):
        for size in _MATMUL_SIZES:
            a = torch.randn(size, size, device=device).to(dtype)
            seconds = _best(lambda a=a: a @ a)
            found[f"matmul_{str(dtype).removeprefix('torch.')}_{size}_flops_per_second"] = 2 * size**3 / seconds
    for n_bytes in _BANDWIDTH_BYTES:
        x = torch.ones(n_bytes // 4, device=device)
        y = torch.empty_like(x)
        seconds = _best(lambda x=x, y=y: torch.add(x, 1.0, out=y))
        found[f"bandwidth_{n_bytes // 1024}_kib_bytes_per_second"] = 2 * n_bytes / seconds
    return found


def _best(function: object, rounds: int = 5) -> float:
    assert callable(function)
    best = float("inf")
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
