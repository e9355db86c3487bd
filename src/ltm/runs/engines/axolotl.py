"""Axolotl as an engine: one YAML and one ordered dataset a variant, `axolotl train`, and its results read back.

Writes: `axolotl/config.yaml` and `axolotl/stream.parquet` below a run's folder, which `ltm export STUDY --to axolotl`
writes as well. Axolotl lives in an environment of its own (`make axolotl-env`): it pins other versions. It accepts
keys that it does not know, so every key is held against the fields of its own schema first.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ltm.errors import ConfigError, InputError
from ltm.runs import hardware
from ltm.runs.queue import Recipe
from ltm.runs.section import RunsSection
from ltm.store import write_bytes, write_text
from ltm.tokens.stream import Stream

CONFIG, STREAM, OUT = "config.yaml", "stream.parquet", "out"
_SCHEDULERS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
_PRECISION = {"bfloat16": {"bf16": True, "fp16": False}, "float16": {"bf16": False, "fp16": True}}
_WITHOUT_KERNELS = ("lora_qkv_kernel", "lora_o_kernel", "lora_mlp_kernel", "lora_embedding_kernel")


def write_inputs(folder: Path, recipe: Recipe, stream: Stream, init_seed: int, device: str, dtype: str) -> Path:
    """Write the configuration and the dataset of one run, and return the configuration's path.

    Args:
        folder: Gets `config.yaml` and `stream.parquet`; the configuration names paths relative to it.
        recipe: What all runs of the study share.
        stream: The variant's tokens.
        init_seed: Of adapters.
        device: cpu or cuda.
        dtype: float32, tf32, bfloat16 or float16.

    Raises:
        ConfigError: `runs.axolotl` has a key that Axolotl does not know.
    """
    shape = recipe.model.shape(0)
    n_steps = recipe.n_steps()
    folder.mkdir(parents=True, exist_ok=True)
    write_stream(folder / STREAM, stream, n_steps * recipe.runs.batch_tokens, shape.block_size)
    base = str(Path(str(recipe.model.base)).resolve())
    write_config(folder / CONFIG, config_of(recipe.runs, base, shape.block_size, n_steps, init_seed, device, dtype))
    return folder / CONFIG


def config_of(
    section: RunsSection, base: str, block_size: int, n_steps: int, init_seed: int, device: str, dtype: str
) -> dict[str, Any]:
    """Return Axolotl's settings for a run; the user's own (`runs.axolotl`) are laid over them.

    Args:
        section: How it is trained.
        base: The folder that it starts from.
        block_size: Tokens of a sequence.
        n_steps: Optimizer steps.
        init_seed: Of adapters.
        device: cpu or cuda.
        dtype: float32, tf32, bfloat16 or float16.

    Raises:
        ConfigError: a key is not one of Axolotl's.
    """
    micro = max(1, (section.micro_batch_tokens or block_size) // block_size)
    sequences = section.batch_tokens // block_size
    values: dict[str, Any] = {
        "base_model": base,
        "datasets": [{"path": STREAM, "ds_type": "parquet", "type": None}],
        "dataset_prepared_path": "prepared",
        "output_dir": OUT,
        # the order of the variant, whole: nothing is shuffled, packed, grouped, dropped or held out
        "curriculum_sampling": True,
        "shuffle_merged_datasets": False,
        "sample_packing": False,
        "group_by_length": False,
        "pad_to_sequence_len": False,
        "val_set_size": 0.0,
        "sequence_len": block_size + 1,  # rows overlap by one token, so that every token of the stream is predicted
        "micro_batch_size": micro,
        "gradient_accumulation_steps": max(1, sequences // micro // section.processes_per_run),
        "max_steps": n_steps,
        "num_epochs": 1,
        "optimizer": "adamw_torch",
        "learning_rate": section.lr,
        "weight_decay": section.weight_decay,
        "adam_beta1": section.beta1,
        "adam_beta2": section.beta2,
        "max_grad_norm": section.clip_norm,
        "warmup_steps": round(section.warmup_share * n_steps),
        "gradient_checkpointing": section.activation_checkpointing,
        "attn_implementation": "sdpa",
        "tf32": dtype == "tf32",
        "logging_steps": max(1, n_steps // 64),
        "save_strategy": "steps",
        "save_steps": max(1, n_steps // 4),
        "save_total_limit": 1,
        "auto_resume_from_checkpoints": True,
        "seed": init_seed,
        "strict": False,
        **_PRECISION.get(dtype, {"bf16": False, "fp16": False}),
        **_schedule(section, n_steps),
        **_adapter(section),
        **_parallel(section),
        **(dict.fromkeys(_WITHOUT_KERNELS, False) if device == "cpu" else {}),
    }
    values |= section.axolotl
    check_keys(values, "runs.axolotl")
    return values


def precision(section: RunsSection, device: str) -> str:
    """Return the precision of Axolotl's products; on a CPU it has float32 alone.

    Raises:
        InputError: half precision is asked for there.
    """
    if device != "cpu":
        return str(hardware.pick_dtype(section, device)).removeprefix("torch.")
    if section.dtype not in ("auto", "float32"):
        raise InputError(
            f"runs.dtype is {section.dtype}, and Axolotl trains in float32 on a CPU", "nearest: runs.dtype: float32"
        )
    return "float32"


def _schedule(section: RunsSection, n_steps: int) -> dict[str, Any]:
    if section.schedule != "wsd":
        return {"lr_scheduler": _SCHEDULERS[section.schedule]}
    decay = round(section.decay_share * n_steps)
    kwargs = {"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.0}
    return {"lr_scheduler": "warmup_stable_decay", "lr_scheduler_kwargs": kwargs}


def _adapter(section: RunsSection) -> dict[str, Any]:
    if section.method == "full":
        return {}
    lora, four_bit = section.lora, section.method == "qlora"
    targets: dict[str, Any] = {"lora_target_linear": True}
    if lora.targets != "all-linear":
        targets = {"lora_target_modules": [lora.targets] if isinstance(lora.targets, str) else list(lora.targets)}
    return {
        "adapter": section.method,
        "load_in_4bit": four_bit,
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        **targets,
    }


def _parallel(section: RunsSection) -> dict[str, Any]:
    if section.parallel == "fsdp":
        return {"fsdp_version": 2, "fsdp_config": {"reshard_after_forward": True}}
    return {"deepspeed": "deepspeed_configs/zero2.json"} if section.parallel == "zero2" else {}


def known_keys() -> frozenset[str]:
    """Return the fields of Axolotl's schema (`bench/axolotl_fields.py` reads them from an installed Axolotl)."""
    text = (files("ltm.runs.engines") / "data" / "axolotl_fields.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["fields"])


def check_keys(values: Mapping[str, Any], where: str) -> None:
    """Complain of keys that Axolotl would silently pass over.

    Raises:
        ConfigError: names each with the nearest that there is.
    """
    known = known_keys()
    problems = []
    for key in sorted(values.keys() - known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        problems.append(f"{where}: Axolotl has no key `{key}`" + (f"; did you mean `{near[0]}`?" if near else ""))
    if problems:
        raise ConfigError(problems, "`axolotl config-schema` lists its keys")


def command() -> list[str]:
    """Return how Axolotl is called: `$LTM_AXOLOTL`, one on the path, or the environment of `make axolotl-env`.

    Raises:
        InputError: there is none.
    """
    named = os.environ.get("LTM_AXOLOTL")
    places: Iterable[str | None] = (named, shutil.which("axolotl"), ".venv-axolotl/bin/axolotl")
    for place in places:
        if place and Path(place).is_file():
            return [str(Path(place).resolve())]
    raise InputError(
        "Axolotl is not installed" if not named else f"$LTM_AXOLOTL is {named}, which is not there",
        "make axolotl-env, or pip install axolotl in an environment of its own and set LTM_AXOLOTL to its program",
    )


def curve(folder: Path) -> tuple[list[int], list[float]]:
    """Return steps and losses (nats per token) that a finished training logged.

    Raises:
        InputError: it left no log.
    """
    rows = [row for row in _history(folder) if "loss" in row]
    if not rows:
        raise InputError(f"Axolotl left no trainer_state.json below {folder / OUT}", "see axolotl.log beside it")
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


def seconds(log: Path) -> float:
    """Return the training time that Axolotl told at its end; 0 where it did not."""
    found = re.findall(r"'train_runtime': '?([0-9.]+)", log.read_text(encoding="utf-8", errors="replace"))
    return float(found[-1]) if found else 0.0


def steps_done(folder: Path) -> int:
    """Return the step of its last checkpoint."""
    names = [path.name.removeprefix("checkpoint-") for path in (folder / OUT).glob("checkpoint-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _history(folder: Path) -> list[dict[str, Any]]:
    logs = sorted((folder / OUT).glob("**/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return list(json.loads(logs[-1].read_text(encoding="utf-8"))["log_history"]) if logs else []


def write_stream(path: Path, stream: Stream, n_tokens: int, block_size: int) -> None:
    """Write the stream as rows of block_size + 1 tokens, the last of each the first of the next."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = n_tokens // block_size
    tokens = stream.read(0, rows * block_size + 1)
    starts = np.arange(rows)[:, None] * block_size + np.arange(block_size + 1)[None]
    ids = pa.array(tokens[starts].tolist(), type=pa.list_(pa.int32()))
    ones = pa.array(np.ones_like(starts).tolist(), type=pa.list_(pa.int8()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"input_ids": ids, "attention_mask": ones, "labels": ids}), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write settings as YAML."""
    import io

    from ruamel.yaml import YAML

    out = io.StringIO()
    writer = YAML()
    writer.width = 120
    writer.dump(dict(values), out)
    write_text(path, out.getvalue())
