"""The Hugging Face engine: the exact stream, exact resumption, and the same steps however a run is shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_base import make_base

pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from ltm.errors import InputError
from ltm.model.section import ModelSection
from ltm.runs.engines import base_model
from ltm.runs.engines.group import Group
from ltm.runs.engines.hf import HfTrainer
from ltm.runs.section import LoraSection, RunsSection

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
BLOCK, STEPS = 64, 8


class Tokens:
    """A stream of known tokens that remembers what was read of it."""

    bos_id = 0

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(3).integers(0, 320, 512 * STEPS + 1)
        self.read_from: list[tuple[int, int]] = []

    def read(self, start: int, count: int) -> np.ndarray:
        self.read_from.append((start, count))
        return self.tokens[start : start + count]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def section(method: str, dtype: str = "float32", **changes: object) -> RunsSection:
    values = {"engine": "hf", "method": method, "lr": 2e-3, "batch_tokens": 512, "dtype": dtype}
    return RunsSection(**(values | changes))


def trainer(base: Path, settings: RunsSection, micro: int = 256, seed: int = 1) -> HfTrainer:
    dtype = getattr(torch, settings.dtype)
    model = base_model.prepare(settings, base, dtype, "cpu", seed)
    return HfTrainer(settings, model, Tokens(), STEPS, BLOCK, micro, dtype, Group("none", "cpu"))


@pytest.mark.parametrize(
    ("method", "dtype"),
    [("full", "float32"), ("full", "float16"), ("lora", "bfloat16"), ("qlora", "bfloat16")],
)
def test_a_run_that_is_taken_up_again_ends_with_the_same_bits(
    base: Path, tmp_path: Path, method: str, dtype: str
) -> None:
    whole = trainer(base, section(method, dtype))

    def keep(running: HfTrainer) -> None:
        if running.state.step == 3:
            running.save_checkpoint(tmp_path / "checkpoint")

    whole.run(keep)
    resumed = trainer(base, section(method, dtype), seed=2)  # other adapters, until the checkpoint is read
    assert resumed.load_checkpoint(tmp_path / "checkpoint")
    resumed.run(lambda _: None)
    assert resumed.state.curve_loss == whole.state.curve_loss
    assert len(whole.trained) > 10
    for one, two in zip(whole.trained, resumed.trained, strict=True):
        assert torch.equal(one, two)


def test_a_damaged_checkpoint_is_no_checkpoint(base: Path, tmp_path: Path) -> None:
    running = trainer(base, section("lora"))
    running.save_checkpoint(tmp_path / "checkpoint")
    data = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(data[: len(data) // 2])
    assert not running.load_checkpoint(tmp_path / "checkpoint")
    assert not running.load_checkpoint(tmp_path / "nothing")


def test_the_model_sees_the_stream_in_its_order_and_nothing_else(base: Path) -> None:
    running = trainer(base, section("full"), micro=128)
    seen: list[torch.Tensor] = []
    base_model.parts(running.model)[0].register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"].flatten().clone()), with_kwargs=True
    )
    running.run(lambda _: None)
    assert torch.cat(seen).tolist() == running.stream.tokens[: 512 * STEPS].tolist()


def test_micro_batches_add_up_to_the_batch(base: Path) -> None:
    losses = []
    for micro in (512, 64):
        running = trainer(base, section("full"), micro=micro)
        running.run(lambda _: None)
        losses.append(running.state.curve_loss)
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def test_adapters_alone_are_trained_and_kept_and_load_in_stock_peft(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    running = trainer(base, section("lora", lora=LoraSection(rank=4)))
    frozen = {n: p.clone() for n, p in running.model.named_parameters() if not p.requires_grad}
    running.run(lambda _: None)
    assert all(torch.equal(p, frozen[n]) for n, p in running.model.named_parameters() if not p.requires_grad)
    running.save_result(tmp_path, base.name)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == base.name
    stock = PeftModel.from_pretrained(base_model.read_model(base, torch.float32, "cpu"), tmp_path / "adapter").eval()
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        expected = running.model.eval()(input_ids=tokens).logits
        assert torch.equal(stock(input_ids=tokens).logits, expected)
    untuned = base_model.read_model(base, torch.float32, "cpu").eval()
    with torch.no_grad():
        assert not torch.allclose(untuned(input_ids=tokens).logits, expected, atol=1e-3)


def test_four_bits_are_four_bits(base: Path) -> None:
    import bitsandbytes as bnb

    model = base_model.prepare(section("qlora", "bfloat16"), base, torch.bfloat16, "cpu", 1)
    matrices = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(matrices) == 14
    state = matrices[0].weight.quant_state
    assert (state.quant_type, state.nested, state.blocksize) == ("nf4", True, 64)
    assert matrices[0].weight.numel() * 2 == 64 * 64  # two entries a byte


def test_targets_that_no_layer_is_called_are_named(base: Path) -> None:
    with pytest.raises(InputError, match="runs.lora.targets"):
        base_model.prepare(section("lora", lora=LoraSection(targets=["nose"])), base, torch.float32, "cpu", 1)


_SHARED = """
import json, sys, torch
from pathlib import Path
sys.path[:0] = [{tests!r}, {engines!r}]
import test_hf
from ltm.runs.engines.group import Group
from ltm.runs.engines.hf import HfTrainer
from ltm.runs.engines.zero2 import Zero2Trainer
from ltm.runs.engines import base_model

