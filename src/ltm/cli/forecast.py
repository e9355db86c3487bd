"""`ltm forecast ...`: the flags are the question; each verb parses, asks `ltm.forecast`, and prints.

Nothing heavy is imported at the top, and neither PyTorch nor pydantic for any forecast.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ltm.errors import InputError

_MODEL = (
    (
        "--model",
        "NAME",
        "125m, 1.3b, llama-3.1-8b, gpt2-medium, llama-15m, or the path of a config.json (default: 125m)",
    ),
    ("--n-layer", "N", "layers, in place of the model's own"),
    ("--n-embd", "N", "width"),
    ("--n-head", "N", "attention heads"),
    ("--n-kv-head", "N", "heads of keys and values"),
    ("--n-hidden", "N", "width of the feed-forward part"),
    ("--vocab", "N", "size of the vocabulary"),
)
_DATA = (
    ("--tokens", "N", "tokens of text, such as 10B (default: 10B, for adapters 10M)"),
    ("--books", "N", "books, in place of tokens"),
    ("--pages", "N", "pages of each book; a page holds 500 tokens"),
    ("--epochs", "N", "how often the text is repeated (default: 1)"),
    ("--packing", "SHARE", "share of the positions that hold useful tokens (default: 1)"),
)
_HOW = (
    ("--method", "NAME", "full, lora or qlora (default: full)"),
    ("--lora-rank", "N", "rank of the adapters (default: 16)"),
    ("--precision", "NAME", "fp32, tf32, fp16, bf16 or fp8 (default: bf16 where the card has it)"),
    ("--attention", "NAME", "eager, flash, flash3 or flex (default: flash)"),
    ("--checkpointing", "NAME", "none, selective or full (default: none)"),
    ("--micro-batch", "N", "sequences at a time on one card, or `fits` (the default): as many as fit"),
    ("--batch-tokens", "N", "tokens of one step on all cards (default: 0.5M, less for little text)"),
    ("--seq-len", "N", "tokens of one sequence (default: the model's own)"),
    ("--loop", "KIND", "tuned, usual or whole: a program written for speed, a usual script, a whole production run"),
    ("--optimizer", "NAME", "adamw, adamw8bit, muon or sgd (default: adamw)"),
)
_MACHINE = (
    ("--gpu", "NAME", "a card by name, `this` for this machine, `cpu` for its processor, or a data sheet: name=X,"
     "memory_gib=24,bandwidth_gbps=1008,bf16_tflops=165 (default: RTX PRO 6000)"),
    ("--gpus", "N", "how many (default: 1)"),
    ("--gpus-per-node", "N", "how many in one machine (default: up to 8)"),
    ("--parallel", "NAME", "ddp, zero1, zero2, zero3 or fsdp (default: ddp)"),
    ("--tp", "N", "tensor parallel"),
    ("--pp", "N", "pipeline parallel"),
    ("--usd-per-hour", "USD", "rent of one card"),
    ("--usd-per-kwh", "USD", "price of electricity (default: 0.20)"),
    ("--watts", "W", "measured power of one card, in place of what is usual"),
)  # fmt: skip
_GROUPS = (("the model", _MODEL), ("the data", _DATA), ("how", _HOW), ("the machine", _MACHINE))
_CAMPAIGN = (
    ("--variants", "variants", int, "variants of a campaign (default: 1000)"),
    ("--seeds", "seeds", int, "seeds of each (default: 1)"),
    ("--top", "top", int, "models tuned on dialogues at the end (default: 10)"),
    ("--library-books", "library_books", int, "books of the whole library (default: four times a set)"),
    ("--stragglers", "straggler_fraction", float, "share of slow cards"),
    ("--slowdown", "straggler_slowdown", float, "how many times slower they are"),
    ("--hours-between-failures", "hours_between_failures", float, "of one busy card"),
    ("--preemptions-per-hour", "preemptions_per_hour", float, "of one busy card"),
    ("--replicates", "replicates", int, "simulated campaigns (default: 60)"),
)
_INFERENCE = (
    ("--quant", "quant", str, "f32, f16, bf16, q8, q6_k, q5_k_m or q4 (default: f16)"),
    ("--context", "context", int, "tokens that the cache has room for (default: 8192)"),
    ("--prompt", "prompt", int, "tokens of a prompt, passages included (default: 4096)"),
    ("--answer", "answer", int, "tokens of an answer (default: 300)"),
    ("--batch", "batch", int, "answers under way at a time (default: 1)"),
    ("--rag-passages", "rag_passages", int, "passages found in books for each prompt (default: 0)"),
    ("--passage-tokens", "passage_tokens", int, "tokens of one passage (default: 400)"),
    ("--books", "books", int, "books of 500 pages that are searched (default: 1000 with --rag-passages)"),
)
_EXAMPLES = """examples:
  ltm forecast --model 1.3b --tokens 10B
  ltm forecast --model llama-3.1-8b --method qlora --gpu "RTX 4090" --books 100 --pages 500 --epochs 3
  ltm forecast table train --gpu "RTX 5090"      also: books, speedups, feasible, campaign
  ltm forecast --claim claims.csv                claims beside the forecast (without a file: an example)
  ltm forecast rows IN.csv --csv                 a forecast for every row
  ltm forecast inference --model 3b --quant q4 --rag-passages 8
  ltm forecast calibrate                         measure this machine (a minute), then: ltm forecast --gpu this
  ltm forecast page forecast.html                the same with sliders, one offline page
