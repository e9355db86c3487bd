import math

import numpy as np
import pytest
import torch

from ltm.errors import DataError
from ltm.records import Item
from ltm.scores.measures import family_tables, measures
from ltm.scores.score import prepare, score_items

ALPHABET = 128
BOS = 0


def encode(text: str) -> list[int]:
    return [ord(c) % ALPHABET for c in text]


class Bigram(torch.nn.Module):
    """A model whose next-token logits depend on the current token alone, so that truth is easily written down."""

    def __init__(self, uniform: bool = False, seed: int = 0):
        super().__init__()
        table = torch.randn(ALPHABET, ALPHABET, generator=torch.Generator().manual_seed(seed))
        self.table = torch.zeros_like(table) if uniform else table

    def hidden(self, tokens):
        return tokens

    def head(self, hidden):
        return self.table[hidden]


class Memory(torch.nn.Module):
    """Logits that depend on all tokens so far and on nothing to the right; it has no `hidden` and `head`."""

    def __init__(self):
        super().__init__()
        self.embed = torch.randn(ALPHABET, ALPHABET, generator=torch.Generator().manual_seed(1))

    def forward(self, tokens):
        return torch.tanh(torch.cumsum(self.embed[tokens], dim=1))


def item(rule, contexts, continuations, gold=0, family="X", name="i", cluster="c"):
    return Item(name, "a", "linking", family, "en", cluster, rule, contexts, continuations, gold)


def direct(model, context, continuation):
    ids = torch.tensor([[BOS, *encode(context), *encode(continuation)]])
    logits = model.head(model.hidden(ids)) if hasattr(model, "head") else model(ids)
    lp = torch.log_softmax(logits.float(), -1)[0]
    n = len(encode(continuation))
    return sum(float(lp[-n - 1 + k, ids[0, -n + k]]) for k in range(n))


TEXTS = [
    item("choice", ["a b c"] * 3 + ["n"] * 3, [" da", " d", " dab"] * 2, 1, name="1"),
    item("pair", ["", ""], ["one\n\ntwo two", "two two\n\none"], name="2"),
    item("bits_per_byte", [""], ["plain text of some length"], name="3"),
    item("gain", ["b", "a b", "c b"], ["\n\nrest"] * 3, name="4"),
]


@pytest.mark.parametrize("model", [Bigram(), Memory()])
@pytest.mark.parametrize("batch_tokens", [1, 40, 16_384])
def test_batched_scores_equal_plain_ones(model, batch_tokens):
    rows = score_items(model, encode, BOS, TEXTS, 64, batch_tokens=batch_tokens)
    assert len(rows) == sum(len(i.contexts) for i in TEXTS)
    by_name = {i.item_id: i for i in TEXTS}
    for name, cell, logprob, n_bytes, n_tokens, n_context in rows:
        context, continuation = by_name[name].contexts[cell], by_name[name].continuations[cell]
        assert logprob == pytest.approx(direct(model, context, continuation), abs=1e-4)
        assert (n_bytes, n_tokens, n_context) == (len(continuation), len(continuation), len(context))


def test_shared_prefixes_are_computed_once():
    prepared = prepare(TEXTS[:1], encode, BOS, 64)
    assert len(prepared.requests) == 6
    assert len(prepared.sequences) == 2  # " d" and " da" begin " dab", after each of two contexts


def test_context_is_cut_from_the_left_and_continuation_at_a_word():
    rows = score_items(Bigram(), encode, BOS, [item("choice", ["x" * 50, "y"], [" ab", " ab"])], 20)
    assert rows[0][5] == 17
    long = item("bits_per_byte", [""], ["aaaa bbbb cccc dddd eeee"])
    assert score_items(Bigram(), encode, BOS, [long], 12)[0][3] == len("aaaa bbbb")
    prepared = prepare([long], encode, BOS, 12)
    assert prepared.n_cut_continuations == 1


def test_answers_after_a_cut_context_do_not_count_where_the_premise_may_be_gone():
    long = "premise " * 8
    items = [
        item("pair", [long, long], [" ab", " ba"], name="1", family="P"),
        item("pair", ["", ""], [" ab", " ba"], name="2", family="P"),
        item("choice", [long] * 3 + ["n"] * 3, [" a", " b", " c"] * 2, name="3", family="C"),
        item("contrast", ["P", long, "P", long], [" a", " a", " b", " b"], name="4", family="T"),
        item("gain", ["b", long, "cb"], [" zz"] * 3, name="5", family="S"),
        item("bits_per_byte", [long], ["plain text"], name="6", family="F"),
    ]
    rows = score_items(Bigram(), encode, BOS, items, 20)
    lost = [np.isnan([r[2] for r in rows if r[0] == name]).tolist() for name in "123456"]
    assert lost == [[True] * 2, [False] * 2, [True] * 3 + [False] * 3, [False, True] * 2, [False] * 3, [False]]
    with np.errstate(all="raise"):
        tables = table_of(items, [rows, rows])
        made = {row.family: row for row in measures(tables, ["r", "s"])}
    assert {family: row.n_items for family, row in made.items()} == {"P": 1, "C": 0, "T": 0, "S": 1, "F": 1}
    assert made["P"].value == table_of(items[1:2], [rows[2:4]])[0].values()[0]
    assert np.isfinite([made["S"].value, made["F"].value]).all()
    assert np.isnan([made["C"].value, made["T"].value, made["C"].accuracy]).all()


