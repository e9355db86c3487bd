"""Flat weights and their optimizers equal PyTorch's on separate parameters; muP keeps activations at their size."""

import copy
import dataclasses

import pytest
import torch

from ltm.model.gpt import GPT
from ltm.model.init import initial_weights, parameter_groups
from ltm.model.loss import linear_cross_entropy
from ltm.model.optimizer import Optimizer, OptimizerSettings
from ltm.model.sizes import ModelConfig
from ltm.model.weights import FlatWeights

CONFIG = ModelConfig("gpt2", 2, 2, 2, 16, 32, 50, 12, base_width=8)  # positions, biases, norms; learning rates differ
ADAMW = OptimizerSettings("adamw", 0.9, 0.95, 0.3)
ONE = torch.ones(())
TOKENS = torch.randint(0, 50, (8, 13), generator=torch.Generator().manual_seed(0))


def made(config=CONFIG, dtype=torch.float32):
    model = GPT(config)
    weights = FlatWeights(model, dtype)
    weights.fill(initial_weights(model, 1))
    return model, weights


def gradients(model, tokens=TOKENS, scale=ONE):
    loss = model.loss(tokens[:, :-1], tokens[:, 1:], scale)
    return loss.item() if not loss.requires_grad else loss.detach().item(), loss


def step(model, weights, optimizer, lr, tokens=TOKENS, clip=1.0):
    value, loss = gradients(model, tokens)
    weights.gather(torch.autograd.grad(loss, weights.parameters), add=False)
    norm = torch.linalg.vector_norm(weights.grad_N)
    optimizer.step(lr, (norm / clip).clamp(min=1.0))
    return value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_multiplies_with_the_rounded_buffer(dtype):
    model, weights = made(dtype=dtype)
    total = sum(p.numel() for p in model.parameters())
    assert weights.master_N.shape == weights.compute_N.shape == weights.grad_N.shape == (total,)
    storage = weights.compute_N.untyped_storage()
    for parameter in model.parameters():
        assert parameter.dtype == dtype
        assert parameter.untyped_storage().data_ptr() == storage.data_ptr()
    weights.master_N.copy_(torch.randn(total))
    weights.publish()
    for name, value in weights.named(weights.master_N).items():
        assert torch.equal(model.get_parameter(name), value.to(dtype))
    assert [s.end for s in weights.segments][-1] == total
    assert [s.start for s in weights.segments] == [0, *(s.end for s in weights.segments[:-1])]
    assert model.unembed.weight is model.embed.weight


def test_gradients_add_up():
    model, weights = made()
    _, loss = gradients(model)
    parts = torch.autograd.grad(loss, weights.parameters)
    weights.gather(parts, add=False)
    weights.gather(parts, add=True)
    held = weights.named(weights.grad_N)
    assert all(torch.equal(held[n], 2 * g) for n, g in zip(weights.names, parts, strict=True))


