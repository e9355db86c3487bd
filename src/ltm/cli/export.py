"""`ltm export STUDY RUN...`: trained runs as folders for Hugging Face transformers, or files for llama.cpp."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from ltm.errors import InputError

if TYPE_CHECKING:
    from ltm.study import Study


def add_export(verb: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    verb.add_argument("runs", nargs="+", metavar="RUN", help="a run id, or the beginning of one")
    verb.add_argument("--out", metavar="DIR", help="gets what is written (default: export in the work folder)")
    verb.add_argument(
        "--to",
        choices=["hf", "gguf", "lora"],
        default="hf",
        help="Hugging Face folders, GGUF files, or adapters alone (default: hf)",
    )
    verb.add_argument(
        "--dtype", choices=["f32", "f16", "q8_0"], default="f32", help="of a GGUF file's matrices (default: f32)"
    )


def export_verb(options: argparse.Namespace) -> int:
    """Write the runs and print where they lie."""
    from ltm.study.study import recorded
    from ltm.study.targets import find

    target = find(options.study, options.set, options.work)
    study = target.study or recorded(target.work)
    from ltm.export.runs import export_ggufs, export_runs  # torch comes with it: not for a study file that is wrong

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes too
    out = Path(options.out).expanduser() if options.out else None
    settings = study.settings
    if options.to == "gguf":
        folders = export_ggufs(study.work, options.runs, out, options.dtype, settings.name)
    elif options.to == "lora":
        from ltm.export.lora import export_loras

        folders = export_loras(study.work, options.runs, out, settings.name, settings.question)
    else:
        folders = export_runs(study.work, options.runs, out, settings.name, settings.question)
    if options.json:
        rows = [{"run_id": run_id, "path": str(path)} for run_id, path in folders.items()]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print("\n".join(str(path) for path in folders.values()))
    return 0


def write_tasks(study: Study, wanted: list[str], as_json: bool) -> int:
    """Write a study's items as a task folder for another tool, and print how to use it.

    Raises:
        InputError: no such tool, or the folder exists.
    """
    kind, folder = wanted
    if kind != "lm-eval":
        raise InputError(f"--to {kind}: no such tool", "known: lm-eval (EleutherAI's lm-evaluation-harness)")
    from ltm.export.lm_eval import export_tasks

    told = export_tasks(study.work, Path(folder).expanduser())
    if as_json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    print(f"{folder}: {sum(told['tasks'].values())} items in {len(told['tasks'])} tasks")
    for reason, count in sorted(told["left_out"].items()):
        print(f"  left out: {count} items, {reason}")
    print(f"  {told['command']}")
    return 0
