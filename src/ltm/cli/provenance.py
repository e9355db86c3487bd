"""`ltm why`, `ltm diff`: where runs come from, and what differs between runs or studies."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_provenance(verbs: Any) -> None:
    """Add the verbs."""
    why = _verb(verbs, "why", _why, "say why a run has its id, is as it is, or is trained again")
    why.add_argument("names", nargs="+", metavar="[STUDY] RUN", help="a run's id (or its beginning), or its folder")
    diff = _verb(verbs, "diff", _diff, "say what differs between two runs, or two studies")
    diff.add_argument(
        "names", nargs="+", metavar="A B", help="two studies, two runs, or STUDY RUN RUN; a study is a file or a folder"
    )


def _verb(verbs: Any, name: str, call: Any, text: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set section.key=value")
    verb.add_argument("--work", metavar="DIR", help="work folder, in place of the study's own")
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    verb.set_defaults(call=call)
    return verb


def _why(options: argparse.Namespace) -> int:
    from ltm.errors import InputError
    from ltm.study.provenance_why import why, why_text
    from ltm.study.targets import find_run

    if len(options.names) > 2:
        raise InputError(f"{len(options.names)} names are too many", "ltm why STUDY RUN")
    target = find_run(options.names, options.set, options.work)
    value = why(target.work, str(target.run_id), target.edit())
    _print(options, value, why_text)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from ltm.errors import InputError
    from ltm.study.provenance_diff import diff_runs, diff_studies, diff_text
    from ltm.study.targets import Target, find

    names = options.names
    if not 2 <= len(names) <= 3:
        raise InputError(f"diff takes two things, not {len(names)}", "ltm diff STUDY RUN RUN, or ltm diff STUDY STUDY")
    if len(names) == 3:
        study = find(names[0], options.set, options.work)
        sides = [Target(study.work, study.study, name) for name in names[1:]]
    else:
        sides = [find(name, options.set, options.work) for name in names]
    one, two = sides
    if (one.run_id is None) != (two.run_id is None):
        raise InputError("one of the two is a run, the other a study", "ltm diff STUDY RUN RUN")
    if one.run_id is not None and two.run_id is not None:
        value = diff_runs((one.work, one.run_id), (two.work, two.run_id))
    else:
        value = diff_studies(one.work, two.work)
    _print(options, value, diff_text)
    return 0


def _print(options: argparse.Namespace, value: dict[str, Any], text: Any) -> None:
    from ltm.store import json_safe

    if options.json:
        print(json.dumps(json_safe(value), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(text(value))
