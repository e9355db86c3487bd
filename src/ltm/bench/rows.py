"""The records of `ltm bench train`, and how turns become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm.bench.flops import flops_per_token
from ltm.bench.gate import Ready, Turn
from ltm.bench.lineup import ENGINE, YARDSTICK, Contender
from ltm.bench.question import Question
from ltm.bench.statistics import Quartiles, quartiles, ratios
from ltm.forecast.machine_work import Case


@dataclass
class Found:
    """What was measured of one contender."""

    ready: list[Ready] = field(default_factory=list)
    turns: list[list[Turn]] = field(default_factory=list)  # one list a round, one entry a process
    tried: dict[str, float] = field(default_factory=dict)  # seconds of a warm step by way of attention
    reason: str = ""  # why it has no figures

    def rates(self) -> list[float]:
        """Return what all its processes together achieve in a second, by round."""
        return [sum(turn.amount / turn.seconds for turn in turns) for turns in self.turns]

    def peak_bytes(self) -> int:
        """Return the largest memory that one of its processes took."""
        return round(max(turn.peak_bytes for turns in self.turns for turn in turns))

    def compile_seconds(self) -> float:
        """Return what the first step took beyond a usual one: compiling, loading kernels."""
        return max(0.0, *(ready.first_step_seconds - ready.step_seconds for ready in self.ready))

    def n_params(self) -> int:
        """Return the number of trained parameters."""
        return int(self.ready[0].about["n_params"])


@dataclass(frozen=True)
class PeerRow:
    """A peer beside ltm; figures are None where `reason` says why."""

    peer: str
    mode: str
    reason: str
    ratio: float | None = None  # ltm's tokens per second over the peer's; median over rounds
    ratio_quartiles: tuple[float, float] | None = None
    ratio_by_parameters: float | None = None  # the same of tokens times parameters, where shapes differ
    tokens_per_second: float | None = None
    tokens_per_second_quartiles: tuple[float, float] | None = None
    mfu: float | None = None  # against the same yardstick as ltm's; 1 / mfu is the most that anybody could lead by
    n_params: int | None = None
    n_processes: int = 0
    threads: int = 0
    compiled: bool = False
    attention: str = ""  # where a peer ships several, the fastest here is kept at its hardest
    attention_step_seconds: dict[str, float] = field(default_factory=dict)  # of those that were tried
    peak_memory_bytes: int | None = None
    compile_seconds: float | None = None
    tokens_per_second_by_round: tuple[float, ...] = ()


@dataclass(frozen=True)
class BenchRow:
    """One size of model, trained by ltm and by peers in turns."""

    size: str  # as it was asked for
    model: str
    n_params: int
    tokens_per_second: float  # of the whole machine; median over rounds
    tokens_per_second_quartiles: tuple[float, float]
    mfu: float  # model FLOPs over the yardstick of the same round; see ltm.bench.flops
    mfu_quartiles: tuple[float, float]
    mfu_causal: float  # the same with only half of the attention's square counted
    peak_memory_bytes: int  # of one worker process
    ratio_to_hf_trainer: float | None
    ratio_to_hf_trainer_quartiles: tuple[float, float] | None
    ratio_to_hf_trainer_reason: str  # why there is none
    dtype: str
    device: str
    n_workers: int
    rounds: int
    seconds: float  # of one turn
    compiled: bool
    compile_seconds: float  # of the first step, beyond a usual one; seconds where the compiled code was kept
    vocab_size: int
    block_size: int
    batch_tokens: int
    flops_per_token: float
    gemm_flops_per_second: float
    gemm_flops_per_second_quartiles: tuple[float, float]
    tokens_per_second_by_round: tuple[float, ...]
    gemm_flops_per_second_by_round: tuple[float, ...]
    peers: tuple[PeerRow, ...]
    machine: dict[str, Any]


def bench_row(
    size: str,
    model: str,
    question: Question,
    case: Case,
    lineup: Sequence[Contender],
    found: Mapping[str, Found],
    machine: dict[str, Any],
) -> BenchRow:
    """Return the row of one size.

    Raises:
        DataError: a contender has fewer rounds than the others.
    """
    ours, yardstick = found[ENGINE], found[YARDSTICK]
    rates, gemm = ours.rates(), yardstick.rates()
    flops = flops_per_token(case.config)
    shares = quartiles([share * flops for share in ratios(rates, gemm)])
    peers = tuple(
        _peer_row(contender, found[contender.key], ours, gemm, case) for contender in lineup if contender.mode
    )
    trainer = next((peer for peer in peers if peer.peer == "hf"), PeerRow("hf", "", "not asked for: --peers hf"))
    rate, power = quartiles(rates), quartiles(gemm)
    return BenchRow(
        size=size,
        model=model,
        n_params=ours.n_params(),
        tokens_per_second=rate.median,
        tokens_per_second_quartiles=_pair(rate),
        mfu=shares.median,
        mfu_quartiles=_pair(shares),
        mfu_causal=shares.median * flops_per_token(case.config, masked_half=False) / flops,
        peak_memory_bytes=ours.peak_bytes(),
        ratio_to_hf_trainer=trainer.ratio,
        ratio_to_hf_trainer_quartiles=trainer.ratio_quartiles,
        ratio_to_hf_trainer_reason=trainer.reason,
        dtype=case.dtype,
        device=str(machine["device"]),
        n_workers=len(ours.ready),
        rounds=len(rates),
        seconds=question.seconds,
        compiled=bool(ours.ready[0].about["compiled"]),
        compile_seconds=ours.compile_seconds(),
        vocab_size=case.config.vocab_size,
        block_size=case.config.block_size,
        batch_tokens=case.batch_tokens,
        flops_per_token=flops,
        gemm_flops_per_second=power.median,
        gemm_flops_per_second_quartiles=_pair(power),
        tokens_per_second_by_round=tuple(rates),
        gemm_flops_per_second_by_round=tuple(gemm),
        peers=peers,
        machine=machine,
    )


def _peer_row(contender: Contender, found: Found, ours: Found, gemm: Sequence[float], case: Case) -> PeerRow:
    seat = contender.seat
    if found.reason:
        return PeerRow(contender.peer, contender.mode, found.reason, n_processes=contender.n_processes)
    rates = found.rates()
    rate, ratio = quartiles(rates), quartiles(ratios(ours.rates(), rates))
    about = found.ready[0].about
    flops = flops_per_token(case.config, n_multiplied=int(about.get("n_multiplied", 0)))
    return PeerRow(
        peer=contender.peer,
        mode=contender.mode,
        reason="",
        ratio=ratio.median,
        ratio_quartiles=_pair(ratio),
        ratio_by_parameters=ratio.median * ours.n_params() / found.n_params(),
        tokens_per_second=rate.median,
        tokens_per_second_quartiles=_pair(rate),
        mfu=quartiles(ratios(rates, gemm)).median * flops,
        n_params=found.n_params(),
        n_processes=contender.n_processes,
        threads=seat.threads,
        compiled=seat.compiled,
        attention=str(about.get("attention", "")),
        attention_step_seconds=found.tried,
        peak_memory_bytes=found.peak_bytes(),
        compile_seconds=found.compile_seconds(),
        tokens_per_second_by_round=tuple(rates),
    )


def _pair(values: Quartiles) -> tuple[float, float]:
    return values.low, values.high
