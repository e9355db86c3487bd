"""The Markdown of `ltm bench train`: for the terminal, for `bench/`, and to send back from another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ltm.bench.lineup import TITLES
from ltm.bench.rows import BenchRow, PeerRow
from ltm.units import format_bytes, format_count

_PEER_HEAD = (
    *("size", "peer", "ltm is faster by", "by tokens x parameters", "peer's tokens/s", "its MFU", "its parameters"),
    *("processes x threads", "compiled", "attention", "memory of a process"),
)
_HEAD = ("size", "parameters", "tokens/s", "MFU", "memory of a worker", "compile")


def markdown(rows: Sequence[BenchRow], command: str) -> str:
    """Return the table of all rows, what it was measured on, and one table of the peers."""
    if not rows:
        return "nothing was measured\n"
    first = rows[0]
    lines = [*_about(first, command), "", _line(_HEAD), _line(["---"] * len(_HEAD))]
    lines += [_line(_cells(row)) for row in rows]
    peers = [(row, peer) for row in rows for peer in row.peers]
    if peers:
        lines += ["", _line(_PEER_HEAD), _line(["---"] * len(_PEER_HEAD))]
        lines += [_line(_peer_cells(row, peer)) for row, peer in peers]
    return "\n".join(lines) + "\n"


def _about(row: BenchRow, command: str) -> list[str]:
    machine = row.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"`{command}`",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {row.device}, {row.dtype}; "
        f"{versions}. {row.n_workers} ltm worker{'s' if row.n_workers > 1 else ''}; medians [quartiles] of "
        f"{row.rounds} interleaved rounds, {row.seconds:g} s a turn. Ratios are medians of the ratios inside a round. "
        "MFU: 6 N + attention against matrix products of the same round on as many processes and threads.",
    ]


def _cells(row: BenchRow) -> list[str]:
    shape = f"V {row.vocab_size}, T {row.block_size}, batch {row.batch_tokens}"
    return [
        f"{row.model} ({shape})",
        format_count(row.n_params),
        f"{format_count(row.tokens_per_second)} {_range(row.tokens_per_second_quartiles, format_count)}",
        f"{row.mfu:.0%} {_range(row.mfu_quartiles, '{:.0%}'.format)} of {row.gemm_flops_per_second / 1e9:,.0f} GFLOP/s",
        format_bytes(row.peak_memory_bytes),
        f"{row.compile_seconds:.1f} s",
    ]


def _peer_cells(row: BenchRow, peer: PeerRow) -> list[str]:
    name = f"{TITLES[peer.peer]}, {peer.mode}"
    if peer.ratio is None or peer.ratio_quartiles is None or peer.tokens_per_second is None:
        return [row.size, name, peer.reason.replace("|", "/"), *[""] * 8]
    return [
        row.size,
        name,
        f"{peer.ratio:.2f}x {_range(peer.ratio_quartiles, '{:.2f}'.format)}",
        f"{peer.ratio_by_parameters:.2f}x",
        format_count(peer.tokens_per_second),
        f"{peer.mfu:.0%}",
        format_count(peer.n_params or 0),
        f"{peer.n_processes} x {peer.threads}",
        "yes" if peer.compiled else "no",
        peer.attention,
        format_bytes(peer.peak_memory_bytes or 0),
    ]


def _range(pair: tuple[float, float], write: Callable[[float], str]) -> str:
    return f"[{write(pair[0])}, {write(pair[1])}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
