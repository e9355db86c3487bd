"""What scoring costs: beside the training of the same model on the same device, and beside lm-evaluation-harness.

One process, one thread, interleaved rounds, CPU seconds of the process. Prints the table of bench/score_speed.md.

    python bench/score_speed.py WORK [--size llama-15m] [--items 3000] [--rounds 6] [--sample 120]

WORK is the work folder of a study that has tokens and an eval set (`ltm runs STUDY` begun). All items are planned; a
sample of batches is timed in every round and scaled to all of them, and so are training steps. The harness is asked a
sample of the items, ltm the same ones, which it turns into tokens and lays out anew in every round.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltm.evalset.bank import read_bank
from ltm.export.hf import export_hf
from ltm.export.lm_eval import GROUP, export_tasks, select
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.optimizer import Optimizer, OptimizerSettings
from ltm.model.sizes import SIZES
from ltm.records import Item
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.executors.local import keep_freed_memory
from ltm.scores.forward import BATCH_TOKENS, Scorer, batches
from ltm.scores.plan import make_plan
from ltm.store import WorkFolder
from ltm.tokens.tokenizer import load

RUN_TOKENS = 25_000_000
STEP_TOKENS = 2048


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    keep_freed_memory()
    work = WorkFolder(Path(options.work))
    tokenizer = load(work)
    config = dataclasses.replace(SIZES[options.size], vocab_size=tokenizer.vocab_size)
    items = _items(work, options.items)
    began = time.process_time()
    plan = make_plan(items, tokenizer.encode, tokenizer.bos_id, config.block_size)
    planned = time.process_time() - began
    cells = len(plan.item_ids)
    print(
        f"{config.n_params:,} parameters, vocabulary {config.vocab_size}, block {config.block_size}, "
        f"torch {torch.__version__}, one thread"
    )
    scorer = Scorer(GPT(config), not options.eager)
    init_weights(scorer.model, 1)
    layouts = scorer.layouts(plan, BATCH_TOKENS["cpu"])
    print(
        f"{len(items)} items, {cells} cells ({cells / len(items):.2f} an item), "
        f"{plan.n_input_tokens:,} tokens one by one, "
        f"{sum(rows.tokens_RW.size for rows in layouts):,} packed; {plan.n_cut_contexts} contexts cut; "
        f"planned in {planned:.1f} s CPU"
    )
    train = _training(config, tokenizer.vocab_size, scorer.compiled)
    score = _scoring(scorer, plan, options.sample)
    names = ["training", "scoring"]
    calls: list[Callable[[], float]] = [train, score]
    if options.harness:
        ours, theirs = _beside_harness(work, items, tokenizer, scorer, options)
        names += ["ltm", "lm-eval"]
        calls += [ours, theirs]
    for call in calls:
        call()  # compile, allocate
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name, call in zip(names, calls, strict=True):
            seconds[name].append(call())
        print(f"round {number + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.1f} s" for name in names), flush=True)
    share = [s / t for t, s in zip(seconds["training"], seconds["scoring"], strict=True)]
    rate = RUN_TOKENS / statistics.median(seconds["training"])
    print(
        f"training {RUN_TOKENS:,} tokens: {statistics.median(seconds['training']):,.0f} s CPU ({rate:,.0f} tokens/s); "
        f"scoring all items: {statistics.median(seconds['scoring']):,.0f} s CPU; "
        f"share {100 * statistics.median(share):.1f} % (bar 5 %)"
    )
    if options.harness:
        ratios = [b / a for a, b in zip(seconds["ltm"], seconds["lm-eval"], strict=True)]
        print(
            f"lm-eval (batch size {options.batch}) over ltm on the same {options.harness} items: "
            f"{statistics.median(ratios):.1f} times the CPU time ({min(ratios):.1f} to {max(ratios):.1f}; bar 3)"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    parser.add_argument("--size", default="llama-15m")
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sample", type=int, default=40, help="batches that are timed in a round")
    parser.add_argument("--harness", type=int, default=0, help="items that lm-eval is asked; 0 = leave it out")
    parser.add_argument("--batch", default="1", help="batch size of lm-eval; 1 is its default, auto is known to it")
    parser.add_argument("--eager", action="store_true", help="compile neither training nor scoring")
    return parser.parse_args()


def _items(work: WorkFolder, wanted: int) -> list[Item]:
    """Return items of both banks, evenly over the bank's order, without fluency: that is how families come in."""
    every = [item for bank in ("a", "b") for item in read_bank(work, bank) if not item.control and item.rule != "adapt"]
    places = np.linspace(0, len(every) - 1, min(wanted, len(every))).round().astype(int)
    return [every[i] for i in places]


