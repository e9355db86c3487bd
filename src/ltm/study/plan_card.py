"""What a study takes on a card that is not here: the forecaster's answer for one run, times the runs.

Reads: the settings alone. Nothing is rehearsed, so that a study can be priced before its books or its base are there.
"""

from __future__ import annotations

import math
from typing import Any

from ltm.errors import InputError
from ltm.forecast import answer as answers
from ltm.forecast.answer import Answer
from ltm.forecast.question import Question, ask
from ltm.forecast.render import Amount
from ltm.study.settings import StudySettings

_PRECISION = {"float32": "fp32", "tf32": "tf32", "float16": "fp16", "bfloat16": "bf16"}


def plan_card(settings: StudySettings, gpu: str, gpus: int) -> dict[str, Any]:
    """Return time, memory, energy and cost of all runs on cards of one kind.

    Args:
        settings: The study.
        gpu: A card by name, or a data sheet.
        gpus: How many of them work at once.

    Raises:
        InputError: no such card, or the runs need more cards than there are.
    """
    from ltm.study.knowing import design_of

    per_run = settings.runs.processes_per_run
    if gpus < per_run:
        raise InputError(
            f"a run of this study is shared by {per_run} cards (runs.processes_per_run), not {gpus}",
            f"--gpus {per_run}, or --set runs.processes_per_run={gpus}",
        )
    found = answers.answer(ask(question_of(settings, gpu)))
    n_runs = int(design_of(settings)["n_runs"])
    at_once = gpus // per_run
    rounds = math.ceil(n_runs / at_once)
    return {
        "study": settings.name,
        "gpu": found.asked.device.name,
        "gpus": gpus,
        "runs": n_runs,
        "runs_at_once": at_once,
        "fits": answers.fitting_words(found.forecast),
        "memory_gib": _range(answers.memory_gib(found.forecast)),
        "tokens_per_second": _range(answers.speed(found.forecast)),
        "run_hours": _range(answers.hours(found.bill)),
        "hours": _range(answers.hours(found.bill).times(rounds)),
        "energy_kwh": _range(answers.energy_kwh(found.bill).times(n_runs)),
        "usd": _range(answers.cost_usd(found.bill).times(n_runs)),
        "text": text(found, n_runs, at_once, rounds),
    }


def question_of(settings: StudySettings, gpu: str) -> Question:
    """Return one run of a study as a question to the forecaster."""
    runs, model = settings.runs, settings.model
    shape = model.shape(settings.tokens.vocab_size)
    native = runs.engine == "native"
    return Question(
        model=model.size if model.base is None or not model.is_here else model.base,
        vocab=shape.vocab_size if model.base is None else None,
        seq_len=shape.block_size,
        tokens=settings.sets.run_tokens,
        method=runs.method,
        lora_rank=runs.lora.rank if runs.method != "full" else None,
        continued=model.base is not None,
        precision=None if runs.dtype == "auto" else _PRECISION[runs.dtype],
        checkpointing="full" if runs.activation_checkpointing else "none",
        compile=native and runs.compile is not False,
        optimizer=runs.optimizer,
        micro_batch=runs.micro_batch_tokens // shape.block_size or None,
        batch_tokens=runs.batch_tokens,
        parallel=None if runs.parallel == "none" else runs.parallel,
        gpus=runs.processes_per_run,
        gpu=gpu,
        usd_per_kwh=settings.forecast.usd_per_kwh,
    )


def text(found: Answer, n_runs: int, at_once: int, rounds: int) -> str:
    """Return the plan in words: one run, then all of them."""
    hours, energy = answers.hours(found.bill).times(rounds), answers.energy_kwh(found.bill).times(n_runs)
    lines = [answers.to_text(found, 100), ""]
    lines += [f"all {n_runs} runs, {at_once} at a time: {_words(hours, 'h')}; energy {_words(energy, 'kWh')}"]
    return "\n".join(lines)


def _words(amount: Amount, unit: str) -> str:
    return f"{amount.value:,.1f} {unit} ({amount.low:,.1f} to {amount.high:,.1f})"


def _range(amount: Amount) -> dict[str, float]:
    return {"value": amount.value, "low": amount.low, "high": amount.high}
