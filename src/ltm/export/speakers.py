"""Models that one can talk to: runs of a study, Hugging Face folders, GGUF files; each goes on with a text.

Reads: `runs/<run_id>/weights.safetensors` (or its tuned weights in `dialogue/`), or what the user names. No pickle is
loaded, no remote code is run, and nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from ltm.dialogue.template import Template, own_template, template_in, template_of
from ltm.errors import InputError, MissingPartError, StoreError
from ltm.export.foreign import is_foreign
from ltm.export.foreign_reader import LONGEST_TOKENS
from ltm.export.generate import OwnReader, Reader, Sampling, Writer
from ltm.export.hf import import_hf
from ltm.model.base import OWN_WEIGHTS, PICKLES, read_base, read_config
from ltm.runs import checkpoint, queue
from ltm.store import WorkFolder
from ltm.tokens import adopted
from ltm.tokens import tokenizer as tokens

_NO_PICKLE = "convert them to safetensors where you trust them: a pickle can run any program when it is loaded"
Never = Callable[[], bool]


class Speaker(Protocol):
    """A model that goes on with a text."""

    name: str
    context_tokens: int
    template: Template | None  # of conversations; None = it was never tuned on any, and only goes on

    def go_on(self, prompt: str, sampling: Sampling, stopped: Never) -> Iterator[str]:
        """Yield pieces of text as they are made."""


class OwnSpeaker:
    """A model of this project's decoder."""

    def __init__(self, name: str, writer: Writer, template: Template | None) -> None:
        self.name, self.template = name, template
        self.context_tokens = writer.block_size
        self._writer = writer

    def go_on(self, prompt: str, sampling: Sampling, stopped: Never) -> Iterator[str]:
        """Yield pieces of text as they are made."""
        yield from self._writer.go_on(prompt, sampling, stopped)


