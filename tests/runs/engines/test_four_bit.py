"""A base in four bits, read piece by piece: the same bits as transformers make, in a fraction of the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltm.errors import InputError
from ltm.runs.engines import base_model, four_bit
from tiny_base import make_base

bnb = pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
SOME = torch.arange(40)[None] * 7 % 300


def by_transformers(folder: Path, dtype: torch.dtype) -> object:
    options = {"quantization_config": four_bit.quantization(dtype), "device_map": {"": "cpu"}}
    return base_model._whole(folder, dtype, "cpu", **options).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True, "attention_bias": True}), ("qwen3", {}), ("gemma", {})],
)
def test_the_bits_are_those_of_transformers(kind: str, changes: dict, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", kind, **changes)
    own, theirs = four_bit.load(folder, dtype, "cpu", "sdpa"), by_transformers(folder, dtype)
    assert own is not None
    pairs = dict(theirs.named_parameters())
    assert {name for name, _ in own.named_parameters()} == pairs.keys()
    n_quantised = 0
    for name, parameter in own.named_parameters():
        assert (parameter.dtype, parameter.shape) == (pairs[name].dtype, pairs[name].shape), name
        assert torch.equal(parameter, pairs[name]), name
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            n_quantised += 1
            assert torch.equal(state.absmax, pairs[name].quant_state.absmax)
            assert torch.equal(state.state2.absmax, pairs[name].quant_state.state2.absmax)
    assert n_quantised == 14
    with torch.no_grad():
        for model in (own, theirs):
            four_bit.exact_products(model)
        assert torch.equal(own(input_ids=SOME).logits, theirs(input_ids=SOME).logits)


def test_products_are_in_the_precision_that_was_asked_for_also_in_evaluation(tmp_path: Path) -> None:
    model = base_model.load_base(make_base(tmp_path / "base"), torch.float32, "cpu", four_bit=True).eval()
    layer = model.model.layers[0].mlp.up_proj
    exact = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    x = torch.randn(5, 64)
    with torch.no_grad():
        assert torch.allclose(layer(x), x @ exact.T, atol=1e-5)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    whole = four_bit.load(folder, torch.float32, "cpu", "sdpa")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[:9], names[9:])):
        save_file({n: tensors[n] for n in part}, folder / f"part-{number}.safetensors", {"format": "pt"})
        places |= dict.fromkeys(part, f"part-{number}.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    parts = four_bit.load(folder, torch.float32, "cpu", "sdpa")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    (folder / "part-1.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="damaged"):
        four_bit.load(folder, torch.float32, "cpu", "sdpa")


def test_models_of_another_build_are_left_to_transformers(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "gpt2")  # its matrices are stored the other way round
    assert four_bit.load(folder, torch.float32, "cpu", "sdpa") is None
    model = base_model.load_base(folder, torch.float32, "cpu", four_bit=True)
    assert sum(isinstance(module, bnb.nn.Linear4bit) for module in model.modules()) == 8


@pytest.mark.parametrize("four_bit_too", [False, True])
def test_weights_that_are_not_the_configs_are_refused_and_never_made_up(four_bit_too: bool, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    values = json.loads((folder / "config.json").read_text())
    for change, words in (({"num_hidden_layers": 3}, "9 are missing"), ({"intermediate_size": 96}, "shape")):
        (folder / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(InputError, match=words):
            base_model.load_base(folder, torch.float32, "cpu", four_bit=four_bit_too)


@pytest.mark.slow
def test_qlora_takes_less_than_half_the_memory_of_lora(tmp_path: Path) -> None:
    """174M parameters; a minute and a half of processor time."""
    bench = Path(__file__).parents[3] / "bench" / "tune_costs.py"
    found = {}
    for way in ("lora, checkpointing", "lora, checkpointing, memory given back", "qlora, checkpointing"):
        command = [sys.executable, "-W", "ignore", str(bench), "--peak", way, "--work", str(tmp_path)]
        make_bench_base(tmp_path)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])["beyond_libraries"]
    lora, lean, qlora = found.values()
    assert qlora <= 0.45 * min(lora, lean)


def make_bench_base(work: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
    import tune_costs

    tune_costs.make_base(work / "base")
