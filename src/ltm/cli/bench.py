"""`ltm bench [train]`: parse the question, measure, print one table or one JSON document."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.errors import InputError

if TYPE_CHECKING:
    from ltm.bench.question import Question

_TEXT = "measure how fast this machine trains micro models, beside what else one would run"


def add_bench(verbs: Any) -> None:
    """Add the verb."""
    verb = verbs.add_parser("bench", help=_TEXT, description=_TEXT[0].upper() + _TEXT[1:] + ".")
    verb.add_argument("what", nargs="?", choices=["train"], default="train", help="what to measure (default: train)")
    verb.add_argument("--sizes", metavar="A,B", default="", help="such as 1m,5m or gpt2-5m (default: by device)")
    verb.add_argument("--rounds", metavar="N", default="6", help="turns of every contender (default: 6)")
    verb.add_argument("--seconds", metavar="S", default="4", help="length of one turn (default: 4)")
    verb.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu or cuda (default: auto)")
    verb.add_argument("--dtype", metavar="NAME", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    verb.add_argument("--peers", metavar="A,B", help="of hf, nanogpt, or none (default: hf; nanogpt with --nanogpt)")
    verb.add_argument(
        "--mode", metavar="NAME", default="usual", help="of usual, compiled, hardest; or both (default: usual)"
    )
    verb.add_argument("--nanogpt", metavar="DIR", help="a clone of karpathy/nanoGPT")
    verb.add_argument("--vocab", metavar="N", default="0", help="size of the vocabulary (default: by size)")
    verb.add_argument("--block", metavar="N", default="0", help="tokens of one sequence (default: by size)")
    verb.add_argument("--batch-tokens", metavar="N", default="0", help="tokens of one step (default: 2048; GPU: 32k)")
    verb.add_argument("--no-compile", action="store_true", help="do not let ltm compile (peers do as their mode says)")
    verb.add_argument("--out", metavar="FILE.md", help="also write the table there, and the JSON beside it")
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    verb.add_argument("--quiet", action="store_true", help="no progress")
    verb.set_defaults(call=_bench)


def _bench(options: argparse.Namespace) -> int:
    from ltm.bench.table import markdown
    from ltm.bench.train import bench_train
    from ltm.progress import Progress
    from ltm.store import as_json, write_json, write_text

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the contenders go, too
    question = _question(options)
    out = _out(options.out)
    rows = []
    try:
        for row in bench_train(question, Progress(quiet=options.quiet)):
            rows.append(row)
            table = markdown(rows, shlex.join(_command(options)))
            if out is not None:  # after every size: a long benchmark that is stopped leaves what it has
                write_text(out, table)
                write_json(out.with_suffix(".json"), [as_json(one) for one in rows])
    except KeyboardInterrupt:
        kept = f"; {out} has the sizes that were finished" if rows and out is not None else ""
        print(f"\nstopped{kept}", file=sys.stderr)
        return 130
    print(json.dumps([as_json(row) for row in rows], indent=1, allow_nan=False) if options.json else table)
    return 0


def _question(options: argparse.Namespace) -> Question:
    from ltm.bench.question import Question

    nanogpt = Path(options.nanogpt).expanduser() if options.nanogpt else None
    peers = "hf,nanogpt" if options.peers is None and nanogpt else options.peers or "hf"
    return Question(
        sizes=_names(options.sizes),
        rounds=_count("rounds", options.rounds),
        seconds=_seconds(options.seconds),
        device=options.device,
        dtype=options.dtype,
        peers=() if peers == "none" else _names(peers),
        modes=("usual", "hardest") if options.mode == "both" else _names(options.mode) or ("usual",),
        nanogpt=nanogpt,
        vocab_size=_count("vocab", options.vocab),
        batch_tokens=_count("batch-tokens", options.batch_tokens),
        block_size=_count("block", options.block),
        compiled=not options.no_compile,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _count(flag: str, text: str) -> int:
    from ltm.units import parse_count

    try:
        return -parse_count(text[1:]) if text.startswith("-") else parse_count(text)
    except ValueError as error:
        raise InputError(f"--{flag}: {error}") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--seconds {text}: not a number", "use --seconds 4") from None


def _out(text: str | None) -> Path | None:
    """Return where the table goes; what cannot be written is refused before an hour of measuring."""
    if text is None:
        return None
    path = Path(text).expanduser()
    if path.suffix != ".md":
        raise InputError(f"--out {text}: the table is Markdown", f"use --out {path.with_suffix('.md')}")
    if not path.resolve().parent.is_dir():
        raise InputError(f"--out {text}: there is no folder {path.parent}", "make it first")
    return path


def _command(options: argparse.Namespace) -> list[str]:
    """Return the command that measures the same again."""
    words = ["ltm", "bench", options.what]
    for flag in ("sizes", "rounds", "seconds", "device", "dtype", "peers", "mode", "vocab", "block", "batch_tokens"):
        value = getattr(options, flag)
        if value not in (None, "", "0", "auto"):
            words += [f"--{flag.replace('_', '-')}", value]
    words += ["--nanogpt", "DIR"] if options.nanogpt else []
    return words + (["--no-compile"] if options.no_compile else [])
