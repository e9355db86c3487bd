"""The adapters of a run as a folder that peft loads beside the same base model.

Reads: `runs/<run_id>/adapter/`. Writes: `export/<run_id>-lora/` with `adapter_model.safetensors`, `adapter_config.json`
(the base by its name alone: no path of this machine) and `README.md`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltm.errors import InputError, StoreError
from ltm.export.card import write_adapter_card
from ltm.export.hf import refuse_existing, whole_folder
from ltm.export.runs import match_runs
from ltm.records import Run
from ltm.runs.engines.base_model import ADAPTER
from ltm.store import WorkFolder, write_text

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_loras(
    work: WorkFolder, wanted: Sequence[str], out: Path | None, study: str, question: str
) -> dict[str, Path]:
    """Write the adapters of runs, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Args:
        work: The study's work folder.
        wanted: Run ids, or beginnings that only one run has.
        out: Gets a folder for each run; None is `export` in the work folder.
        study: The study's name, for the README.
        question: What the study asks, for the README.

    Raises:
        InputError: no run is called so, it has no adapters, or its folder exists.
        StoreError: something in the work folder is missing or damaged, or the folder cannot be written.
    """
    runs = match_runs(work, wanted)
    base = work.path("export") if out is None else out
    folders = {run.run_id: base / f"{run.run_id}-lora" for run in runs}
    values = {run.run_id: _read_config(work, run) for run in runs}
    for folder in folders.values():
        refuse_existing(folder)
    for run in runs:
        with whole_folder(folders[run.run_id]) as temporary:
            about = values[run.run_id]
            shutil.copyfile(work.path("runs", run.run_id, ADAPTER, WEIGHTS), temporary / WEIGHTS)
            write_text(temporary / CONFIG, json.dumps(about, indent=2, sort_keys=True) + "\n")
            name = str(about["base_model_name_or_path"])
            write_text(temporary / "README.md", write_adapter_card(work, run, name, study, question))
    return folders


def _read_config(work: WorkFolder, run: Run) -> dict[str, Any]:
    """Return what peft wants to know, the base model by its name alone."""
    folder = work.path("runs", run.run_id, ADAPTER)
    if not folder.is_dir():
        raise InputError(
            f"run {run.run_id} has no adapters: its method was not lora or qlora, or they were not kept",
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
