"""Tuning on conversations: answers alone count, the model's own template is kept, nobody spells special tokens."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from ltm.dialogue import tune
from ltm.dialogue.conversations import Conversation, read_file
from ltm.dialogue.section import DialogueSection
from ltm.dialogue.template import Template, plain
from ltm.errors import ConfigError, DataError
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import SIZES
from ltm.tokens.tokenizer import BOS, Tokenizer, train

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["who are you and where do you go? i go home to the sea. " * 50], 300)


def talk(n: int = 40) -> list[Conversation]:
    places = ["sea", "home", "mill", "town"]
    rows = []
    for i in range(n):
        place = places[i % 4]
        turns = [{"role": "user", "content": f"where do you go, {place}?"}]
        turns += [{"role": "assistant", "content": f"i go to the {place}."}]
        rows.append(Conversation(f"book{i}", turns))
    return rows


def model_of(tokenizer: Tokenizer, seed: int = 1) -> GPT:
    model = GPT(dataclasses.replace(SIZES["llama-0.1m"], vocab_size=tokenizer.vocab_size, block_size=64))
    init_weights(model, seed)
    return model.eval()


def test_parts_join_to_the_text_and_only_answers_are_learned() -> None:
    turns = [{"role": "system", "content": "be brief"}, *talk(1)[0].messages, *talk(2)[1].messages]
    for template in (plain(), Template(CHATML, "", "")):
        parts = template.parts(turns)
        assert "".join(text for text, _ in parts) == template.text(turns)
        assert [learned for _, learned in parts] == [False, True, False, True]
        assert parts[1][0].startswith("i go to the sea.")
        assert parts[1][0] != "i go to the sea."  # the end of an answer is learned too


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    forgetful = Template("{{ messages[-1]['content'] }}", "", "")
    with pytest.raises(DataError, match="chat template"):
        forgetful.parts([*talk(1)[0].messages, *talk(2)[1].messages])


def test_a_template_cannot_run_code() -> None:
    template = Template("{{ ''.__class__.__mro__[1].__subclasses__() }}", "", "")
    with pytest.raises(Exception, match="unsafe"):
        template.text(talk(1)[0].messages)


def test_special_tokens_are_the_templates_alone(tokenizer: Tokenizer) -> None:
    turns = [{"role": "user", "content": f"say {BOS}"}, {"role": "assistant", "content": f"no {BOS} here"}]
    example = tune.encode([Conversation("b", turns)], plain(), tokenizer, 64)[0]
    assert example.tokens.count(tokenizer.bos_id) == 2  # before the text, and after the answer
    assert example.tokens[-2] == tokenizer.bos_id


def test_what_is_asked_does_not_enter_the_loss(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    example = tune.encode(talk(1), plain(), tokenizer, 64)[0]
    with torch.no_grad():
        total, count = tune._loss(model, [example])
        logprobs = model(torch.tensor([example.tokens[:-1]]))[0].float().log_softmax(-1)
    expected = sum(
        -float(logprobs[i, token])
        for i, (token, learned) in enumerate(zip(example.tokens[1:], example.learned, strict=True))
        if learned
    )
    assert count == sum(example.learned)
    assert 0 < count < len(example.tokens) - 8
    assert float(total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_tuned_model_answers_better_and_equal_seeds_give_equal_bits(tokenizer: Tokenizer, method: str) -> None:
    section = DialogueSection(method=method, lr=4e-3, epochs=8, batch_conversations=8)
    examples = tune.encode(talk(), plain(), tokenizer, 64)
    weights = []
    for _ in range(2):
        model = model_of(tokenizer)
        before = tune.bits_per_byte(model, examples)
        tune.tune(model, examples, section, seed=3)
        assert tune.bits_per_byte(model, examples) < 0.8 * before
        weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
    assert weights[0].keys() == dict(model_of(tokenizer).named_parameters()).keys()  # adapters are merged
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    moved = {name for name, p in model_of(tokenizer).named_parameters() if not torch.equal(p, weights[0][name])}
    assert moved == {n for n in weights[0] if method == "full" or (n.startswith("blocks.") and "norm" not in n)}


def test_nothing_to_learn_is_said(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="not one conversation"):
        tune.tune(model_of(tokenizer), [], DialogueSection(), 1)
    assert math.isnan(tune.bits_per_byte(model_of(tokenizer), []))


def test_malformed_lines_are_all_named(tmp_path: Path) -> None:
    good = json.dumps({"messages": talk(1)[0].messages})
    lines = [
        good,
        "{",
        "[]",
        '{"messages": []}',
        '{"messages": [{"role": "user", "content": 1}]}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": [{"role": "assistant", "content": "a"}]}',
        "",
        good,
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as error:
        list(read_file(path))
    assert [problem.split(":")[1] for problem in error.value.problems] == ["2", "3", "4", "5", "6", "7"]
    path.write_text(f"{good}\n\n{good}\n")
    assert [one.source for one in read_file(path)] == ["line 1", "line 3"]
    path.write_bytes(good.encode() + b"\n\xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        list(read_file(path))