class GgufSpeaker:
    """A GGUF file in llama.cpp.

    Raises:
        MissingPartError: xllamacpp is not installed.
        InputError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, n_threads: int) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingPartError("xllamacpp is not installed, which loads GGUF files", "pip install 'ltm[gguf]'")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.cpuparams.n_threads = n_threads
        params.warmup, params.verbosity = False, -1
        params.api_keys = [secrets.token_hex(16)]  # it opens a port of its own that nobody is meant to use
        try:
            self._server = xllamacpp.Server(params)
        except Exception as error:
            raise InputError(f"llama.cpp cannot load {path}: {error}", "check the file with another program") from None
        self.name, self.context_tokens = path.stem, int(_gguf_number(path, "context_length") or 2048)
        source = _gguf_text(path, "tokenizer.chat_template")
        self.template = Template(source, "", "") if source else None

    def go_on(self, prompt: str, sampling: Sampling, stopped: Never) -> Iterator[str]:
        """Yield pieces of text as they are made."""
        import queue
        import threading

        pieces: queue.Queue[str | None] = queue.Queue()

        def take(answer: Any) -> bool:
            choices = answer.get("choices") or [{}]
            pieces.put(choices[0].get("text") or answer.get("content") or "")
            return stopped()

        about = {
            "prompt": prompt, "n_predict": sampling.max_tokens, "temperature": sampling.temperature,
            "top_k": 1 if sampling.temperature == 0 else sampling.top_k, "top_p": sampling.top_p,
            "repeat_penalty": sampling.repeat_penalty, "seed": sampling.seed, "stream": True, "cache_prompt": True,
        }  # fmt: skip

        def work() -> None:
            try:
                self._server.handle_completions(about, take)
            finally:
                pieces.put(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while (piece := pieces.get()) is not None:
            if piece:
                yield piece
        thread.join()


def of_run(work: WorkFolder, run_id: str, device: str = "cpu") -> Speaker:
    """Return a run of a study; its tuned weights where it has them.

    Raises:
        InputError: it has no weights, or its base model is not there.
        StoreError: the weights or the tokenizer are missing or damaged.
    """
    tokenizer = tokens.load(work)
    tuned = work.path("dialogue", run_id, "tuned.json").is_file()
    name = f"{run_id} (tuned)" if tuned else run_id
    if is_foreign(work, run_id):
        return _of_foreign_run(work, run_id, name, tuned, device)
    weights = work.path("dialogue" if tuned else "runs", run_id, OWN_WEIGHTS)
    if not weights.is_file():
        raise InputError(f"run {run_id} has no weights here", f"choose a run whose folder holds {OWN_WEIGHTS}")
    model, _ = checkpoint.load_file(weights, device)
    return OwnSpeaker(name, Writer(OwnReader(model), tokenizer, marked=tuned), template_of(work) if tuned else None)


def _of_foreign_run(work: WorkFolder, run_id: str, name: str, tuned: bool, device: str) -> Speaker:
    from ltm.export.foreign_reader import ForeignReader
    from ltm.runs.engines.start import load_trained

    tokenizer, template = tokens.load(work), template_of(work)
    asked = tuned or own_template(work)  # a base model that was made for talking still is
    model = load_trained(work, run_id, device, tuned=tuned, exact=True)
    section = queue.read_jobs(work)[0].model
    shape = section.shape(tokenizer.vocab_size)
    length = shape.block_size if section.base is None else read_base(Path(section.base)).n_positions
    ends = _ends(model, tokenizer, template.end)
    writer = Writer(ForeignReader(model, length), tokenizer, asked, ends)
    return OwnSpeaker(name, writer, template if asked else None)


def _ends(model: Any, tokenizer: tokens.Tokenizer, end: str) -> set[int]:
    """Return the tokens that end a text by what the model, its generation settings and its template say."""
    ends = {tokenizer.marks[end]} if end in tokenizer.marks else set()
    for values in (model.config, getattr(model, "generation_config", None)):
        named = getattr(values, "eos_token_id", None)
        ends |= {token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)}
    return ends


def of_path(path: Path, n_threads: int) -> Speaker:
    """Return the model of a GGUF file or a Hugging Face folder.

    Raises:
        InputError: it is a pickle, wants its own code, has no tokenizer, or cannot be loaded.
        MissingPartError: what loads it is not installed.
    """
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is a pickle: its weights are not loaded", _NO_PICKLE)
    if path.is_file():
        if path.suffix.lower() != ".gguf" and path.read_bytes()[:4] != b"GGUF":
            raise InputError(f"{path} is neither a GGUF file nor a folder", "name a run, a .gguf file or a folder")
        return GgufSpeaker(path, n_threads)
    base = read_base(path)
    try:
        tokenizer = tokens.from_folder(path)
    except (StoreError, ValueError) as error:
        raise InputError(f"the tokenizer of {path} cannot be used: {error}", "save it again") from None
    if tokenizer.bos_id is None:
        raise InputError(f"the tokenizer of {path} names no token that stands before a text", "name its bos_token")
    template = _folder_template(path)
    reader, model = _reader(path, base.n_positions)
    ends = _ends(model, tokenizer, template.end if template else "")
    return OwnSpeaker(path.name, Writer(reader, tokenizer, template is not None, ends), template)


def _reader(path: Path, n_positions: int) -> tuple[Reader, Any]:
    """Return the model of a folder: in ltm's own decoder where it can be that, else in transformers."""
    try:
        model = import_hf(path, min(n_positions, LONGEST_TOKENS))
        return OwnReader(model), SimpleNamespace(config=SimpleNamespace(**read_config(path)))
    except InputError as error:
        if importlib.util.find_spec("transformers") is None:
            raise InputError(f"{error.message}; transformers may know it", "pip install 'ltm[hf]'") from None
    from ltm.export.foreign_reader import ForeignReader
    from ltm.runs.engines.base_model import load_base

    loaded = load_base(path, torch.float32, "cpu").eval()
    return ForeignReader(loaded, n_positions), loaded


def _folder_template(path: Path) -> Template | None:
    """Return the chat template of a Hugging Face folder; None where it has none that can be read."""
    beside = path / adopted.CONFIG
    try:
        values = json.loads(adopted.with_template(beside.read_text("utf-8") if beside.is_file() else "{}", path))
        return template_in(values)
    except (ValueError, AttributeError):
        return None


def _gguf_text(path: Path, key: str) -> str:
    field = _gguf_field(path, key)
    return bytes(field.parts[-1]).decode("utf-8", "replace") if field is not None else ""


def _gguf_number(path: Path, ending: str) -> float | None:
    field = _gguf_field(path, ending)
    return None if field is None else float(field.parts[-1][0])


def _gguf_field(path: Path, ending: str) -> Any:
    """Return a field of a GGUF file by the end of its name; None without the package that reads them."""
    if importlib.util.find_spec("gguf") is None:
        return None
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return next((field for name, field in fields.items() if name.endswith(ending)), None)
