"""Packed scoring against plain forward passes of the same model, one cell at a time."""

import dataclasses

import numpy as np
import pytest
import torch

from ltm.errors import DataError
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import ModelConfig
from ltm.records import Item
from ltm.scores.forward import Scorer
from ltm.scores.measures import family_tables, measures
from ltm.scores.plan import make_plan
from ltm.scores.score import score_items

VOCAB, BLOCK, BOS = 128, 48, 0
LLAMA = ModelConfig("llama", 2, 4, 2, 32, 48, VOCAB, BLOCK)
SHAPES = {
    "llama": LLAMA,
    "mistral": dataclasses.replace(LLAMA, family="mistral", window=5),
    "gpt2": dataclasses.replace(LLAMA, family="gpt2", n_kv_head=4),
    "mup": dataclasses.replace(LLAMA, base_width=16),
}


def encode(text: str) -> list[int]:
    return [ord(c) % VOCAB for c in text]


def made(name: str = "llama", seed: int = 0, scale: float = 3.0) -> GPT:
    model = GPT(SHAPES[name])
    init_weights(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)  # far from uniform
    return model.eval()


def item(rule, contexts, continuations, gold=0, family="X", name="i", cluster="c", **more):
    return Item(name, "a", "linking", family, "en", cluster, rule, contexts, continuations, gold, **more)


def direct(model, context, continuation):
    ids = torch.tensor([[BOS, *encode(context), *encode(continuation)]])
    with torch.no_grad():
        lp = torch.log_softmax(model(ids[:, :-1]).double(), -1)[0]
    n = len(encode(continuation))
    return sum(float(lp[-n + k, ids[0, -n + k]]) for k in range(n))


TEXTS = [
    item("choice", ["a b c and more of it"] * 3 + ["n"] * 3, [" da", " d", " dab"] * 2, 1, name="1"),
    item("pair", ["", ""], ["one\n\ntwo two", "two two\n\none"], name="2"),
    item("bits_per_byte", [""], ["plain text of some length"], name="3"),
    item("gain", ["b", "a b", "c b"], ["\n\nrest"] * 3, name="4"),
    item("likelihood", ["a b c and more of that"] * 2, [" dx", " dy"], 1, name="5"),
    item("synergy", [c for c in ("ab", "a", "b", "n") for _ in "12"], [" yes", " no"] * 4, name="6"),
]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("batch_tokens", "width"), [(1, 64), (400, 0), (16_384, 256)])
def test_packed_scores_equal_plain_ones(name, batch_tokens, width):
    model = made(name)
    rows = score_items(model, encode, BOS, TEXTS, BLOCK, batch_tokens, width)
    assert len(rows) == sum(len(i.contexts) for i in TEXTS)
    by_name = {i.item_id: i for i in TEXTS}
    plain = made(name)  # `score_items` takes oneDNN's products
    for item_id, cell, logprob, n_bytes, n_tokens, n_context in rows:
        context, continuation = by_name[item_id].contexts[cell], by_name[item_id].continuations[cell]
        assert logprob == pytest.approx(direct(plain, context, continuation), rel=2e-6, abs=2e-5)
        assert (n_bytes, n_tokens, n_context) == (len(continuation), len(continuation), len(context))


def test_float64_scores_equal_plain_ones_to_the_last_digits():
    model = made().double()
    for item_id, cell, logprob, *_ in score_items(model, encode, BOS, TEXTS, BLOCK):
        one = next(i for i in TEXTS if i.item_id == item_id)
        assert logprob == pytest.approx(direct(model, one.contexts[cell], one.continuations[cell]), rel=1e-12)


def test_random_trees_share_and_keep_every_answer():
    rng = np.random.default_rng(3)
    letters = np.array(list("abcde "))

    def text(n):
        return "".join(rng.choice(letters, n))

    stems = [text(18) for _ in range(4)]
    items = []
    for k in range(60):
        context = stems[k % 4][: int(rng.integers(0, 19))] + text(int(rng.integers(0, 8)))
        items.append(item("bits_per_byte", [context], [text(int(rng.integers(1, 12)))], name=str(k)))
    model, plain = made(), made()
    plan = make_plan(items, encode, BOS, BLOCK, 96)
    assert plan.rows.tokens_RW.size < plan.n_input_tokens
    values = plan.answers(Scorer(model).logprobs(plan, 200))
    for value, one in zip(values, items, strict=True):
        assert value == pytest.approx(direct(plain, one.contexts[0], one.continuations[0]), rel=2e-6, abs=2e-5)


def test_shared_prefixes_are_computed_once():
    context = "a context that all of the options share"
    one = item("choice", [context] * 4 + ["neutral"] * 4, [" da", " d", " db", " dab"] * 2)
    plan = make_plan([one], encode, BOS, BLOCK, 96)
    assert len(plan.requests) == 8
    assert plan.rows.tokens_RW.shape == (1, 96)
    seen = plan.rows.depth_RW[0] > 0
    tree = len(context) + len(" da")  # the inputs leave each option's last token out: " d", " ", " d", " da"
    assert seen.sum() == tree + len("neutral da")


