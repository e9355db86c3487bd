"""Does bfloat16 cost anything? Final loss of bfloat16 against float32 over seeds, on real text, at two vocabularies.

    python bench/precision.py --books DIR [--seeds 5] [--vocabularies 257,8192]

Prints the difference of each seed's held-out bits per byte, its mean, and the spread over seeds that it has to be
smaller than.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import torch

from ltm.model.gpt import GPT
from ltm.model.sizes import SIZES
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.executors.local import keep_freed_memory
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens import tokenizer
from ltm.tokens.stream import Stream

_BLOCK, _BATCH, _STEPS = 128, 512, 273
_TEXT_BYTES, _HELD_OUT_BYTES = 3_000_000, 60_000


def text_of(folder: Path) -> str:
    """Return some text from the middle of every txt file, in the order of their names."""
    files = sorted(folder.rglob("*.txt"))
    share = (_TEXT_BYTES + _HELD_OUT_BYTES) // max(1, len(files))
    return "\n".join(_middle(path.read_text(encoding="utf-8", errors="replace"), share) for path in files)


def _middle(text: str, share: int) -> str:
    start = max(0, (len(text) - share) // 2)
    return text[start : start + share]


def bits_per_byte(model: GPT, tokens: np.ndarray, n_bytes: int) -> float:
    """Return the loss of held-out tokens in bits per byte, weights as they are scored: float32."""
    usable = (len(tokens) - 1) // _BLOCK * _BLOCK
    inputs = torch.from_numpy(tokens[:usable]).view(-1, _BLOCK)
    targets = torch.from_numpy(tokens[1 : usable + 1]).view(-1, _BLOCK)
    with torch.inference_mode():
        nats = float(model.loss(inputs, targets)) * usable
    return nats / math.log(2) / (n_bytes * usable / len(tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--vocabularies", default="257,8192")
    parser.add_argument("--size", default="llama-0.2m")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    text = text_of(options.books)
    for vocabulary in (int(v) for v in options.vocabularies.split(",")):
        made = tokenizer.train([text], vocabulary)
        held_out = text[-_HELD_OUT_BYTES:]
        tokens = np.array(made.encode(text[:-_HELD_OUT_BYTES]))
        test = np.array(made.encode(held_out))
        config = dataclasses.replace(SIZES[options.size], vocab_size=made.vocab_size, block_size=_BLOCK)
        found: dict[torch.dtype, list[float]] = {}
        for dtype in (torch.float32, torch.bfloat16):
            engine = Engine(EngineSettings(config, "cpu", dtype, compiled=dtype == torch.bfloat16))
            for seed in range(options.seeds):
                stream = Stream(tokens, np.array([[0, len(tokens)]], dtype=np.int64), 0)
                trainer = Trainer(RunsSection(batch_tokens=_BATCH, average_share=0.0), engine, stream, _STEPS, seed)
                trainer.run(lambda _: None)
                scored = GPT(config)
                scored.load_state_dict(trainer.scored_weights(), strict=False)
                found.setdefault(dtype, []).append(bits_per_byte(scored.eval(), test, len(held_out.encode())))
        wide, narrow = found[torch.float32], found[torch.bfloat16]
        differences = [b - a for a, b in zip(wide, narrow, strict=True)]
        print(
            f"vocabulary {made.vocab_size}: bits per byte float32 {statistics.mean(wide):.4f}, "
            f"seed sd {statistics.stdev(wide):.4f}; bfloat16 - float32: mean {statistics.mean(differences):+.5f}, "
            f"per seed {', '.join(f'{d:+.5f}' for d in differences)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