def test_unscorable_items_are_named():
    with pytest.raises(DataError, match="item i"):
        score_items(Bigram(), encode, BOS, [item("pair", ["", ""], ["", "a"])], 20)
    with pytest.raises(DataError, match="not one word"):
        score_items(Bigram(), encode, BOS, [item("pair", ["", ""], ["abcdefgh", "a"])], 4)


def table_of(items, rows_per_run):
    lp = np.array([[r[2] for r in rows] for rows in rows_per_run])
    nb = np.array([[r[3] for r in rows] for rows in rows_per_run], dtype=float)
    return family_tables(items, lp, nb)


def test_swapping_options_keeps_the_margin_and_swapping_gold_flips_it():
    model = Bigram()
    one = item("pair", ["", ""], ["ab\n\ncd", "cd\n\nab"], gold=0, name="1")
    swapped = item("pair", ["", ""], ["cd\n\nab", "ab\n\ncd"], gold=1, name="1")
    wrong = item("pair", ["", ""], ["cd\n\nab", "ab\n\ncd"], gold=0, name="1")
    values = [table_of([i], [score_items(model, encode, BOS, [i], 64)])[0].values()[0] for i in (one, swapped, wrong)]
    assert abs(values[0]) > 1e-3
    assert values[1] == pytest.approx(values[0])
    assert values[2] == pytest.approx(-values[0])


def test_uniform_model_scores_exactly_chance():
    items = [
        item("pair", ["", ""], ["ab\n\ncd", "cd\n\nab"], name="1", family="P"),
        item("choice", ["c"] * 4, [" aa", " bb", " cc", " dd"], 2, name="2", family="C"),
        item("choice", ["c"] * 3 + ["n"] * 3, [" a", " bbbb", " cc"] * 2, 2, name="3", family="N"),
        item("contrast", ["P", "Q", "P", "Q"], [" a", " a", " bb", " bb"], name="4", family="T"),
        item("gain", ["b", "ab", "cb"], [" zz"] * 3, name="5", family="S"),
        item("bits_per_byte", [""], ["plain text"], name="6", family="F"),
    ]
    tables = {t.family: t for t in table_of(items, [score_items(Bigram(uniform=True), encode, BOS, items, 64)])}
    accuracy = {family: table.accuracy()[0] for family, table in tables.items()}
    assert accuracy == pytest.approx({"P": 0.5, "C": 0.25, "N": 1 / 3, "T": 0.5, "S": 0.5, "F": math.nan}, nan_ok=True)
    for family in "PCNTS":
        assert tables[family].values()[0] == pytest.approx(0, abs=1e-9)
    assert tables["F"].values()[0] == pytest.approx(-math.log2(ALPHABET))


def test_margins_follow_their_formulas():
    lp = np.array([[-10.0, -14.0, -8.0, -9.0, -2.0, -3.0, -4.0, -3.5, -9.0, -6.0, -8.0]])
    items = [
        item("choice", ["c", "c", "n", "n"], [" aaa", " bbbbbbb"] * 2, 0, name="1", family="C"),
        item("contrast", ["P", "Q", "P", "Q"], [" a", " a", " bbb", " bbb"], name="2", family="T"),
        item("gain", ["b", "ab", "cb"], [" z"] * 3, name="3", family="S"),
    ]
    nb = np.array([[4.0, 8, 4, 8, 2, 2, 4, 4, 2, 2, 2]])
    values = {t.family: t.values()[0] for t in family_tables(items, lp, nb)}
    assert values["C"] == pytest.approx((-10 + 8) / 4 - (-14 + 9) / 8)
    assert values["T"] == pytest.approx((-2 + 3) / 2 - (-4 + 3.5) / 4)
    assert values["S"] == pytest.approx((-6 + 8) / 2 / math.log(2))


def test_cut_items_are_left_out_and_outliers_pulled_in():
    items = [item("pair", ["", ""], ["abcd", "dcba"], name=str(k), cluster=str(k)) for k in range(40)]
    lp = np.zeros((1, 80))
    lp[0, ::2] = np.linspace(-1, 1, 40)
    nb = np.full((1, 80), 4.0)
    plain = family_tables(items, lp, nb)[0].values()[0]
    lp[0, 0] = -1e6
    assert abs(family_tables(items, lp, nb)[0].values()[0] - plain) < 0.1
    nb[0, 0] = 3
    rows = measures(family_tables(items, lp, nb), ["r"])
    assert rows[0].n_items == 39
    assert rows[0].value == pytest.approx(np.linspace(-1, 1, 40)[1:].mean() / 4)


def test_halves_are_disjoint_fixed_and_by_book():
    items = [item("pair", ["", ""], ["ab", "ba"], name=str(k), cluster=f"book{k % 6}") for k in range(60)]
    table = family_tables(items, np.zeros((1, 120)), np.full((1, 120), 2.0))[0]
    first = table.halves()
    assert first.sum() == 30
    assert {table.clusters[k] for k in np.flatnonzero(first)}.isdisjoint(
        {table.clusters[k] for k in np.flatnonzero(~first)}
    )
    assert (first == table.halves()).all()
