"""What holds for every valid shape: parameters are counted, nothing sees the future, both losses agree."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ltm.model.gpt import GPT
from ltm.model.init import init_weights, parameter_groups
from ltm.model.sizes import ModelConfig


@st.composite
def shapes(draw):
    family = draw(st.sampled_from(["llama", "mistral", "gpt2"]))
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    head_size = draw(st.sampled_from([2, 4, 6, 10]))
    if family == "gpt2":
        kv_heads = heads
    block_size = draw(st.integers(2, 150))
    return ModelConfig(
        family,
        draw(st.integers(1, 3)),
        heads,
        kv_heads,
        heads * head_size,
        draw(st.integers(1, 40)),
        draw(st.integers(2, 300)),
        block_size,
        window=draw(st.integers(1, block_size + 3)) if family == "mistral" else 0,
        tie_embeddings=draw(st.booleans()),
        base_width=draw(st.sampled_from([0, 7, 32])),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes(), st.integers(0, 1000), st.booleans())
def test_every_shape_is_counted_causal_and_has_one_loss(config, seed, masked):
    model = GPT(config)
    init_weights(model, seed)
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    names = [name for group in parameter_groups(model) for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())

    g = torch.Generator().manual_seed(seed)
    T, V = config.block_size, config.vocab_size
    tokens = torch.randint(0, V, (2, T), generator=g)
    targets = torch.randint(0, V, (2, T), generator=g)
    documents = (torch.rand(2, T, generator=g) < 0.2).cumsum(1) if masked else None
    cut = seed % T
    changed = tokens.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % V
    with torch.no_grad():
        one, two = model.hidden(tokens, documents), model.hidden(changed, documents)
        assert torch.isfinite(one).all()
        assert torch.allclose(one[:, :cut], two[:, :cut], atol=1e-5)
        plain = F.cross_entropy(model.head(one).flatten(0, 1), targets.flatten())
        assert torch.allclose(model.loss(tokens, targets, None, documents), plain, atol=1e-5)
    fused = model.loss(tokens, targets, None, documents)
    assert torch.allclose(fused.detach(), plain, atol=1e-5)
    fused.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
