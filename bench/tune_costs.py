"""Adapters on a base of 134M parameters: speed beside plain transformers + peft, and memory of QLoRA beside LoRA.

    python bench/tune_costs.py [--rounds 6] [--work DIR]

The base is made on the spot with random weights. Speed: interleaved rounds of the same micro batch, float32, two
sequences of 256 tokens; medians. Memory: one process for each method, peak resident memory beyond what the process
holds with its libraries loaded and nothing trained; float32 products in both, LoRA's base in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

BLOCK, BATCH = 256, 512


class Tokens:
    """Random tokens as a stream."""

    bos_id = 0

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(0).integers(0, 30_000, 200_000)

    def read(self, start: int, count: int) -> np.ndarray:
        return self.tokens[start : start + count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("tune-costs-work"))
    parser.add_argument("--peak", choices=["lora", "qlora"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak(args.work / "base", args.peak)))
        return 0
    base = make_base(args.work / "base")
    peaks = {}
    for method in ("lora", "qlora"):
        command = [sys.executable, __file__, "--peak", method, "--work", str(args.work)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[method] = json.loads(done.stdout.splitlines()[-1])
    seconds = speed(base, args.rounds)
    ratio = statistics.median(plain / ours for ours, plain in zip(seconds["ltm"], seconds["plain"], strict=True))
    more = {name: row["peak"] - row["before"] for name, row in peaks.items()}
    result = {
        "speed_over_plain": round(ratio, 3),
        "step_seconds": {name: round(statistics.median(rows), 3) for name, rows in seconds.items()},
        "peak_mib": {name: round(row["peak"] / 2**20) for name, row in peaks.items()},
        "peak_beyond_libraries_mib": {name: round(size / 2**20) for name, size in more.items()},
        "qlora_over_lora": round(more["qlora"] / more["lora"], 3),
        "qlora_over_lora_whole_process": round(peaks["qlora"]["peak"] / peaks["lora"]["peak"], 3),
    }
    print(json.dumps(result, indent=1))
    return 0


def make_base(folder: Path) -> Path:
    """Write a Llama of 12 blocks, width 768 and vocabulary 32,000."""
    if (folder / "config.json").exists():
        return folder
    import transformers

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_base import make_base as make

    shape = {"vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
    shape |= {"num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024}
    transformers.logging.set_verbosity_error()
    return make(folder, **shape, tie_word_embeddings=True)


def trainer(base: Path, method: str) -> Any:
    from ltm.runs.engines import base_model
    from ltm.runs.engines.group import Group
    from ltm.runs.engines.hf import HfTrainer
    from ltm.runs.section import RunsSection

    settings = RunsSection(engine="hf", method=method, lr=1e-4, batch_tokens=BATCH, dtype="float32")
    model = base_model.prepare(settings, base, torch.float32, "cpu", 1)
    return HfTrainer(settings, model, Tokens(), 10_000, BLOCK, BATCH, torch.float32, Group("none", "cpu"))


def peak(base: Path, method: str) -> dict[str, int]:
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    before = _peak_bytes()
    running = trainer(base, method)
    for _ in range(3):
        running.one_step()
    return {"before": before, "peak": _peak_bytes()}


def _peak_bytes() -> int:
    """Return the peak of this program alone; `ru_maxrss` begins with that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


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
