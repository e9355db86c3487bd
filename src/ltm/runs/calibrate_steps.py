"""Time whole training steps, and the memory they take, in a worker process: the trainer that runs use, as it is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ltm.forecast.machine_work import Case
from ltm.model.sizes import ModelConfig
from ltm.runs.calibrate_pieces import one_thread
from ltm.runs.engine import Engine, EngineSettings, keep_compiled_code
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream

_WARM_STEPS = 2  # the heap reaches its full size; first calls are slow
_STEPS_A_ROUND = 2
_TAKEN_AWAY_FRACTION = 0.02  # of a step's time; less is the clock's own noise
_POOL_TOKENS = 1 << 16
_N_STEPS = 100_000
_MOST_SHAPES = 64
_FEWEST_CASES, _FEWEST_COMPILED = 8, 4


def plan(device: str = "cpu") -> list[Case]:
    """Return whole steps of deliberately different shapes, small enough for a probe."""
    scale = 1 if device == "cpu" else 16
    cases = []
    for family, n_layer, heads, kv, width, hidden, vocab, block, batch, micro in _SHAPES:
        window = block // 2 if family == "mistral" else 0
        config = ModelConfig(family, n_layer, heads, kv, width, hidden, vocab, block, window)
        cases += [Case(config, batch * scale, micro * scale, dtype) for dtype in ("float32", "bfloat16")]
    return cases


_SHAPES = [  # family, layers, heads, key heads, width, hidden, vocabulary, block, batch, micro batch
    ("llama", 2, 2, 2, 48, 128, 512, 128, 512, 0),
    ("gpt2", 4, 2, 2, 64, 256, 257, 64, 1024, 256),
    ("llama", 4, 4, 4, 128, 352, 2048, 256, 1024, 0),
    ("mistral", 3, 4, 2, 96, 352, 1024, 1024, 1024, 0),
    ("gpt2", 3, 3, 3, 96, 384, 8192, 128, 1024, 0),
    ("llama", 2, 6, 6, 384, 1024, 512, 128, 512, 0),
    ("gpt2", 2, 8, 8, 512, 2048, 1024, 256, 256, 0),
    ("mistral", 2, 8, 2, 256, 896, 4096, 512, 512, 0),
    ("llama", 5, 2, 1, 32, 96, 300, 320, 7680, 0),
    ("gpt2", 4, 5, 5, 80, 224, 1500, 96, 4608, 0),
    ("mistral", 2, 8, 4, 512, 1792, 257, 64, 256, 128),
    ("llama", 2, 5, 5, 120, 256, 6000, 64, 2048, 1024),
    ("llama", 2, 4, 1, 256, 640, 1024, 128, 1536, 0),
    ("mistral", 6, 1, 1, 48, 160, 1000, 192, 768, 384),
    ("llama", 3, 4, 2, 96, 288, 512, 64, 768, 192),
]
_BUSY = (0, 3, 4, 6, 8, 9, 12, 14)  # of these shapes, those that are also timed with all workers busy


def busy_plan(device: str = "cpu") -> list[Case]:
    """Return the cases that are timed once more with all workers busy."""
    return [case for index, case in enumerate(plan(device)) if index // 2 in _BUSY]


def compiled_plan(device: str, dtype: str) -> list[Case]:
    """Return shapes that are compiled: shallow, since compiling takes seconds a layer, each with other work on top."""
    scale = 1 if device == "cpu" else 16
    shapes = [
        ("llama", 2, 4, 4, 128, 352, 1024, 128, 1024),
        ("gpt2", 1, 2, 2, 64, 256, 257, 64, 512),
        ("mistral", 1, 6, 3, 96, 288, 512, 512, 2048),
        ("llama", 1, 4, 2, 256, 704, 4096, 128, 512),
    ]
    return [Case(ModelConfig(*shape), scale * batch, 0, dtype) for *shape, batch in shapes]  # type: ignore[arg-type]


def memory_plan(device: str = "cpu") -> list[Case]:
    """Return cases whose peak memory is measured, each in a process of its own."""
    shapes = [
        ("llama", 2, 2, 2, 48, 128, 512, 128, 512, 0, "float32"),
        ("gpt2", 4, 4, 4, 128, 512, 1024, 256, 2048, 0, "bfloat16"),
        ("llama", 3, 3, 3, 96, 352, 8192, 128, 4096, 2048, "float32"),
        ("mistral", 3, 8, 4, 512, 1792, 512, 128, 512, 128, "bfloat16"),
        ("mistral", 4, 4, 2, 128, 448, 2048, 512, 3072, 0, "float32"),
        ("llama", 6, 4, 4, 256, 704, 4096, 256, 2048, 0, "float32"),
        ("gpt2", 4, 8, 8, 512, 2048, 4096, 256, 2048, 0, "bfloat16"),
        ("llama", 6, 8, 8, 512, 1376, 4096, 128, 1024, 256, "float32"),
        ("gpt2", 6, 3, 3, 96, 384, 2048, 384, 9216, 0, "bfloat16"),
    ]
    scale = 1 if device == "cpu" else 16
    return [
        Case(ModelConfig(*shape), scale * batch, scale * micro, dtype)  # type: ignore[arg-type]
        for *shape, batch, micro, dtype in shapes
    ]


def make_trainer(case: Case, device: str, n_steps: int = _N_STEPS, compiled: bool = False) -> Trainer:
    """Return a trainer of a case as a run has it, over random tokens."""
    section = RunsSection(
        batch_tokens=case.batch_tokens,
        micro_batch_tokens=case.micro_batch_tokens,
        dtype=case.dtype,  # type: ignore[arg-type]
        average_share=1.0 if case.averaged else 0.0,
    )
    config = case.config
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, _POOL_TOKENS)
    repeats = math.ceil((min(n_steps, _N_STEPS) * case.batch_tokens + 1) / _POOL_TOKENS)
    stream = Stream(tokens, np.tile(np.array([[0, _POOL_TOKENS]], dtype=np.int64), (repeats, 1)), 0)
    engine = Engine(EngineSettings(config, device, getattr(torch, case.dtype), compiled))
    return Trainer(section, engine, stream, n_steps, init_seed=0)


def time_steps(
    cases: Sequence[Case], seconds: float, rounds: int, device: str, compiled: bool = False
) -> list[list[float]]:
    """Return the seconds of single steps of each case, taken in interleaved rounds until the time is over.

    Some cases get none where a machine is too slow for one round.
    """
    if compiled:
        allow_many_shapes()
    fewest = _FEWEST_COMPILED if compiled else _FEWEST_CASES
    end = time.perf_counter() + seconds
    one_thread()
    trainers: list[Trainer | None] = [None] * len(cases)
    taken: list[list[tuple[float, float]]] = [[] for _ in cases]
    for turn in range(rounds):
        for index, case in enumerate(cases):
            if time.perf_counter() > end and (turn or index >= fewest):
                break
            trainer = trainers[index]
            if trainer is None:
                trainer = trainers[index] = make_trainer(case, device, compiled=compiled)
                for _ in range(_WARM_STEPS):
                    one_step(trainer)
            taken[index] += [one_step(trainer) for _ in range(_STEPS_A_ROUND)]
    return [undisturbed(steps) for steps in taken]


def compile_one(case: Case, device: str) -> float:
    """Compile a shape, keep its code for the workers to come, and return the seconds of the first step."""
    one_thread()
    allow_many_shapes()
    return one_step(make_trainer(case, device, compiled=True))[0]


def allow_many_shapes() -> None:
    """Let one process compile more shapes than PyTorch expects of one function; beyond that it runs plain code."""
    keep_compiled_code()
    torch._dynamo.config.recompile_limit = _MOST_SHAPES


def undisturbed(steps: Sequence[tuple[float, float]]) -> list[float]:
    """Return the seconds of the steps that had the processor for themselves.

    Where there are none, the middle of the processor's own seconds stands in: single ones of them can be too low.
    """
    alone = [seconds for seconds, used in steps if seconds - used <= _TAKEN_AWAY_FRACTION * seconds]
    return alone or ([float(np.median([used for _, used in steps]))] if steps else [])


def one_step(trainer: Trainer) -> tuple[float, float]:
    """Train one step; return its seconds, and the seconds that this thread had the processor (all, on a GPU)."""
    start, used = time.perf_counter(), time.thread_time()
    trainer.one_step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    elif trainer.device.type == "mps":
        torch.mps.synchronize()
    seconds = time.perf_counter() - start
    return seconds, time.thread_time() - used if trainer.device.type == "cpu" else seconds


def typical(seconds: Sequence[float]) -> float:
    """Return the lowest decile: what a quiet machine does, whatever its neighbours did meanwhile."""
    return float(np.quantile(seconds, 0.1))


def memory_peak(case: Case, device: str) -> float:
    """Return this process's peak memory in bytes after a short run; it has to be a fresh one."""
    one_thread()
    make_trainer(case, device, n_steps=2).run(lambda _: None)
    return peak_bytes(device)


def peak_bytes(device: str) -> float:
    """Return the peak memory of this process so far: resident on a CPU, allocated by PyTorch on a GPU."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    if device == "mps":
        return float(torch.mps.driver_allocated_memory())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