"""
Call = Callable[[argparse.Namespace], int]


def add_forecast(verbs: Any) -> None:
    """Add the verb with its own verbs to the command line."""
    text = "how long, how much memory, energy and money: any model, data and card"
    forecast: argparse.ArgumentParser = verbs.add_parser(
        "forecast", help=text, description=text[0].upper() + text[1:] + ". All ranges are 90 %.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    _question_flags(forecast)
    forecast.add_argument(
        "--claim",
        nargs="?",
        const="example",
        metavar="CSV",
        help="set claims beside the forecast; without a file: an example",
    )
    _output_flags(forecast)
    forecast.set_defaults(call=_forecast, forecast_verb=None)
    inner = forecast.add_subparsers(dest="forecast_verb", metavar="VERB", required=False)
    table = _verb(inner, "table", _table, "a table: train, books, speedups, feasible or campaign")
    table.add_argument(
        "table", nargs="?", default="", metavar="TABLE", help="train, books, speedups, feasible or campaign"
    )
    _question_flags(table)
    _typed_flags(table, "a campaign", _CAMPAIGN)
    _output_flags(table)
    rows = _verb(inner, "rows", _rows, "read rows of setups (columns of throughput.csv) and write a forecast to each")
    rows.add_argument("file", metavar="CSV", help="the rows; - reads them from standard input")
    rows.add_argument("--csv", action="store_true", help="write CSV (the default writes a short table)")
    rows.add_argument("--json", action="store_true", help="print one JSON document")
    rows.add_argument("--out", metavar="FILE", help="write there and not on standard output")
    answer = _verb(inner, "inference", _inference, "how fast a model answers, and what it needs")
    _flags(answer.add_argument_group("the model"), _MODEL)
    _flags(answer.add_argument_group("the machine"), _MACHINE[:2])
    _typed_flags(answer, "the question", _INFERENCE)
    answer.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    measure = _verb(inner, "calibrate", _calibrate, "measure this machine; forecasts for it use it from then on")
    measure.add_argument("--seconds", type=float, default=60.0, metavar="S", help="at most so long (default: 60)")
    measure.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", metavar="NAME",
        help="cpu, cuda, or auto: the processor, and the GPU where there is one (default: auto)",
    )  # fmt: skip
    measure.add_argument("--compile", action="store_true", help="also measure torch.compile (a minute more)")
    measure.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    page = _verb(inner, "page", _page, "write the page with sliders")
    page.add_argument("file", metavar="FILE", help="the page, such as forecast.html")
    page.add_argument("--language", choices=("en", "ru"), default="en", help="what it opens in (default: en)")
    _question_flags(page)


def _verb(inner: Any, name: str, call: Call, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = inner.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    made.set_defaults(call=call)
    return made


def _question_flags(parser: argparse.ArgumentParser) -> None:
    """Add the question's flags; one that is not given leaves no trace, so that outer flags stay in force."""
    for title, flags in _GROUPS:
        group = parser.add_argument_group(title)
        _flags(group, flags)
        if flags is _HOW:
            group.add_argument(
                "--compile", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
                help="torch.compile (default: yes for full training on a card)",
            )  # fmt: skip
            group.add_argument(
                "--continued",
                action="store_true",
                default=argparse.SUPPRESS,
                help="from given weights, not from scratch",
            )


def _flags(group: Any, flags: Sequence[tuple[str, str, str]]) -> None:
    for name, metavar, text in flags:
        group.add_argument(name, metavar=metavar, default=argparse.SUPPRESS, help=text.replace("%", "%%"))


