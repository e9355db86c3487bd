"""The Hugging Face Trainer on the same shape, as its documentation sets it up, or tuned as far as it goes."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from ltm.bench.gate import Gate
from ltm.bench.seat import Seat
from ltm.bench.words import zipf_tokens
from ltm.model.sizes import ModelConfig

_N_STEPS = 1_000_000  # never reached
_LEARNING_RATE = 1e-3  # any that does not diverge; speed does not depend on it


def run(seat: Seat, gate: Gate) -> None:
    """Train until the gate closes."""
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    model = _model(transformers, seat)
    arguments = transformers.TrainingArguments(
        output_dir=seat.folder,
        max_steps=_N_STEPS,
        per_device_train_batch_size=seat.case.batch_tokens // seat.case.config.block_size,
        learning_rate=_LEARNING_RATE,
        bf16=seat.case.dtype == "bfloat16",
        use_cpu=seat.device == "cpu",
        optim="adamw_torch_fused",
        torch_compile=seat.compiled,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=seat.device == "cuda",
    )
    watch = _watch(transformers, gate, model)
    transformers.Trainer(model=model, args=arguments, train_dataset=_blocks(seat), callbacks=[watch]).train()


def _watch(transformers: Any, gate: Gate, model: Any) -> Any:
    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        """Takes the trainer through the gate."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            n_params = sum(p.numel() for p in model.parameters())
            gate.begin(n_params=n_params, attention=model.config._attn_implementation)

        def on_step_end(self, _arguments: Any, _state: Any, control: Any, **_: Any) -> None:
            if not gate.passed():
                control.should_training_stop = True

    return Watch()


def _blocks(seat: Seat) -> list[dict[str, torch.Tensor]]:
    """Return blocks of tokens as the Trainer takes them: the model shifts the labels itself."""
    block_size = seat.case.config.block_size
    tokens = torch.from_numpy(zipf_tokens(seat.case.config.vocab_size))
    blocks = tokens[: len(tokens) // block_size * block_size].view(-1, block_size)
    return [{"input_ids": block, "labels": block} for block in blocks]


def _model(transformers: Any, seat: Seat) -> Any:
    config = _config(transformers, seat.case.config)
    names = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "gpt2": "GPT2LMHeadModel"}
    if seat.attention:
        config._attn_implementation = seat.attention
    return getattr(transformers, names[seat.case.config.family])(config)


def _config(transformers: Any, shape: ModelConfig) -> Any:
    if shape.family == "gpt2":
        return transformers.GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_inner=shape.n_hidden,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            tie_word_embeddings=shape.tie_embeddings,
        )
    about: dict[str, Any] = {"sliding_window": shape.window or None} if shape.family == "mistral" else {}
    kind = transformers.MistralConfig if shape.family == "mistral" else transformers.LlamaConfig
    return kind(
        vocab_size=shape.vocab_size,
        hidden_size=shape.n_embd,
        intermediate_size=shape.n_hidden,
        num_hidden_layers=shape.n_layer,
        num_attention_heads=shape.n_head,
        num_key_value_heads=shape.n_kv_head,
        max_position_embeddings=shape.block_size,
        tie_word_embeddings=shape.tie_embeddings,
        use_cache=False,
        **about,
    )
