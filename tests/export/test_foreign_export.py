"""Runs of a Hugging Face model leave as folders, files and adapters that stock programs load, with the same logits."""

import json

import pytest
import torch

import trained_base
from ltm.cli import main
from ltm.errors import InputError
from ltm.export.runs import Order, export_ggufs, export_loras, export_runs
from ltm.runs.engines.start import load_trained

pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore")
SOME = torch.arange(40)[None] * 7 % 300


def order(study, run_id, out, tuned=False):
    return Order(study.work, [run_id[:8]], out, "demo", "Why?", tuned)


def logits(model):
    with torch.no_grad():
        return model(input_ids=SOME).logits


@pytest.mark.parametrize(
    ("method", "kind", "changes"),
    [
        ("full", "llama", {}),
        ("lora", "llama", {"tie_word_embeddings": True}),
        ("lora", "gpt2", {"tie_word_embeddings": True}),
        ("lora", "qwen3", {}),
        ("qlora", "llama", {}),
        ("qlora", "gemma", {"tie_word_embeddings": True}),
    ],
)
def test_stock_transformers_load_the_same_function(method, kind, changes, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    study, run_id = trained_base.study_of(tmp_path, method, kind, **changes)
    (folder,) = export_runs(order(study, run_id, tmp_path / "out")).values()
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert {p.dtype for p in stock.parameters()} == {torch.float32}
    expected = logits(load_trained(study.work, run_id, "cpu", exact=True))
    base = logits(AutoModelForCausalLM.from_pretrained(study.settings.model.base).eval())
    assert float((logits(stock) - expected).abs().max()) <= 1e-4
    assert float((base - expected).abs().max()) > 0.1  # what was trained is in it
    from ltm.tokens.tokenizer import load

    assert AutoTokenizer.from_pretrained(folder)("go and see <s>").input_ids == load(study.work).encode_marked(
        "go and see <s>"
    )
    card = (folder / "README.md").read_text()
    assert "small, run" in card
    assert "public domain" in card
    assert 'base_model: "small"' in card
    for path in folder.iterdir():
        assert b"secret place" not in path.read_bytes()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_an_output_layer_with_adapters_of_its_own_is_no_longer_the_inputs(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    import tiny_base
    from ltm.runs.engines.merge import write_merged

    base = tiny_base.make_base(tmp_path / "base", tie_word_embeddings=True)
    about = LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), about).eval()
    (tmp_path / "out").mkdir()
    write_merged(model, tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert float((logits(stock) - logits(model)).abs().max()) <= 1e-4


def test_llama_cpp_goes_on_as_transformers_do(tmp_path):
    from test_gguf_folder import greedy_by_both

    study, run_id = trained_base.study_of(tmp_path, "qlora")
    (folder,) = export_runs(order(study, run_id, tmp_path / "out")).values()
    (path,) = export_ggufs(order(study, run_id, tmp_path / "out"), "f32").values()
    ours, theirs = greedy_by_both(folder, path)
    assert ours == theirs
    assert len(ours) > 150
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [run_id, f"{run_id}-f32.gguf"]


def test_a_tuned_model_leaves_as_it_is_asked(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ltm.dialogue.template import template_of
    from ltm.tokens.tokenizer import load

    study, run_id = trained_base.study_of(tmp_path, "lora", tuned=True)
    (folder,) = export_runs(order(study, run_id, tmp_path / "out", tuned=True)).values()
    assert folder.name == f"{run_id}-tuned"
    expected = logits(load_trained(study.work, run_id, "cpu", tuned=True))
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert float((logits(stock) - expected).abs().max()) <= 1e-4
    assert float((logits(load_trained(study.work, run_id, "cpu")) - expected).abs().max()) > 0.1
    said = [{"role": "user", "content": "go?"}, {"role": "assistant", "content": "see."}]
    asked = AutoTokenizer.from_pretrained(folder).apply_chat_template(said, return_dict=True)["input_ids"]
    assert asked == load(study.work).encode_marked(template_of(study.work).text(said))
    assert asked[0] == load(study.work).bos_id
    end = load(study.work).marks[template_of(study.work).end]
    assert end in AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert "from 2.000 to 1.000 bits per byte" in (folder / "README.md").read_text()
    (adapters,) = export_loras(order(study, run_id, tmp_path / "out", tuned=True)).values()
    assert "tuned on 9 conversations" in (adapters / "README.md").read_text()


def test_what_cannot_be_exported_is_said_before_anything_is_written(tmp_path):
    study, run_id = trained_base.study_of(tmp_path, "lora")
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no dialogue layer"):
        export_runs(order(study, run_id, out, tuned=True))
    base = tmp_path / "secret place" / "small"
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a folder"):
        export_runs(order(study, run_id, out))
    assert list(export_loras(order(study, run_id, out))) == [run_id]  # adapters need no base
    (tmp_path / "elsewhere").rename(base)
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "rms_norm_eps": 1e-3}))
    with pytest.raises(InputError, match="is not the model that run"):
        export_runs(order(study, run_id, out))
    (base / "config.json").write_text(json.dumps({**values, "model_type": "gemma"}))
    with pytest.raises(InputError, match="not one that ltm writes for llama.cpp"):
        export_ggufs(order(study, run_id, out), "f32")
    (base / "config.json").write_text(json.dumps({**values, "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(InputError, match="own code"):
        export_runs(order(study, run_id, out))
    assert [path.name for path in out.iterdir()] == [f"{run_id}-lora"]


def test_the_command_line_does_it_all(tmp_path, capsys):
    study, run_id = trained_base.study_of(tmp_path, "lora", tuned=True)
    words = ["export", str(study.work.root), run_id[:6], "--out", str(tmp_path / "out"), "--json"]
    for more in ([], ["--to", "gguf", "--dtype", "q8_0"], ["--to", "lora"], ["--tuned"]):
        assert main([*words, *more]) == 0
        assert json.loads(capsys.readouterr().out)[0]["run_id"] == run_id
    assert main(["export", str(study.work.root), "--to", "lora", run_id, "--out", str(tmp_path / "later")]) == 0
    assert main([*words, "--to", "lora"]) != 0
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(study.work.root)]) != 0
    assert "no run is named" in capsys.readouterr().err
