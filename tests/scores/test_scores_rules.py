"""Margins, logits and answers against their formulas, on log-probabilities that were written down."""

import dataclasses
import math

import numpy as np
import pytest

from ltm.records import Item
from ltm.scores.measures import family_tables, measures


def item(rule, contexts, continuations, gold=0, family="X", name="i", cluster="c", **more):
    return Item(name, "a", "linking", family, "en", cluster, rule, contexts, continuations, gold, **more)


def tables_of(items, logprobs, n_bytes=None):
    full = [len(text.encode()) for i in items for text in i.continuations]
    nb = np.array([full if n_bytes is None else n_bytes], dtype=float)
    return {t.family: t for t in family_tables(items, np.array([logprobs], dtype=float), nb)}


def test_margins_follow_their_formulas():
    items = [
        item("choice", ["c", "c", "n", "n"], [" aaa", " bbbbbbb"] * 2, 0, name="1", family="C"),
        item("contrast", ["P", "Q", "P", "Q"], [" a", " a", " bbb", " bbb"], name="2", family="T"),
        item("gain", ["b", "ab", "cb"], [" z"] * 3, name="3", family="S"),
        item("synergy", list("wwaabbnn"), [" a", " bbb"] * 4, name="4", family="Y"),
        item("likelihood", ["c"] * 3, [" aaa", " b", " ccccccc"], 2, name="5", family="L"),
    ]
    lp = [-10, -14, -8, -9, -2, -3, -4, -3.5, -9, -6, -8, -1, -5, -2, -4, -3, -4.5, -4, -3, -3, -2, -4]
    t = tables_of(items, lp)
    assert t["C"].values()[0] == pytest.approx((-10 + 8) / 4 - (-14 + 9) / 8)
    assert t["C"].logit_RI[0, 0] == pytest.approx((-10 + 8) - (-14 + 9))
    assert t["T"].values()[0] == pytest.approx((-2 + 3) / 2 - (-4 + 3.5) / 4)
    assert t["T"].logit_RI[0, 0] == pytest.approx(1.5)
    assert t["S"].values()[0] == pytest.approx((-6 + 8) / 2 / math.log(2))
    m = [(-1) / 2 - (-5) / 4, (-2) / 2 - (-4) / 4, (-3) / 2 - (-4.5) / 4, (-4) / 2 - (-3) / 4]
    assert t["Y"].values()[0] == pytest.approx(m[0] - m[1] - m[2] + m[3])
    assert t["Y"].logit_RI[0, 0] == pytest.approx(4 - 2 - 1.5 - 1)
    assert t["L"].values()[0] == pytest.approx(-4 / 8 - (-3 / 4 - 2 / 2) / 2)
    assert (t["L"].accuracy()[0], t["L"].accuracy(normed=True)[0]) == (0, 1)  # the sum is for b, per byte it is c
    assert t["L"].gold_bits_per_byte()[0] == pytest.approx(4 / math.log(2) / 8)
    assert t["T"].gold_bits_per_byte()[0] == pytest.approx((2 + 3.5) / math.log(2) / 6)


def test_logit_is_that_of_p_norm_and_is_limited():
    one = item("likelihood", ["c"] * 3, [" a", " b", " c"], 0)
    lp = np.log([0.5, 0.3, 0.1])
    p_norm = 0.5 / 0.9
    assert tables_of([one], lp)["X"].logit_RI[0, 0] == pytest.approx(math.log(p_norm / (1 - p_norm)))
    assert tables_of([one], [-1.0, -90.0, -90.0])["X"].logit_RI[0, 0] == 4


