"""Counting models against probabilities worked out by hand, and what they can and cannot know."""

from types import SimpleNamespace

import numpy as np
import pytest

from ltm.scores.ngram import NgramModel

BOS = 0


def probability(model, left, right):
    plan = SimpleNamespace(requests=[(tuple(left), tuple(right))])
    return float(np.exp(model.logprobs(plan, BOS)[0]))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("left", [(), (3,), (1, 2, 3), (6, 6, 6, 6, 6, 6)])
def test_probabilities_sum_to_one_after_any_context(order, left):
    text = np.random.default_rng(0).integers(0, 6, 300)  # token 6 never occurs
    model = NgramModel(text, 7, order)
    each = [probability(model, left, (token,)) for token in range(7)]
    assert sum(each) == pytest.approx(1, abs=1e-12)
    assert min(each) > 0


def test_bigrams_follow_kneser_and_ney():
    text = [1, 2, 1, 2, 1, 3]
    model = NgramModel(np.array(text), 4, 2)
    grams = {(1, 2): 2, (2, 1): 2, (1, 3): 1}
    discount = 1 / (1 + 2 * 2)  # one gram once, two twice
    first = model._orders[0].discount
    before = {1: 1, 2: 1, 3: 1}  # how many different tokens stand before
    lower = {t: max(before.get(t, 0) - first, 0) / 3 + first * 3 / 3 * (1 / 4) for t in range(4)}
    for token in range(4):
        expected = max(grams.get((1, token), 0) - discount, 0) / 3 + discount * 2 / 3 * lower[token]
        assert probability(model, (1,), (token,)) == pytest.approx(expected)
    assert probability(model, (0,), (2,)) == pytest.approx(lower[2])  # a beginning that was never seen


def test_unigram_is_how_often_a_token_is():
    text = np.random.default_rng(1).integers(0, 5, 400)
    model = NgramModel(text, 5, 1)
    for token in range(5):
        assert probability(model, (3, 1), (token,)) == pytest.approx(np.mean(text == token), abs=0.003)


def test_a_text_is_the_product_of_its_tokens_and_older_context_is_forgotten():
    model = NgramModel(np.random.default_rng(2).integers(0, 4, 2000), 4, 3)
    both = probability(model, (1, 2), (3, 0, 1))
    parts = [probability(model, left, right) for left, right in (((1, 2), (3,)), ((2, 3), (0,)), ((3, 0), (1,)))]
    assert both == pytest.approx(np.prod(parts))
    assert probability(model, (3, 3, 3, 1, 2), (3,)) == pytest.approx(probability(model, (0, 0, 1, 2), (3,)))


def test_longer_grams_predict_real_structure_better():
    cycle = np.tile([1, 2, 1, 3], 300)
    bits = [-np.log2(probability(NgramModel(cycle, 4, order), (1, 2, 1), (3, 1, 2, 1))) for order in (1, 2, 3)]
    assert bits[0] > bits[1] > bits[2]
    assert bits[2] < 0.1
