"""The command line: verbs only. Each parses its arguments, calls the study, and prints.

Exit codes: 0 done, 1 some runs failed or something broke, 2 bad input, 3 budget reached, 130 stopped by the user
(nothing lost in either case).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.cli.bench import add_bench
from ltm.cli.chat import add_chat
from ltm.cli.dashboard import add_dashboard, dashboard_verb
from ltm.cli.export import add_export, export_verb, write_tasks
from ltm.cli.fetch import add_fetch, spelled
from ltm.cli.forecast import add_forecast
from ltm.cli.patterns import add_patterns, add_proxies, add_simulate, patterns_text, patterns_verb
from ltm.cli.provenance import add_provenance
from ltm.cli.states import add_limits, add_states, add_submit, limits_of, submit
from ltm.errors import LtmError

if TYPE_CHECKING:
    from ltm.study import Study

_STAGE_VERBS = {
    "books": "read, clean and know the books of the library",
    "sets": "draw the training sets",
    "tokens": "train the tokenizer and store the tokens",
    "evalset": "build the items that models are tested on",
    "runs": "train every run of the design",
    "scores": "ask every model every item",
    "patterns": "infer what raises an ability",
    "dialogue": "tune the best models on conversations, and ask them again",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(spelled(sys.argv[1:] if arguments is None else arguments))
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return int(options.call(options))
    except LtmError as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost. The same command goes on where it was.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout went away (`| head`); progress alone never raises this
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltm", description="Find out, by brute force, what makes a good training set of books."
    )
    parser.add_argument("--version", action="version", version=_version_text())
    parser.set_defaults(command=None, debug=False)
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND")
    init = verbs.add_parser("init", help="write a new study, commented")
    init.add_argument("name", nargs="?", default="study", help="its name (default: study)")
    init.set_defaults(call=_init)
    for name, call, text in (
        ("check", _check, "find everything wrong with a study; trains nothing"),
        ("plan", _plan, "say what a study will take and what it can find out"),
        ("run", _run, "run a study, or go on with it"),
    ):
        _study_verb(verbs, name, call, text)
    verbs.choices["plan"].add_argument("--gpu", help="a card that need not be here, by name; nothing is rehearsed")
    verbs.choices["plan"].add_argument("--gpus", type=int, default=1, help="how many of them (1)")
    add_states(verbs, _study_verb)
    verbs.choices["run"].add_argument(
        "--until", choices=[*_STAGE_VERBS, "dashboard"], default="dashboard", metavar="STAGE", help="stop after a stage"
    )
    for name, text in _STAGE_VERBS.items():
        _study_verb(verbs, name, _stage, f"one stage (and those before it): {text}")
    add_patterns(verbs.choices["patterns"])
    add_simulate(verbs, _study_verb, _load, _print_json)
    add_submit(verbs.choices["run"])
    for name in ("run", *_STAGE_VERBS):
        add_limits(verbs.choices[name])
        verbs.choices[name].add_argument(
            "--over-budget", action="store_true", help="start, and go on, although the study's budget does not allow it"
        )
        verbs.choices[name].add_argument(
            "--accept-changes", action="store_true", help="go on in a work folder that was made with other settings"
        )
    verbs.choices["evalset"].add_argument(
        "--to", nargs=2, metavar=("lm-eval", "DIR"), help="write the items as a task folder for lm-evaluation-harness"
    )
    verbs.choices["evalset"].add_argument("--show", type=int, metavar="N", help="print N items as a person reads them")
    add_dashboard(
        _study_verb(verbs, "dashboard", _dashboard, "make the result page from what is there, also while a study runs")
    )
    show = _study_verb(verbs, "show", _show, "print one book, run or variant")
    show.add_argument("id", help="a book id, run id or variant id, or the beginning of one")
    add_export(_study_verb(verbs, "export", export_verb, "write trained runs as folders for Hugging Face transformers"))
    sql = _study_verb(verbs, "sql", _sql, "ask the tables of a study in SQL (DuckDB)")
    sql.add_argument("query", help='for example "select count(*) from scores"')
    schema = verbs.add_parser("schema", help="print the JSON Schema of a study file: every key with its meaning")
    schema.add_argument("file", nargs="?", choices=["study", "evalset"], default="study", help="or of an eval file")
    schema.set_defaults(call=_schema)
    add_forecast(verbs)
    add_bench(verbs)
    add_fetch(verbs)
    add_provenance(verbs)
    add_chat(verbs)
    add_proxies(verbs, _print_json)
    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _study_verb(verbs: Any, name: str, call: Any, text: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("study", metavar="STUDY", help="a study file, or `demo`")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set section.key=value")
    verb.add_argument("--work", metavar="DIR", help="work folder, in place of the study's own")
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    verb.add_argument("--quiet", action="store_true", help="no progress")
    verb.set_defaults(call=call)
    return verb


def _load(options: argparse.Namespace, recorded: bool = True) -> Study:
    from ltm.study import load

    return load(options.study, options.set, options.work, recorded=recorded)


def _progress(options: argparse.Namespace) -> Any:
    from ltm.progress import Progress

    return Progress(quiet=options.quiet)


def _print_json(value: Any) -> None:
    from ltm.store import json_safe

    print(json.dumps(json_safe(value), indent=1, ensure_ascii=False, allow_nan=False, default=str))


def _init(options: argparse.Namespace) -> int:
    from ltm.study.template import write_template

    path = write_template(options.name)
    print(f"wrote {path}\nnext: ltm check {path}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from ltm.errors import ConfigError

    note, warnings = "", list[str]()
    try:
        study = _load(options, recorded=False)
        notes = study.notes()
        problems, warnings = notes.problems, notes.warnings
        if study.settings.books.source == "folder" and not study.settings.books.path:
            note = "; to run it, say where the books are: --set books.path=DIR"
    except ConfigError as error:
        problems = error.problems
    for warning in warnings if not options.json else ():
        print(f"warning: {warning}", file=sys.stderr)
    if options.json:
        _print_json({"ok": not problems, "problems": problems, "warnings": warnings})
    elif problems:
        print("\n".join(problems), file=sys.stderr)
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}; nothing was started", file=sys.stderr)
    else:
        print(f"{options.study}: fine{note}")
    return 2 if problems else 0


def _plan(options: argparse.Namespace) -> int:
    from ltm.errors import ConfigError
    from ltm.study.report import plan_text

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes too
    study = _load(options)
    problems = study.check()
    if problems:
        raise ConfigError(problems, "mend these first")
    if options.gpu:
        value = study.plan_card(options.gpu, options.gpus)
        text = value.pop("text")
        _print_json(value) if options.json else print(text)
        return 0
    value = study.plan(_progress(options))
    _print_json(value) if options.json else print(plan_text(value))
    return 0


def _run(options: argparse.Namespace) -> int:
    from ltm.study.report import result_text

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    if options.submit:
        return submit(options)
    study = _load(options, recorded=False)
    result = study.run(
        options.until, _progress(options), options.accept_changes, options.over_budget, limits_of(options)
    )
    if options.json:
        _print_json({**result, "status": study.status()})
    else:
        print(result_text(study, result, options.until))
    return 1 if result["failed_runs"] else 0


def _stage(options: argparse.Namespace) -> int:
    from ltm.study.report import stage_report, stage_text

    if options.command == "patterns" and (code := patterns_verb(options, _load, _print_json)) is not None:
        return code
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    study = _load(options)
    result = study.run(
        options.command, _progress(options), options.accept_changes, options.over_budget, limits_of(options)
    )
    if options.command == "evalset" and options.to:
        return write_tasks(study, options.to, options.json)
    if options.command == "evalset" and options.show:
        from ltm.evalset.stage import show

        text = show(study.work, options.show)
        _print_json({"items": text.split("\n--- ")}) if options.json else print(text)
        return 0
    value = stage_report(study, options.command)
    if options.command == "patterns" and not options.json:
        print(patterns_text(study, options, value))
        return 1 if result["failed_runs"] else 0
    _print_json(value) if options.json else print(stage_text(options.command, value))
    return 1 if result["failed_runs"] else 0


def _dashboard(options: argparse.Namespace) -> int:
    return dashboard_verb(options, _load, _print_json)


def _show(options: argparse.Namespace) -> int:
    from ltm.study.report import find_row

    study = _load(options)
    kind, row = find_row(study, options.id)
    if kind == "book":
        from ltm.books.show import describe, text_of
        from ltm.records import Book

        row = describe(study.settings.books, Book(**row))
        if not options.json:
            print(f"book\n{text_of(row)}")
            return 0
    if options.json:
        _print_json({"kind": kind, **row})
    else:
        print(kind)
        for key, value in row.items():
            print(f"  {key}: {value}")
    return 0


def _sql(options: argparse.Namespace) -> int:
    from ltm.query import query

    names, rows = query(_load(options).work, options.query)
    if options.json:
        _print_json([dict(zip(names, row, strict=True)) for row in rows])
        return 0
    print("\t".join(names))
    for row in rows:
        print("\t".join(str(value) for value in row))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from ltm.evalset.evalfile import EvalFile
    from ltm.study.settings import StudySettings

    _print_json((EvalFile if options.file == "evalset" else StudySettings).model_json_schema())
    return 0


def _version_text() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"ltm {version('ltm')}"
    except PackageNotFoundError:
        return f"ltm (from {Path(__file__).parent.parent})"