def test_a_model_that_knows_nothing_scores_exactly_chance():
    items = [
        item("pair", ["", ""], ["ab\n\ncd", "cd\n\nab"], name="1", family="P"),
        item("choice", ["c"] * 4, [" aa", " bb", " cc", " dd"], 2, name="2", family="C"),
        item("choice", ["c"] * 3 + ["n"] * 3, [" a", " bbbb", " cc"] * 2, 2, name="3", family="N"),
        item("contrast", ["P", "Q", "P", "Q"], [" a", " a", " bb", " bb"], name="4", family="T"),
        item("gain", ["b", "ab", "cb"], [" zz"] * 3, name="5", family="S"),
        item("synergy", list("wwaabbnn"), [" aa", " bb"] * 4, name="6", family="Y"),
        item("likelihood", ["c"] * 5, [f" {k}" for k in range(5)], 3, name="7", family="L"),
        item("bits_per_byte", [""], ["plain text"], name="8", family="F"),
    ]
    t = tables_of(items, [-len(text) * math.log(128) for i in items for text in i.continuations])
    accuracy = {family: table.accuracy()[0] for family, table in t.items()}
    expected = {"P": 0.5, "C": 0.25, "N": 1 / 3, "T": 0.5, "S": 0.5, "Y": 0.5, "L": 0.2, "F": math.nan}
    assert accuracy == pytest.approx(expected, nan_ok=True)
    for family in "PCNTSYL":
        assert t[family].values()[0] == pytest.approx(0, abs=1e-9)
    assert t["F"].values()[0] == pytest.approx(-math.log2(128))


def test_order_of_options_does_not_matter_and_gold_does():
    one = item("pair", ["", ""], ["ab", "cd"], 0)
    lp = [-3.0, -5.0]
    value = tables_of([one], lp)["X"].values()[0]
    swapped = item("pair", ["", ""], ["cd", "ab"], 1)
    assert tables_of([swapped], lp[::-1])["X"].values()[0] == pytest.approx(value)
    assert tables_of([dataclasses.replace(one, gold=1)], lp)["X"].values()[0] == pytest.approx(-value)


def test_generated_and_adapted_answers():
    items = [
        item("generate", ["q", "q"], [" yes", " y"], name="1", family="G"),
        item("generate", ["q"], [" no"], name="2", family="G"),
        item("adapt", ["t", "t", "p"], [" a", " b", " c"], 2, name="3", family="A"),
    ]
    t = tables_of(items, [0.0, 0.0, -math.inf, -1.25, -1.25, -1.25])
    assert t["G"].accuracy()[0] == 0.5
    assert t["A"].values()[0] == -1.25
    gone = tables_of(items, [math.nan] * 6)
    assert np.isnan(gone["G"].accuracy()[0])
    assert np.isnan(gone["A"].values()[0])


def test_controls_are_never_part_of_a_family():
    items = [item("pair", ["", ""], ["ab", "cd"], name=f"i{k}", family="L1") for k in range(3)]
    items += [dataclasses.replace(items[0], item_id="i0-nouns", control="nouns")]
    lp = np.array([[-1, -2] * 3 + [-9.0, -1.0]])
    nb = np.full((1, 8), 2.0)
    (real,), (control,) = family_tables(items, lp, nb), family_tables(items, lp, nb, controls=True)
    assert (real.items, control.items, control.control) == (["i0", "i1", "i2"], ["i0-nouns"], "nouns")
    assert (real.accuracy()[0], control.accuracy()[0]) == (1, 0)


def test_cut_items_are_left_out_and_outliers_pulled_in():
    items = [item("pair", ["", ""], ["abcd", "dcba"], name=str(k), cluster=str(k)) for k in range(40)]
    lp = np.zeros((1, 80))
    lp[0, ::2] = np.linspace(-1, 1, 40)
    nb = np.full((1, 80), 4.0)
    plain = family_tables(items, lp, nb)[0].values()[0]
    lp[0, 0] = -1e6
    assert abs(family_tables(items, lp, nb)[0].values()[0] - plain) < 0.1
    nb[0, 0] = 3
    rows = measures(family_tables(items, lp, nb), ["r"], {"linking": "accuracy"})
    assert rows[0].n_items == 39
    assert rows[0].margin == pytest.approx(np.linspace(-1, 1, 40)[1:].mean() / 4)
    assert (rows[0].metric, rows[0].value) == ("accuracy", rows[0].accuracy)


def test_halves_are_disjoint_fixed_and_by_book():
    items = [item("pair", ["", ""], ["ab", "ba"], name=str(k), cluster=f"book{k % 6}") for k in range(60)]
    table = family_tables(items, np.zeros((1, 120)), np.full((1, 120), 2.0))[0]
    first = table.halves()
    assert first.sum() == 30
    assert {table.clusters[k] for k in np.flatnonzero(first)}.isdisjoint(
        {table.clusters[k] for k in np.flatnonzero(~first)}
    )
    assert (first == table.halves()).all()
