"""`ltm why`, `diff`, `pack`, `verify`: where runs come from, what differs, and handing a study on."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import Any


def add_provenance(verbs: Any) -> None:
    """Add the verbs."""
    why = _verb(verbs, "why", _why, "say why a run has its id, is as it is, or is trained again")
    why.add_argument("names", nargs="+", metavar="[STUDY] RUN", help="a run's id (or its beginning), or its folder")
    diff = _verb(verbs, "diff", _diff, "say what differs between two runs, or two studies")
    diff.add_argument(
        "names", nargs="+", metavar="A B", help="two studies, two runs, or STUDY RUN RUN; a study is a file or a folder"
    )
    pack = _verb(verbs, "pack", _pack, "pack a study into one archive that others can check and repeat")
    pack.add_argument("study", metavar="STUDY", help="a study file, or a work folder")
    pack.add_argument("--out", metavar="FILE", help="the archive (default: NAME.ltm.zip)")
    pack.add_argument("--weights", choices=["kept", "none"], default="none", help="the weights that runs kept, or none")
    pack.add_argument(
        "--text",
        choices=["none", "allowed", "all"],
        default="none",
        help="texts of books, and what is made of them: none, where all rights allow it, or all (default: none)",
    )
    verify = _verb(verbs, "verify", _verify, "check every hash, the design, run ids and findings of a study or archive")
    verify.add_argument("target", metavar="ARCHIVE|STUDY", help="an archive, a study file, or a work folder")
    verify.add_argument("--rerun", type=int, default=0, metavar="N", help="train N runs again and compare their bits")
    verify.add_argument("--library", metavar="DIR", help="the books, for an archive without them")
    for verb in (pack, verify):
        verb.add_argument("--quiet", action="store_true", help="no progress")


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


def _pack(options: argparse.Namespace) -> int:
    from ltm.study.pack import pack
    from ltm.study.study import recorded
    from ltm.study.targets import find
    from ltm.units import format_bytes

    target = find(options.study, options.set, options.work)
    name = recorded(target.work).settings.name if target.study is None else target.study.settings.name
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary file goes too
    made = pack(target.work, Path(options.out or f"{name}.ltm.zip"), options.weights == "kept", options.text)

    def text(_: Any) -> str:
        lines = [f"{made.path}: {made.n_files} files, {format_bytes(made.n_bytes)}, id {made.id}"]
        lines += [f"left out: {why}" for why in sorted({str(row["why"]) for row in made.left_out})]
        return "\n".join([*lines, f"check it anywhere: ltm verify {made.path}"])

    value = {"path": str(made.path), "id": made.id, "files": made.n_files, "bytes": made.n_bytes}
    _print(options, {**value, "left_out": made.left_out}, text)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ltm.errors import InputError
    from ltm.progress import Progress
    from ltm.study.archive import is_archive
    from ltm.study.study import recorded
    from ltm.study.targets import find
    from ltm.study.verify import verify_archive, verify_folder

    if options.rerun < 0:
        raise InputError(f"--rerun {options.rerun} is no number of runs", "nearest: 0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress, path = Progress(quiet=options.quiet), Path(options.target)
    if path.is_file() and (is_archive(path) or path.suffix == ".zip"):
        report = verify_archive(path, options.rerun, options.library, progress)
    else:
        target = find(options.target, options.set, options.work)
        report = verify_folder(target.study or recorded(target.work), options.rerun, progress)
    _print(options, report.as_plain(), lambda _: report.in_words())
    return 0 if report.ok else 1


def _print(options: argparse.Namespace, value: dict[str, Any], text: Any) -> None:
    from ltm.store import json_safe

    if options.json:
        print(json.dumps(json_safe(value), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(text(value))
