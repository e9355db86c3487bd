"""Exports in stock transformers: the same logits, the same tokens, the same continuation."""

import dataclasses

import pytest
import torch

from hugging_face import BLOCK, SHAPES, logits, our_config, our_model, quiet_transformers, some_tokens, their_model
from ltm.errors import InputError
from ltm.export.hf import export_hf, import_hf
from ltm.model.gpt import GPT
from ltm.model.sizes import SIZES
from ltm.tokens import tokenizer as tokens

pytest.importorskip("transformers")
WORST = 1e-4  # the bar of the project, in float32
TEXT = "And God said, Let there be light: and there was light. " * 40


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train([TEXT, "Привет, мир! Это не тот же текст."], 300)


def exported(tmp_path, config, tokenizer=None):
    model = our_model(config)
    export_hf(model, tokenizer, tmp_path / "out")
    return model, tmp_path / "out"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_export_gives_the_same_logits_in_transformers(tmp_path, record_property, shape, tied):
    model, folder = exported(tmp_path, our_config(shape, tied))
    ours = logits(model, some_tokens())
    spread = ours.std((0, 1)).mean()
    assert spread > 0.5  # of a token's logit from place to place: else any two models agree
    for attention in ("eager", "sdpa"):
        theirs = their_model(folder, attention)
        assert theirs.dtype == torch.float32
        assert theirs.config._attn_implementation == attention
        worst = (logits(theirs, some_tokens()) - ours).abs().max().item()
        record_property(attention, worst)
        print(f"{shape} {'tied' if tied else 'untied'} {attention}: {worst:.1e}, spread of logits {spread:.2f}")
        assert worst <= WORST


@pytest.mark.parametrize(
    ("shape", "window"), [("gpt2", 0), ("llama", 0), ("mistral-window", 9), ("mistral-window", 140)]
)
def test_long_inputs_agree_too(tmp_path, shape, window):
    """Longer than what attention takes at once, and windows that begin in an earlier part."""
    model, folder = exported(tmp_path, our_config(shape, block_size=300, window=window))
    tokens = some_tokens(length=300, rows=2)
    for attention in ("eager", "sdpa"):
        assert (logits(their_model(folder, attention), tokens) - logits(model, tokens)).abs().max() <= WORST


@pytest.mark.parametrize("size", ["gpt2-5m", "mistral-5m", "llama-15m"])
def test_named_sizes_with_loud_weights_agree(tmp_path, size):
    """Deep models enlarge rounding: here a last bit of a rotary angle that differs is enough to fail."""
    model = our_model(dataclasses.replace(SIZES[size], vocab_size=1000))
    export_hf(model, None, tmp_path / "out")
    tokens = some_tokens(1000, model.config.block_size, rows=1)
    ours = logits(model, tokens)
    for attention in ("eager", "sdpa"):
        worst = (logits(their_model(tmp_path / "out", attention), tokens) - ours).abs().max().item()
        print(f"{size} {attention}: {worst:.1e}, spread of logits {ours.std((0, 1)).mean():.2f}")
        assert worst <= WORST


@pytest.mark.parametrize(("theta", "length"), [(10_000.0, 2000), (500_000.0, 5000), (77.0, 300)])
def test_rotary_angles_have_the_bits_of_transformers(tmp_path, theta, length):
    model, folder = exported(tmp_path, our_config("llama", block_size=length, rope_theta=theta))
    rope = their_model(folder).model.rotary_emb
    cos, sin = rope(torch.zeros(1, length, 1), torch.arange(length)[None])
    half = model.config.head_size // 2
    assert torch.equal(cos[0, :, :half], model.cos_TC)
    assert torch.equal(sin[0, :, :half], model.sin_TC)


