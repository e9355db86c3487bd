"""How long a chat waits for its first token: a fresh model of a given size, prompts of several lengths, medians.

    python bench/chat_first_token.py [--size llama-15m] [--threads 1]

The model is loaded and has answered once, as after the start of `ltm chat`; no prompt shares anything with the one
before. Beside wall time stands processor time, which a busy machine does not stretch: with one thread it is what an
idle one would take.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch

from ltm.books import kjv
from ltm.export.generate import OwnReader, Sampling, Writer
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.section import ModelSection
from ltm.model.sizes import SIZES
from ltm.tokens.tokenizer import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="llama-15m", choices=sorted(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = next(book.text for book in kjv.load() if book.title == "Genesis")
    tokenizer = train([text[:200_000]], 8000)
    model = GPT(ModelSection(size=options.size).shape(tokenizer.vocab_size)).eval()
    init_weights(model, 1)
    writer = Writer(OwnReader(model), tokenizer)
    words = text.split()
    rng = random.Random(1)
    shape = f"{model.config.n_params:,} parameters, context {model.config.block_size}"
    print(f"{options.size}: {shape}, {options.threads} threads")
    for n_words in (8, 60, 200):
        first, cpu, rest = [], [], []
        for _ in range(options.rounds + 1):
            start = rng.randrange(len(words) - n_words)
            prompt = " ".join(words[start : start + n_words])
            began, spent = time.perf_counter(), time.process_time()
            pieces = writer.go_on(prompt, Sampling(max_tokens=16))
            next(pieces)
            first.append(time.perf_counter() - began)
            cpu.append(time.process_time() - spent)
            spent, count = time.process_time(), sum(1 for _ in pieces)
            rest.append((time.process_time() - spent) / max(1, count))
        print(
            f"  {n_words:>4} words: first token {1e3 * statistics.median(cpu[1:]):6.1f} ms of processor time "
            f"(worst {1e3 * max(cpu[1:]):.1f}; wall {1e3 * statistics.median(first[1:]):.1f}), "
            f"then {1e3 * statistics.median(rest[1:]):.1f} ms a token"
        )


if __name__ == "__main__":
    main()
