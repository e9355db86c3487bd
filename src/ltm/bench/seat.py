"""Where one process of a contender sits: everything it needs to know to train, as plain values. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from ltm.forecast.machine_work import Case


@dataclass(frozen=True)
class Seat:
    """One process of one contender."""

    contender: str  # a module of ltm.bench.contenders
    case: Case
    device: str
    threads: int
    keeps_memory: bool  # glibc's thresholds raised, so that freed memory is kept
    compiled: bool
    attention: str = ""  # the peer's own choice, or sdpa, eager
    nanogpt: str = ""  # folder of the clone
    folder: str = ""  # for what a peer insists on writing