def test_best_fit_leaves_little_padding():
    rng = np.random.default_rng(0)
    items = [item("bits_per_byte", [""], ["".join(rng.choice(list("abcdefgh"), int(n)))], name=str(k))
             for k, n in enumerate(rng.integers(4, 40, 300))]  # fmt: skip
    plan = make_plan(items, encode, BOS, BLOCK, 128)
    assert sum(len(right) for _, right in plan.requests) > 0.9 * plan.rows.tokens_RW.size


def test_equal_bits_again_and_for_another_model_in_the_same_scorer():
    plan = make_plan(TEXTS, encode, BOS, BLOCK)
    scorer = Scorer(made(seed=1))
    first = scorer.logprobs(plan)
    assert (scorer.logprobs(plan) == first).all()
    scorer.fill(made(seed=2))
    second = scorer.logprobs(plan)
    assert (second != first).all()
    assert (Scorer(made(seed=2)).logprobs(plan) == second).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_compiled_scores_equal_plain_ones():
    plan = make_plan(TEXTS, encode, BOS, BLOCK)
    for name in SHAPES:
        torch._dynamo.reset()
        compiled = Scorer(made(name), compiled=True).logprobs(plan)
        assert compiled == pytest.approx(Scorer(made(name)).logprobs(plan), rel=2e-6, abs=2e-5)


def test_context_is_cut_from_the_left_and_continuation_at_a_word():
    rows = score_items(made(), encode, BOS, [item("choice", ["x" * 50, "y"], [" ab", " ab"])], 20)
    assert rows[0][5] == 17
    long = item("bits_per_byte", [""], ["aaaa bbbb cccc dddd eeee"])
    assert score_items(made(), encode, BOS, [long], 12)[0][3] == len("aaaa bbbb")
    assert make_plan([long], encode, BOS, 12).n_cut_continuations == 1


def test_answers_after_a_cut_context_do_not_count_where_the_premise_may_be_gone():
    long = "premise " * 8
    items = [
        item("pair", [long, long], [" ab", " ba"], name="1", family="P"),
        item("pair", ["", ""], [" ab", " ba"], name="2", family="P"),
        item("choice", [long] * 3 + ["n"] * 3, [" a", " b", " c"] * 2, name="3", family="C"),
        item("contrast", ["P", long, "P", long], [" a", " a", " b", " b"], name="4", family="T"),
        item("gain", ["b", long, "cb"], [" zz"] * 3, name="5", family="S"),
        item("bits_per_byte", [long], ["plain text"], name="6", family="F"),
        item("synergy", ["", "", "A", "A", "B", "B", long, long], [" a", " b"] * 4, name="7", family="Y"),
    ]
    rows = score_items(made(), encode, BOS, items, 20)
    lost = [np.isnan([r[2] for r in rows if r[0] == name]).tolist() for name in "1234567"]
    assert lost == [[True] * 2, [False] * 2, [True] * 3 + [False] * 3, [False, True] * 2, [False] * 3, [False],
                    [False] * 6 + [True] * 2]  # fmt: skip
    lp = np.array([[r[2] for r in rows]] * 2)
    nb = np.array([[r[3] for r in rows]] * 2, dtype=float)
    with np.errstate(all="raise"):
        found = {row.family: row for row in measures(family_tables(items, lp, nb), ["r", "s"])}
    assert {f: row.n_items for f, row in found.items()} == {"P": 1, "C": 0, "T": 0, "S": 1, "F": 1, "Y": 0}
    assert np.isfinite([found["P"].value, found["S"].value, found["F"].value]).all()
    assert np.isnan([found["C"].value, found["T"].value, found["C"].accuracy]).all()


def test_unscorable_items_are_named():
    with pytest.raises(DataError, match="item i"):
        score_items(made(), encode, BOS, [item("pair", ["", ""], ["", "a"])], 20)
    with pytest.raises(DataError, match="not one word"):
        score_items(made(), encode, BOS, [item("pair", ["", ""], ["abcdefgh", "a"])], 4)


def test_options_that_are_the_same_tokens_are_refused_by_name():
    twins = item("likelihood", ["a", "a", "a"], [" x", " y", " x"], name="twin", source="mine.jsonl:7")
    with pytest.raises(DataError, match=r"mine.jsonl:7.*twin.*0 and 2"):
        make_plan([twins], encode, BOS, BLOCK)

    def blunt(text):  # a tokenizer that drops case
        return encode(text.lower())

    with pytest.raises(DataError, match="same tokens"):
        make_plan([item("likelihood", ["a", "a"], [" The", " the"])], blunt, BOS, BLOCK)
