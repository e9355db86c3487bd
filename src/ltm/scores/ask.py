"""What a worker does with one model: make it ready, ask it the bank, write its answers.

A worker stays warm: the bank as tokens, and the model of the same shape (with its compiled code), serve run after run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltm.errors import StoreError
from ltm.evalset.bank import items_fingerprint, read_bank
from ltm.forecast.machine_work import repays_compiling
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.records import Item
from ltm.runs import hardware
from ltm.runs.checkpoint import load_model
from ltm.runs.queue import Recipe, read_jobs
from ltm.scores import baselines
from ltm.scores.baselines import ENDING, NGRAM, UNIGRAM, UNTRAINED
from ltm.scores.forward import Scorer
from ltm.scores.plan import Plan, make_plan
from ltm.scores.raw import mark_of, path_of, write_answers
from ltm.scores.score import answer_bank
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, fingerprint, read_json
from ltm.tokens.tokenizer import Tokenizer, load

_TRAINED_OVER_SCORED = 3  # a trained token is about three scored ones: forward, and twice that backward


@dataclass(frozen=True)
class Questions:
    """A bank as tokens."""

    items: list[Item]
    plan: Plan
    tokenizer: Tokenizer
    bank: str  # its fingerprint


_questions: dict[tuple[str, str, int, bool], Questions] = {}
_scorers: dict[tuple[str, str], Scorer] = {}


def ask(work: WorkFolder, run_id: str, bank: str) -> Plan:
    """Ask one model every item of a bank and write its raw answers; returns the bank as tokens.

    Raises:
        StoreError: weights, tokenizer or bank are missing or damaged.
        DataError: an item cannot be scored.
    """
    recipe, jobs = read_jobs(work)
    section = settings_of(work)
    bare = run_id.startswith(ENDING)
    if run_id.startswith((UNIGRAM, NGRAM)):
        tokenizer = load(work)
        asked = questions(work, bank, recipe.model.shape(tokenizer.vocab_size).block_size)
        counted = baselines.counting_model(work, run_id, recipe, tokenizer)
        answers = asked.plan.answers(counted.logprobs(asked.plan, tokenizer.bos_id))
    else:
        model = _model(work, run_id, recipe)
        asked = questions(work, bank, model.config.block_size, bare)
        scorer = _scorer(model, recipe, asked.plan, len(jobs))
        answers = answer_bank(scorer, asked.items, asked.plan, asked.tokenizer, section, recipe.sets.run_tokens)
    own = ""
    if baselines.is_baseline(run_id):
        chosen = baselines.NOBODY if run_id.startswith(UNTRAINED) else baselines.stored_choice(work)
        own = baselines.own_marks(work, recipe, section, chosen).get(run_id, "")
    write_answers(path_of(work, run_id, bank), run_id, asked.plan, answers, mark_of(asked.bank, own))
    return asked.plan


def settings_of(work: WorkFolder) -> ScoresSection:
    """Return the study's own section as its work folder keeps it, or the defaults where it keeps none."""
    try:
        value = read_json(work.path("scores", "settings.json"))
    except StoreError:
        return ScoresSection()
    return ScoresSection(**value)


def questions(work: WorkFolder, bank: str, block_size: int, bare: bool = False) -> Questions:
    """Return a bank as tokens, from the last call in this process where nothing has changed.

    Args:
        work: The work folder.
        bank: a or b.
        block_size: Of the model.
        bare: Without contexts.

    Raises:
        StoreError: a file is missing or damaged.
        DataError: an item cannot be scored.
    """
    paths = (work.path("evalset", f"bank_{bank}.parquet"), work.path("tokens", "tokenizer.json"))
    try:
        stamps = [[stat.st_mtime_ns, stat.st_size, stat.st_ino] for stat in (path.stat() for path in paths)]
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} is missing", "run the stage that writes it") from None
    key = (str(paths[0]), fingerprint(stamps), block_size, bare)
    if key not in _questions:
        items = read_bank(work, bank)
        tokenizer = load(work)
        mark = items_fingerprint(items)
        asked = baselines.endings(items) if bare else items
        plan = make_plan(asked, tokenizer.encode, tokenizer.bos_id, block_size)
        if any(known[:3] != key[:3] for known in _questions):
            _questions.clear()
        _questions[key] = Questions(asked, plan, tokenizer, mark)
    return _questions[key]


def _model(work: WorkFolder, run_id: str, recipe: Recipe) -> Any:
    device = hardware.pick_device(recipe.runs)
    if recipe.runs.engine != "native":
        from ltm.runs.engines import start

        if run_id.startswith(UNTRAINED):
            vocab_size = load(work).vocab_size
            return start.load_untrained(recipe.model, vocab_size, int(fingerprint(run_id, 8), 16), device)
        return start.load_scored(
            work, baselines.run_of_ending(work, run_id) if run_id.startswith(ENDING) else run_id, device
        )
    if run_id.startswith(UNTRAINED):
        model = GPT(recipe.model.shape(load(work).vocab_size))
        init_weights(model, int(fingerprint(run_id, 8), 16))
        return model.to(device).eval()
    if run_id.startswith(ENDING):
        run_id = baselines.run_of_ending(work, run_id)
    return load_model(work, run_id, device)[0]


def _scorer(model: Any, recipe: Recipe, plan: Plan, n_runs: int) -> Scorer:
    """Return the worker's scorer with these weights; on a GPU compiled where the runs are and the scoring repays it."""
    if recipe.runs.engine != "native":
        from ltm.scores.foreign import ForeignScorer

        return ForeignScorer(model)
    device = hardware.pick_device(recipe.runs)
    key = (str(model.config), device)
    if key not in _scorers:
        settings = hardware.engine_settings(recipe.runs, model.config, recipe.sets.run_tokens)
        tokens = plan.n_input_tokens * math.ceil(n_runs / max(1, hardware.n_workers(recipe.runs, device)))
        long = repays_compiling(device, model.config.n_params, tokens // _TRAINED_OVER_SCORED)
        _scorers.clear()
        _scorers[key] = Scorer(model, compiled=settings.compiled and long and device != "cpu")  # bench/score_speed.md
    elif _scorers[key].model is not model:
        _scorers[key].fill(model)
    return _scorers[key]


def answers_of(scorer: Scorer, asked: Questions) -> NDArray[np.float64]:
    """Return the log-probability of every cell of a bank of plain items."""
    result: Any = asked.plan.answers(scorer.logprobs(asked.plan))
    return np.asarray(result)
