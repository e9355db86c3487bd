"""Stop early the runs that will not be among the best: successive halving (Jamieson & Talwalkar 2016).

It is for the product (the ten best models) and never for inference: only variants that were chosen because of scores
(`Variant.drawn` is False) outside the confirmation are stopped; what was drawn at random, which alone may enter
p-values, is trained to its end. Of those that could be stopped a random 30 % (by the hash of the run's id) are trained
to their end too, so that one can see what stopping costs. All candidates reach a rung before any is stopped: which ones
are does not depend on the speed of workers, nor on kills.

Writes: `runs/<run_id>/stopped.json` with the reason; the run's checkpoint is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ltm.records import Variant
from ltm.runs.heartbeat import FILE as HEARTBEAT
from ltm.runs.queue import ENDED, Job
from ltm.runs.section import HalvingSection
from ltm.store import WorkFolder, fingerprint, read_json, write_json

Judge = Callable[[Sequence[str], int], Mapping[str, float]]  # (runs, trained tokens) -> score of each, more is better
_EXEMPT_SHARE = 0.3
_HASH_RANGE = 16**8
_CHECKPOINT = "checkpoint.safetensors"


def rungs(section: HalvingSection, n_steps: int) -> list[int]:
    """Return after which steps the worse part of the candidates is stopped."""
    if not section.enabled:
        return []
    return sorted({step for share in section.rungs if 0 < (step := round(share * n_steps)) < n_steps})


def candidates(jobs: Sequence[Job], variants: Sequence[Variant]) -> list[str]:
    """Return the runs that may be stopped."""
    may = {v.index for v in variants if not v.drawn and not v.aside and v.round != "confirmation"}
    return [job.run_id for job in jobs if job.variant_index in may and not is_exempt(job.run_id)]


def is_exempt(run_id: str) -> bool:
    """Return whether a run is one of the 30 % that are never stopped."""
    return int(fingerprint(["exempt from halving", run_id], 8), 16) / _HASH_RANGE < _EXEMPT_SHARE


def losers(scores: Mapping[str, float], keep_share: float) -> list[str]:
    """Return the runs to stop, worst first; one that has no score is not judged, and of equals the later id goes.

    >>> losers({"a": 1.0, "b": 3.0, "c": 2.0, "d": float("nan")}, 0.5)
    ['a']
    """
    judged = sorted((run_id for run_id in scores if not math.isnan(scores[run_id])), key=lambda r: (scores[r], r))
    return judged[: len(judged) - math.ceil(keep_share * len(judged))]


def stop(work: WorkFolder, run_ids: Sequence[str], scores: Mapping[str, float], step: int, n_steps: int) -> None:
    """Stop runs for good."""
    middle = sorted(scores.values())[len(scores) // 2] if scores else 0.0
    for run_id in run_ids:
        reason = (
            f"after {step} of {n_steps} steps its score on the fast items was {scores[run_id]:.3f}, "
            f"the median of {len(scores)} candidates {middle:.3f}"
        )
        folder = work.path("runs", run_id)
        write_json(folder / ENDED, {"step": step, "n_steps": n_steps, "score": scores[run_id], "reason": reason})
        for leftover in (_CHECKPOINT, HEARTBEAT):
            (folder / leftover).unlink(missing_ok=True)


def add_moments(work: WorkFolder, tokens: Sequence[int]) -> None:
    """Have the runs asked the fast items at the rungs, beside the moments that are planned already."""
    path = work.path("runs", "moments.json")
    plan = (
        read_json(path) if path.exists() else {"call": "ltm.scores.snapshots:answer_moment", "bank": "a", "tokens": []}
    )
    wanted = sorted({*plan["tokens"], *tokens})
    if wanted != plan["tokens"]:
        write_json(path, {**plan, "tokens": wanted})
