"""Small models of ours and of stock transformers, loud enough that their logits differ."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import ModelConfig

os.environ["HF_HUB_OFFLINE"] = "1"
BLOCK = 48
VOCAB = 300
SHAPES = {
    "gpt2": dict(family="gpt2", n_head=4, n_kv_head=4, n_hidden=96),
    "gpt2-grouped": dict(family="gpt2", n_head=4, n_kv_head=2, n_hidden=96),  # theirs has no groups: they are repeated
    "llama": dict(family="llama", n_head=4, n_kv_head=4, n_hidden=96),
    "llama-grouped": dict(family="llama", n_head=4, n_kv_head=2, n_hidden=80, rope_theta=5000.0),
    "llama-one-kv": dict(family="llama", n_head=4, n_kv_head=1, n_hidden=80),
    "llama-window": dict(family="llama", n_head=4, n_kv_head=2, n_hidden=80, window=7),
    "mistral-full": dict(family="mistral", n_head=4, n_kv_head=2, n_hidden=80),
    "mistral-window": dict(family="mistral", n_head=4, n_kv_head=2, n_hidden=80, window=7),
    "mistral-window-1": dict(family="mistral", n_head=4, n_kv_head=4, n_hidden=80, window=1),
    "mistral-wide-window": dict(family="mistral", n_head=4, n_kv_head=2, n_hidden=80, window=BLOCK),
}


def our_config(shape: str = "llama", tied: bool = True, **changes: Any) -> ModelConfig:
    values = {**SHAPES[shape], "n_layer": 3, "n_embd": 64, "vocab_size": VOCAB, "block_size": BLOCK, **changes}
    return ModelConfig(**values, tie_embeddings=tied)


def our_model(config: ModelConfig, seed: int = 1) -> GPT:
    """A model whose norms and biases are not those of a fresh one, so that none of them can be forgotten."""
    model = GPT(config)
    init_weights(model, seed)
    make_loud(model, seed, 2.0)
    return model.eval()


def make_loud(model: torch.nn.Module, seed: int, factor: float = 5.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
            else:  # large biases would drown what depends on the input
                sd = 0.02 if name.endswith("bias") else 0.2
                parameter.add_(torch.empty(parameter.shape).normal_(0.0, sd, generator=generator))


def some_tokens(vocab_size: int = VOCAB, length: int = BLOCK, rows: int = 3) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(9))


def their_model(folder: Path, attention: str = "eager") -> Any:
    """The folder as stock transformers load it; a weight that they had to make up is an error."""
    transformers = quiet_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=attention, output_loading_info=True
        )
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model.eval()


def quiet_transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(tokens)
    return getattr(out, "logits", out)
