"""In which order the runs of a study are worked on.

What is begun is ended first. Rounds come one after the other, and the runs of a block (they share books and seeds, and
are compared with each other) stand together, so that a study that is stopped half-way has whole blocks to compare.
Among blocks those with the longest runs come first: what is left at the end is short, and no worker waits long for the
last one (Graham 1969: longest processing time first).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ltm.records import Variant
from ltm.runs.queue import Job


def in_order(
    jobs: Sequence[Job],
    variants: Sequence[Variant],
    begun: Collection[str] = (),
    tokens: Mapping[str, float] | None = None,
) -> list[Job]:
    """Return the runs in the order in which to work on them; equal ones stay in design order.

    Args:
        jobs: The runs, in design order.
        variants: Of the study.
        begun: Ids of runs that have a checkpoint.
        tokens: Of a run by its id, where runs differ in length.
    """
    by_index = {v.index: v for v in variants}
    place = {job.run_id: (i, by_index.get(job.variant_index)) for i, job in enumerate(jobs)}
    rounds: dict[str, int] = {}
    longest: dict[tuple[str, int], float] = {}
    first: dict[tuple[str, int], int] = {}
    for job in jobs:
        i, variant = place[job.run_id]
        block = (variant.round, variant.block) if variant else ("", i)
        rounds.setdefault(block[0], len(rounds))
        first.setdefault(block, i)
        longest[block] = max(longest.get(block, 0.0), (tokens or {}).get(job.run_id, 0.0))

    def key(job: Job) -> tuple[int, bool, float, int, int]:
        i, variant = place[job.run_id]
        block = (variant.round, variant.block) if variant else ("", i)
        return rounds[block[0]], job.run_id not in begun, -longest[block], first[block], i

    return sorted(jobs, key=key)
