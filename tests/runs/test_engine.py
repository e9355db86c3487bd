"""The engine: flat weights behind the model, and compiled code that is made once, kept, and trained by to the bit."""

import os
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from ltm.model.gpt import GPT
from ltm.model.init import initial_weights
from ltm.model.sizes import ModelConfig
from ltm.runs import checkpoint
from ltm.runs.engine import Engine, EngineSettings, compiled_folder, keep_compiled_code
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.tokens.stream import Stream

CONFIG = ModelConfig("llama", 1, 1, 1, 16, 32, 64, 16)


def stream(n_tokens=2000):
    tokens = np.random.default_rng(0).integers(0, 64, n_tokens)
    return Stream(tokens, np.array([[0, n_tokens]], dtype=np.int64), 0)


def batch(rows=2):
    tokens = torch.randint(0, 64, (rows, 17), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_gradients_are_those_of_a_plain_model_in_the_order_of_the_flat_weights(family, tied):
    config = ModelConfig(family, 2, 2, 2, 16, 32, 64, 16, window=5 if family == "mistral" else 0, tie_embeddings=tied)
    engine = Engine(EngineSettings(config, "cpu", torch.float32))
    engine.weights.fill(initial_weights(engine.model, 1))
    tokens_BT, targets_BT = batch()
    loss, gradients = engine.gradients(tokens_BT, targets_BT, torch.tensor(4.0), None)
    engine.weights.gather(gradients, add=False)
    plain = torch.nn.functional.cross_entropy(engine.model(tokens_BT).flatten(0, 1), targets_BT.flatten())
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    held = engine.weights.named(engine.weights.grad_N)
    for name, parameter in engine.model.named_parameters():
        assert torch.allclose(held[name], 4 * parameter.grad, atol=1e-6), name


@pytest.fixture
def compiled_code(tmp_path, monkeypatch):
    """An empty folder for compiled code: nothing is taken from what other tests compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules
def test_a_compiled_run_repeats_resumes_and_agrees_with_the_eager_one(compiled_code, tmp_path):
    section = RunsSection(batch_tokens=32, lr=3e-3)
    eager, compiled = (Engine(EngineSettings(CONFIG, "cpu", torch.bfloat16, c)) for c in (False, True))
    weights = []

    def stop_at_9(t):
        if t.state.step == 9:
            checkpoint.save_checkpoint(tmp_path / "c", t)

    for engine in (eager, compiled, compiled):
        trainer = Trainer(section, engine, stream(), 20, init_seed=3)
        trainer.run(stop_at_9 if engine is compiled else lambda _: None)
        weights.append(trainer.weights.master_N.clone())
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])  # else nothing was compiled
    assert (weights[0] - weights[1]).abs().mean() < 1e-3  # of weights that moved by 20 steps of about 3e-3
    resumed = Trainer(section, compiled, stream(), 20, init_seed=8)
    assert checkpoint.load_checkpoint(tmp_path / "c", resumed)
    resumed.run(lambda _: None)
    assert torch.equal(resumed.weights.master_N, weights[2])
    assert len(list(compiled_code.glob("*.done"))) == 1


class CountedEngine(Engine):
    """An engine whose loss takes a while the first time, as if it were compiled."""

    inside, most, calls = 0, 0, 0

    def _gradients(self, *_):
        kind = type(self)
        kind.inside += 1
        kind.calls += 1
        kind.most = max(kind.most, kind.inside)
        time.sleep(0.1)
        kind.inside -= 1
        return torch.zeros(()), ()


def test_one_worker_compiles_a_shape_while_the_others_wait(compiled_code):
    engines = [CountedEngine(EngineSettings(CONFIG, "cpu", torch.float32, True)) for _ in range(3)]
    work = [threading.Thread(target=e.gradients, args=(*batch(), torch.ones(()), None)) for e in engines]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert (CountedEngine.calls, CountedEngine.most) == (3, 1)
    names = Counter(p.suffix for p in compiled_code.iterdir())
    assert names[".done"] == 1
    engines[0].gradients(*batch(4), torch.ones(()), None)  # another shape
    assert len(list(compiled_code.glob("*.done"))) == 2


def test_a_compilation_that_failed_is_not_marked_as_done(compiled_code):
    class Failing(Engine):
        def _gradients(self, *_):
            raise RuntimeError("no compiler")

    engine = Failing(EngineSettings(CONFIG, "cpu", torch.float32, True))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no compiler"):
            engine.gradients(*batch(), torch.ones(()), None)
    assert not list(compiled_code.glob("*.done"))


@pytest.fixture
def on_card(monkeypatch):
    """Say that an engine of this CPU is one of a GPU; what only a GPU has is left out."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    precision = torch.get_float32_matmul_precision()

    def claim(**settings):
        with monkeypatch.context() as patch:
            patch.setattr(GPT, "to", lambda model, *_: model)
            return Engine(EngineSettings(CONFIG, "cuda", torch.float32, **settings))

    yield claim
    torch.set_float32_matmul_precision(precision)


def test_a_gpu_is_told_to_sum_in_the_same_order_and_nothing_else_is(on_card, monkeypatch):
    seen = []
    engine = on_card()
    plain = engine._loss

    def watched(*arguments):
        seen.append(
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        )
        return plain(*arguments)

    monkeypatch.setattr(engine, "_loss", watched)
    engine.gradients(*batch(), torch.ones(()), None)
    assert seen == [(True, False)]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()  # scores are asked by the same process
    with pytest.raises(IndexError):
        engine.gradients(*(x + 1000 for x in batch()), torch.ones(()), None)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("tf32", "expected"), [(True, "tf32"), (False, "ieee")])
def test_tf32_is_switched_in_a_way_that_the_compiler_can_ask_for(on_card, tf32, expected):
    on_card(tf32=tf32)
    assert torch.backends.cuda.matmul.fp32_precision == expected
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")  # an error where both ways are mixed


def test_compiled_code_is_kept_beside_the_cache_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))
    assert tmp_path in compiled_folder().parents
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    keep_compiled_code()
    assert compiled_folder() == tmp_path / "mine"
