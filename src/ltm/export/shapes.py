"""The shape of a model as a Hugging Face `config.json` says it, and back: GPT-2, Llama and Mistral.

No torch and no transformers here. What a folder says and this project's decoder cannot do is refused with the reason,
never ignored: a model that loads gives the same logits as in transformers. Keys and their defaults: the configuration
classes of transformers 5.23; `rope_theta` and `rope_scaling` are where transformers 4 wrote what is now in
`rope_parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltm.errors import InputError
from ltm.model.sizes import ModelConfig

ARCHITECTURES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
_NEXT = "only plain GPT-2, Llama and Mistral models can be loaded"
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")  # two names of one function


def to_hf_config(config: ModelConfig, norm_eps: float, bos_id: int | None) -> dict[str, Any]:
    """Return the values of `config.json`.

    Args:
        config: The shape; a `llama` with a sliding window becomes a Mistral, which is just that.
        norm_eps: The epsilon of all norms.
        bos_id: The start mark. It is also the end of a text: a model that begins another text has ended this one.

    Raises:
        InputError: a GPT-2 with a sliding window, which Hugging Face's has not.
    """
    shared = {
        "vocab_size": config.vocab_size,
        "bos_token_id": bos_id,
        "eos_token_id": bos_id,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": 0.02,
        "dtype": "float32",
        "use_cache": True,
    }
    if config.family == "gpt2":
        if 0 < config.window < config.block_size:
            raise InputError(
                f"Hugging Face's GPT-2 has no sliding window, so this one ({config.window} tokens) cannot be exported",
                "use the family `mistral` for models with a sliding window",
            )
        return _gpt2_values(config, norm_eps) | shared
    return _llama_values(config, norm_eps) | shared


def _gpt2_values(config: ModelConfig, norm_eps: float) -> dict[str, Any]:
    return {
        "architectures": [ARCHITECTURES["gpt2"]],
        "model_type": "gpt2",
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": norm_eps,
        "scale_attn_weights": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _llama_values(config: ModelConfig, norm_eps: float) -> dict[str, Any]:
    mistral = config.family == "mistral" or config.window > 0
    own: dict[str, Any] = (
        {"sliding_window": config.window or None} if mistral else {"attention_bias": False, "mlp_bias": False}
    )
    kind = "mistral" if mistral else "llama"
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.block_size,
        "rms_norm_eps": norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,  # for programs that do not know `rope_parameters`
        "attention_dropout": 0.0,
        **own,
    }


def from_hf_config(values: Mapping[str, Any]) -> tuple[ModelConfig, float]:
    """Return the shape that `config.json` describes, and the epsilon of its norms.

    Raises:
        InputError: another architecture, or a setting that this project's decoder has not; says which.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise InputError(f"model_type `{kind}` in config.json is not one of {', '.join(ARCHITECTURES)}", _NEXT)
    if values.get("quantization_config"):
        raise InputError("config.json says that the weights are quantised", "load the model that it was made from")
    reader = _Values(values)
    try:
        if kind == "gpt2":
            return _from_gpt2(reader), reader.number("layer_norm_epsilon", 1e-5)
        return _from_llama(reader, kind), reader.number("rms_norm_eps", 1e-6)
    except ValueError as error:  # ModelConfig's own: the numbers contradict each other
        raise InputError(f"config.json: {error}", _NEXT) from None


def _from_gpt2(reader: _Values) -> ModelConfig:
    reader.refuse_unless("activation_function", _TANH_GELU, "gelu_new")
    reader.refuse_unless("scale_attn_weights", (True,), True)
    reader.refuse_unless("scale_attn_by_inverse_layer_idx", (False,), False)
    reader.refuse_unless("add_cross_attention", (False,), False)
    n_head, n_embd = reader.count("n_head"), reader.count("n_embd")
    return ModelConfig(
        family="gpt2",
        n_layer=reader.count("n_layer"),
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
        n_hidden=reader.count("n_inner", 4 * n_embd),
        vocab_size=reader.count("vocab_size"),
        block_size=reader.count("n_positions"),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
    )


def _from_llama(reader: _Values, kind: str) -> ModelConfig:
    reader.refuse_unless("hidden_act", ("silu", "swish"), "silu")
    reader.refuse_unless("attention_bias", (False,), False)
    reader.refuse_unless("mlp_bias", (False,), False)
    n_head, n_embd = reader.count("num_attention_heads"), reader.count("hidden_size")
    head_size = reader.count("head_dim", n_embd // n_head if n_embd % n_head == 0 else 1)
    if head_size * n_head != n_embd:
        raise InputError(
            f"config.json: {n_head} heads of {head_size} (head_dim) do not make the width {n_embd} (hidden_size)", _NEXT
        )
    unnamed = 8 if kind == "mistral" and "num_key_value_heads" not in reader.values else n_head
    window = 0
    if kind == "mistral" and reader.values.get("sliding_window", 4096) is not None:
        window = reader.count("sliding_window", 4096)
    return ModelConfig(
        family=kind,
        n_layer=reader.count("num_hidden_layers"),
        n_head=n_head,
        n_kv_head=reader.count("num_key_value_heads", unnamed),
        n_embd=n_embd,
        n_hidden=reader.count("intermediate_size"),
        vocab_size=reader.count("vocab_size"),
        block_size=reader.count("max_position_embeddings"),
        window=window,
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        rope_theta=reader.rope_theta(),
    )


class _Values:
    """Reads `config.json` key by key; a value that cannot be is an error that names its key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 1; null and a missing key give the default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"config.json: {key} is {value!r}, not a whole number of at least 1", _NEXT)
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number above 0; null and a missing key give the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise InputError(f"config.json: {key} is {value!r}, not a number above 0", _NEXT)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"config.json: {key} is {value!r}, neither true nor false", _NEXT)
        return value

    def refuse_unless(self, key: str, allowed: tuple[Any, ...], default: Any) -> None:
        """Refuse any other value of a setting that this project's decoder has not."""
        value = self.values.get(key, default)
        if value not in allowed:
            possible = " or ".join(repr(v) for v in allowed)
            raise InputError(f"config.json: {key} is {value!r}; this decoder has only {possible}", _NEXT)

    def rope_theta(self) -> float:
        """Return the base of the rotary positions; any scaling of them is refused."""
        rope = self.values.get("rope_scaling") or self.values.get("rope_parameters") or {}
        if not isinstance(rope, Mapping):
            raise InputError(f"config.json: rope_parameters is {rope!r}, not a mapping", _NEXT)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise InputError(
                f"config.json: rotary positions are scaled (rope_type {kind!r}); this decoder has only plain ones",
                _NEXT,
            )
        _Values({**self.values, **rope}).refuse_unless("partial_rotary_factor", (1, None), None)
        return _Values({"rope_theta": self.values.get("rope_theta"), **rope}).number("rope_theta", 10_000.0)
