"""Adapters leave the work folder whole, without a path of this machine, and peft loads them."""

import json

import pytest
import torch

import tiny_study
from ltm.errors import InputError, StoreError
from ltm.export.card import write_card
from ltm.export.runs import Order, export_loras
from ltm.runs import queue


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished study whose first run has adapters beside a small Llama."""
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("lora")
    study = tiny_study.finished(root / "w", **{"sets.count": 4})
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    base = LlamaForCausalLM(config)
    base.save_pretrained(root / "secret place" / "small-llama")
    base = LlamaForCausalLM.from_pretrained(root / "secret place" / "small-llama")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(study.work.path("runs", study.jobs()[0].run_id, "adapter"))
    return study, model.eval(), root / "secret place" / "small-llama"


@pytest.mark.filterwarnings("ignore")
def test_peft_loads_what_is_written(made, tmp_path):
    import peft
    from transformers import LlamaForCausalLM

    study, model, base = made
    run_id = study.jobs()[0].run_id
    folder = export_loras(Order(study.work, [run_id[:8]], tmp_path, "demo", "Why?"))[run_id]
    assert {path.name for path in folder.iterdir()} == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    for path in folder.iterdir():
        assert b"secret place" not in path.read_bytes()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "small-llama"
    again = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), folder).eval()
    tokens = torch.arange(20)[None]
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert "beside small-llama" in card
    assert "public domain" in card


def test_runs_without_adapters_and_folders_that_exist_are_refused(made, tmp_path):
    study, *_ = made
    one, two = (job.run_id for job in study.jobs()[:2])
    with pytest.raises(InputError, match="has no adapters"):
        export_loras(Order(study.work, [one, two], tmp_path, "demo", ""))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"{one}-lora").mkdir()
    with pytest.raises(InputError, match="exists already"):
        export_loras(Order(study.work, [one], tmp_path, "demo", ""))
    (study.work.path("runs", two) / "adapter").mkdir()
    with pytest.raises(StoreError, match="missing or damaged"):
        export_loras(Order(study.work, [two], tmp_path / "x", "demo", ""))


def test_a_card_names_books_in_order_and_their_rights(made):
    from ltm.sets.stage import read_variants
    from ltm.study.provenance import titles_of

    study, *_ = made
    job = study.jobs()[0]
    run = queue.read_run(study.work, job.run_id)
    card = write_card(study.work, run, study.settings.model.shape(400), "demo", "Why?")
    variant = next(v for v in read_variants(study.work) if v.variant_id == job.variant_id)
    titles = titles_of(study.work, variant.book_ids)
    places = [card.index(f"{place}. {titles[book]}") for place, book in enumerate(variant.book_ids, 1)]
    assert places == sorted(places)
    assert "## Rights of the books" in card
    assert f"{len(variant.book_ids)}" in card.partition("## Rights of the books")[2]
