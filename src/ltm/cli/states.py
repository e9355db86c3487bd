"""The verbs that look at a study while it runs, or stop it for a while: status, pause, resume; and how long a start may
take."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIMITS = ("hours", "usd", "kwh")
_SOONEST_SECONDS = 0.2


def add_states(verbs: Any, study_verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    status = study_verb(verbs, "status", _status, "say how far a study is")
    status.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="say it again and again (every 2 s) until the study is done or Ctrl-C",
    )
    study_verb(verbs, "pause", _pause, "let the workers of a running study write a checkpoint, and wait")
    study_verb(verbs, "resume", _resume, "let a paused study go on")


def add_limits(verb: argparse.ArgumentParser) -> None:
    """Add the limits of one start to a verb."""
    for name in _LIMITS:
        verb.add_argument(
            f"--max-{name}", type=_amount, metavar=name.upper(), help=f"stop this start after so many {_in_words(name)}"
        )


def add_submit(verb: argparse.ArgumentParser) -> None:
    """Add the way to a cluster to `run`."""
    verb.add_argument(
        "--submit", choices=["slurm"], help="submit a Slurm job array that works on the study, and return at once"
    )


def submit(options: argparse.Namespace) -> int:
    """Submit a study; every task of the array is a start of `ltm run` with `runs.executor: crew`."""
    from ltm.errors import ConfigError
    from ltm.runs.executors.slurm import submit as to_slurm
    from ltm.study import load

    study = load(options.study, options.set, options.work)
    if problems := study.check():
        raise ConfigError(problems, "mend these first")
    path = Path(options.study)
    arguments = ["run", str(path.resolve()) if path.exists() else options.study, "--until", options.until, "--quiet"]
    arguments += ["--work", str(study.work.root.resolve())]
    for setting in (*options.set, "runs.executor=crew"):
        arguments += ["--set", setting]
    arguments += [f"--{name}" for name in ("accept-changes", "over-budget") if getattr(options, name.replace("-", "_"))]
    for name, value in limits_of(options).items():
        arguments += [f"--max-{name}", str(value)]
    number = to_slurm(study.settings.runs.slurm, study.work, arguments, study.settings.name)
    if options.json:
        _print_json({"array": number, "tasks": study.settings.runs.slurm.tasks})
    else:
        print(f"array {number}: {study.settings.runs.slurm.tasks} tasks work on {study.work.root}")
        print(f"next: ltm status {options.study} --watch, or squeue --jobs {number}")
    return 0


def limits_of(options: argparse.Namespace) -> dict[str, float]:
    """Return the limits that were given."""
    return {name: value for name in _LIMITS if (value := getattr(options, f"max_{name}")) is not None}


def _in_words(name: str) -> str:
    return {"hours": "hours", "usd": "USD, at the prices of the study", "kwh": "kWh, at its power"}[name]


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _seconds(text: str) -> float:
    return max(_SOONEST_SECONDS, _amount(text))


def _load(options: argparse.Namespace) -> Any:
    from ltm.study import load

    return load(options.study, options.set, options.work, recorded=True)


def _print_json(value: Any, indent: int | None = 1) -> None:
    from ltm.store import json_safe

    text = json.dumps(json_safe(value), indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    print(text, flush=True)


def _status(options: argparse.Namespace) -> int:
    from ltm.study.report import status_text

    study = _load(options)
    if options.watch is None:
        value = study.status()
        _print_json(value) if options.json else print(status_text(value))
        return 0
    terminal = sys.stdout.isatty()
    try:
        while True:
            value = study.status()
            if options.json:
                _print_json(value, indent=None)  # one document a line
            else:
                print(("\033[H\033[2J" if terminal else "") + status_text(value), flush=True)
            if set(value["stages"].values()) == {"complete"}:
                return 0
            time.sleep(options.watch)
    except KeyboardInterrupt:  # the study itself goes on
        return 0


def _pause(options: argparse.Namespace) -> int:
    from ltm.runs.pause import pause

    study = _load(options)
    running = study.work.root.exists() and study.work.owner() is not None
    if running:
        pause(study.work)
    if options.json:
        _print_json({"paused": running})
    elif running:
        print("pausing: workers write a checkpoint and end, within 10 s\nnext: ltm resume")
    else:
        print("nothing to pause: nobody works on this study", file=sys.stderr)
    return 0 if running else 2


def _resume(options: argparse.Namespace) -> int:
    from ltm.runs.pause import go_on

    was = go_on(_load(options).work)
    if options.json:
        _print_json({"was_paused": was})
    else:
        print("going on" if was else "it was not paused")
    return 0
