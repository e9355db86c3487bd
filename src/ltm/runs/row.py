"""The row that a complete run leaves, whichever engine trained it."""

from __future__ import annotations

import datetime
import os

from ltm.records import Run, Variant
from ltm.runs import origin, queue
from ltm.runs.train import TrainState
from ltm.store import WorkFolder, fingerprint
from ltm.tokens.tokenizer import identity


def row_of(
    work: WorkFolder,
    job: queue.Job,
    variant: Variant,
    recipe: queue.Recipe,
    state: TrainState,
    *,
    started: str,
    model: str,
    n_params: int,
    n_steps: int,
    device: str,
    precision: str,
    compiled: bool,
    micro_tokens: int,
    matmul_flops: float,
    weights_sha256: str,
) -> Run:
    """Return the row of a run that has just ended.

    Args:
        work: The study's folder.
        job: What was asked for.
        variant: Its training set.
        recipe: What all runs share.
        state: Of the training, after its last step.
        started: When it began, as `now` says it.
        model: Its name.
        n_params: All parameters, trained or not.
        n_steps: Optimizer steps.
        device: Where it was trained.
        precision: Of matrix products, by its name in a study.
        compiled: Whether the model was compiled.
        micro_tokens: Tokens of a forward pass that fitted.
        matmul_flops: The matrix rate of the device in FLOP/s; 0 = not measured.
        weights_sha256: Of the file that the run keeps.
    """
    n_tokens = n_steps * recipe.runs.batch_tokens
    rate = n_tokens / max(state.seconds, 1e-9)
    tail = state.curve_loss[-max(1, len(state.curve_loss) // 20) :]
    return Run(
        run_id=job.run_id,
        variant_id=variant.variant_id,
        init_seed=job.init_seed,
        model=model,
        n_params=n_params,
        n_tokens=n_tokens,
        n_steps=n_steps,
        seconds=state.seconds,
        tokens_per_second=rate,
        mfu=6 * n_params * rate / matmul_flops if matmul_flops else 0.0,
        device=device,
        dtype=precision,
        compiled=compiled,
        micro_batch_tokens=micro_tokens,
        final_loss=sum(tail) / len(tail),
        curve_tokens=state.curve_tokens,
        curve_loss=state.curve_loss,
        worker=f"{os.uname().nodename}:{os.getpid()}",
        started_at=started,
        finished_at=now(),
        versions=origin.versions(),
        hardware=origin.machine(device),
        recipe=fingerprint(queue.made_from(recipe, identity(work))),
        cuts=job.cuts,
        weights_sha256=weights_sha256,
    )


def now() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
