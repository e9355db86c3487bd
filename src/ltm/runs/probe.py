"""Measure how fast this machine trains a model: a few steps of the very model, on as many workers as the study uses."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from ltm.errors import TrainError
from ltm.model.gpt import GPT, init_weights
from ltm.model.sizes import ModelConfig
from ltm.runs import hardware
from ltm.runs.executors.local import Job, LocalExecutor
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream

_PROBE_SECONDS = 2.0


def measure_rate(section: RunsSection, config: ModelConfig, pool: LocalExecutor, n_workers: int) -> list[float]:
    """Return tokens per second of each worker while all of them train.

    Raises:
        TrainError: no worker could train it.
    """
    shape = dataclasses.asdict(config)
    jobs = [Job(str(i), (section.model_dump(), shape)) for i in range(n_workers)]
    outcomes = list(pool.map(probe_worker, jobs))
    rates: list[float] = [outcome.value for outcome in outcomes if outcome.ok]
    if not rates:
        raise TrainError(
            f"this machine could not train the model for a moment: {outcomes[0].error}",
            "try a smaller model; a script that calls ltm needs `if __name__ == '__main__':`",
        )
    return rates


def probe_worker(settings: dict[str, object], shape: dict[str, object]) -> float:
    """Return tokens per second of this process, warm-up left out."""
    section = RunsSection.model_validate({**settings, "compile": False})
    config = ModelConfig(**shape)  # type: ignore[arg-type]
    device = hardware.pick_device(section)
    model = GPT(config).to(device)
    init_weights(model, 0)
    n_steps = 10_000
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 1 << 16)
    repeats = -(-(n_steps * section.batch_tokens + 1) // len(tokens))
    index = np.array([(0, len(tokens))] * repeats, dtype=np.int64)
    trainer = Trainer(
        section, model, model.loss, Stream(tokens, index, 0), n_steps, hardware.pick_dtype(section, device)
    )
    started, warm_step = time.monotonic(), 2

    def watch(trainer: Trainer) -> None:
        if trainer.state.step == warm_step:
            trainer.state.seconds = 0.0
        if time.monotonic() - started > _PROBE_SECONDS and trainer.state.step > warm_step:
            trainer.n_steps = trainer.state.step

    trainer.run(watch)
    return (trainer.state.step - warm_step) * section.batch_tokens / trainer.state.seconds
