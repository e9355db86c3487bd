"""`ltm export STUDY RUN...`: trained runs as folders for Hugging Face transformers, or files for llama.cpp."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.errors import InputError

if TYPE_CHECKING:
    from ltm.study import Study


def add_export(verb: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    _let_runs_follow_options(verb)
    verb.add_argument("runs", nargs="*", metavar="RUN", help="a run id, or the beginning of one")
    verb.add_argument("--out", metavar="DIR", help="gets what is written (default: export in the work folder)")
    verb.add_argument(
        "--to",
        choices=["hf", "gguf", "lora", "axolotl"],
        default="hf",
        help="Hugging Face folders, GGUF files, adapters alone, or (of the whole study) a campaign for Axolotl",
    )
    verb.add_argument(
        "--dtype", choices=["f32", "f16", "q8_0"], default="f32", help="of a GGUF file's matrices (default: f32)"
    )
    verb.add_argument("--tuned", action="store_true", help="the models as the dialogue layer left them")


def _let_runs_follow_options(verb: argparse.ArgumentParser) -> None:
    """Let `STUDY --to gguf RUN` name a run: argparse gives an optional list nothing once an option has come between."""
    plain = verb.parse_known_args

    def mixed(args: Any = None, namespace: Any = None) -> Any:
        verb.parse_known_args = plain  # type: ignore[method-assign]
        try:
            return verb.parse_known_intermixed_args(args, namespace)
        finally:
            verb.parse_known_args = mixed  # type: ignore[method-assign]

    verb.parse_known_args = mixed  # type: ignore[method-assign]


def export_verb(options: argparse.Namespace) -> int:
    """Write the runs and print where they lie."""
    from ltm.study.study import recorded
    from ltm.study.targets import find

    if options.to == "axolotl":
        return _export_campaign(options)
    if not options.runs:
        raise InputError("no run is named", "ltm export STUDY RUN; ids: ltm sql STUDY 'select run_id from runs'")
    target = find(options.study, options.set, options.work)
    study = target.study or recorded(target.work)
    from ltm.export import runs  # torch comes with it: not for a study file that is wrong

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes too
    settings = study.settings
    order = runs.Order(study.work, options.runs, _out(options), settings.name, settings.question, options.tuned)
    if options.to == "gguf":
        folders = runs.export_ggufs(order, options.dtype)
    else:
        folders = runs.export_loras(order) if options.to == "lora" else runs.export_runs(order)
    if options.json:
        rows = [{"run_id": run_id, "path": str(path)} for run_id, path in folders.items()]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print("\n".join(str(path) for path in folders.values()))
    return 0


def _export_campaign(options: argparse.Namespace) -> int:
    """Write a whole study for Axolotl; sets and tokens are built first where they are not up to date."""
    from ltm.progress import Progress
    from ltm.study.study import recorded
    from ltm.study.targets import find

    if options.runs:
        raise InputError("--to axolotl writes all runs of a study", "leave the run out: ltm export STUDY --to axolotl")
    if not options.out:
        raise InputError("--to axolotl needs a folder to be made", "--out DIR")
    target = find(options.study, options.set, options.work)
    if target.study is not None:
        target.study.run("tokens", Progress(quiet=options.json))
    study = target.study or recorded(target.work)
    from ltm.export.campaign import export_campaign
    from ltm.runs.queue import plan_jobs
    from ltm.study.rounds import Rounds, recipe_of

    rounds = Rounds(study.settings, study.work)
    plan_jobs(study.work, recipe_of(rounds.effective()), rounds.recipes())
    told = export_campaign(study.work, Path(options.out).expanduser(), study.settings.name, study.settings.question)
    if options.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    print(
        f"{told['folder']}: {told['runs']} runs of {told['variants']} training sets; README.md says how to train them"
    )
    for text in told["differs"]:
        print(f"  not the same as here: {text}")
    return 0


def _out(options: argparse.Namespace) -> Path | None:
    return Path(options.out).expanduser() if options.out else None


def write_tasks(study: Study, wanted: list[str], as_json: bool) -> int:
    """Write a study's items as a task folder for another tool, and print how to use it.

    Raises:
        InputError: no such tool, or the folder exists.
    """
    kind, folder = wanted
    if kind != "lm-eval":
        raise InputError(f"--to {kind}: no such tool", "known: lm-eval (EleutherAI's lm-evaluation-harness)")
    from ltm.export.lm_eval import export_tasks

    block_size = study.settings.model.shape(0).block_size
    told = export_tasks(study.work, Path(folder).expanduser(), block_size=block_size)
    if as_json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    print(f"{folder}: {sum(told['tasks'].values())} items in {len(told['tasks'])} tasks")
    for reason, count in sorted(told["left_out"].items()):
        print(f"  left out: {count} items, {reason}")
    print(f"  {told['command']}")
    return 0
