"""A small Hugging Face model with a tokenizer, made on the spot: stands in for one that others have trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, where it is installed, speaks on standard output
TEXT = "In the beginning was the word, and the light shines in the darkness. He said to them: go and see. " * 40
_SHAPE: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TOKENIZERS = ("gpt2", "smollm", "llama3", "qwen2", "llama2", "mistral")


def make_base(folder: Path, kind: str = "llama", tokenizer: str = "gpt2", **changes: Any) -> Path:
    """Write config, weights and tokenizer of a random model to a folder, and return it.

    Args:
        folder: Where.
        kind: llama, mistral, gpt2, qwen2, qwen3 or gemma.
        tokenizer: Splits texts as that of the model that is so called.
        changes: Of the shape, in transformers' words.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, tokenizer)
    names = {
        "llama": ("Llama", {}), "mistral": ("Mistral", {}), "qwen2": ("Qwen2", {}), "gpt2": ("GPT2", {}),
        "qwen3": ("Qwen3", {"head_dim": 24}), "gemma": ("Gemma", {"head_dim": 16}),
    }  # fmt: skip
    name, own = names[kind]
    shape = {**_SHAPE, "tie_word_embeddings": False, **own, **changes}
    if kind == "gpt2":
        keys = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
        keys |= {"max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}
        shape = {keys.get(key, key): value for key, value in shape.items() if key != "num_key_value_heads"}
    config = getattr(transformers, f"{name}Config")(**shape)
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    model = getattr(transformers, f"{name}ForCausalLM" if kind != "gpt2" else "GPT2LMHeadModel")(config)
    with torch.no_grad():  # louder than fresh ones, biases and norms too: logits differ
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, kind: str = "gpt2") -> None:
    """Write a tokenizer that is trained on the spot and splits texts in one of the usual ways."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>"]
    if kind in ("llama2", "mistral"):
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        if kind == "llama2":
            steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            tokenizer.normalizer = normalizers.Sequence(steps)
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        special = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
        alphabet = sorted(set("abcdefghijklmnopqrstuvwxyz,.:▁IH"))
    else:
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm"))
        pattern = Regex(_LLAMA_3 if kind == "llama3" else _LLAMA_3.replace("{1,3}", ""))
        first = {
            "gpt2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)],
            "llama3": [pre_tokenizers.Split(pattern, "isolated")], "qwen2": [pre_tokenizers.Split(pattern, "isolated")],
        }[kind]  # fmt: skip
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, plain]) if first else plain
        tokenizer.normalizer = normalizers.NFC() if kind == "qwen2" else None
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320 if kind not in ("llama2", "mistral") else 370,
        special_tokens=special, initial_alphabet=alphabet, show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT], trainer)
    if kind in ("llama2", "mistral"):  # bytes are tokens like others, as in SentencePiece's
        value = json.loads(tokenizer.to_str())
        value["added_tokens"] = [row for row in value["added_tokens"] if not row["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(marks))