def test_the_window_is_seen_by_the_parity_test(tmp_path):
    """A window that is off by one must not pass for the right one."""
    model, _ = exported(tmp_path, our_config("mistral-window"))
    other = GPT(dataclasses.replace(model.config, window=model.config.window + 1))
    other.load_state_dict(model.state_dict())
    assert (logits(other, some_tokens()) - logits(model, some_tokens())).abs().max() > 100 * WORST


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", ["gpt2", "gpt2-grouped", "llama-grouped", "mistral-window"])
def test_the_scales_of_mup_are_folded_into_the_weights(tmp_path, shape, tied):
    model, folder = exported(tmp_path, our_config(shape, tied, base_width=24))
    plain = GPT(our_config(shape, tied))
    plain.load_state_dict(model.state_dict())
    assert (logits(plain, some_tokens()) - logits(model, some_tokens())).abs().max() > 0.1  # there is something to fold
    ours = logits(model, some_tokens())
    assert (logits(their_model(folder), some_tokens()) - ours).abs().max() <= WORST
    back = import_hf(folder)
    assert back.config.base_width == 0
    assert (logits(back, some_tokens()) - ours).abs().max() <= WORST


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("gpt2-grouped", "llama-window")])
def test_an_export_comes_back_bit_by_bit(tmp_path, shape, tied):
    model, folder = exported(tmp_path, our_config(shape, tied))
    back = import_hf(folder)
    assert back.config == model.config
    assert not back.training
    own, other = model.state_dict(), back.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert torch.equal(logits(back, some_tokens()), logits(model, some_tokens()))
    export_hf(back, None, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("shape", ["gpt2-grouped", "llama-window"])
def test_what_hugging_face_spells_otherwise_comes_back_with_the_same_logits(tmp_path, shape):
    model, folder = exported(tmp_path, our_config(shape))
    assert (logits(import_hf(folder), some_tokens()) - logits(model, some_tokens())).abs().max() <= 1e-6


def test_half_precision_is_exported_as_float32(tmp_path):
    model = our_model(our_config()).to(torch.bfloat16)
    export_hf(model, None, tmp_path / "out")
    assert torch.equal(import_hf(tmp_path / "out").embed.weight, model.embed.weight.float())


def test_a_gpt2_with_a_window_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sliding window"):
        exported(tmp_path, our_config("gpt2", window=8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", ["gpt2", "llama", "mistral-window"])
def test_the_tokenizer_of_an_export_is_ours(tmp_path, tokenizer, shape):
    _, folder = exported(tmp_path, our_config(shape, vocab_size=tokenizer.vocab_size), tokenizer)
    theirs = quiet_transformers().AutoTokenizer.from_pretrained(folder)
    for text in (
        "In the beginning",
        "  two  spaces, a\ttab\nand lines\r\n\n",
        "Не было света. 世界 🌍 e\u0301 \u00a0",
        f"a {tokens.BOS} spelled out is only text {tokens.BOS}",
        " don't it's , . ! ? n't",
        "",
    ):
        ids = theirs(text).input_ids
        assert ids == tokenizer.encode(text)
        assert theirs.decode(ids) == tokenizer.decode(ids) == text
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.bos_token_id == theirs.eos_token_id == theirs.pad_token_id == tokenizer.bos_id
    assert theirs.model_max_length == BLOCK
    assert theirs.decode([tokenizer.bos_id, *tokenizer.encode("x")], skip_special_tokens=True) == "x"


@pytest.mark.parametrize("shape", ["gpt2", "llama-grouped", "mistral-window"])
def test_greedy_text_is_the_same_in_transformers(tmp_path, tokenizer, shape):
    model, folder = our_model(our_config(shape, False, vocab_size=tokenizer.vocab_size)), tmp_path / "out"
    export_hf(model, tokenizer, folder)
    prompt = torch.tensor([tokenizer.encode("And God said, Let there be light")])
    ids = prompt
    for _ in range(20):
        ids = torch.cat((ids, logits(model, ids)[:, -1].argmax(-1, keepdim=True)), 1)
    assert len(set(ids[0, prompt.shape[1] :].tolist())) > 3
    theirs = their_model(folder)
    assert theirs.generation_config.eos_token_id == tokenizer.bos_id
    made = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    assert made.tolist() == ids.tolist()


def test_a_model_without_a_start_mark_has_none_in_its_config(tmp_path):
    _, folder = exported(tmp_path, our_config())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert their_model(folder).config.bos_token_id is None
