"""What `ltm bench train` is asked: sizes, rounds, peers; wrong answers are refused before anything starts. No torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from ltm.errors import InputError
from ltm.forecast.machine_work import Case
from ltm.model.sizes import ModelConfig, named_shape, nearest_sizes, usual_vocabulary

PEERS = ("hf", "nanogpt")
MODES = ("usual", "compiled", "hardest")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16")
DEFAULT_SIZES = {"cpu": ("1m", "5m", "15m"), "cuda": ("15m", "125m")}
# Tokens of one step where none are given: what a study's run takes on a CPU; enough to fill a GPU.
DEFAULT_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
_LONGEST_SLICE_SECONDS = 600.0


@dataclass(frozen=True)
class Question:
    """One benchmark of training.

    Args:
        sizes: Names as `ltm.model.sizes.named_shape` knows them, or without `llama-`; empty = what suits the device.
        rounds: Turns of every contender.
        seconds: Length of one turn.
        peers: Of `PEERS`.
        modes: Of `MODES`: peers as people run them; compiled, spread and with tuned memory; and with the fastest of
            their ways of attention, too.
        nanogpt: A clone of karpathy/nanoGPT.
        vocab_size: 0 = by size.
        batch_tokens: Of one step of one process; 0 = by device.
        block_size: 0 = the size's own.
        compiled: Let ltm compile, as it does by default; peers compile as their mode says.
    """

    sizes: tuple[str, ...] = ()
    rounds: int = 6
    seconds: float = 4.0
    device: str = "auto"
    dtype: str = "auto"
    peers: tuple[str, ...] = ("hf",)
    modes: tuple[str, ...] = ("usual",)
    nanogpt: Path | None = None
    vocab_size: int = 0
    batch_tokens: int = 0
    block_size: int = 0
    compiled: bool = True


def check(question: Question) -> None:
    """Refuse what cannot be measured.

    Raises:
        InputError: says what, and the nearest thing that can be.
    """
    for size in question.sizes:
        full_name(size)
    if question.rounds < 1:
        raise InputError(f"--rounds {question.rounds}: at least one round is needed", "use --rounds 6")
    if not 0 < question.seconds <= _LONGEST_SLICE_SECONDS:  # also refuses what is not a number
        raise InputError(f"--seconds {question.seconds:g}: a turn takes more than 0 and at most 600", "use --seconds 4")
    choices: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
        ("device", (question.device,), DEVICES),
        ("dtype", (question.dtype,), DTYPES),
        ("peers", question.peers, PEERS),
        ("mode", question.modes, MODES),
    )
    for flag, values, known in choices:
        for value in values:
            if value not in known:
                raise InputError(f"--{flag} {value}: not known", f"choose from {', '.join(known)}")
    for flag, number in (
        ("vocab", question.vocab_size),
        ("batch-tokens", question.batch_tokens),
        ("block", question.block_size),
    ):
        if number < 0 or (flag == "vocab" and number == 1):
            raise InputError(f"--{flag} {number}: too small", f"leave --{flag} out, or give a larger number")
    _check_nanogpt(question)


def _check_nanogpt(question: Question) -> None:
    clone = "git clone https://github.com/karpathy/nanoGPT, then --nanogpt nanoGPT"
    if question.nanogpt is None:
        if "nanogpt" in question.peers:
            raise InputError("--peers nanogpt needs --nanogpt DIR: nanoGPT is no Python package", clone)
    elif not (question.nanogpt / "model.py").is_file():
        raise InputError(f"--nanogpt {question.nanogpt}: there is no model.py in it", clone)


def full_name(size: str) -> str:
    """Return the name of a shape that a short one stands for.

    Raises:
        InputError: there is no such size; names the nearest.

    >>> full_name("1m"), full_name("gpt2-0.8m")
    ('llama-1m', 'gpt2-0.8m')
    """
    return _named(size)[0]


def _named(size: str) -> tuple[str, ModelConfig]:
    wanted = size.strip().lower()
    for name in (wanted, f"llama-{wanted}"):
        config = named_shape(name)
        if config is not None:
            return name, config
    nearest = nearest_sizes(wanted if "-" in wanted else f"llama-{wanted}")
    raise InputError(
        f"--sizes {size}: there is no such size",
        f"nearest: {', '.join(nearest)}; or any count from 0.08m to 10b, such as 3m or mistral-2b5",
    )


def case_of(size: str, question: Question, device: str, dtype: str) -> Case:
    """Return the shape, the batch and the precision that all contenders get.

    Args:
        size: A name as the user gave it.
        question: Gives what the user set.
        device: cpu or cuda.
        dtype: float32 or bfloat16.

    Raises:
        InputError: the batch holds no whole sequences; says the nearest that does.
    """
    config = _named(size)[1]
    block_size = question.block_size or config.block_size
    window = min(config.window, block_size) if question.block_size else config.window
    vocab_size = question.vocab_size or usual_vocabulary(config.n_embd)
    config = dataclasses.replace(config, vocab_size=vocab_size, block_size=block_size, window=window)
    default = math.ceil(DEFAULT_BATCH_TOKENS[device] / block_size) * block_size
    return Case(config, question.batch_tokens or default, 0, dtype)
