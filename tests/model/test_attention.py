"""What a position may see is the same by plain products, by PyTorch's kernels, and by the mask for flex attention."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from ltm.model import attention, gpt
from ltm.model.attention import attend, flex, plain_attention
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import ModelConfig

SCALE = 0.3


def inputs(T, heads=4, kv_heads=2, documents=False):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, T, h, 16, generator=g) for h in (heads, kv_heads, kv_heads))
    documents_BT = (torch.rand(2, T, generator=g) < 0.1).cumsum(1) if documents else None
    return q, k, v, documents_BT


def by_hand(q, k, v, window, documents_BT):
    """Softmax over a list of the positions that are seen, one query at a time."""
    B, T, H, _ = q.shape
    out = torch.empty_like(q)
    for b in range(B):
        for t in range(T):
            seen = [s for s in range(T) if s <= t and (not window or t - s < window)]
            if documents_BT is not None:
                seen = [s for s in seen if documents_BT[b, s] == documents_BT[b, t]]
            for h in range(H):
                key = h // (H // k.shape[2])
                weights = torch.softmax(k[b, seen, key] @ q[b, t, h] * SCALE, 0)
                out[b, t, h] = weights @ v[b, seen, key]
    return out


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [0, 1, 5, 99])
def test_plain_attention_is_what_it_is_said_to_be(window, documents):
    q, k, v, documents_BT = inputs(19, documents=documents)
    expected = by_hand(q, k, v, window, documents_BT)
    assert torch.allclose(plain_attention(q, k, v, SCALE, window, documents_BT), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [0, 7, 200, 1000])
@pytest.mark.parametrize("T", [24, 128, 300])
def test_the_masks_for_a_gpu_say_the_same(T, window, documents):
    q, k, v, documents_BT = inputs(T, documents=documents)
    theirs = flex(q, k, v, SCALE, window, documents_BT)
    assert torch.allclose(plain_attention(q, k, v, SCALE, window, documents_BT), theirs, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("documents", [False, True])
def test_a_compiler_traces_the_masks_as_one_graph_and_without_a_warning(documents):
    q, k, v, documents_BT = inputs(40, documents=documents)
    torch._dynamo.reset()

    def gpu_path(q, k, v, documents_BT):
        return flex(q, k, v, SCALE, 7, documents_BT)

    traced = torch.compile(gpu_path, backend="aot_eager", fullgraph=True)
    expected = plain_attention(q, k, v, SCALE, 7, documents_BT)
    assert torch.allclose(traced(q, k, v, documents_BT), expected, atol=1e-6)


class OnCard(torch.Tensor):
    """A tensor that says it lies on a GPU, so that the way of a GPU is taken; what it is given to computes here."""

    device = torch.device("cuda")


def on_card(monkeypatch, q, k, v, *how):
    """Return attention as on a GPU, and what SDPA was told."""
    told = []
    real = F.scaled_dot_product_attention

    def record(q, k, v, **options):
        told.append((options["is_causal"], options["enable_gqa"], options["attn_mask"] is not None, k.shape[1]))
        return real(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return attend(q.as_subclass(OnCard), k, v, SCALE, *how).as_subclass(torch.Tensor), told


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [0, 7, 40, 99])
def test_the_way_of_a_gpu_that_does_not_compile_gives_the_same(monkeypatch, window, documents, kv_heads):
    q, k, v, documents_BT = inputs(40, kv_heads=kv_heads, documents=documents)
    theirs, told = on_card(monkeypatch, q, k, v, window, documents_BT)
    assert torch.allclose(theirs, plain_attention(q, k, v, SCALE, window, documents_BT), atol=1e-6)
    masked = bool(window) or documents
    assert told == [(not masked, False, masked, 4)]  # no kernel for float32 or masks knows groups of heads


def test_flash_attention_is_left_its_groups(monkeypatch):
    q, k, v = (x.bfloat16() for x in inputs(40)[:3])
    _, told = on_card(monkeypatch, q, k, v)
    assert told == [(True, True, False, 2)]


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize(("head_size", "expected"), [(16, "flex"), (8, "sdpa")])
@pytest.mark.parametrize("documents", [False, True])
def test_a_gpu_that_compiles_gets_flex_attention_where_its_kernel_takes_the_heads(
    monkeypatch, documents, head_size, expected
):
    called = []
    q, k, v, documents_BT = inputs(40, documents=documents)
    q, k, v = (x[..., :head_size] for x in (q, k, v))
    monkeypatch.setattr(attention, "flex", lambda q, *_: called.append("flex") or q)
    monkeypatch.setattr(attention, "fused_attention", lambda q, *_: called.append("sdpa") or q)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attend(q.as_subclass(OnCard), k, v, SCALE, 7, documents_BT)
    assert called == [expected]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize("base_width", [0, 16])
def test_every_family_attends_through_the_one_door(monkeypatch, family, base_width):
    window = 6 if family == "mistral" else 0
    kv_heads = 4 if family == "gpt2" else 2
    config = ModelConfig(family, 2, 4, kv_heads, 32, 64, 50, 24, window=window, base_width=base_width)
    asked = []

    def spy(q, k, v, scale, window, documents_BT):
        asked.append((q.shape[2], k.shape[2], scale, window, documents_BT is not None))
        return attend(q, k, v, scale, window, documents_BT)

    monkeypatch.setattr(gpt, "attend", spy)
    model = GPT(config)
    init_weights(model, 1)
    tokens = torch.randint(0, 50, (2, 24))
    model.loss(tokens, tokens, None, torch.zeros_like(tokens))
    scale = 32**0.5 / 8 if base_width else 8**-0.5
    assert asked == [(4, kv_heads, pytest.approx(scale), window, True)] * 2


def test_documents_in_one_row_are_read_as_if_alone():
    config = ModelConfig("llama", 2, 2, 1, 16, 32, 50, 24)
    for family in ("llama", "mistral"):
        model = GPT(dataclasses.replace(config, family=family, window=5 if family == "mistral" else 0)).eval()
        init_weights(model, 1)
        tokens = torch.randint(0, 50, (1, 24), generator=torch.Generator().manual_seed(0))
        documents = torch.tensor([[0] * 9 + [1] * 15])
        with torch.no_grad():
            both = model.hidden(tokens, documents)
            first, second = model.hidden(tokens[:, :9]), model.hidden(tokens[:, 9:])
        assert torch.allclose(both[:, :9], first, atol=1e-5)
        assert torch.allclose(both[:, 9:], second, atol=1e-5)  # rotary positions are relative
