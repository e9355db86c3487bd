"""Base models: what is refused before anything is loaded, and what makes two of them the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ltm.errors import InputError
from ltm.model import base
from ltm.model.section import ModelSection
from tiny_base import make_base


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "base"))


def _change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_shape_is_the_folders_own(folder: Path) -> None:
    shape = ModelSection(base=str(folder), block_size=128).shape(0)
    assert (shape.n_layer, shape.n_head, shape.n_kv_head, shape.n_embd, shape.n_hidden) == (2, 4, 2, 64, 128)
    assert (shape.vocab_size, shape.block_size, shape.tie_embeddings) == (384, 128, False)
    assert ModelSection(base=str(folder), block_size=4096).shape(0).block_size == 256


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: _change(f, auto_map={"AutoModel": "code.py"}), "run its own code"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights in safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "as a pickle"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "not a JSON object"),
        (lambda f: (f / "config.json").unlink(), "no model folder"),
        (lambda f: _change(f, num_hidden_layers=None), "num_hidden_layers"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(folder: Path, break_it: object, said: str) -> None:
    break_it(folder)  # type: ignore[operator]
    with pytest.raises(InputError, match=said):
        base.read_base(folder)


def test_a_base_is_known_by_its_contents_and_not_by_its_place(folder: Path, tmp_path: Path) -> None:
    first = base.identity(folder)
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert base.identity(moved) == first
    outcome = ModelSection(base=str(moved)).outcome()
    assert outcome["base"] == first
    assert str(tmp_path) not in json.dumps(outcome)
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model.safetensors").write_bytes(data)
    assert base.identity(moved) != first


def test_a_licence_without_derivatives_is_seen(folder: Path) -> None:
    assert not base.read_base(folder).forbids_derivatives
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n# a model\n")
    assert base.read_base(folder).licence == "cc-by-nc-nd-4.0"
    assert base.read_base(folder).forbids_derivatives
