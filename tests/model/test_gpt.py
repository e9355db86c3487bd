"""The decoder: counted, causal, and its fused loss equal to the plain one."""

import dataclasses
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ltm.model.attention import plain_attention
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.loss import linear_cross_entropy
from ltm.model.sizes import SIZES, ModelConfig, named_shape, nearest_sizes, usual_vocabulary

SMALL = [
    ModelConfig("llama", 2, 4, 2, 32, 64, 97, 24),
    ModelConfig("mistral", 2, 4, 2, 32, 64, 97, 24, window=6, tie_embeddings=False),
    ModelConfig("gpt2", 2, 4, 4, 32, 128, 97, 24),
]


def made(config, seed=1):
    model = GPT(config)
    init_weights(model, seed)
    return model.eval()


@pytest.mark.parametrize("config", SMALL, ids=lambda c: c.family)
def test_parameters_are_counted_right(config):
    assert sum(p.numel() for p in made(config).parameters()) == config.n_params


@pytest.mark.parametrize(
    ("name", "vocabulary", "expected"),
    [
        ("gpt2-125m", 50257, 124.4e6),
        ("gpt2-355m", 50257, 354.8e6),
        ("llama-7b", 32000, 6.74e9),
        ("mistral-7b", 32000, 7.24e9),
    ],
)
def test_named_sizes_are_what_they_are_called(name, vocabulary, expected):
    untied = name in ("llama-7b", "mistral-7b")
    config = dataclasses.replace(SIZES[name], vocab_size=vocabulary, tie_embeddings=not untied)
    assert config.n_params == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("name", SIZES)
def test_a_name_counts_its_parameters_to_a_fifth(name):
    number, unit, decimals = re.fullmatch(r".*-([\d.]+)([mb])(\d*)", name).groups()
    named = float(f"{number}.{decimals}" if decimals else number) * {"m": 1e6, "b": 1e9}[unit]
    config = dataclasses.replace(SIZES[name], vocab_size=usual_vocabulary(SIZES[name].n_embd))
    assert config.n_params == pytest.approx(named, rel=1 / 5)
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT(config).parameters()) == config.n_params


@given(st.sampled_from(["llama", "mistral", "gpt2"]), st.floats(math.log(0.08), math.log(10_000)))
@settings(deadline=None, max_examples=40)
def test_any_count_has_a_shape_that_comes_close(family, log_millions):
    millions = round(math.exp(log_millions), 3)
    config = named_shape(f"{family}-{millions:.3f}m")
    assert config.family == family
    config = dataclasses.replace(config, vocab_size=usual_vocabulary(config.n_embd))
    assert config.n_params == pytest.approx(millions * 1e6, rel=0.15)
    assert 16 <= config.head_size <= 128


def test_the_shapes_of_counts_stay_what_they_are():
    """A study's fingerprint holds the name, not the shape."""
    found = [named_shape(name) for name in ("llama-2m", "gpt2-0.8m", "mistral-2b5", "llama-3b")]
    shapes = [(c.n_layer, c.n_head, c.n_kv_head, c.n_embd, c.n_hidden, c.block_size, c.window) for c in found]
    assert shapes == [
        (4, 5, 5, 160, 448, 256, 0),
        (4, 7, 7, 112, 448, 256, 0),
        (33, 18, 9, 2304, 8064, 8192, 4096),
        (28, 24, 8, 3072, 8192, 2048, 0),
    ]


@pytest.mark.parametrize(
    "name", ["llama", "llama-", "llama-0m", "llama-11b", "llama-1.5b5", "bert-3m", "3m", "Llama-3m"]
)
def test_what_is_no_size_has_no_shape(name):
    assert named_shape(name) is None


@pytest.mark.parametrize("config", SMALL, ids=lambda c: c.family)
def test_no_position_sees_the_future(config):
    model = made(config)
    tokens = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 15:] = (changed[:, 15:] + 1) % 97
    with torch.no_grad():
        one, two = model(tokens), model(changed)
    assert torch.equal(one[:, :15], two[:, :15])
    assert not torch.allclose(one[:, 15:], two[:, 15:])


def test_a_sliding_window_forgets():
    config = dataclasses.replace(SMALL[1], n_layer=1)
    model = made(config)
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 97
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert (difference[: config.window] > 0).all()
    assert (difference[config.window :] == 0).all()


@pytest.mark.parametrize("T", [24, 300])
@pytest.mark.parametrize("window", [0, 7, 200])
@pytest.mark.parametrize("documents", [False, True])
def test_attention_equals_pytorchs_own(T, window, documents):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, T, h, 8, generator=g) for h in (4, 2, 2))
    documents_BT = (torch.rand(2, T, generator=g) < 0.1).cumsum(1) if documents else None
    ours = plain_attention(q, k, v, 0.3, window, documents_BT)
    row, column = torch.arange(T)[:, None], torch.arange(T)[None, :]
    mask = (column <= row) & (column > row - (window or T))
    if documents:
        mask = mask & (documents_BT[:, :, None] == documents_BT[:, None, :])[:, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize(("n_rows", "vocab_size"), [(7, 2048), (3000, 2048), (600, 20_011)])
def test_fused_loss_and_gradients_equal_plain_ones(n_rows, vocab_size):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(n_rows, 16, generator=g, dtype=torch.float32), torch.randn(vocab_size, 16, generator=g)
    targets = torch.randint(0, vocab_size, (n_rows,), generator=g)
    results = []
    for loss_fn in (linear_cross_entropy, lambda a, b, t: F.cross_entropy(a @ b.T, t)):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        loss = loss_fn(a, b, targets)
        (3 * loss).backward()
        results.append((loss.detach(), a.grad, b.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert torch.allclose(linear_cross_entropy(x, w, targets), results[1][0], atol=1e-5)


def test_weights_follow_from_the_seed():
    one, two, other = (made(SMALL[0], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])


def test_shapes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="n_head 5 does not divide n_embd 32; nearest: 4"):
        ModelConfig("llama", 2, 5, 5, 32, 64, 97, 24)
    with pytest.raises(ValueError, match="n_kv_head 3 does not divide n_head 4"):
        ModelConfig("llama", 2, 4, 3, 32, 64, 97, 24)
    with pytest.raises(ValueError, match="even head size"):
        ModelConfig("llama", 2, 4, 4, 12, 64, 97, 24)
    assert "llama-15m" in nearest_sizes("lama15m")
