"""Training: the same bits twice, the same bits after a resume, accumulation equal to the large batch."""

import math

import numpy as np
import pytest
import torch

from ltm.errors import TrainError
from ltm.model.sizes import ModelConfig
from ltm.runs import checkpoint
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.schedule import learning_rate
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream

CONFIG = ModelConfig("llama", 2, 2, 2, 32, 64, 300, 16)
N_STEPS = 40


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


def test_the_same_run_twice_gives_the_same_bits():
    one, two = trainer(), trainer()
    one.run(lambda _: None)
    two.run(lambda _: None)
    assert torch.equal(weights(one), weights(two))
    assert one.state.curve_loss == two.state.curve_loss


@pytest.mark.parametrize("stop_at", [1, 17, 33, 39])
def test_a_resumed_run_ends_with_the_bits_of_the_undisturbed_one(tmp_path, stop_at):
    whole = trainer()
    whole.run(lambda _: None)
    broken = trainer()

    class Killed(Exception):
        pass

    def kill(t):
        if t.state.step == stop_at:
            checkpoint.save_checkpoint(tmp_path / "c", t)
            raise Killed

    with pytest.raises(Killed):
        broken.run(kill)
    resumed = trainer()
    assert checkpoint.load_checkpoint(tmp_path / "c", resumed)
    assert resumed.state.step == stop_at
    resumed.run(lambda _: None)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.state.curve_loss == resumed.state.curve_loss


def test_a_damaged_checkpoint_is_dropped_and_the_run_starts_anew(tmp_path):
    t = trainer()
    checkpoint.save_checkpoint(tmp_path / "c", t)
    data = bytearray((tmp_path / "c").read_bytes())
    (tmp_path / "c").write_bytes(data[: len(data) // 2])
    assert not checkpoint.load_checkpoint(tmp_path / "c", t)
    assert not (tmp_path / "c").exists()


def test_micro_batches_add_up_to_the_whole_batch():
    whole, parts = trainer(), trainer(micro_batch_tokens=16)
    losses = [float(t.accumulate()) for t in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(whole.weights.grad_N, parts.weights.grad_N, atol=1e-6)


def test_scored_weights_are_the_mean_of_the_last_steps():
    t = trainer(average_share=0.25, schedule="constant")
    seen = []
    t.run(lambda t: seen.append(t.weights.named(t.weights.master_N)["embed.weight"].clone()))
    expected = torch.stack(seen[-10:]).mean(0)
    assert torch.allclose(t.scored_weights()["embed.weight"], expected, atol=1e-6)
    plain = trainer(average_share=0.0)
    plain.run(lambda _: None)
    assert torch.equal(plain.scored_weights()["embed.weight"], plain.model.embed.weight)


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step():
    t = trainer(lr=1e30, warmup_share=0.0, clip_norm=1e30)
    with pytest.raises(TrainError, match="no longer finite at step"):
        t.run(lambda _: None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_float32(dtype):
    one, two = trainer(), trainer(dtype=dtype)
    one.run(lambda _: None)
    two.run(lambda _: None)
    assert two.state.curve_loss[-1] == pytest.approx(one.state.curve_loss[-1], abs=0.05)


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