def _typed_flags(parser: argparse.ArgumentParser, title: str, flags: Sequence[tuple[str, str, type, str]]) -> None:
    group = parser.add_argument_group(title)
    for name, field, kind, text in flags:
        group.add_argument(name, dest=field, type=kind, metavar="N", default=argparse.SUPPRESS, help=text)


def _output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
    )
    for name, text in (("csv", "CSV"), ("markdown", "Markdown")):
        group.add_argument(
            f"--{name}", nargs="?", const="-", metavar="FILE", default=argparse.SUPPRESS,
            help=f"write {text}; - or nothing prints it",
        )  # fmt: skip
    group.add_argument(
        "--html", metavar="FILE", default=argparse.SUPPRESS, help="write the page with sliders for this question"
    )


def _question(options: argparse.Namespace) -> Any:
    from ltm.forecast.question import Question

    return Question(**_asked(options))


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a question that flags have filled."""
    from dataclasses import fields

    from ltm.forecast.question import Question

    return {f.name: getattr(options, f.name) for f in fields(Question) if hasattr(options, f.name)}


def _width() -> int:
    return max(60, shutil.get_terminal_size((80, 24)).columns)


def _print_json(value: Any) -> None:
    from ltm.forecast.render import finite

    print(json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False))


def _forecast(options: argparse.Namespace) -> int:
    _check_outputs(options)
    if options.claim is not None:
        from ltm.forecast.claims import claims_table, read_claims

        if asked := list(_asked(options)):
            raise InputError(
                f"--{asked[0].replace('_', '-')} does not go with --claim",
                "the file of claims says model, card and data of each; `ltm forecast --claim` alone shows an example",
            )
        return _show(claims_table(read_claims(options.claim)), options)
    from ltm.forecast import answer
    from ltm.forecast.question import ask

    question = _question(options)
    found = answer.answer(ask(question))
    if hasattr(options, "csv") or hasattr(options, "markdown"):
        from ltm.forecast.tables import train

        return _show(train(question), options)
    _write_html(options)
    _print_json(answer.to_document(found)) if hasattr(options, "json") else print(answer.to_text(found, _width()))
    return 0


def _table(options: argparse.Namespace) -> int:
    from ltm.forecast.tables import TABLES, make

    _check_outputs(options)

    if not options.table:
        raise InputError("which table?", f"one of {', '.join(TABLES)}: ltm forecast table train")
    more: dict[str, Any] = {}
    said = {field: getattr(options, field) for _, field, _, _ in _CAMPAIGN if hasattr(options, field)}
    if options.table == "campaign":
        from ltm.forecast.table_campaign import Plan

        more["plan"] = Plan(**said)
    elif said:
        raise InputError(f"--{next(iter(said)).replace('_', '-')} belongs to the table `campaign`", "leave it out")
    return _show(make(options.table, _question(options), **more), options)


def _show(table: Any, options: argparse.Namespace) -> int:
    """Print a table, or write it where the flags say."""
    from ltm.forecast import render

    files = [(name, getattr(options, name)) for name in ("csv", "markdown") if hasattr(options, name)]
    for name, path in files:
        _write(render.WRITERS[name](table), path)
    _write_html(options)
    if hasattr(options, "json"):
        _print_json(render.to_document(table))
    elif not files and not hasattr(options, "html"):
        print(render.to_text(table, _width()))
    return 0


def _check_files(*paths: str | None) -> None:
    """Refuse files that cannot be written before anything is computed or printed."""
    for path in paths:
        if path is None or path == "-":
            continue
        if not Path(path).parent.is_dir():
            raise InputError(f"{path}: the folder {Path(path).parent} does not exist", "make it, or name another file")
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder", f"name a file in it, such as {Path(path) / 'forecast.html'}")


def _check_outputs(options: argparse.Namespace) -> None:
    _check_files(*(getattr(options, name, None) for name in ("csv", "markdown", "html")))


def _write(text: str, path: str) -> None:
    if path == "-":
        print(text.rstrip("\n"))
        return
    from ltm.store import write_text

    write_text(Path(path), text.rstrip("\n") + "\n")
    print(f"wrote {path}", file=sys.stderr)


def _write_html(options: argparse.Namespace) -> None:
    if hasattr(options, "html"):
        _write_page(options.html, options, "en")


def _write_page(path: str, options: argparse.Namespace, language: str) -> None:
    import dataclasses

    from ltm.forecast.page import write_page

    question = _question(options)
    # a table may ask for several values; the page opens on the first of them
    first = {f: value.split(",")[0] for f, value in dataclasses.asdict(question).items() if _is_list(f, value)}
    write_page(Path(path), dataclasses.replace(question, **first), language)
    print(f"wrote {path}", file=sys.stderr)


def _is_list(field: str, value: Any) -> bool:
    return field != "gpu" and isinstance(value, str) and "," in value


def _rows(options: argparse.Namespace) -> int:
    from ltm.forecast.tabulate import COLUMNS, forecast_rows

    _check_files(options.out)
    heads, rows = _read_rows(options.file)
    found = forecast_rows(rows)
    if options.json:
        text = json.dumps(found, indent=1, ensure_ascii=False)
    elif options.csv or options.out:
        text = _as_csv([*(head for head in heads if head not in COLUMNS), *COLUMNS], found)
    else:
        text = _rows_text(found)
    _write(text, options.out or "-")
    missing = sum(not row[COLUMNS[0]] for row in found)
    if missing:
        print(f"{missing} of {len(found)} rows have no forecast; the column `reason` says why", file=sys.stderr)
    return 0


def _read_rows(path: str) -> tuple[list[str], list[dict[str, str]]]:
    hint = "give a CSV file with a heading, in the columns of data/throughput.csv, or - for standard input"
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error
    reader = csv.DictReader(text.removeprefix("\ufeff").splitlines(keepends=True), restkey="", restval="")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV: {error}", hint) from error
    heads = list(reader.fieldnames or [])
    missing = [need for need in ("gpu", "model_name") if need not in heads]
    if missing:
        raise InputError(f"{path}:1: no column `{missing[0]}`", hint)
    wide = next((place for place, row in enumerate(rows) if "" in row), None)
    if wide is not None:
        raise InputError(f"{path}: row {wide + 1} has more cells than the heading", "put text with commas in quotes")
    return heads, rows


def _as_csv(heads: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    import io

    sink = io.StringIO()
    writer = csv.DictWriter(sink, heads, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _rows_text(rows: Sequence[dict[str, str]]) -> str:
    from ltm.forecast.render import Amount, Column, Table, to_text

    def amount(row: dict[str, str], key: str) -> Amount | None:
        return Amount(*(float(row[key + end]) for end in ("", "_low", "_high"))) if row[key] else None

    cells: list[Any] = [
        {
            "row": row.get("id") or str(place),
            "model": row["model_name"][:24],
            "gpu": f"{row.get('n_gpu') or '?'} x {row['gpu'][:24]}",
            "speed": amount(row, "forecast_tokens_per_s"),
            "memory": amount(row, "forecast_peak_mem_gib"),
            "reason": row["limited_by"] or row["reason"],
        }
        for place, row in enumerate(rows, start=1)
    ]
    columns = (
        Column("row", "row"), Column("model", "model"), Column("gpu", "cards"),
        Column("speed", "tokens/s of all cards", "tokens_per_s"), Column("memory", "memory of a card", "gib"),
        Column("reason", "limited by"),
    )  # fmt: skip
    return to_text(Table("rows", f"{len(rows)} rows (90 % ranges); --csv writes them all", columns, cells), _width())


def _inference(options: argparse.Namespace) -> int:
    from ltm.forecast import inference
    from ltm.forecast.question import ask_machine_and_model

    said: dict[str, Any] = {field: getattr(options, field) for _, field, _, _ in _INFERENCE if hasattr(options, field)}
    question = _question(argparse.Namespace(**{k: v for k, v in vars(options).items() if k != "books"}))
    model, card, cards = ask_machine_and_model(question)
    if said.get("rag_passages"):
        said.setdefault("books", 1000)
    found = inference.forecast_inference(model, card, n_devices=cards, **said)
    if hasattr(options, "json"):
        _print_json(inference.to_document(found))
    else:
        print(inference.to_text(found, _width()))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from ltm.progress import Progress
    from ltm.runs.calibrate import calibrate_all, lines

    if not 5 <= options.seconds <= 600:
        raise InputError(f"--seconds is {options.seconds:g}", "give 5 to 600; 60 measures everything")
    print("measuring this machine; leave it alone for a minute", file=sys.stderr)
    quiet = Progress(quiet=hasattr(options, "json"))
    machines = calibrate_all(options.seconds, quiet, options.compile, options.device)
    if hasattr(options, "json"):
        import dataclasses

        _print_json({"machines": [dataclasses.asdict(machine) for machine in machines]})
    else:
        for machine in machines:
            print("\n".join(lines(machine)) + "\n")
        print("next: ltm forecast --gpu this --model llama-1m --tokens 10M")
    return 0


def _page(options: argparse.Namespace) -> int:
    _check_files(options.file)
    _write_page(options.file, options, options.language)
    return 0
