"""How fast text becomes tokens, and whether the ids are those of Hugging Face tokenizers, file by file.

    python bench/library/tokens.py ../shared/books

Trains on an equal part of every text file below the folder, with both trainers, and encodes every file with the
encoder of ltm, with Hugging Face tokenizers (a part of the files: it is slow) and compares all ids. CPU seconds of one
process with one thread each; rounds are interleaved, medians are shown. Bars: 4 MB/s trained, 20 MB/s encoded.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # before the libraries look
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from ltm.tokens import train as trainer
from ltm.tokens.tokenizer import Tokenizer

SUFFIXES = (".txt", ".md", ".xml", ".htm", ".fb2", ".csv", ".asciidoc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocab", type=int, nargs="+", default=[2048, 32000])
    parser.add_argument("--sample-bytes", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--slow-bytes", type=int, default=8_000_000, help="what the slow encoder gets in each round")
    options = parser.parse_args()
    texts = read_texts(options.folder)
    n_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} files, {n_bytes / 1e6:.1f} MB; {sys.version.split()[0]}")
    print("| vocabulary | what | MB/s (CPU) | same |\n|---|---|---:|---|")
    for vocab_size in options.vocab:
        measure(texts, vocab_size, options)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def measure(texts: list[str], vocab_size: int, options: Any) -> None:
    share = options.sample_bytes // len(texts)
    sample = [text[max(0, (len(text) - share) // 2) :][:share] for text in texts]
    sample_bytes = sum(len(text.encode()) for text in sample)
    fast, slow = [], []
    for _ in range(max(1, options.rounds // 3)):
        backend = timed(lambda: trainer.train_backend(iter(sample), vocab_size), sample_bytes, fast)
        reference = timed(lambda: trainer._slowly(iter(sample), vocab_size), sample_bytes, slow)
    same = backend.to_str() == reference.to_str()
    row(vocab_size, "train, ltm", fast, "the same file" if same else "ANOTHER FILE")
    row(vocab_size, "train, tokenizers", slow, "")
    tokenizer = Tokenizer(backend)
    some = up_to(texts, options.slow_bytes)
    some_bytes = sum(len(text.encode()) for text in some)
    all_bytes = sum(len(text.encode()) for text in texts)
    fast, slow = [], []
    for _ in range(options.rounds):
        timed(lambda: [tokenizer.encoder.encode(text) for text in texts], all_bytes, fast)
        timed(lambda: backend.encode_batch_fast(some, add_special_tokens=False), some_bytes, slow)
    wrong = [i for i, text in enumerate(texts) if tokenizer.encode(text) != hf_ids(backend, text)]
    row(vocab_size, "encode, ltm", fast, f"{len(texts) - len(wrong)} of {len(texts)} files")
    row(vocab_size, "encode, tokenizers", slow, "")


def hf_ids(backend: Any, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def timed(action: Callable[[], Any], n_bytes: int, rates: list[float]) -> Any:
    began = time.process_time()
    result = action()
    rates.append(n_bytes / 1e6 / (time.process_time() - began))
    return result


def row(vocab_size: int, what: str, rates: list[float], same: str) -> None:
    print(f"| {vocab_size} | {what} | {statistics.median(rates):.1f} | {same} |", flush=True)


def up_to(texts: list[str], n_bytes: int) -> list[str]:
    """Return texts from all over the list, of about so many bytes."""
    step = max(1, sum(len(text) for text in texts) // n_bytes)
    return texts[::step]


def read_texts(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in SUFFIXES:
            data = path.read_bytes()
            try:
                found.append(data.decode())
            except UnicodeDecodeError:
                found.append(data.decode("latin-1"))
    return found


if __name__ == "__main__":
    main()
