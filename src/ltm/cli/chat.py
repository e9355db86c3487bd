"""`ltm chat [STUDY] RUN`: talk to a run, a GGUF file or a Hugging Face folder, in the terminal or on a page."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.errors import InputError

if TYPE_CHECKING:
    from ltm.export.speakers import Speaker
    from ltm.study.targets import Target

_SAMPLING = ("temperature", "top_k", "top_p", "repeat_penalty", "max_tokens", "seed")


def add_chat(verbs: Any) -> None:
    """Add the verb."""
    text = "talk to a run, a GGUF file or a Hugging Face folder"
    verb: argparse.ArgumentParser = verbs.add_parser("chat", help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("names", nargs="+", metavar="[STUDY] RUN", help="a run's id or folder, a .gguf file, or a folder")
    verb.add_argument("--compare", metavar="RUN", help="let another model answer beside it")
    verb.add_argument("--rag", action="store_true", help="give it passages of the study's library, and cite them")
    verb.add_argument("--library", metavar="STUDY", help="the study whose library --rag looks in, for other models")
    verb.add_argument("--web", action="store_true", help="on a page of this machine, in place of the terminal")
    verb.add_argument("--port", type=int, default=0, help="of the page (default: any that is free)")
    verb.add_argument("--say", metavar="TEXT", help="answer one text and end")
    for name in _SAMPLING:
        kind = int if name in ("top_k", "max_tokens", "seed") else float
        verb.add_argument(f"--{name.replace('_', '-')}", type=kind, help=argparse.SUPPRESS)
    verb.add_argument("--threads", type=int, default=0, help="processor threads (default: one per core)")
    verb.add_argument("--work", metavar="DIR", help="work folder, in place of the study's own")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set section.key=value")
    verb.add_argument("--json", action="store_true", help="with --say: print one JSON document")
    verb.set_defaults(call=_chat)


def _chat(options: argparse.Namespace) -> int:
    if options.json and options.say is None:
        raise InputError("--json prints one answer", "add --say TEXT")
    if len(options.names) > 2:
        raise InputError(f"{len(options.names)} names are too many", "ltm chat STUDY RUN")
    target = _target(options.names, options)
    threads = options.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    from ltm.export.conversation import Conversation  # torch comes with it
    from ltm.export.generate import Sampling

    given = {name: value for name in _SAMPLING if (value := getattr(options, name)) is not None}
    sampling = Sampling(**given).checked()
    library = _library(options, target)
    _set_threads(threads or 1)
    speakers = [_open(target, threads or 1)]
    if options.compare:
        speakers.append(_open(_other(options.compare, target, options), threads or 1))
    conversation = Conversation(speakers, sampling, library)
    if options.web:
        return _serve(conversation, options.port)
    if options.say is not None:
        return _one(conversation, options)
    from ltm.export.chat import Chat, typed_lines

    Chat(conversation, lambda word: _open(_other(word, target, options), threads or 1)).run(typed_lines())
    return 0


def _target(names: list[str], options: argparse.Namespace) -> Target | Path:
    """Return the run that the names say, or the path of another model."""
    from ltm.study.targets import find_run

    path = Path(names[-1]).expanduser()
    if len(names) == 1 and (path.suffix.lower() in _FILES or _is_model_folder(path)):
        if not path.exists():
            raise InputError(f"no such file: {path}", "check the path")
        return path
    return find_run(names, options.set, options.work)


_FILES = (".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".safetensors")


def _is_model_folder(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file()


def _other(word: str, target: Target | Path, options: argparse.Namespace) -> Target | Path:
    """Return what `--compare` or `/compare` names: a run of the same study first."""
    from ltm.study.targets import Target

    path = Path(word).expanduser()
    if isinstance(target, Path) or "/" in word or path.suffix.lower() in _FILES or _is_model_folder(path):
        return _target([word], options)
    return Target(target.work, target.study, word)


def _open(target: Target | Path, threads: int) -> Speaker:
    from ltm.export import speakers

    if isinstance(target, Path):
        return speakers.of_path(target, threads)
    from ltm.runs import queue
    from ltm.study.provenance import find_run

    known = {path.parent.name for path in target.work.path("runs").glob("*/run.json")}
    known |= {job.run_id for job in queue.read_jobs(target.work)[1]}
    return speakers.of_run(target.work, find_run(target.work, str(target.run_id), known))


def _library(options: argparse.Namespace, target: Target | Path) -> Any:
    if not options.rag:
        return None
    from ltm.export.retrieve import Library
    from ltm.study.targets import find

    if options.library:
        return Library(find(options.library, options.set, options.work).work)
    if isinstance(target, Path):
        raise InputError("a model outside a study has no library of its own", "name one: --rag --library STUDY")
    return Library(target.work)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _serve(conversation: Any, port: int) -> int:
    from ltm.export.chat_web import ChatServer

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = ChatServer(conversation, port)
    print(server.address, flush=True)
    print("only this machine can open it, and only with this address; Ctrl-C ends it", file=sys.stderr, flush=True)
    server.serve()
    return 0


def _one(conversation: Any, options: argparse.Namespace) -> int:
    from ltm.export.chat import Chat

    if not options.json:
        Chat(conversation, lambda word: _open(_other(word, Path(), options), 1)).line(options.say)
        return 0
    turn = conversation.ask(options.say)
    for which in range(len(conversation.speakers)):
        for _ in conversation.answer(which):
            pass
    names = [speaker.name for speaker in conversation.speakers]
    value = {
        "text": turn.text,
        "passages": [{"source": p.source, "score": p.score, "text": p.text} for p in turn.passages],
        "answers": [{"model": name, "text": text} for name, text in zip(names, turn.answers, strict=True)],
    }
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return 0
