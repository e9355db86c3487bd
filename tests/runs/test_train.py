"""Training: the same bits twice, the same bits after a resume, accumulation equal to the large batch."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ltm.errors import TrainError
from ltm.model.sizes import ModelConfig
from ltm.runs import checkpoint, train
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.schedule import learning_rate
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream

CONFIG = ModelConfig("llama", 2, 2, 2, 32, 64, 300, 16)
N_STEPS = 40
HALVES = [torch.float32, torch.bfloat16, torch.float16]


def stream():
    tokens = np.random.default_rng(0).integers(0, 50, 5000) * 2  # only even ids: something to learn
    return Stream(tokens, np.array([[0, 5000]], dtype=np.int64), 0)


def trainer(dtype=torch.float32, compiled=False, config=CONFIG, **changes):
    torch.set_num_threads(1)
    section = RunsSection(**{"batch_tokens": 64, "lr": 3e-3, **changes})
    engine = Engine(EngineSettings(config, "cpu", dtype, compiled, recompute=section.activation_checkpointing))
    return Trainer(section, engine, stream(), N_STEPS, init_seed=5)


def weights(t):
    return torch.cat([w.flatten() for w in t.scored_weights().values()])


def test_it_learns():
    t = trainer()
    t.run(lambda _: None)
    assert t.state.curve_loss[0] > math.log(300) - 0.2
    assert t.state.curve_loss[-1] < math.log(50) + 0.5
    assert t.state.curve_tokens[-1] == N_STEPS * 64


@pytest.mark.parametrize("dtype", HALVES)
def test_the_same_run_twice_gives_the_same_bits(dtype):
    one, two = trainer(dtype), trainer(dtype)
    one.run(lambda _: None)
    torch.randn(7)  # nothing may hang on the global generator, or on what else the process computes
    two.run(lambda _: None)
    assert torch.equal(weights(one), weights(two))
    assert one.state.curve_loss == two.state.curve_loss


def test_a_warm_engine_trains_the_next_run_as_a_cold_one_does():
    cold = trainer(torch.float16)
    cold.run(lambda _: None)
    used = trainer(torch.float16, lr=1e-1, optimizer="muon")
    used.run(lambda _: None)
    warm = Trainer(cold.section, used.engine, stream(), N_STEPS, init_seed=5)
    warm.run(lambda _: None)
    assert torch.equal(weights(cold), weights(warm))


RESUMED = [
    (1, torch.float32, {}),
    (17, torch.float32, {}),
    (33, torch.float32, {}),
    (39, torch.float32, {}),
    (23, torch.bfloat16, {"average": "ema", "average_share": 0.5, "micro_batch_tokens": 16}),
    (35, torch.bfloat16, {"optimizer": "muon", "schedule": "cosine"}),
    (9, torch.float32, {"optimizer": "muon", "micro_batch_tokens": 32, "document_mask": True}),
    (13, torch.float16, {"micro_batch_tokens": 32}),
    (37, torch.float16, {"optimizer": "muon", "average": "ema", "schedule": "constant"}),
]


@pytest.mark.parametrize(("stop_at", "dtype", "changes"), RESUMED)
def test_a_resumed_run_ends_with_the_bits_of_the_undisturbed_one(tmp_path, monkeypatch, stop_at, dtype, changes):
    monkeypatch.setattr(train, "_SCALE_GROWTH_STEPS", 7)  # so that a short run meets it on both sides of the stop
    monkeypatch.setattr(train, "FIRST_SCALE", 2.0**24)  # overflows at first
    whole, broken, resumed = (trainer(dtype, **changes) for _ in range(3))
    whole.run(lambda _: None)

    class Killed(Exception):
        pass

    def kill(t):
        if t.state.step == stop_at:
            checkpoint.save_checkpoint(tmp_path / "c", t)
            raise Killed

    with pytest.raises(Killed):
        broken.run(kill)
    assert checkpoint.load_checkpoint(tmp_path / "c", resumed)
    assert resumed.state.step == stop_at
    resumed.run(lambda _: None)
    assert torch.equal(weights(whole), weights(resumed))
    assert torch.equal(whole.weights.master_N, resumed.weights.master_N)
    assert whole.state.curve_loss == resumed.state.curve_loss
    assert (whole.state.loss_scale, whole.state.good_steps) == (resumed.state.loss_scale, resumed.state.good_steps)
    if dtype == torch.float16:
        assert whole.state.loss_scale != 2.0**24
        assert broken.state.good_steps > 0


def test_a_resumed_run_keeps_the_micro_batch_of_its_checkpoint(tmp_path):
    first = trainer(torch.bfloat16, micro_batch_tokens=16)
    checkpoint.save_checkpoint(tmp_path / "c", first)
    second = trainer(torch.bfloat16)
    assert checkpoint.load_checkpoint(tmp_path / "c", second)
    assert second.micro_tokens == 16


def test_a_damaged_checkpoint_is_dropped_and_the_run_starts_anew(tmp_path):
    t = trainer()
    checkpoint.save_checkpoint(tmp_path / "c", t)
    data = bytearray((tmp_path / "c").read_bytes())
    (tmp_path / "c").write_bytes(data[: len(data) // 2])
    assert not checkpoint.load_checkpoint(tmp_path / "c", t)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("changes", [{}, {"document_mask": True}], ids=["plain", "documents"])
def test_micro_batches_add_up_to_the_whole_batch(changes):
    whole, parts = trainer(**changes), trainer(micro_batch_tokens=16, **changes)
    losses = [float(t.accumulate()) for t in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(whole.weights.grad_N, parts.weights.grad_N, atol=1e-6)
    for t in (whole, parts):
        t.run(lambda _: None)
    assert whole.state.curve_loss == pytest.approx(parts.state.curve_loss, abs=1e-3)


def test_activation_checkpointing_changes_nothing_but_memory():
    plain, saving = trainer(), trainer(activation_checkpointing=True)
    assert float(plain.accumulate()) == float(saving.accumulate())
    assert torch.equal(plain.weights.grad_N, saving.weights.grad_N)
    calls = []
    saving.model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    saving.accumulate()
    assert len(calls) == 2  # once forward, once again in the backward pass


def test_documents_are_told_apart_by_their_start_marks():
    t, open_ended = trainer(document_mask=True), trainer()
    tokens = t._read(0)[:-1].view(-1, 16)
    assert 0 < int((tokens == 0).sum()) < tokens.numel()
    documents_BT = (tokens == 0).cumsum(1)
    expected = t.model.loss(tokens, t._read(0)[1:].view(-1, 16), None, documents_BT).item()
    assert float(t.accumulate()) == pytest.approx(expected, abs=1e-6)
    assert float(open_ended.accumulate()) != pytest.approx(expected, abs=1e-6)


def test_scored_weights_are_the_mean_of_the_last_steps():
    t = trainer(average_share=0.25, schedule="constant")
    seen = []
    t.run(lambda t: seen.append(t.weights.named(t.weights.master_N)["embed.weight"].clone()))
    expected = torch.stack(seen[-10:]).mean(0)
    assert torch.allclose(t.scored_weights()["embed.weight"], expected, atol=1e-6)
    plain = trainer(average_share=0.0)
    plain.run(lambda _: None)
    assert torch.equal(plain.scored_weights()["embed.weight"], plain.model.embed.weight)


def test_the_ema_forgets_at_the_stated_rate():
    t = trainer(average="ema", average_share=0.25, schedule="constant")
    seen = []
    t.run(lambda t: seen.append(t.weights.master_N.clone()))
    expected, keep = seen[0].clone(), math.exp(-1 / 10)  # 0.25 of 40 steps
    for count, now in enumerate(seen, start=1):
        expected.lerp_(now, max(1 / count, 1 - keep))
    assert torch.allclose(t.average_N, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step_and_its_tokens(dtype):
    t = trainer(dtype)

    def poison(t):
        if t.state.step == 11:
            t.weights.master_N[0] = float("nan")
            t.weights.publish()

    with pytest.raises(train.NotFinite, match="no longer finite at step 12 of 40") as error:
        t.run(poison)
    assert "tokens 704 to 768 of the stream" in str(error.value)
    assert (error.value.start, error.value.count) == (704, 64)
    assert "--set runs.lr=0.001" in str(error.value)


def test_a_learning_rate_that_is_far_too_high_ends_the_run():
    t = trainer(lr=1e30, warmup_share=0.0, clip_norm=1e30)
    with pytest.raises(TrainError, match="no longer finite at step"):
        t.run(lambda _: None)


def test_a_checkpoint_is_not_written_over_by_steps_that_are_not_finite(tmp_path, monkeypatch):
    monkeypatch.setitem(train._STEPS_UNSEEN, "cpu", 16)  # as on a GPU: losses are looked at late
    t = trainer()
    t._curve_every = 1000
    t.one_step()
    checkpoint.save_checkpoint(tmp_path / "c", t)
    kept = (tmp_path / "c").read_bytes()
    t.weights.master_N.fill_(float("nan"))
    t.one_step()
    with pytest.raises(train.NotFinite, match="step 2 of"):
        checkpoint.save_checkpoint(tmp_path / "c", t)
    assert (tmp_path / "c").read_bytes() == kept


def test_losses_that_are_read_late_are_the_same_losses(monkeypatch):
    one = trainer()
    one.run(lambda _: None)
    monkeypatch.setitem(train._STEPS_UNSEEN, "cpu", 16)
    late = trainer()
    late.run(lambda _: None)
    assert late.state.curve_loss == one.state.curve_loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parametrization", ["standard", "mup"])
def test_half_precision_stays_close_to_float32(dtype, parametrization):
    config = dataclasses.replace(CONFIG, base_width=16 if parametrization == "mup" else 0)
    one, two = trainer(config=config), trainer(dtype, config=config)
    one.run(lambda _: None)
    two.run(lambda _: None)
    assert one.state.curve_loss[-1] < one.state.curve_loss[0] - 0.5
    assert two.state.curve_loss[-1] == pytest.approx(one.state.curve_loss[-1], abs=0.05)


def _everything(t):
    return {k: v.clone() for k, v in {"w": t.weights.master_N, **t.optimizer.state()}.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_overflow_in_float16_leaves_out_the_step_and_halves_the_scale(optimizer):
    t = trainer(torch.float16, optimizer=optimizer)
    for _ in range(3):
        t.one_step()
    before, scale = _everything(t), 2.0**40
    t.state.loss_scale = scale
    while not torch.isfinite(torch.linalg.vector_norm(_gradients(t))):
        t.one_step()
        scale /= 2
        assert (t.state.loss_scale, t.state.good_steps) == (scale, 0)
        after = _everything(t)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
    assert scale < 2.0**40
    t.one_step()
    after = _everything(t)
    assert not any(torch.equal(before[k], after[k]) for k in before)
    assert (t.state.loss_scale, t.state.good_steps) == (scale, 1)
    t.run(lambda _: None)
    assert t.state.curve_loss[-1] < t.state.curve_loss[0]


def _gradients(t):
    t.accumulate()
    return t.weights.grad_N


def test_the_loss_scale_grows_after_many_good_steps(monkeypatch):
    monkeypatch.setattr(train, "_SCALE_GROWTH_STEPS", 8)
    monkeypatch.setattr(train, "FIRST_SCALE", 4.0)
    t = trainer(torch.float16)
    scales = []
    t.run(lambda t: scales.append(t.state.loss_scale))
    assert scales == [4.0 * 2 ** ((step + 1) // 8) for step in range(N_STEPS)]


def test_the_loss_scale_changes_no_gradient_but_the_tiny_ones():
    one, two = trainer(torch.float16), trainer(torch.float16)
    one.state.loss_scale, two.state.loss_scale = 2.0**10, 2.0**14
    a, b = _gradients(one) / 2.0**10, _gradients(two) / 2.0**14
    assert torch.allclose(a, b, atol=1e-5, rtol=2e-2)


def test_gradients_that_are_never_finite_end_a_float16_run():
    t = trainer(torch.float16)
    gather = t.weights.gather
    t.weights.gather = lambda gradients, add: gather([g * float("nan") for g in gradients], add)
    with pytest.raises(train.NotFinite, match=r"its gradient nan"):
        t.run(lambda _: None)
    assert torch.equal(t.weights.master_N, trainer(torch.float16).weights.master_N)


@pytest.mark.parametrize(
    ("schedule", "middle", "end"), [("constant", 1, 1), ("linear", 0.5, 0), ("cosine", 0.5, 0), ("wsd", 1, 0)]
)
def test_schedules(schedule, middle, end):
    section = RunsSection(lr=1.0, schedule=schedule, warmup_share=0.1, decay_share=0.2)
    rates = [learning_rate(section, s, 1000) for s in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100] == pytest.approx(1.0)
    assert rates[550] == pytest.approx(middle, abs=0.01)
    assert rates[999] == pytest.approx(end, abs=0.01)
    assert max(rates) <= 1.0


def test_saved_weights_load_back(tmp_path):
    from ltm.store import WorkFolder

    t = trainer()
    t.run(lambda _: None)
    work = WorkFolder(tmp_path)
    checkpoint.save_weights(work.path("runs", "r1", checkpoint.WEIGHTS), t.scored_weights(), CONFIG)
    model, block_size = checkpoint.load_model(work, "r1", "cpu")
    assert block_size == 16
    assert torch.equal(model.embed.weight, t.scored_weights()["embed.weight"])
    assert model.unembed.weight is model.embed.weight