kind, method, base, out = sys.argv[1:]
settings = test_hf.section(method, parallel=kind, processes_per_run=2)
group = Group(kind, "cpu")

def make(seed):
    model = base_model.prepare(settings, Path(base), torch.float32, "cpu", seed)
    made = Zero2Trainer if kind == "zero2" else HfTrainer
    return made(settings, model, test_hf.Tokens(), test_hf.STEPS, test_hf.BLOCK, 256, torch.float32, group)

def keep(running):
    if running.state.step == 3:
        running.save_checkpoint(Path(out) / "checkpoint")

whole = make(1)
whole.run(keep)
whole.save_result(Path(out), Path(base).name)
again = make(2)
loaded = again.load_checkpoint(Path(out) / "checkpoint")
again.run(lambda _: None)
if group.rank == 0:
    Path(out, "losses.json").write_text(json.dumps([whole.state.curve_loss, again.state.curve_loss, loaded]))
group.leave()
"""


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("fsdp", "full"),
        pytest.param("ddp", "lora", marks=pytest.mark.slow),
        pytest.param("ddp", "full", marks=pytest.mark.slow),
        pytest.param("fsdp", "lora", marks=pytest.mark.slow),
        pytest.param("zero2", "full", marks=pytest.mark.slow),  # DeepSpeed compiles for two minutes once
        pytest.param("zero2", "lora", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_what_one_trains(base: Path, tmp_path: Path, kind: str, method: str) -> None:
    if kind == "zero2":
        pytest.importorskip("deepspeed")
    alone = trainer(base, section(method))
    alone.run(lambda _: None)
    script = tmp_path / "shared_run.py"
    here = Path(__file__).parent
    script.write_text(_SHARED.format(tests=str(here.parents[1]), engines=str(here)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, kind, method, str(base), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, again, loaded = json.loads((tmp_path / "losses.json").read_text())
    assert loaded
    assert whole == pytest.approx(alone.state.curve_loss, abs=1e-5)
    assert again == whole
    kept = base_model.MODEL if method == "full" else base_model.ADAPTER
    assert (tmp_path / kept).is_dir()


@pytest.mark.parametrize("size", ["llama-0.5m", "mistral-0.5m", "gpt2-0.5m"])
def test_a_shape_without_a_base_has_the_parameters_of_ltms_own_decoder(size: str) -> None:
    shape = ModelSection(size=size, parametrization="standard").shape(500)
    assert sum(p.numel() for p in base_model.from_shape(shape, 1).parameters()) == shape.n_params
    with pytest.raises(InputError, match="muP"):
        base_model.from_shape(ModelSection(size=size).shape(500), 1)
