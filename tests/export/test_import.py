"""Folders of stock transformers as our models: the same logits, or a reason why not."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hugging_face import logits, make_loud, our_config, our_model, quiet_transformers, some_tokens, their_model
from ltm.errors import InputError
from ltm.export.hf import export_hf, import_hf

pytest.importorskip("transformers")
WORST = 1e-4
VOCAB = 211
LLAMA = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
GPT2 = dict(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=48, bos_token_id=0, eos_token_id=0)
CASES = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "tie_word_embeddings": False}),
    "gpt2 inner": ("GPT2", {**GPT2, "n_inner": 100, "layer_norm_epsilon": 1e-3}),
    "gpt2 other name": ("GPT2", {**GPT2, "activation_function": "gelu_pytorch_tanh"}),
    "llama": ("Llama", LLAMA),
    "llama tied": ("Llama", {**LLAMA, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    "llama all heads": ("Llama", {**LLAMA, "num_key_value_heads": None}),
    "llama theta": ("Llama", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 321.0}}),
    "mistral": ("Mistral", LLAMA),
    "mistral tied": ("Mistral", {**LLAMA, "tie_word_embeddings": True, "sliding_window": 5}),
    "mistral full": ("Mistral", {**LLAMA, "sliding_window": None}),
}  # fmt: skip


def saved(folder, kind, values, dtype=torch.float32, **how):
    transformers = quiet_transformers()
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**values)
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(config)
    make_loud(model, 4)
    model.to(dtype).save_pretrained(folder, **how)
    return folder


def worst(ours, folder, tokens=None):
    tokens = some_tokens(VOCAB) if tokens is None else tokens
    theirs = logits(their_model(folder).float(), tokens)
    assert theirs.std((0, 1)).mean() > 0.5
    return (logits(ours, tokens) - theirs).abs().max().item()


@pytest.mark.parametrize("case", CASES)
def test_random_weights_of_transformers_load(tmp_path, case):
    folder = saved(tmp_path / "hf", *CASES[case])
    model = import_hf(folder)
    found = worst(model, folder)
    print(f"{case}: {found:.1e}")
    assert found <= WORST
    assert next(model.parameters()).dtype == torch.float32
    export_hf(model, None, tmp_path / "back")
    stored, again = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert stored.keys() == again.keys()
    assert all(torch.equal(stored[name], again[name]) for name in stored)
    assert worst(model, tmp_path / "back") <= WORST


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_comes_up_as_float32(tmp_path, dtype):
    folder = saved(tmp_path / "hf", "Llama", LLAMA, dtype)
    assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == dtype
    model = import_hf(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert worst(model, folder) <= WORST


def test_weights_in_several_files_load(tmp_path):
    folder = saved(tmp_path / "hf", "Mistral", LLAMA, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert not (folder / "model.safetensors").exists()
    assert worst(import_hf(folder), folder) <= WORST


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_bare_decoder_without_prefix_and_with_old_buffers_loads(tmp_path, kind):
    """As the first GPT-2 on the hub lies there."""
    values = {**(GPT2 if kind == "GPT2" else LLAMA), "tie_word_embeddings": True}
    folder = saved(tmp_path / "hf", kind, values)
    before = import_hf(folder)
    stored = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer.").removeprefix("model."): t for name, t in stored.items()}
    if kind == "GPT2":
        bare |= {"h.0.attn.bias": torch.ones(1, 1, 48, 48), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    else:
        bare["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits(import_hf(folder), some_tokens(VOCAB)), logits(before, some_tokens(VOCAB)))


def test_an_output_layer_that_is_called_tied_but_differs_is_kept_as_transformers_keep_it(tmp_path):
    folder = saved(tmp_path / "hf", "Llama", LLAMA)
    change_config(folder, tie_word_embeddings=True)
    model = import_hf(folder)
    assert not model.config.tie_embeddings
    assert worst(model, folder) <= WORST


def test_an_output_layer_that_is_stored_twice_is_tied(tmp_path):
    folder = saved(tmp_path / "hf", "Llama", {**LLAMA, "tie_word_embeddings": True})
    change_tensors(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    model = import_hf(folder)
    assert model.unembed.weight is model.embed.weight
    assert worst(model, folder) <= WORST


def test_old_spellings_of_the_rotary_base_are_read(tmp_path):
    folder = saved(tmp_path / "hf", "Llama", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}})
    change_config(folder, rope_parameters=..., rope_scaling=None, rope_theta=77.0)
    model = import_hf(folder)
    assert model.config.rope_theta == 77.0
    assert worst(model, folder) <= WORST


def test_keys_that_old_folders_leave_out_have_the_defaults_of_transformers(tmp_path):
    folder = saved(tmp_path / "hf", "Mistral", {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 8})
    names = ("num_key_value_heads", "head_dim", "rms_norm_eps", "sliding_window", "hidden_act", "rope_parameters")
    change_config(folder, **dict.fromkeys(names, ...))
    model = import_hf(folder)
    assert (model.config.window, model.config.n_kv_head, model.norm.eps) == (4096, 8, 1e-6)
    assert worst(model, folder) <= WORST


def test_the_longest_input(tmp_path):
    mistral, gpt2 = saved(tmp_path / "m", "Mistral", LLAMA), saved(tmp_path / "g", "GPT2", GPT2)
    assert import_hf(mistral).config.block_size == 131072  # what transformers give a Mistral that says nothing
    assert import_hf(mistral, 32).config.block_size == 32
    change_config(mistral, max_position_embeddings=10**12)
    with pytest.raises(InputError, match="context of 1000000000000 tokens is too long"):
        import_hf(mistral)
    assert import_hf(mistral, 64).config.block_size == 64
    short = import_hf(gpt2, 20)
    assert short.positions.weight.shape == (20, 64)
    assert worst(short, gpt2, some_tokens(VOCAB, 20)) <= WORST
    for wanted in (0, 49):
        with pytest.raises(InputError, match="not between 1 and the folder's own 48"):
            import_hf(gpt2, wanted)


def change_config(folder, **changes):
    """Set keys of config.json; `...` takes one out."""
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def change_tensors(folder, change):
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for shape in ("llama", "gpt2", "mistral-window"):
        export_hf(our_model(our_config(shape, tied=False)), None, folder / shape)
    return folder


@pytest.fixture
def folder_of(good, tmp_path):
    return lambda shape="llama": shutil.copytree(good / shape, tmp_path / shape)


@pytest.mark.parametrize(
    ("shape", "changes", "reason"),
    [
        ("llama", {"model_type": "qwen2"}, "model_type `qwen2` .* gpt2, llama, mistral"),
        ("llama", {"model_type": ...}, "model_type `None`"),
        ("llama", {"model_type": ["llama"]}, "model_type `.'llama'.`"),
        ("llama", {"rope_theta": float("nan"), "rope_parameters": None}, "rope_theta is nan"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"head_dim": 32}, "4 heads of 32 .* do not make the width 64"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "scaled .*'linear'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "scaled .*'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "scaled .*'llama3'"),
        ("llama", {"rope_parameters": 7}, "rope_parameters is 7"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama", {"hidden_size": ...}, "hidden_size is None"),
        ("llama", {"hidden_size": "64"}, "hidden_size is '64'"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers is True"),
        ("llama", {"num_hidden_layers": 10**15}, "too few"),
        ("llama", {"num_attention_heads": 5, "head_dim": None}, "5 heads"),
        ("llama", {"num_key_value_heads": 3}, "does not divide"),
        ("llama", {"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ("llama", {"vocab_size": 301}, "another shape .*embed_tokens.weight: .300, 64., not .301, 64."),
        ("llama", {"num_hidden_layers": 4}, "9 missing .*layers.3.input_layernorm.weight"),
        ("llama", {"num_hidden_layers": 2}, "9 that it has not .*layers.2.input_layernorm.weight"),
        ("mistral-window", {"sliding_window": 0}, "sliding_window is 0"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"n_positions": 32}, "wpe.weight: .48, 64., not .32, 64."),
    ],
)
def test_a_config_that_this_decoder_cannot_be_is_refused_with_the_reason(folder_of, shape, changes, reason):
    folder = folder_of(shape)
    change_config(folder, **changes)
    with pytest.raises(InputError, match=reason) as caught:
        import_hf(folder)
    assert caught.value.hint


def test_tensors_that_do_not_fit_are_named(folder_of):
    folder = folder_of()
    change_tensors(folder, lambda t: {n: v for n, v in t.items() if n != "model.layers.1.mlp.up_proj.weight"})
    with pytest.raises(InputError, match=r"1 missing \(model.layers.1.mlp.up_proj.weight\)"):
        import_hf(folder)
    change_tensors(
        folder, lambda t: t | {"model.layers.1.mlp.up_proj.weight": torch.zeros(3, 3), "odd": torch.zeros(1)}
    )
    with pytest.raises(
        InputError, match=r"1 that it has not \(model.odd\).*1 of another shape .*\[3, 3\], not \[96, 64\]"
    ):
        import_hf(folder)


def test_a_tensor_that_is_there_twice_and_one_without_dimensions_are_said(folder_of):
    folder = folder_of()
    change_tensors(folder, lambda t: t | {"norm.weight": t["model.norm.weight"].clone()})
    with pytest.raises(InputError, match="`norm.weight`, which are one"):
        import_hf(folder)
    change_tensors(
        folder, lambda t: {n: v for n, v in t.items() if n != "norm.weight"} | {"model.x": torch.tensor(1.0)}
    )
    with pytest.raises(InputError, match=r"1 that it has not \(model.x\)"):
        import_hf(folder)


def test_whole_numbers_are_no_weights(folder_of):
    folder = folder_of()
    change_tensors(folder, lambda t: t | {"model.norm.weight": torch.ones(64, dtype=torch.int8)})
    with pytest.raises(InputError, match="model.norm.weight is stored as int8"):
        import_hf(folder)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_is_never_loaded(folder_of):
    folder = folder_of()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(InputError, match="pickle .*pytorch_model.bin.*never loaded"):
        import_hf(folder)


def test_what_is_no_such_folder_is_refused(folder_of, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        import_hf(tmp_path / "nowhere")
    folder = folder_of()
    with pytest.raises(InputError, match="is not a folder"):
        import_hf(folder / "config.json")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="damaged: not JSON"):
        import_hf(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        import_hf(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="it has no config.json"):
        import_hf(folder)


def test_damaged_weights_are_refused(folder_of):
    folder = folder_of()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="is damaged"):
        import_hf(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"has no model.safetensors"):
        import_hf(folder)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"a": "../outside.safetensors"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "shard.bin"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "gone.safetensors"}}, "lacks gone.safetensors"),
        ({"weight_map": {"a": 3}}, "has no weight_map"),
        ({}, "has no weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(folder_of, index, reason):
    folder = folder_of()
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=reason):
        import_hf(folder)
