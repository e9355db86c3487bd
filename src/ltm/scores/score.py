"""Ask one model the items of a bank: what its cells are answered by follows from their rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ltm.model.gpt import GPT
from ltm.records import Item
from ltm.scores.adapt import adapted, steps_within
from ltm.scores.forward import Scorer
from ltm.scores.generate import generated
from ltm.scores.plan import Plan, make_plan
from ltm.scores.section import ScoresSection
from ltm.tokens.tokenizer import Tokenizer

CellScore = tuple[str, int, float, int, int, int]


def score_items(
    model: GPT,
    encode: Callable[[str], list[int]],
    bos_id: int,
    items: Sequence[Item],
    block_size: int,
    batch_tokens: int = 0,
    width: int = 0,
) -> list[CellScore]:
    """Return (item_id, cell, logprob, n_bytes, n_tokens, n_context_tokens) of every cell, in the order of the items.

    The log-probability is NaN where a cell has no answer: the context was cut and the premise may have gone, or the
    rule asks for more than log-probabilities.

    Args:
        model: On its device; a float64 model is scored in float64.
        encode: Text to tokens, without a start mark.
        bos_id: The start mark.
        items: Questions.
        block_size: Longest input of the model in tokens.
        batch_tokens: Tokens of one forward pass; 0 takes what suits the device.
        width: Of a packed row in tokens; 0 takes what suits the block size.

    Raises:
        DataError: a continuation has no tokens, or not one word of it fits, or two options are the same tokens.
    """
    plan = make_plan(items, encode, bos_id, block_size, width)
    logprobs = plan.answers(Scorer(model).logprobs(plan, batch_tokens))
    columns = (logprobs, plan.n_bytes, plan.n_tokens, plan.n_context_tokens)
    return list(zip(plan.item_ids, plan.cells.tolist(), *(c.tolist() for c in columns), strict=True))


def answer_bank(
    scorer: Scorer,
    items: Sequence[Item],
    plan: Plan,
    tokenizer: Tokenizer,
    section: ScoresSection,
    run_tokens: int,
) -> NDArray[np.float64]:
    """Return the answer of one model to every cell of a bank; NaN where it has none.

    Args:
        scorer: The model.
        items: The bank.
        plan: The same as tokens.
        tokenizer: The study's.
        section: Says from which size on models generate, and what adapters may cost.
        run_tokens: Tokens that each run is trained on.
    """
    answers = plan.answers(scorer.logprobs(plan))
    n_steps = steps_within(items, tokenizer, int(section.adapt_share * run_tokens))
    starts = np.concatenate([[0], np.cumsum([len(item.contexts) for item in items])]).astype(int)
    for index, item in enumerate(items):
        least = item.gold or section.generate_from_params  # an item of a user's own may name its own size
        if item.rule == "generate" and scorer.model.config.n_params >= least:
            answers[starts[index] : starts[index + 1]] = generated(scorer.model, item, tokenizer)
        elif item.rule == "adapt":
            answers[starts[index] : starts[index + 1]] = adapted(scorer.model, item, tokenizer, n_steps)
    return answers
