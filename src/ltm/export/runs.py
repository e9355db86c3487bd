"""Runs of a study as Hugging Face folders, GGUF files or adapters: find them, check them all, then write them.

Reads: `runs/` (`dialogue/` for tuned models), `tokens/`, and what the README tells. Writes: `export/<run_id>/`,
`export/<run_id>-<dtype>.gguf`, `export/<run_id>-lora/`, or the same wherever the user says; a tuned model is called
`<run_id>-tuned`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltm.errors import InputError, StoreError
from ltm.export import foreign
from ltm.export.card import Origin, write_card
from ltm.export.gguf import DTypes, export_gguf, require_gguf
from ltm.export.gguf_folder import check_folder, convert_folder
from ltm.export.hf import export_hf, refuse_existing, whole_folder
from ltm.export.lora import check_adapters, write_adapters
from ltm.model.base import OWN_WEIGHTS
from ltm.model.gpt import GPT
from ltm.records import Run
from ltm.runs import checkpoint, queue
from ltm.runs.engines.start import kept_folder
from ltm.store import WorkFolder, write_text
from ltm.tokens import tokenizer as tokens

_IDS = "ids: ltm sql STUDY 'select run_id, final_loss from runs'"


@dataclass(frozen=True)
class Order:
    """What is to be written of a study, and where.

    Args:
        work: The study's work folder.
        wanted: Run ids, or beginnings that only one run has; named twice is written once.
        out: Gets what is written; None is `export` in the work folder.
        study: The study's name, for the README.
        question: What the study asks, for the README.
        tuned: The models as the dialogue layer left them.
    """

    work: WorkFolder
    wanted: Sequence[str]
    out: Path | None
    study: str
    question: str
    tuned: bool = False

    def places(self, ending: str) -> dict[str, tuple[Run, Path]]:
        """Return the runs and where each will lie, by run id; nothing that exists is overwritten.

        Raises:
            InputError: no run is called so, it has no weights, or something lies there.
            StoreError: the study has no runs yet.
        """
        base = self.work.path("export") if self.out is None else self.out
        name = f"-tuned{ending}" if self.tuned else ending
        found = {run.run_id: (run, base / f"{run.run_id}{name}") for run in self._runs()}
        for _, path in found.values():
            refuse_existing(path)
        return found

    def _runs(self) -> list[Run]:
        runs = match_runs(self.work, self.wanted)
        for run in runs:
            _require_weights(self.work, run.run_id, self.tuned)
        return runs


def export_runs(order: Order) -> dict[str, Path]:
    """Write runs as Hugging Face folders, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Raises:
        InputError: no run is called so, it has no weights, its folder exists, or its base model is not there.
        StoreError: something in the work folder is missing or damaged, or the folder cannot be written.
    """
    places, work = order.places(""), order.work
    tokenizer = tokens.load(work)
    for run_id in places:
        if foreign.is_foreign(work, run_id):
            foreign.model_values(work, run_id, order.tuned)
    for run_id, (run, folder) in places.items():
        if foreign.is_foreign(work, run_id):
            with whole_folder(folder) as temporary:
                foreign.write_model(work, run_id, temporary, order.tuned)
                write_text(temporary / "README.md", _foreign_card(order, run))
            continue
        model = _own_model(work, run_id, order.tuned)
        card = write_card(work, run, model.config, order.study, order.question, tuned=order.tuned)
        export_hf(model, tokenizer, folder, card, _template(order))
    return {run_id: path for run_id, (_, path) in places.items()}


def export_ggufs(order: Order, dtype: DTypes) -> dict[str, Path]:
    """Write runs as GGUF files for llama.cpp, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Args:
        order: What is written.
        dtype: Of the matrices.

    Raises:
        InputError: no run is called so, it has no weights, its file exists, or llama.cpp has no such model.
        MissingPartError: the package `gguf` is not installed.
        StoreError: something in the work folder is missing or damaged, or the file cannot be written.
    """
    require_gguf()
    places, work = order.places(f"-{dtype}.gguf"), order.work
    tokenizer = tokens.load(work)
    for run_id in places:
        if foreign.is_foreign(work, run_id):
            check_folder(foreign.model_values(work, run_id, order.tuned), tokenizer.to_json())
    for run_id, (run, path) in places.items():
        about = {
            "name": f"{order.study} {run_id}",
            "description": f"{run.model}, a run of the study {order.study}, made by ltm",
        }
        if not foreign.is_foreign(work, run_id):
            model = _own_model(work, run_id, order.tuned)
            export_gguf(model, tokenizer, path, dtype, about, _template(order))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{run_id}-", suffix=".tmp", dir=path.parent))
        try:
            foreign.write_model(work, run_id, scratch, order.tuned)
            convert_folder(scratch, path, dtype, about)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return {run_id: path for run_id, (_, path) in places.items()}


def export_loras(order: Order) -> dict[str, Path]:
    """Write the adapters of runs, and return where each lies, by run id.

    Nothing is written unless all of them can be.

    Raises:
        InputError: no run is called so, it has no adapters, or its folder exists.
        StoreError: something in the work folder is missing or damaged, or the folder cannot be written.
    """
    runs = match_runs(order.work, order.wanted)
    values = {run.run_id: check_adapters(order.work, run.run_id, order.tuned) for run in runs}
    places = order.places("-lora")
    for run_id, (run, folder) in places.items():
        write_adapters(order.work, run, folder, values[run_id], order.study, order.question, order.tuned)
    return {run_id: path for run_id, (_, path) in places.items()}


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


def _require_weights(work: WorkFolder, run_id: str, tuned: bool) -> None:
    if tuned and not work.path("dialogue", run_id, "tuned.json").is_file():
        hint = "models at the head of the ranking have it: ltm dialogue STUDY; or leave out --tuned"
        raise InputError(f"run {run_id} has no dialogue layer", hint)
    if work.path("dialogue" if tuned else "runs", run_id, OWN_WEIGHTS).is_file():
        return
    try:
        kept_folder(work, run_id, tuned)
    except StoreError:
        hint = "choose a run whose folder holds weights"
        raise InputError(f"run {run_id} is complete, but its weights were not kept", hint) from None


def _own_model(work: WorkFolder, run_id: str, tuned: bool) -> GPT:
    if tuned:
        return checkpoint.load_file(work.path("dialogue", run_id, OWN_WEIGHTS), "cpu")[0]
    return checkpoint.load_model(work, run_id, "cpu")[0]


def _template(order: Order) -> str:
    from ltm.dialogue.template import template_of

    return template_of(order.work).source if order.tuned else ""


def _foreign_card(order: Order, run: Run) -> str:
    recipe = queue.read_jobs(order.work)[0]
    name, licence = foreign.base_name(order.work)
    origin = Origin(name, licence, recipe.runs.method)
    shape = recipe.model.shape(tokens.load(order.work).vocab_size)
    return write_card(order.work, run, shape, order.study, order.question, origin, order.tuned)
