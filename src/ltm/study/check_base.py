"""Whether a study that starts from a trained model can: the model, the packages, the engine's settings, memory."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ltm.errors import InputError
from ltm.forecast.case import METHODS, PRECISIONS, Case
from ltm.forecast.devices import device
from ltm.forecast.estimate import forecast
from ltm.model.base import Base, is_own, read_base
from ltm.runs import capabilities
from ltm.runs.free_memory import free_bytes
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings
from ltm.units import format_bytes

_INSTALL = "pip install 'ltm[tune]'"
_PRECISION = {"float32": "fp32", "tf32": "tf32", "float16": "fp16", "bfloat16": "bf16"}


def check_base(settings: StudySettings, notes: Notes) -> bool:
    """Note what keeps a base model from being trained; returns whether its shape is known."""
    runs, base = settings.runs, settings.model.base
    if base is None:
        if runs.method != "full" or runs.engine == "axolotl":
            text = f"is missing: {runs.method if runs.method != 'full' else runs.engine} starts from a trained model, "
            notes.problem("model.base", text + "a Hugging Face folder on this disk", "runs.engine", "runs.method")
        elif runs.engine == "hf":
            _check_engine(settings, notes)
            _check_packages(settings, notes)
        return True
    folder = Path(base)
    if not folder.is_dir():
        text = (
            f"is {base}, which is not on this disk yet; until it is, this reckons with model.size {settings.model.size}"
        )
        notes.warning("model.base", text)
        return True
    try:
        own = is_own(folder)
        shape = settings.model.shape(0)
        found = None if own else read_base(folder)
    except InputError as error:
        notes.problem("model.base", f"{error.message}" + (f" ({error.hint})" if error.hint else ""))
        return False
    if own != (runs.engine == "native"):
        text = "is the folder of a run of ltm; nearest: native" if own else "is a Hugging Face folder; nearest: hf"
        notes.problem("runs.engine", f"is {runs.engine}, but model.base {base} {text}")
    if settings.model.block_size and settings.model.block_size > shape.block_size:
        text = f"is {settings.model.block_size}, longer than the base model's {shape.block_size} positions"
        notes.problem("model.block_size", f"{text}; nearest: {shape.block_size}")
    if found is not None:
        if found.forbids_derivatives:
            text = f"is under {found.licence}, which forbids passing on what is made of it"
            notes.warning("model.base", text)
        _check_engine(settings, notes)
        _check_packages(settings, notes)
        if not notes.problems:
            _check_memory(settings, found, notes)
    return True


def _check_engine(settings: StudySettings, notes: Notes) -> None:
    """Note settings that only the native engine has."""
    runs = settings.runs
    if runs.optimizer != "adamw":
        notes.problem("runs.optimizer", f"is {runs.optimizer}: engine {runs.engine} has adamw", "runs.engine")
    if runs.average_share:
        notes.problem("runs.average_share", "is for the native engine; nearest: 0", "runs.engine")
    if runs.document_mask:
        notes.problem("runs.document_mask", "is for the native engine; nearest: false", "runs.engine")
    if runs.compile is True:
        notes.problem("runs.compile", "is for the native engine; nearest: auto", "runs.engine")
    shared = (settings.model.shape(settings.tokens.vocab_size).block_size) * runs.processes_per_run
    if runs.processes_per_run > 1 and runs.batch_tokens % shared:
        nearest = max(1, round(runs.batch_tokens / shared)) * shared
        text = f"is {runs.batch_tokens}; {runs.processes_per_run} processes share it in whole sequences: a multiple of "
        notes.problem("runs.batch_tokens", f"{text}{shared}; nearest: {nearest}", "runs.processes_per_run")
    if settings.model.base is None and settings.model.parametrization == "mup":
        notes.problem("model.parametrization", "is mup, which transformers' decoders lack; nearest: standard")
    if runs.lr > 2e-3 and runs.method == "full" and settings.model.base is not None:
        notes.warning("runs.lr", f"is {runs.lr:g}, high for a model that was trained before; usual: 1e-5 to 1e-4")


def _check_packages(settings: StudySettings, notes: Notes) -> None:
    runs = settings.runs
    wanted = {"transformers": True, "peft": runs.method != "full", "bitsandbytes": runs.method == "qlora"}
    wanted |= {"deepspeed": runs.parallel == "zero2"}
    missing = [name for name, needed in wanted.items() if needed and find_spec(name) is None]
    if missing and runs.engine == "hf":
        notes.problem("runs.engine", f"hf needs {', '.join(missing)}: {_INSTALL}")


def _check_memory(settings: StudySettings, base: Base, notes: Notes) -> None:
    """Note where not even one sequence fits on this machine, with the nearest setting that does.

    A problem where the least that the forecast allows for is too much; a warning where what it expects is.
    """
    runs = settings.runs
    if capabilities.may_have_accelerator():
        return  # asking for a card's free memory would load PyTorch; `ltm plan` does
    free = free_bytes("cpu") / (runs.workers or 1)
    least, needed = needed_bytes(settings, base)
    if needed <= free:
        return
    smaller = [("runs.method", "lora"), ("runs.method", "qlora"), ("runs.activation_checkpointing", "true")]
    for key, value in smaller:
        section = runs.model_copy(update={key.split(".")[1]: value if key.endswith("method") else True})
        if needed_bytes(settings.model_copy(update={"runs": section}), base)[1] <= free:
            nearest = f"nearest that fits: {key}: {value}"
            break
    else:
        nearest = "no setting of it fits: choose a smaller model"
    text = f"takes about {format_bytes(needed)} at one sequence of {settings.model.shape(0).block_size} tokens, "
    text = f"{text}but {format_bytes(free)} are free here; {nearest}"
    if least > free:
        notes.problem("model.base", text, "runs.method", "runs.workers")
    else:
        notes.warning("model.base", text)


def needed_bytes(settings: StudySettings, base: Base) -> tuple[float, float]:
    """Return the forecast of a run's peak memory in bytes at one sequence a process: the least, and what to expect."""
    runs, block_size = settings.runs, settings.model.shape(0).block_size
    dtype = "bfloat16" if runs.dtype == "auto" else runs.dtype
    lora = runs.method != "full"
    case = Case(
        n_layer=base.n_layer, n_embd=base.n_embd, n_head=base.n_head, n_kv_head=base.n_kv_head,
        head_size=base.n_embd / base.n_head, n_hidden=base.n_hidden, vocab_size=base.vocab_size,
        gated=float(base.model_type != "gpt2"), tied=float(base.tie_embeddings), seq_len=block_size, micro_batch=1.0,
        global_batch_tokens=runs.batch_tokens, precision=float(PRECISIONS.index(_PRECISION[dtype])),
        mixed=float(not lora), checkpointing=float(runs.activation_checkpointing),
        method=float(METHODS.index(runs.method)), lora_rank=float(runs.lora.rank if lora else 0),
        lora_mlp=float(lora), n_devices=float(runs.processes_per_run), continued=1.0,
        zero={"none": 0.0, "ddp": 0.0, "zero2": 2.0, "fsdp": 3.0}[runs.parallel],
    )  # fmt: skip
    found = forecast(case, device("RTX PRO 6000"))  # bytes hardly depend on the card
    return found.peak_memory_low, found.peak_memory_bytes
