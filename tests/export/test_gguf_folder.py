"""A Hugging Face folder that others have trained as a GGUF file: same tokens, same text, or a reason why not."""

import json

import pytest
import torch

import tiny_base
from ltm.errors import InputError
from ltm.export.gguf_folder import check_folder, convert_folder
from ltm.tokens.tokenizer import from_folder

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
PROMPT, N_NEW = "In the beginning was the", 200
TEXTS = (
    "In the beginning God created the heaven and the earth.",
    "It's we've DON'T I'll 1234567 3.14 a1b2 12 345",
    "two  spaces,\n\nlines\tand   more   \n b",
    "Мы пошли домой; наивная ёлка — «да»!",
    "naïve café 日本語 🙂🙃",
    "x" * 300,
    "\u00a0\u2028\r\n \x00",
)
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10000.0}
MODELS = {
    "llama": {},
    "llama with biases": {"attention_bias": True},
    "llama 3": {"rope_parameters": LLAMA_3 | {"original_max_position_embeddings": 64}, "tie_word_embeddings": True},
    "llama in a line": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    "mistral": {"sliding_window": None},
    "gpt2": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
}


def cpp(path):
    """Return llama.cpp with the file loaded, its cache in float32."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_gpu_layers, params.cpuparams.n_threads = 256, 0, 1
    params.cache_type_k = params.cache_type_v = 0  # float32
    params.flash_attn_type = 0
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


def greedy_by_both(folder, path):
    """Return the greedy text of llama.cpp and of stock transformers; tokens that are no text are left out in both."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokens = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    names = tokens.convert_ids_to_tokens(range(model.config.vocab_size))
    silent = [
        i for i, name in enumerate(names) if name is None or name.startswith("<") or not tokens.decode(i).isascii()
    ]
    ids = tokens(PROMPT, return_tensors="pt")
    out = model.generate(
        **ids, max_new_tokens=N_NEW, do_sample=False, eos_token_id=None, suppress_tokens=silent, pad_token_id=0
    )[0]
    theirs = tokens.decode(out)[len(tokens.decode(ids.input_ids[0])) :]
    about = {"prompt": PROMPT, "n_predict": N_NEW, "temperature": 0, "top_k": 1, "ignore_eos": True}
    about |= {"logit_bias": [[i, False] for i in silent], "cache_prompt": False}
    ours = cpp(path).handle_completions(about)["choices"][0]["text"]
    return ours, theirs


@pytest.mark.parametrize("name", MODELS)
def test_the_greedy_text_is_that_of_transformers(name, tmp_path):
    kind = name.split()[0]
    base = tiny_base.make_base(tmp_path / "base", kind, **MODELS[name])
    convert_folder(base, tmp_path / "m.gguf", "f32", {"name": name})
    ours, theirs = greedy_by_both(base, tmp_path / "m.gguf")
    assert ours == theirs
    assert len(ours) > 150


@pytest.mark.parametrize("kind", tiny_base.TOKENIZERS)
def test_texts_are_cut_into_the_same_tokens_and_read_alike(kind, tmp_path):
    from test_gguf import tokenize

    base = tiny_base.make_base(tmp_path / "base", "llama", kind)
    convert_folder(base, tmp_path / "m.gguf", "f32", {"name": kind})
    server, tokenizer = cpp(tmp_path / "m.gguf"), from_folder(base)
    for text in TEXTS:
        assert tokenize(server, text) == tokenizer.encode(text), text
    ours, theirs = greedy_by_both(base, tmp_path / "m.gguf")
    assert ours == theirs


def test_a_start_mark_is_added_where_the_tokenizer_does(tmp_path):
    from gguf import GGUFReader

    base = tiny_base.make_base(tmp_path / "base")
    value = json.loads((base / "tokenizer.json").read_text())
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    for adds in (False, True):
        if adds:
            (base / "tokenizer.json").write_text(json.dumps(value))
        convert_folder(base, tmp_path / f"{adds}.gguf", "f16", {"name": "m"})
        fields = GGUFReader(tmp_path / f"{adds}.gguf").fields
        assert bool(fields["tokenizer.ggml.add_bos_token"].parts[-1][0]) is adds
        assert int(fields["tokenizer.ggml.eos_token_id"].parts[-1][0]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gemma"}, "model_type `gemma`"),
        ({"hidden_act": "gelu"}, "activation"),
        ({"mlp_bias": True}, "biases"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_parameters": None}, "scaled by yarn"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "a part of each head"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(change, words, tmp_path):
    base = tiny_base.make_base(tmp_path / "base")
    values = {**json.loads((base / "config.json").read_text()), **change}
    with pytest.raises(InputError, match=words):
        check_folder(values, (base / "tokenizer.json").read_text())


def _changed(value, change):
    if change == "regex":
        value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|."
    elif change == "order":
        value["model"]["merges"].reverse()
    elif change == "bytes":
        value["model"]["vocab"]["<x>"] = value["model"]["vocab"].pop("<0x41>")
    else:
        value["normalizer"] = {"type": "Lowercase"}
    return value


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("llama3", "regex", "does not know by name"),
        ("llama2", "order", "not in the order"),
        ("llama2", "bytes", "no token <0x41>"),
        ("mistral", "lower", "another way"),
        ("qwen2", "lower", "changes texts"),
    ],
)
def test_tokenizers_that_cut_otherwise_are_refused(kind, change, words, tmp_path):
    tiny_base.write_tokenizer(tmp_path, kind)
    value = _changed(json.loads((tmp_path / "tokenizer.json").read_text()), change)
    with pytest.raises(InputError, match=words):
        check_folder({"model_type": "llama", "vocab_size": 384}, json.dumps(value))


def test_logits_hardly_move_in_half_precision(tmp_path):
    from gguf import GGUFReader, dequantize

    base = tiny_base.make_base(tmp_path / "base", "qwen3")
    convert_folder(base, tmp_path / "m.gguf", "q8_0", {"name": "m"})
    found = {t.name: t for t in GGUFReader(tmp_path / "m.gguf").tensors}
    from safetensors.torch import load_file

    exact = load_file(base / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    up = found["blk.1.ffn_up.weight"]
    stored = torch.from_numpy(dequantize(up.data, up.tensor_type).reshape(exact.shape))
    assert up.tensor_type.name == "Q8_0"
    assert torch.nn.functional.cosine_similarity(stored.flatten(), exact.flatten(), 0) > 0.9998
