"""A model trained on books whose words stand in random order, beside the run of the same books.

Where a family asks about order, the shuffled model must be at chance: it knows the words and how often they are, as the
run does, and nothing else. Prints a line per family.

    python bench/score_shuffled.py WORK [--runs 2] [--tokens N]

WORK is the work folder of a study whose scores stand. The same settings, start and number of tokens as the run, unless
`--tokens` says less. Nothing is written into WORK.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from ltm.evalset.bank import read_bank
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.records import Run
from ltm.runs import queue
from ltm.runs.checkpoint import load_model
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.hardware import engine_settings
from ltm.runs.train import Trainer
from ltm.scores.forward import Scorer
from ltm.scores.measures import FamilyTable, family_tables
from ltm.scores.plan import make_plan
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder
from ltm.tokens.stream import Stream, open_stream, read_shards
from ltm.tokens.tokenizer import Tokenizer, load

_PIECE_TOKENS = 30_000  # shuffled at once: about a short book


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = WorkFolder(Path(options.work))
    recipe, _ = queue.read_jobs(work)
    tokenizer = load(work)
    runs = queue.complete_runs(work)
    chosen = [runs[i] for i in np.linspace(0, len(runs) - 1, min(options.runs, len(runs))).round().astype(int)]
    n_steps = (min(options.tokens or recipe.sets.run_tokens, recipe.sets.run_tokens) // recipe.runs.batch_tokens) or 1
    settings = engine_settings(recipe.runs, recipe.model.shape(tokenizer.vocab_size), recipe.sets.run_tokens)
    models: dict[str, list[GPT]] = {"untrained": [], "shuffled": [], "trained": []}
    for run in chosen:
        models["untrained"].append(_untrained(settings, run.init_seed + 1000))
        models["shuffled"].append(_shuffled(work, recipe, tokenizer, run, settings, n_steps))
        models["trained"].append(load_model(work, run.run_id, "cpu")[0])
    items = [item for item in read_bank(work, "a") if not item.control]
    plan = make_plan(items, tokenizer.encode, tokenizer.bos_id, settings.config.block_size)
    tables = {}
    for kind, own in models.items():
        answers = np.array([plan.answers(Scorer(model).logprobs(plan)) for model in own])
        tables[kind] = family_tables(items, answers, np.tile(plan.n_bytes.astype(float), (len(own), 1)))
    print(
        f"{len(chosen)} models of each kind, {n_steps * recipe.runs.batch_tokens:,} tokens; accuracy, error over items"
    )
    for place, table in enumerate(tables["trained"]):
        print(f"{table.family:8}" + "".join(f"{kind:>10} {_told(tables[kind][place])}" for kind in models))


def _told(table: FamilyTable) -> str:
    """Return accuracy and its standard error over items."""
    right = table.answers()
    if not right.weight_RI.any():
        return f"{table.values().mean():.3f}       "
    share = right.num_RI.sum(0) / np.maximum(right.weight_RI.sum(0), 1)
    known = share[right.weight_RI.sum(0) > 0]
    return f"{known.mean():.3f}+-{known.std(ddof=1) / math.sqrt(len(known)):.3f}"


def _untrained(settings: EngineSettings, seed: int) -> GPT:
    model = GPT(settings.config)
    init_weights(model, seed)
    return model.eval()


def _shuffled(
    work: WorkFolder, recipe: queue.Recipe, tokenizer: Tokenizer, run: Run, settings: EngineSettings, n_steps: int
) -> GPT:
    variant = next(v for v in read_variants(work) if v.variant_id == run.variant_id)
    real = open_stream(work, variant, recipe.sets, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    n_tokens = n_steps * recipe.runs.batch_tokens + 1
    tokens = real.read(0, min(len(real), n_tokens))
    rng = np.random.default_rng(run.init_seed)
    pieces = []
    for start in range(0, len(tokens), _PIECE_TOKENS):
        words = np.array(tokenizer.decode(tokens[start : start + _PIECE_TOKENS].tolist()).split())
        rng.shuffle(words)
        pieces.append([tokenizer.bos_id, *tokenizer.encode(" ".join(words))])
    flat = np.concatenate([*map(np.array, pieces)] * 2)[:n_tokens]  # white space was lost: a little is read again
    stream = Stream(flat, np.array([[0, len(flat)]]), tokenizer.bos_id)
    trainer = Trainer(recipe.runs, Engine(settings), stream, n_steps, run.init_seed)
    trainer.run(lambda _trainer: None)
    model = GPT(settings.config)
    weights = {name: tensor.detach().cpu() for name, tensor in trainer.scored_weights().items()}
    model.load_state_dict(weights, strict=False)
    return model.eval()


if __name__ == "__main__":
    main()
