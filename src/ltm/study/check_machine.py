"""Whether this machine can train the study: device, precision, compiler, memory."""

from __future__ import annotations

import os

from ltm.errors import InputError
from ltm.runs import capabilities
from ltm.runs.free_memory import free_bytes
from ltm.runs.micro_batch import largest_that_fits, worker_bytes
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings
from ltm.units import format_bytes


def check_machine(settings: StudySettings, notes: Notes) -> None:
    """Note what the machine at hand lacks; memory is a warning, since a study may be trained elsewhere."""
    runs = settings.runs
    if runs.compile is True and not capabilities.has_compiler():
        text = f"needs a C++ compiler: {capabilities.compiler_install_line()}; nearest: false"
        notes.problem("runs.compile", text)
    device = _device(settings, notes)
    if device is None:
        return
    dtype = runs.dtype
    found = capabilities.trouble(dtype, capabilities.abilities(device)) if dtype not in ("auto", "float32") else None
    if found:
        note = notes.problem if found.stops else notes.warning
        note("runs.dtype", f"is {dtype}: {found.reason}; nearest: {found.nearest}", "runs.device")
    if device == "cpu" and runs.engine == "native" and not notes.problems:  # they would change what it takes
        _check_memory(settings, dtype, notes)


def _device(settings: StudySettings, notes: Notes) -> str | None:
    """Return the device of the study; None where it is not there, or where nothing hangs on asking PyTorch for it."""
    runs = settings.runs
    if runs.device == "cpu" or (runs.device == "auto" and not capabilities.may_have_accelerator()):
        return "cpu"
    if runs.device == "auto" and runs.dtype in ("auto", "float32"):
        return None
    from ltm.runs import hardware

    try:
        return hardware.pick_device(runs)
    except InputError as error:
        notes.problem("runs.device", f"{error.message.removeprefix('runs.device ')}; nearest: auto")
        return None


def _check_memory(settings: StudySettings, dtype: str, notes: Notes) -> None:
    """Warn when the workers together take more than is free even at one sequence each, or at their micro batch."""
    runs = settings.runs
    shape = settings.model.shape(settings.tokens.vocab_size)
    n_workers = runs.workers or len(os.sched_getaffinity(0))
    free = free_bytes("cpu")
    dtype = "float32" if dtype == "auto" else dtype
    again = runs.activation_checkpointing
    one = worker_bytes(shape, shape.block_size, dtype, "cpu", activation_checkpointing=again)
    if one > free:
        text = f"takes up to {format_bytes(one)} for one worker at one sequence of {shape.block_size} tokens, "
        notes.warning("model.size", text + f"but {format_bytes(free)} are free here: choose a smaller model")
    elif one * n_workers > free:
        text = f"is {runs.workers}" + ("" if runs.workers else f" (one per core: {n_workers})")
        text += f", but each worker takes up to {format_bytes(one)} and {format_bytes(free)} are free here; "
        notes.warning("runs.workers", text + f"nearest: {int(free // one)}")
    elif runs.micro_batch_tokens:
        needed = worker_bytes(shape, runs.micro_batch_tokens, dtype, "cpu", activation_checkpointing=again)
        if needed * n_workers > free:
            fits = largest_that_fits(
                shape, runs.batch_tokens, dtype, "cpu", free / n_workers, activation_checkpointing=again
            )
            text = f"is {runs.micro_batch_tokens}, which takes up to {format_bytes(needed)} a worker, "
            text += f"but {format_bytes(free / n_workers)} are free for each here; nearest: {fits}"
            notes.warning("runs.micro_batch_tokens", text)
