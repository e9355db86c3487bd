"""Adapters on a base of 174M parameters: memory of QLoRA beside LoRA, and speed beside plain transformers + peft.

    python bench/tune_costs.py [--rounds 6] [--work DIR] [--only memory|speed]

The base is made on the spot with random weights: 24 blocks, width 768, vocabulary 4,096. Memory: one process for each
way, the same batch (two sequences of 256 tokens), two steps, float32 products; the peak of resident memory (VmHWM:
anonymous and file pages), the peak of anonymous pages alone (RssAnon, asked every 5 ms), and both beyond what the
process held with its libraries loaded; processor seconds of a step. Speed: interleaved rounds of the same micro batch;
medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

BLOCK, BATCH, VOCABULARY = 256, 512, 4096
WAYS = {  # method, activation checkpointing, how the base is read, whether freed memory goes back to the system
    "lora": ("lora", False, "transformers", False),
    "lora, checkpointing": ("lora", True, "transformers", False),
    "lora, checkpointing, memory given back": ("lora", True, "transformers", True),
    "qlora read by transformers, checkpointing": ("qlora", True, "transformers", False),
    "qlora, checkpointing, freed memory kept": ("qlora", True, "ltm", False),
    "qlora": ("qlora", False, "ltm", True),
    "qlora, checkpointing": ("qlora", True, "ltm", True),
}


class Tokens:
    """Random tokens as a stream."""

    bos_id = 0

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(0).integers(0, VOCABULARY - 100, 200_000)

    def read(self, start: int, count: int) -> np.ndarray:
        return self.tokens[start : start + count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("tune-costs-work"))
    parser.add_argument("--only", choices=["memory", "speed"])
    parser.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak(args.work / "base", *WAYS[args.peak])))
        return 0
    base = make_base(args.work / "base")
    if args.only != "speed":
        print(json.dumps(memory(args.work), indent=1), flush=True)
    if args.only != "memory":
        seconds = speed(base, args.rounds)
        ratio = statistics.median(plain / ours for ours, plain in zip(seconds["ltm"], seconds["plain"], strict=True))
        medians = {name: round(statistics.median(rows), 3) for name, rows in seconds.items()}
        print(json.dumps({"speed_over_plain": round(ratio, 3), "step_seconds": medians}, indent=1))
    return 0


def memory(work: Path) -> dict[str, Any]:
    """Return the peaks of all ways in MiB, and QLoRA's over LoRA's with the same checkpointing."""
    found: dict[str, dict[str, float]] = {}
    for name in WAYS:
        command = [sys.executable, __file__, "--peak", name, "--work", str(work)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"  {name}: {found[name]}", file=sys.stderr, flush=True)
    ratios = {}
    for name, row in found.items():
        against = found["lora, checkpointing" if WAYS[name][1] else "lora"]
        if WAYS[name][0] == "qlora":
            ratios[name] = {key: round(row[key] / against[key], 3) for key in row}
    return {"mib": found, "over_lora": ratios}


def make_base(folder: Path) -> Path:
    """Write a Llama of 24 blocks, width 768."""
    if (folder / "config.json").exists():
        return folder
    import transformers

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_base import make_base as make

    shape = {"vocab_size": VOCABULARY, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 24}
    shape |= {"num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024}
    transformers.logging.set_verbosity_error()
    return make(folder, **shape, tie_word_embeddings=True)


def trainer(base: Path, method: str, checkpointing: bool = False) -> Any:
    from ltm.runs.engines import base_model
    from ltm.runs.engines.group import Group
    from ltm.runs.engines.hf import HfTrainer
    from ltm.runs.section import RunsSection

    settings = RunsSection(
        engine="hf", method=method, lr=1e-4, batch_tokens=BATCH, dtype="float32", activation_checkpointing=checkpointing
    )
    model = base_model.prepare(settings, base, torch.float32, "cpu", 1)
    return HfTrainer(settings, model, Tokens(), 10_000, BLOCK, BATCH, torch.float32, Group("none", "cpu"))


def peak(base: Path, method: str, checkpointing: bool, reading: str, back: bool) -> dict[str, float]:
    """Return peaks in MiB."""
    from ltm.runs.engines import base_model, four_bit, hf  # noqa: F401

    for package in ("transformers", "peft", "bitsandbytes"):
        base_model.need(package)
    if reading == "transformers":
        four_bit.load = lambda *_: None
    torch.set_num_threads(1)
    before, anonymous = _status("VmHWM"), _status("RssAnon")
    seen, done = [anonymous], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(_status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with four_bit.memory_given_back("cpu") if back else contextlib.nullcontext():
        running = trainer(base, method, checkpointing)
        loaded, began = _status("VmHWM"), time.process_time()
        for _ in range(2):
            running.one_step()
    seconds = (time.process_time() - began) / 2
    done.set()
    watcher.join()
    whole = _status("VmHWM")
    return {
        "whole_process": whole,
        "beyond_libraries": whole - before,
        "anonymous_beyond_libraries": max(seen) - anonymous,
        "until_loaded": loaded - before,
        "step_seconds": round(seconds, 1),
    }


def _status(name: str) -> int:
    """Return a size of this program alone in MiB; `ru_maxrss` begins with that of the one that started it."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) >> 10


def speed(base: Path, rounds: int) -> dict[str, list[float]]:
    """Return the processor seconds of a step, round by round, ours and plain transformers + peft in turns."""
    import peft
    import transformers

    torch.set_num_threads(1)
    ours = trainer(base, "lora")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = peft.get_peft_model(
        model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    ).train()
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=1e-4)
    stream = Tokens()

    def plain_step(step: int) -> None:
        tokens = torch.from_numpy(stream.read(step * BATCH, BATCH)).view(-1, BLOCK)
        plain(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in plain.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds: dict[str, list[float]] = {"ltm": [], "plain": []}
    for number in range(rounds + 1):
        for name in ("ltm", "plain") if number % 2 else ("plain", "ltm"):
            began = time.process_time()
            if name == "ltm":
                ours.one_step()
            else:
                plain_step(number)
            if number:  # the first warms up
                seconds[name].append(time.process_time() - began)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
