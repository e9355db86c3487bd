"""The adapters of a run as a folder that peft loads beside the same base model.

Reads: `runs/<run_id>/adapter/`, of a tuned model `dialogue/<run_id>/adapter/`. Writes: `export/<run_id>-lora/` with
`adapter_model.safetensors`, `adapter_config.json` (the base by its name alone: no path of this machine) and
`README.md`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ltm.errors import InputError, StoreError
from ltm.export.card import Origin, write_adapter_card
from ltm.export.foreign import base_name
from ltm.export.hf import whole_folder, write_json
from ltm.records import Run
from ltm.runs import queue
from ltm.runs.engines.base_model import ADAPTER
from ltm.store import WorkFolder, write_text

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapters(work: WorkFolder, run_id: str, tuned: bool) -> dict[str, Any]:
    """Return what peft wants to know of a run's adapters, the base model by its name alone.

    Raises:
        InputError: the run has none.
        StoreError: they are damaged.
    """
    folder = work.path("dialogue" if tuned else "runs", run_id, ADAPTER)
    if not folder.is_dir():
        raise InputError(
            f"run {run_id} has no adapters: its method was not lora or qlora, or they were not kept",
            "export the whole model: --to hf",
        )
    try:
        value = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        name = Path(str(value["base_model_name_or_path"])).name
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{folder / CONFIG} is missing or damaged", "delete the run's folder and run again") from None
    if not (folder / WEIGHTS).is_file():
        raise StoreError(f"{folder / WEIGHTS} is missing", "delete the run's folder and run again")
    return {**value, "base_model_name_or_path": name}


def write_adapters(
    work: WorkFolder, run: Run, folder: Path, about: dict[str, Any], study: str, question: str, tuned: bool
) -> None:
    """Write a run's adapters as a folder, whole.

    Args:
        work: The study's work folder.
        run: The run.
        folder: To be made.
        about: What `check_adapters` returned.
        study: The study's name, for the README.
        question: What the study asks, for the README.
        tuned: As the dialogue layer left them.

    Raises:
        InputError: the folder exists.
        StoreError: it cannot be written.
    """
    kept = work.path("dialogue" if tuned else "runs", run.run_id, ADAPTER)
    origin = Origin(str(about["base_model_name_or_path"]), base_name(work)[1], queue.read_jobs(work)[0].runs.method)
    with whole_folder(folder) as temporary:
        shutil.copyfile(kept / WEIGHTS, temporary / WEIGHTS)
        write_json(temporary / CONFIG, dict(sorted(about.items())))
        write_text(temporary / "README.md", write_adapter_card(work, run, origin, study, question, tuned))
