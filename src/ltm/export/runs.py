"""Runs of a study as Hugging Face folders or GGUF files: find them, check them all, then write one after another.

Reads: `runs/`, `tokens/tokenizer.json`, and what the README tells. Writes: `export/<run_id>/` or
`export/<run_id>-<dtype>.gguf`, or the same wherever the user says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltm.errors import InputError, StoreError
from ltm.export.card import write_card
from ltm.export.gguf import DTypes, export_gguf, require_gguf
from ltm.export.hf import export_hf, refuse_existing
from ltm.records import Run
from ltm.runs import checkpoint, queue
from ltm.store import WorkFolder
from ltm.tokens import tokenizer as tokens

_IDS = "ids: ltm sql STUDY 'select run_id, final_loss from runs'"


def export_runs(
    work: WorkFolder, wanted: Sequence[str], out: Path | None, study: str, question: str
) -> dict[str, Path]:
    """Write runs as Hugging Face folders, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Args:
        work: The study's work folder.
        wanted: Run ids, or beginnings that only one run has; named twice is written once.
        out: Gets a folder for each run; None is `export` in the work folder.
        study: The study's name, for the README.
        question: What the study asks, for the README.

    Raises:
        InputError: no run is called so, it has no weights, or its folder exists.
        StoreError: something in the work folder is missing or damaged, or the folder cannot be written.
    """
    runs = find_runs(work, wanted)
    base = work.path("export") if out is None else out
    folders = {run.run_id: base / run.run_id for run in runs}
    for folder in folders.values():
        refuse_existing(folder)
    tokenizer = tokens.load(work)
    for run in runs:
        model, _ = checkpoint.load_model(work, run.run_id, "cpu")
        card = write_card(work, run, model.config, study, question)
        export_hf(model, tokenizer, folders[run.run_id], card)
    return folders


def export_ggufs(
    work: WorkFolder, wanted: Sequence[str], out: Path | None, dtype: DTypes, study: str
) -> dict[str, Path]:
    """Write runs as GGUF files for llama.cpp, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Args:
        work: The study's work folder.
        wanted: Run ids, or beginnings that only one run has; named twice is written once.
        out: Gets the files; None is `export` in the work folder.
        dtype: Of the matrices.
        study: The study's name, for what the file says of itself.

    Raises:
        InputError: no run is called so, it has no weights, its file exists, or llama.cpp has no such model.
        MissingPartError: the package `gguf` is not installed.
        StoreError: something in the work folder is missing or damaged, or the file cannot be written.
    """
    require_gguf()
    runs = find_runs(work, wanted)
    base = work.path("export") if out is None else out
    paths = {run.run_id: base / f"{run.run_id}-{dtype}.gguf" for run in runs}
    for path in paths.values():
        refuse_existing(path)
    tokenizer = tokens.load(work)
    for run in runs:
        model, _ = checkpoint.load_model(work, run.run_id, "cpu")
        about = {
            "name": f"{study} {run.run_id}",
            "description": f"{run.model}, a run of the study {study}, made by ltm",
        }
        export_gguf(model, tokenizer, paths[run.run_id], dtype, about)
    return paths


def find_runs(work: WorkFolder, wanted: Sequence[str]) -> list[Run]:
    """Return runs that are complete and have weights, each once, in the order in which they are named.

    Raises:
        InputError: nothing or more than one run is called so, it is not complete, or its weights are gone.
        StoreError: the study has no runs yet.
    """
    runs = match_runs(work, wanted)
    for run in runs:
        if not work.path("runs", run.run_id, checkpoint.WEIGHTS).is_file():
            hint = "choose a run whose folder holds weights"
            raise InputError(f"run {run.run_id} is complete, but its weights were not kept", hint)
    return runs


def match_runs(work: WorkFolder, wanted: Sequence[str]) -> list[Run]:
    """Return runs that are complete, each once, in the order in which they are named.

    Raises:
        InputError: nothing or more than one run is called so, or it is not complete.
        StoreError: the study has no runs yet.
    """
    known = {job.run_id for job in queue.read_jobs(work)[1]}
    known |= {path.parent.name for path in work.path("runs").glob("*/run.json")}  # also of earlier settings
    found: dict[str, Run] = {}
    for text in wanted:
        matches = [text] if text in known else sorted(run_id for run_id in known if text and run_id.startswith(text))
        if not matches:
            raise InputError(f"no run in {work.root} begins with `{text}`", _IDS)
        if len(matches) > 1:
            shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise InputError(f"`{text}` is the beginning of {len(matches)} runs: {shown}", "give more of the id")
        found[matches[0]] = _complete(work, matches[0])
    return list(found.values())


def _complete(work: WorkFolder, run_id: str) -> Run:
    state = queue.state_of(work, run_id)
    if state != "complete":
        raise InputError(f"run {run_id} is {state}: it has no weights to export yet", "run the study: ltm run STUDY")
    run = queue.read_run(work, run_id)
    if run is None:
        path = work.path("runs", run_id, "run.json")
        raise StoreError(f"{path} is damaged", "delete the run's folder and run again")
    return run