def reference(model, settings, lr, muon=False):
    """Torch's optimizers over separate parameters, by the rules that init.py states."""
    ratio = model.config.width_ratio
    parts = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and name.startswith("blocks")
        if muon and matrix:
            options = {"lr": lr / ratio**0.5, "weight_decay": settings.weight_decay * ratio**0.5}
            parts.append(torch.optim.Muon([parameter], momentum=0.95, adjust_lr_fn="match_rms_adamw", **options))
            continue
        scale = 1 / ratio if matrix else 1.0
        decay = settings.weight_decay / scale if parameter.ndim == 2 else 0.0
        betas = (settings.beta1, settings.beta2)
        parts.append(torch.optim.AdamW([parameter], lr=lr * scale, betas=betas, eps=1e-8, weight_decay=decay))
    return parts


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("base_width", [0, 8])
def test_steps_equal_those_of_pytorch_on_separate_parameters(name, base_width):
    config = dataclasses.replace(CONFIG, base_width=base_width)
    settings = dataclasses.replace(ADAMW, name=name)
    ours, weights = made(config)
    theirs = GPT(config)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    optimizer, parts = Optimizer(weights, settings), reference(theirs, settings, 3e-3, name == "muon")
    for _ in range(5):
        _, loss = gradients(ours)
        weights.gather(torch.autograd.grad(loss, weights.parameters), add=False)
        for key, gradient in weights.named(weights.grad_N.clone()).items():
            theirs.get_parameter(key).grad = gradient
        divisor = torch.linalg.vector_norm(weights.grad_N) / 0.1
        expected = {n: p.grad / divisor for n, p in theirs.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        assert norm > 0.1  # else clipping was not looked at
        for key, parameter in theirs.named_parameters():
            assert torch.allclose(parameter.grad, expected[key], rtol=1e-4)
            parameter.grad = expected[key]  # to the last bit: Muon works in bfloat16
        optimizer.step(3e-3, divisor)
        for part in parts:
            part.step()
    for parameter_name, parameter in theirs.named_parameters():
        close = torch.allclose(ours.get_parameter(parameter_name), parameter, atol=3e-7)
        assert close, parameter_name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_decay_and_by_the_same_share_at_every_width(name):
    for base_width in (0, 4, 16):
        model, weights = made(dataclasses.replace(CONFIG, base_width=base_width))
        before = {k: v.clone() for k, v in weights.named(weights.master_N).items()}
        optimizer = Optimizer(weights, dataclasses.replace(ADAMW, name=name))
        optimizer.step(0.01, ONE)  # gradients are 0: what moves, decays
        for key, value in weights.named(weights.master_N).items():
            expected = before[key] * (1 - 0.01 * 0.3 if value.ndim == 2 else 1.0)
            assert torch.allclose(value, expected, atol=1e-7), key
    assert {n for g in parameter_groups(model) if not g.decayed for n in g.names} == {
        n for n, p in model.named_parameters() if p.ndim == 1
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_marked_overflow_changes_nothing(name):
    model, weights = made()
    optimizer = Optimizer(weights, dataclasses.replace(ADAMW, name=name))
    step(model, weights, optimizer, 1e-2)
    before = {k: v.clone() for k, v in {"w": weights.master_N, **optimizer.state()}.items()}
    weights.grad_N.fill_(float("inf"))
    optimizer.step(1e-2, ONE, torch.ones(()))
    after = {"w": weights.master_N, **optimizer.state()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    weights.grad_N.fill_(1.0)
    optimizer.step(1e-2, ONE, torch.zeros(()))
    assert not torch.equal(before["w"], weights.master_N)


def test_a_loss_scale_saves_what_float16_would_round_to_nothing():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(4096, 16, generator=g), torch.randn(4096, 16, generator=g) * 0.02
    targets = torch.randint(0, 2048, (4096,), generator=g)

    def grads(dtype, scale):
        a, b = (t.to(dtype, copy=True).requires_grad_() for t in (x, w))
        linear_cross_entropy(a, b, targets, torch.tensor(scale)).backward()
        return a.grad.float() / scale, b.grad.float() / scale

    exact, plain, scaled = grads(torch.float32, 1.0), grads(torch.float16, 1.0), grads(torch.float16, 2.0**16)
    unseen = torch.ones(4096, dtype=torch.bool)
    unseen[targets] = False  # rows whose gradient is made of p / N alone, about 6e-8
    error = [float((g[1][unseen] - exact[1][unseen]).norm() / exact[1][unseen].norm()) for g in (plain, scaled)]
    assert error[1] < 0.01
    assert error[0] > 0.05
    assert (scaled[0] - exact[0]).norm() < 0.01 * exact[0].norm()


WIDTHS = (32, 64, 128, 256)


def changes(config, optimizer_name, n_steps=4, lr=1e-2, matrices_only=False):
    """How far a few steps move attention scores, block outputs and logits: mean absolute values, heads of 16.

    Of the logits the right token's: in narrow models the others move by chance, because tokens' vectors overlap.
    """
    model, weights = made(config)
    optimizer = Optimizer(weights, OptimizerSettings(optimizer_name, 0.9, 0.95, 0.1))
    seen = {}

    def scores(_module, _inputs, y):
        H, K = config.n_head, config.n_kv_head
        q, k, _ = y.unflatten(-1, (-1, config.head_size)).split([H, K, K], dim=2)
        seen["scores"] = torch.einsum("bthc,bshc->bhts", q, k) * config.attention_scale

    last = model.blocks[-1]
    last.attention.qkv.register_forward_hook(scores)
    last.attention.register_forward_hook(lambda _m, _i, y: seen.update(attention=y))
    last.mlp.register_forward_hook(lambda _m, _i, y: seen.update(mlp=y))
    last.register_forward_hook(lambda _m, _i, y: seen.update(block=y))

    def look():
        with torch.no_grad():
            seen["logits"] = model(TOKENS[:, :-1])
        return dict(seen)

    before = look()
    begin_N = weights.master_N.clone()
    for _ in range(n_steps):
        step(model, weights, optimizer, lr)
    if matrices_only:
        for segment in weights.segments[1:]:
            weights.master_N[segment.start : segment.end] = begin_N[segment.start : segment.end]
        weights.publish()
    moved = {key: value - before[key] for key, value in look().items()}
    logits = moved.pop("logits")
    moved["right_logit"] = logits.gather(2, TOKENS[:, 1:, None]).squeeze(2) - logits.mean(2)
    return {key: value.abs().mean().item() for key, value in moved.items()}


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_coordinate_check(name, family, tied):
    """Yang et al., Tensor Programs V, appendix D.1: under muP a step moves all activations equally far at every width
    (within a factor of 1.8 from 32 to 256); in the standard parametrisation wider models move further."""
    ratios = {}
    for base in (32, 0):
        rows = []
        for width in WIDTHS:
            heads, hidden = width // 16, width * (4 if family == "gpt2" else 2)
            shape = ModelConfig(family, 2, heads, heads, width, hidden, 50, 12, tie_embeddings=tied, base_width=base)
            rows.append(changes(shape, name))
        ratios[base] = {key: [row[key] / rows[0][key] for row in rows] for key in rows[0]}
    for key, change in ratios[32].items():
        assert min(change) > 1 / 1.8, (key, change)
        assert max(change) < 1.8, (key, change)
    growth = ratios[0]["block"]
    assert growth == sorted(growth)
    assert growth[-1] > (5.0 if name == "adamw" else 1.4)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_what_the_matrices_learn_moves_every_width_equally_far(name):
    """The same with embeddings put back, whose own steps would hide matrices that learn too slowly."""
    rows = []
    for width in WIDTHS:
        shape = ModelConfig("llama", 2, width // 16, width // 16, width, 2 * width, 50, 12, base_width=32)
        rows.append(changes(shape, name, matrices_only=True))
    for key in ("scores", "attention", "mlp", "block"):
        change = [row[key] / rows[0][key] for row in rows]
        assert min(change) > 1 / 1.8, (key, change)
        assert max(change) < 1.8, (key, change)
