"""llama.cpp loads what is written, cuts texts into the same tokens, and goes on as stock transformers do."""

import json
import urllib.request

import pytest
import torch

import hugging_face as hf
from ltm.errors import InputError, MissingPartError
from ltm.export import gguf as ours
from ltm.export.gguf import export_gguf, side_by_side
from ltm.export.gguf_tokenizer import tokenizer_pieces
from ltm.export.hf import export_hf
from ltm.tokens.tokenizer import train

PROMPT = "In the beginning God created the heaven"
TEXTS = (
    "In the beginning God created the heaven and the earth.",
    "  two spaces,\n\nlines\tand   more   ",
    "It's we've don't I'll 1234567 3.14 a1b2",
    "Мы пошли домой; наивная ёлка — «да»!",
    "naïve café 日本語 🙂🙃 e\u0301",
    "x" * 300,
    "\u00a0\u2028\r\n \x00",
    " ",
)
N_NEW = 200


@pytest.fixture(scope="module")
def tokenizer(kjv_texts):
    return train([kjv_texts["Genesis"][:60_000], *TEXTS], 420)


def cpp(path, context=512, threads=1):
    """Return llama.cpp with the file loaded, its cache in float32."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_gpu_layers, params.cpuparams.n_threads = context, 0, threads
    params.cache_type_k = params.cache_type_v = 0  # float32
    params.flash_attn_type = 0
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


def complete(server, prompt, count):
    """Return llama.cpp's greedy text."""
    about = {"prompt": prompt, "n_predict": count, "temperature": 0, "top_k": 1, "ignore_eos": True}
    found = server.handle_completions({**about, "cache_prompt": False})
    return found["choices"][0]["text"]


def tokenize(server, text):
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize",
        json.dumps({"content": text, "add_special": True, "parse_special": False}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["tokens"]


def theirs(folder, prompt, count):
    """Return the greedy text of stock transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokens(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=count, do_sample=False, eos_token_id=None, suppress_tokens=[0])
    return tokens.decode(out[0][ids.input_ids.shape[1] :])


def some_model(shape, tokenizer, **changes):
    return hf.our_model(hf.our_config(shape, vocab_size=tokenizer.vocab_size, block_size=512, **changes))


@pytest.mark.parametrize("shape", ["llama", "llama-grouped", "llama-one-kv", "gpt2", "gpt2-grouped", "mistral-full"])
def test_the_greedy_text_is_that_of_transformers(shape, tokenizer, tmp_path):
    model = some_model(shape, tokenizer)
    export_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", {"name": "m"})
    export_hf(model, tokenizer, tmp_path / "hf")
    assert complete(cpp(tmp_path / "m.gguf"), PROMPT, N_NEW) == theirs(tmp_path / "hf", PROMPT, N_NEW)


def test_untied_and_mup_models_too(tokenizer, tmp_path):
    model = some_model("llama", tokenizer, tied=False, base_width=32)
    export_gguf(model, tokenizer, tmp_path / "m.gguf", "f32")
    export_hf(model, tokenizer, tmp_path / "hf")
    assert complete(cpp(tmp_path / "m.gguf"), PROMPT, N_NEW) == theirs(tmp_path / "hf", PROMPT, N_NEW)


def test_texts_are_cut_into_the_same_tokens(tokenizer, tmp_path):
    export_gguf(some_model("llama", tokenizer), tokenizer, tmp_path / "m.gguf", "f16")
    server = cpp(tmp_path / "m.gguf")
    for text in TEXTS:
        assert tokenize(server, text) == tokenizer.encode(text), text
    assert tokenize(server, "a <|text|> b") == tokenizer.encode("a <|text|> b")  # spelled out, it is only text


@pytest.mark.parametrize(("dtype", "bytes_a_weight"), [("f16", 2.0), ("q8_0", 34 / 32)])
def test_smaller_types_load_and_stay_near(dtype, bytes_a_weight, tokenizer, tmp_path):
    from gguf import GGUFReader, dequantize

    model = some_model("llama-grouped", tokenizer)
    export_gguf(model, tokenizer, tmp_path / "m.gguf", dtype)
    found = {t.name: t for t in GGUFReader(tmp_path / "m.gguf").tensors}
    down = found["blk.0.ffn_down.weight"]
    wide = down.shape[0] % 32 == 0 or dtype == "f16"
    if wide:
        assert down.n_bytes == pytest.approx(bytes_a_weight * 64 * 80, rel=0.01)
    exact = model.blocks[0].mlp.down.weight.detach()
    stored = torch.from_numpy(dequantize(down.data, down.tensor_type).reshape(exact.shape))
    assert torch.nn.functional.cosine_similarity(stored.flatten(), exact.flatten(), 0) > 0.9998
    assert found["output_norm.weight"].tensor_type.name == "F32"
    assert len(complete(cpp(tmp_path / "m.gguf"), PROMPT, 20)) > 0


def test_a_window_limits_the_context(tokenizer, tmp_path):
    from gguf import GGUFReader

    export_gguf(some_model("mistral-window", tokenizer), tokenizer, tmp_path / "m.gguf", "f32")
    reader = GGUFReader(tmp_path / "m.gguf")
    assert int(reader.fields["llama.context_length"].parts[-1][0]) == 7


def test_nothing_is_overwritten_and_nothing_half_written_stays(tokenizer, tmp_path):
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_gguf(some_model("llama", tokenizer), tokenizer, tmp_path / "m.gguf", "f32")
    assert (tmp_path / "m.gguf").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "not a byte-level BPE"),
        ({"pre_tokenizer": None}, "not a byte-level BPE"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "not a byte-level BPE"),
        ({"normalizer": {"type": "NFKC"}}, "changes texts"),
        ({"model": {"type": "Unigram", "vocab": [], "merges": []}}, "not a byte-level BPE"),
    ],
)
def test_tokenizers_that_llama_cpp_cannot_be_are_refused(change, words, tokenizer):
    value = {**json.loads(tokenizer.to_json()), **change}
    with pytest.raises(InputError, match=words):
        tokenizer_pieces(value, 500)


def test_rows_that_no_token_uses_are_named(tokenizer):
    pieces = tokenizer_pieces(json.loads(tokenizer.to_json()), tokenizer.vocab_size + 3)
    assert pieces.tokens[-1] == f"[UNUSED{tokenizer.vocab_size + 2}]"
    assert len(set(pieces.tokens)) == len(pieces.tokens)
    assert pieces.kinds[tokenizer.bos_id] == 3


def test_a_missing_package_is_named(monkeypatch, tokenizer, tmp_path):
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPartError) as error:
        export_gguf(some_model("llama", tokenizer), tokenizer, tmp_path / "m.gguf", "f32")
    assert error.value.hint == "pip install 'ltm[gguf]'"


def test_rows_are_put_side_by_side():
    import numpy as np

    rows = np.arange(16)[:, None] * np.ones((1, 3))
    assert side_by_side(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
