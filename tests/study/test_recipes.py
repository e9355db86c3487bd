"""The recipes: each is a sound study, can be priced for the workstation's card, and runs small with one flag."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ltm
from ltm.errors import InputError
from ltm.progress import Progress

FOLDER = Path(__file__).parents[2] / "studies" / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if "sources:" not in path.read_text())
CARDS = {"pretrain_7b_multi_gpu": 8}
quiet = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def test_the_recipes_that_are_promised_are_there() -> None:
    promised = {"adapt_books", "lora_7b", "pretrain_125m", "pretrain_1b3", "pretrain_7b_multi_gpu", "qlora_3b"}
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_sound_and_fits_the_card(name: str) -> None:
    study = ltm.load(FOLDER / f"{name}.yaml")
    assert study.check() == []
    plan = study.plan_card("RTX PRO 6000", CARDS.get(name, 1))
    assert plan["memory_gib"]["value"] < 96
    assert plan["hours"]["low"] < plan["hours"]["value"] < plan["hours"]["high"]
    assert plan["hours"]["value"] > plan["run_hours"]["value"]
    first = (FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    assert re.match(r"# .*\?$", first)  # one file = one question, on its first line


def test_fewer_cards_than_a_run_needs_is_said() -> None:
    study = ltm.load(FOLDER / "pretrain_7b_multi_gpu.yaml")
    with pytest.raises(InputError, match="shared by 8 cards"):
        study.plan_card("RTX PRO 6000", 2)


def test_a_base_that_is_not_here_stops_a_run_and_no_check(tmp_path: Path) -> None:
    study = ltm.load(FOLDER / "qlora_3b.yaml", {"books.source": "kjv"}, work=str(tmp_path / "w"))
    assert any("not on this disk yet" in warning for warning in study.notes().warnings)
    with pytest.raises(InputError, match="not on this disk"):
        study.run(progress=Progress(quiet=True))


@quiet
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "qlora_3b" else pytest.mark.slow) for n in NAMES])
def test_a_recipe_runs_small_from_end_to_end(name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    study = ltm.load(FOLDER / f"{name}.yaml", {"recipe.toy": True, "sets.count": 3}, work=str(tmp_path / "w"))
    full = ltm.load(FOLDER / f"{name}.yaml")
    for key in ("engine", "method", "parallel", "schedule", "activation_checkpointing"):
        assert getattr(study.settings.runs, key) == getattr(full.settings.runs, key)
    result = study.run(progress=Progress(quiet=True))
    assert result["failed_runs"] == {}
    assert (tmp_path / "w" / "ltm_result_dashboard.html").exists()
    kept = {"lora": "adapter", "qlora": "adapter"}.get(study.settings.runs.method, "model")
    if study.settings.runs.engine == "hf":
        assert len(list((tmp_path / "w" / "runs").glob(f"*/{kept}/*.safetensors"))) >= 3
