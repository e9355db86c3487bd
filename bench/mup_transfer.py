"""Does one learning rate serve all widths? Loss by width and learning rate, in both parametrisations.

    python bench/mup_transfer.py --parametrization mup --optimizer adamw

Trains the same few steps on a Markov source (the next token depends on the two before, through a random table), whose
entropy is known, so that no data are needed. Prints one row a width and the best learning rate of each.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

from ltm.model.sizes import ModelConfig
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.section import RunsSection
from ltm.runs.train import NotFinite, Trainer
from ltm.tokens.stream import Stream

_VOCABULARY, _CHOICES = 128, 4  # of tokens, and of those that may follow
_BASE_WIDTH = 32


def markov_stream(n_tokens: int) -> Stream:
    """Return tokens of which each is one of four, equally likely, that the two before it allow: ln 4 nats a token."""
    rng = np.random.default_rng(0)
    allowed = rng.integers(0, _VOCABULARY, (_VOCABULARY, 8, _CHOICES))
    tokens = np.zeros(n_tokens, dtype=np.int64)
    choices = rng.integers(0, _CHOICES, n_tokens)
    for i in range(2, n_tokens):
        tokens[i] = allowed[tokens[i - 1], tokens[i - 2] % 8, choices[i]]
    return Stream(tokens, np.array([[0, n_tokens]], dtype=np.int64), -1)


def final_loss(stream: Stream, width: int, lr: float, n_steps: int, arguments: argparse.Namespace) -> float:
    """Return the mean loss of the last tenth of the steps in nats; infinite where it is no longer finite."""
    base = _BASE_WIDTH if arguments.parametrization == "mup" else 0
    heads = width // 16
    config = ModelConfig("llama", 2, heads, heads, width, 2 * width, _VOCABULARY, 64, base_width=base)
    section = RunsSection(lr=lr, batch_tokens=512, optimizer=arguments.optimizer, average_share=0.0)
    trainer = Trainer(section, Engine(EngineSettings(config, "cpu", torch.bfloat16)), stream, n_steps, init_seed=1)
    try:
        trainer.run(lambda _: None)
    except NotFinite:
        return math.inf
    tail = trainer.state.curve_loss[-max(1, len(trainer.state.curve_loss) // 10) :]
    return sum(tail) / len(tail)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parametrization", choices=["mup", "standard"], default="mup")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0**-k for k in (9, 8, 7, 6, 5, 4)])
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stream = markov_stream(arguments.steps * 512 + 1)
    print(f"{arguments.parametrization} {arguments.optimizer}, {arguments.steps} steps; floor {math.log(_CHOICES):.3f}")
    print("width   " + " ".join(f"{rate:8.4f}" for rate in arguments.rates) + "   best")
    for width in arguments.widths:
        losses = [final_loss(stream, width, rate, arguments.steps, arguments) for rate in arguments.rates]
        best = arguments.rates[losses.index(min(losses))]
        print(f"{width:5d}   " + " ".join(f"{loss:8.3f}" for loss in losses) + f"   {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
