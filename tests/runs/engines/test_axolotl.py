"""Axolotl as an engine: only keys that it knows, the stream in its order, and, where it is installed, a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML

from ltm.errors import ConfigError, InputError
from ltm.model.section import ModelSection
from ltm.runs.engines import axolotl, axolotl_run, base_model
from ltm.runs.queue import Recipe
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection
from tiny_base import make_base

BLOCK, STEPS, BATCH = 64, 6, 256


class Tokens:
    bos_id = 0

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(3).integers(0, 320, BATCH * STEPS + 1)

    def read(self, start: int, count: int) -> np.ndarray:
        return self.tokens[start : start + count]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def recipe(base: Path, **changes: object) -> Recipe:
    values = {"engine": "axolotl", "method": "lora", "lr": 1e-3, "batch_tokens": BATCH, "micro_batch_tokens": 128}
    sets = SetsSection(books_per_set=6, book_tokens=BATCH, epochs=1, passage_tokens=64)
    model = ModelSection(base=str(base), block_size=BLOCK)
    return Recipe(sets, model, RunsSection(**(values | changes)))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
@pytest.mark.parametrize("parallel", ["none", "fsdp", "zero2"])
def test_every_key_that_is_written_is_one_of_axolotls(base: Path, method: str, schedule: str, parallel: str) -> None:
    shared = {"parallel": parallel, "processes_per_run": 1 if parallel == "none" else 2}
    section = recipe(base, method=method, schedule=schedule, **shared).runs
    values = axolotl.config_of(section, str(base), BLOCK, STEPS, 1, "cpu", "float32")
    assert set(values) <= axolotl.known_keys()
    assert len(axolotl.known_keys()) > 300
    order = ("curriculum_sampling", "shuffle_merged_datasets", "sample_packing", "group_by_length")
    assert [values[key] for key in order] == [True, False, False, False]


def test_a_key_that_axolotl_would_pass_over_is_refused(base: Path) -> None:
    section = recipe(base, axolotl={"lora_rr": 4, "nonsense_of_mine": 1}).runs
    with pytest.raises(ConfigError) as error:
        axolotl.config_of(section, str(base), BLOCK, STEPS, 1, "cpu", "float32")
    assert "did you mean `lora_r`" in error.value.problems[0]
    assert "nonsense_of_mine" in error.value.problems[1]


def test_the_users_own_settings_win(base: Path) -> None:
    section = recipe(base, axolotl={"logging_steps": 7}).runs
    assert axolotl.config_of(section, str(base), BLOCK, STEPS, 1, "cuda", "bfloat16")["logging_steps"] == 7


def test_rows_hold_the_stream_in_order_and_predict_every_token_once(base: Path, tmp_path: Path) -> None:
    stream = Tokens()
    config = axolotl.write_inputs(tmp_path, recipe(base), stream, 1, "cpu", "float32")
    rows = pq.read_table(tmp_path / axolotl.STREAM)
    ids = np.array(rows["input_ids"].to_pylist())
    assert ids.shape == (BATCH * STEPS // BLOCK, BLOCK + 1)
    assert ids[:, 1:].flatten().tolist() == stream.tokens[1:].tolist()  # what is predicted: all but the first, once
    assert rows["labels"].equals(rows["input_ids"])
    assert YAML(typ="safe").load(config.read_text())["max_steps"] == STEPS
    assert str(tmp_path) not in config.read_text()


def test_without_axolotl_its_install_line_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LTM_AXOLOTL", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        axolotl.command()
    assert "make axolotl-env" in str(error.value.hint)


@pytest.mark.slow
def test_axolotl_trains_the_batches_in_their_order_and_its_adapters_load(base: Path, tmp_path: Path) -> None:
    """At a learning rate of nearly 0 each step's loss is the base model's loss on that batch of the stream."""
    try:
        axolotl.command()
    except InputError as error:
        pytest.skip(str(error))
    stream = Tokens()
    study = recipe(base, lr=1e-9, schedule="constant", warmup_share=0.0, device="cpu", dtype="float32")
    state, micro, device, _ = axolotl_run.train(tmp_path, study, stream, 1, lambda: False)
    model = base_model.read_model(base, torch.float32, "cpu").eval()
    expected = []
    for step in range(STEPS):
        tokens = torch.from_numpy(stream.read(step * BATCH, BATCH + 1))
        with torch.no_grad():
            logits = model(input_ids=tokens[:-1].view(-1, BLOCK)).logits
        expected.append(float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:])))
    assert state.curve_loss == pytest.approx(expected, abs=2e-4)
    assert min(abs(a - b) for i, a in enumerate(expected) for b in expected[:i]) > 4e-4  # no two could be exchanged
    assert state.curve_tokens == [BATCH * (i + 1) for i in range(STEPS)]
    assert (micro, device) == (128, "cpu")
    assert state.seconds > 0
    assert (tmp_path / base_model.ADAPTER / "adapter_model.safetensors").is_file()
    assert not (tmp_path / axolotl_run.FOLDER / axolotl.OUT).exists()