def _training(config: Any, vocab_size: int, compiled: bool) -> Callable[[], float]:
    """Return a call that times training steps and gives the CPU seconds of a whole run."""
    from ltm.runs import capabilities

    flags = capabilities.cpu_flags()
    fast = bool(flags and flags & capabilities.FAST_BFLOAT16)
    engine = Engine(EngineSettings(config, "cpu", torch.bfloat16 if fast else torch.float32, compiled))
    init_weights(engine.model, 1)
    optimizer = Optimizer(engine.weights, OptimizerSettings("adamw", 0.9, 0.95, 0.1))
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, vocab_size, STEP_TOKENS + 1))
    x, y = tokens[:-1].view(-1, config.block_size), tokens[1:].view(-1, config.block_size)
    one = torch.ones(())

    def call(n_steps: int = 2) -> float:
        began = time.process_time()
        for _ in range(n_steps):
            _, gradients = engine.gradients(x, y, one, None)
            engine.weights.gather(gradients, add=False)
            optimizer.step(1e-4, one)
        return (time.process_time() - began) * RUN_TOKENS / (n_steps * STEP_TOKENS)

    return call


def _scoring(scorer: Scorer, plan: Any, sample: int) -> Callable[[], float]:
    """Return a call that times a sample of batches and gives the CPU seconds of all, by their tokens."""
    n_tokens = BATCH_TOKENS["cpu"]
    every = [b for rows in scorer.layouts(plan, n_tokens) for b in batches(rows, n_tokens, scorer.compiled)]
    places = np.linspace(0, len(every) - 1, min(sample, len(every)) + 2)[1:-1].round().astype(int)
    chosen = [every[i] for i in places]
    share = sum(b.inputs[0].size for b in chosen) / sum(b.inputs[0].size for b in every)

    def call() -> float:
        began = time.process_time()
        for batch in chosen:
            scorer.answer(batch)
        return (time.process_time() - began) / share

    return call


def _beside_harness(
    work: WorkFolder, items: list[Item], tokenizer: Any, scorer: Scorer, options: argparse.Namespace
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return calls that ask the same items: ltm's, tokens included, and the harness', on loaded models."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    import ltm.export.lm_eval as export

    model = scorer.model
    fitting, _ = select(items, tokenizer, model.config.block_size)
    chosen = [
        fitting[i] for i in np.linspace(0, len(fitting) - 1, min(options.harness, len(fitting))).round().astype(int)
    ]
    folder = Path(tempfile.mkdtemp())
    export_hf(model, tokenizer, folder / "model")
    export.read_bank = lambda _work, _bank: chosen  # type: ignore[assignment]
    export_tasks(work, folder / "tasks")
    hf = HFLM(str(folder / "model"), add_bos_token=True, dtype="float32", batch_size=options.batch, device="cpu")
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)

    def ours() -> float:
        began = time.process_time()
        plan = make_plan(chosen, tokenizer.encode, tokenizer.bos_id, model.config.block_size)
        scorer.logprobs(plan)
        return time.process_time() - began

    def theirs() -> float:
        began = time.process_time()
        simple_evaluate(model=hf, tasks=[GROUP], task_manager=manager, bootstrap_iters=0)
        return time.process_time() - began

    return ours, theirs


if __name__ == "__main__":
    main()
