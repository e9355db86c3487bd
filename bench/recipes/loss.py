"""Search the recipe with the lowest held-out bits per byte for a fixed time of training.

    python bench/recipes/loss.py --books DIR --size llama-1m --seconds 60 --grid lr=1e-3,2e-3 batch_tokens=1024,2048
    python bench/recipes/loss.py --books DIR --table

Each recipe trains for as many tokens as one of two busy cores reads in that time; its rate is measured first. One model
reads --per-set books of the library in one chunk-shuffled epoch, and is scored on the held-out authors. A field of
`runs`, or vocab_size, block_size, size can be varied; --set gives the fields that stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import trial
from library import Library
from recipe import PLAIN, Recipe

from ltm.runs.executors.local import Job, LocalExecutor

BASE = PLAIN.but(
    "base",
    schedule="wsd",
    decay_share=0.5,
    warmup_share=0.02,
    lr=2e-3,
    beta2=0.98,
    init="embed 0.64 blocks 0.64",
)
_SOME_TOKENS = 1_000_000  # of a recipe that is only timed


def main() -> int:
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "loss.jsonl"
    if args.table:
        print(render(path))
        return 0
    where = (str(args.work), args.books, args.max_books)
    library = Library(args.work, args.books, args.max_books)
    done = {(r["size"], r["seconds"], r["fields"], r["replicate"]) for r in _read(path)}
    grid = [axis.partition("=") for axis in args.grid]
    fixed = {name: _value(value) for name, _, value in (pair.partition("=") for pair in args.set)}
    todo = []
    for values in itertools.product(*([_value(v) for v in axis[2].split(",")] for axis in grid)):
        fields = fixed | {axis[0]: value for axis, value in zip(grid, values, strict=True)}
        text = " ".join(f"{k}={v}" for k, v in sorted(fields.items()))
        recipe = BASE.but(text, size=args.size, run_tokens=_SOME_TOKENS, books_per_set=args.per_set, **fields)
        library.tokens(recipe.vocab_size)
        todo += [(recipe, k) for k in range(args.replicates) if (args.size, args.seconds, text, k) not in done]
    left = len(todo) - args.at_most
    todo = todo[: args.at_most]
    with LocalExecutor(2) as executor, open(path, "a") as file:
        rates = _rates([recipe for recipe, _ in todo], where, args, executor)
        jobs = {}
        for recipe, replicate in todo:
            tokens = int(args.seconds / rates[recipe.step_kind] * recipe.section().batch_tokens)
            jobs[f"{recipe.name}|{replicate}"] = recipe.but(recipe.name, run_tokens=tokens)
        for outcome in executor.map(trial.run, [Job(k, (r, where, 0, int(k[-1]))) for k, r in jobs.items()]):
            recipe = jobs[outcome.key]
            if not outcome.ok:
                print(outcome.key, outcome.error, outcome.trace, file=sys.stderr)
                continue
            row = {"size": args.size, "seconds": args.seconds, "fields": recipe.name, "replicate": int(outcome.key[-1])}
            row |= {"tokens": recipe.sets().run_tokens, "steps": recipe.n_steps, "params": recipe.model().n_params}
            total_bits = {k: float(np.sum(v)) / np.log(2) for k, v in outcome.value["nats"].items()}
            row |= {"bits_per_byte": {k: v / sum(outcome.value["bytes"]) for k, v in total_bits.items()}}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, file=sys.stderr)
    return 3 if left > 0 else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--books", default="", help="a folder of books; default: the King James books")
    parser.add_argument("--max-books", type=int, default=0)
    parser.add_argument("--per-set", type=int, default=50, help="books that the model reads")
    parser.add_argument("--size", default="llama-0.1m")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training, on one of two busy cores")
    parser.add_argument("--grid", nargs="*", default=[])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--at-most", type=int, default=10**6, help="runs; exit 3 if some are left")
    parser.add_argument("--work", type=Path, default=Path("recipes-work"))
    return parser.parse_args()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _rates(
    recipes: list[Recipe], where: tuple[Any, ...], args: argparse.Namespace, executor: LocalExecutor
) -> dict[str, float]:
    """Return the seconds of a step of each kind; measured where the file of rates lacks it."""
    path = args.work / "loss_rates.jsonl"
    known = {row["kind"]: row["step_seconds"] for row in _read(path)}
    with open(path, "a") as file:
        for kind, recipe in {r.step_kind: r for r in recipes if r.step_kind not in known}.items():
            outcomes = executor.map(trial.rate, [Job(str(i), (recipe, where, 2.0)) for i in range(2)])
            known[kind] = statistics.median([s for outcome in outcomes for s in outcome.value])
            file.write(json.dumps({"kind": kind, "step_seconds": known[kind]}) + "\n")
    return known


def render(path: Path) -> str:
    lines = ["| size | seconds | recipe | parameters | tokens | steps | bits/byte, last weights | best average |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in _read(path):
        groups.setdefault((row["size"], row["seconds"], row["fields"]), []).append(row)

    def mean(rows: list[dict[str, Any]], share: str) -> float:
        return statistics.mean(r["bits_per_byte"][share] for r in rows)

    def best(rows: list[dict[str, Any]]) -> tuple[float, str]:
        return min((mean(rows, share), share) for share in rows[0]["bits_per_byte"])

    for (size, seconds, fields), rows in sorted(groups.items(), key=lambda g: (*g[0][:2], best(g[1]))):
        value, share = best(rows)
        lines.append(
            f"| {size} | {seconds:.0f} | {fields} | {rows[0]['params']} | {rows[0]['tokens']} | {rows[0]['steps']} | "
            f"{mean(rows, '0.0'):.4f} | {value:.4f} ({share}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
