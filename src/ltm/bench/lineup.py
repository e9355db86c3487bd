"""Who takes part, with how many processes and threads, tuned how. No torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

from ltm.bench.question import Question
from ltm.bench.seat import Seat
from ltm.forecast.machine_work import Case

ENGINE, YARDSTICK = "ltm", "gemm"
INSTALL_HF = "pip install 'ltm[hf]'"
_MODULES = {ENGINE: "engine", YARDSTICK: "gemm", "hf": "hf", "nanogpt": "nanogpt"}
TITLES = {ENGINE: "ltm", YARDSTICK: "GEMM", "hf": "HF Trainer", "nanogpt": "nanoGPT"}


@dataclass(frozen=True)
class Contender:
    """One that takes turns.

    Args:
        key: Unique in a line-up.
        peer: `ENGINE`, `YARDSTICK`, or one of `ltm.bench.question.PEERS`.
        mode: Of `ltm.bench.question.MODES`; empty for ltm and the yardstick.
        seat: What each of its processes is told.
        attentions: Ways of attention that the peer ships; where there are several, the fastest is kept.
    """

    key: str
    peer: str
    mode: str
    n_processes: int
    seat: Seat
    attentions: tuple[str, ...] = ("",)

    @property
    def name(self) -> str:
        """What people read."""
        return f"{TITLES[self.peer]} {self.mode}".strip()

    def seats(self, attention: str) -> list[Seat]:
        """Return one seat for each process."""
        return [
            replace(self.seat, attention=attention, folder=f"{self.seat.folder}/{self.key}-{index}")
            for index in range(self.n_processes)
        ]


def line_up(question: Question, case: Case, n_cores: int, device: str, folder: str) -> list[Contender]:
    """Return everybody who takes part: the yardstick, ltm, then the peers.

    On a CPU, ltm and peers that are tuned run one process per core with one thread each and keep freed memory; peers
    as people run them are one process with all threads. On a GPU everybody is one process.
    """
    seat = Seat("", case, device, 1, False, False, nanogpt=str(question.nanogpt or ""), folder=folder)
    split = n_cores if device == "cpu" else 1  # processes of those who use one per core
    spread = replace(seat, threads=n_cores // split, keeps_memory=device == "cpu")
    found = [
        Contender(YARDSTICK, YARDSTICK, "", split, replace(spread, contender=_MODULES[YARDSTICK])),
        Contender(ENGINE, ENGINE, "", split, replace(spread, contender=_MODULES[ENGINE], compiled=question.compiled)),
    ]
    for peer in question.peers:
        for mode in question.modes:
            if mode != "usual":
                hard = replace(spread, contender=_MODULES[peer], compiled=True)
                ways = ("sdpa", "eager") if device == "cpu" and mode == "hardest" else ("",)
                found.append(Contender(f"{peer}-{mode}", peer, mode, split, hard, ways))
            else:
                # nanoGPT compiles unless told not to, and its README tells so for a CPU
                compiled = peer == "nanogpt" and device == "cuda"
                usual = replace(seat, contender=_MODULES[peer], threads=n_cores, compiled=compiled)
                found.append(Contender(f"{peer}-{mode}", peer, mode, 1, usual))
    return found


def missing(peer: str) -> str:
    """Return why a peer cannot run here, or nothing."""
    if peer != "hf":
        return ""
    absent = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; {INSTALL_HF}" if absent else ""
