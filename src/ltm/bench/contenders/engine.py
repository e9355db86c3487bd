"""ltm itself: the trainer that runs use, as a study's worker has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ltm.bench.gate import Gate
from ltm.bench.seat import Seat
from ltm.bench.words import zipf_tokens
from ltm.runs import hardware
from ltm.runs.calibrate_steps import make_trainer
from ltm.runs.engine import keep_compiled_code
from ltm.runs.section import RunsSection
from ltm.tokens.stream import Stream

_N_STEPS = 1_000_000  # never reached
_TOKENS_PER_PARAMETER = 20  # of the run that is stood in for: long enough to be compiled, where there is a compiler


def run(seat: Seat, gate: Gate) -> None:
    """Train until the gate closes."""
    step, about = training_step(seat)
    gate.begin(**about)
    going = True
    while going:
        step()
        going = gate.passed()


def training_step(seat: Seat) -> tuple[Callable[[], None], dict[str, Any]]:
    """Return one training step of a run, to be called again and again, and what there is to know of it."""
    case = seat.case
    n_params = case.config.n_params
    run_tokens = _TOKENS_PER_PARAMETER * n_params
    compiled = seat.compiled and hardware.should_compile(RunsSection(), seat.device, n_params, run_tokens)
    keep_compiled_code()
    trainer = make_trainer(case, seat.device, n_steps=_N_STEPS, compiled=compiled)
    tokens = zipf_tokens(case.config.vocab_size)
    repeats = math.ceil((_N_STEPS * case.batch_tokens + 1) / len(tokens))
    trainer.stream = Stream(tokens, np.tile(np.array([[0, len(tokens)]], dtype=np.int64), (repeats, 1)), -1)
    about = {"n_params": sum(p.numel() for p in trainer.model.parameters()), "compiled": compiled}
    return trainer.one_step, about
