"""Models of transformers, scored in packed rows, answer what they answer one text at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from ltm.model.sizes import SIZES
from ltm.records import Item
from ltm.runs.engines.base_model import Scored
from ltm.scores.foreign import ForeignScorer
from ltm.scores.plan import make_plan

V, BOS, BLOCK = 128, 1, 96
SHAPE = dataclasses.replace(SIZES["llama-0.1m"], vocab_size=V, block_size=BLOCK)


def encode(text: str) -> list[int]:
    return [ord(c) % V for c in text]


def item(number: int, contexts: list[str], continuations: list[str]) -> Item:
    return Item(f"i{number}", "a", "linking", "L2", "en", "book", "likelihood", contexts, continuations, 0)


def items() -> list[Item]:
    rng = np.random.default_rng(0)
    words = ["sea", "whale", "ship", "captain", "morning", "storm", "harbour"]

    def text(n: int) -> str:
        return " ".join(rng.choice(words, n))

    return [item(i, [text(8)] * 3, [" " + text(n) for n in (1, 2, 3)]) for i in range(9)]


def model(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    shared = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": BLOCK}
    made = {
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared)),
        "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shared, head_dim=16)),
        "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**shared)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=V, n_positions=BLOCK, n_embd=32, n_layer=2, n_head=4)
        ),
        "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**shared, head_dim=8)),
    }[kind]()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)  # sharper than at the start, so that mistakes show
    return made.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gpt2", "gemma2"])
def test_packed_rows_give_the_answers_of_single_texts(kind: str) -> None:
    asked = items()
    plan = make_plan(asked, encode, BOS, BLOCK)
    stock = model(kind)
    found = plan.answers(ForeignScorer(Scored(stock, SHAPE)).logprobs(plan))
    expected = []
    for one in asked:
        for context, continuation in zip(one.contexts, one.continuations, strict=True):
            tokens = [BOS, *encode(context), *encode(continuation)]
            n = len(encode(continuation))
            with torch.no_grad():
                logprobs = stock(input_ids=torch.tensor([tokens])).logits[0].float().log_softmax(-1)
            expected.append(sum(float(logprobs[len(tokens) - n - 1 + i, tokens[-n + i]]) for i in range(n)))
    assert len(plan.rows.tokens_RW) < len(expected)  # more than one text a row
    assert found == pytest.approx(np.array(expected), abs=2e-4)
    assert np.ptp(expected) > 1
