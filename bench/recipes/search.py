"""Search the recipe with the most findings per hour: N x h2 per hour of one core.

    python bench/recipes/search.py --list
    python bench/recipes/search.py --recipe plain full --sets 16        train what is missing; can be killed
    python bench/recipes/search.py --alone --recipe plain full ...      the same on a quiet machine: timings too
    python bench/recipes/search.py --time --recipe plain full           seconds of a step alone
    python bench/recipes/search.py --table --reference "plain common init"

N is 3600 over the seconds of a run on one of two busy cores, h2 the ICC of held-out bits per byte between sets of 20
books in chunk-shuffled streams, two seeds each. All recipes see the same sets and seeds. Averages of the last weights
are scored beside the last weights in every run. Results are one JSON line a run in WORK/results.jsonl. Where recipes
share seeds between sets, the ICC is two-way: what a seed does to all sets alike is no noise between sets. `valid` is
the correlation of set effects with a reference recipe's, both cleaned of seed noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import trial
from library import N_SETS, Library
from recipe import RECIPES, Recipe, by_name
from table import components, gain, icc, interval, validity

from ltm.runs.executors.local import Job, LocalExecutor

REPLICATES = 2
Row = dict[str, Any]


def main() -> int:
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    recipes = [by_name(name) for name in args.recipe] if args.recipe else RECIPES
    where = (str(args.work), args.books, args.max_books)
    if args.list:
        for recipe in RECIPES:
            print(f"{recipe.name:28} {recipe.model().n_params:8} parameters {recipe.n_steps:6} steps {recipe.runs}")
        return 0
    library = Library(Path(where[0]), *where[1:])
    if args.time:
        time_recipes(recipes, where, args)
        return 0
    if args.table:
        print(render(library, args))
        return 0
    return train_missing(recipes, where, library, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--alone", action="store_true", help="the machine is quiet: these runs are timings too")
    parser.add_argument("--recipe", nargs="*", default=[])
    parser.add_argument("--sets", type=int, default=16, help=f"at most {N_SETS}")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="begin no run after this time; exit 3 if some are left"
    )
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of timing a kind of step in one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("recipes-work"))
    parser.add_argument("--books", default="", help="a folder of books; default: the King James books")
    parser.add_argument("--max-books", type=int, default=0)
    parser.add_argument("--reference", default="", help="recipe whose set effects the table compares with")
    return parser.parse_args()


def train_missing(recipes: list[Recipe], where: tuple[Any, ...], library: Library, args: argparse.Namespace) -> int:
    path = args.work / "results.jsonl"
    done = {(r["library"], r["recipe"], r["set"], r["replicate"]) for r in read(path)}
    wanted = [(r, s, k) for r in recipes for s in range(args.sets) for k in range(REPLICATES)]
    todo = [(r, s, k) for r, s, k in wanted if (library.name, r.name, s, k) not in done]
    for vocab_size in {r.vocab_size for r, _, _ in todo}:
        library.tokens(vocab_size)
    end, left = time.monotonic() + args.seconds, len(todo)
    jobs = {f"{r.name}|{s}|{k}": (r, s, k) for r, s, k in todo}

    def in_time():  # the executor takes a sequence; rounds of a few jobs let it stop in time
        names = list(jobs)
        for start in range(0, len(names), 4 * args.workers):
            if time.monotonic() > end:
                return
            yield names[start : start + 4 * args.workers]

    with LocalExecutor(args.workers) as executor, open(path, "a") as file:
        for names in in_time():
            for outcome in executor.map(trial.run, [Job(n, (jobs[n][0], where, *jobs[n][1:])) for n in names]):
                recipe, set_index, replicate = jobs[outcome.key]
                row = {"library": library.name, "recipe": recipe.name, "set": set_index, "replicate": replicate}
                row["alone"] = args.alone
                if not outcome.ok:
                    print(f"{outcome.key}: {outcome.error}\n{outcome.trace}", file=sys.stderr)
                    continue
                file.write(json.dumps(row | outcome.value) + "\n")
                file.flush()
                left -= 1
    print(f"{len(todo) - left} runs, {left} left", file=sys.stderr)
    return 3 if left else 0


def time_recipes(recipes: list[Recipe], where: tuple[Any, ...], args: argparse.Namespace) -> None:
    """Write the seconds of a step of each kind in interleaved rounds, all workers busy with the same kind."""
    kinds = {recipe.step_kind: recipe for recipe in recipes}
    with LocalExecutor(args.workers) as executor, open(args.work / "rates.jsonl", "a") as file:
        for _ in range(args.rounds):
            for kind, recipe in kinds.items():
                jobs = [Job(str(i), (recipe, where, args.slice)) for i in range(args.workers)]
                steps = [s for outcome in executor.map(trial.rate, jobs) for s in outcome.value]
                file.write(json.dumps({"kind": kind, "step_seconds": statistics.median(steps)}) + "\n")
                file.flush()


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def values(rows: list[Row], name: str, share: str, n_windows: int = 10**6) -> tuple[list[int], np.ndarray]:
    """Return bits per byte, one row a set that has all replicates."""
    got = {(r["set"], r["replicate"]): r for r in rows if r["recipe"] == name}
    sets = sorted({s for s, _ in got if all((s, k) in got for k in range(REPLICATES))})

    def bits(row: Row) -> float:
        some = slice(0, None, max(1, -(-len(row["bytes"]) // n_windows)))
        return float(sum(row["nats"][share][some]) / sum(row["bytes"][some]) / np.log(2))

    return sets, np.array([[bits(got[s, k]) for k in range(REPLICATES)] for s in sets])


class Results:
    """All runs of one library, and the seconds of their steps."""

    def __init__(self, library: Library, work: Path) -> None:
        self.rows = [r for r in read(work / "results.jsonl") if r["library"] == library.name]
        self._steps: dict[str, list[float]] = {}
        for row in read(work / "rates.jsonl"):
            self._steps.setdefault(row["kind"], []).append(row["step_seconds"])
        for recipe in RECIPES:
            alone = [r["seconds"] for r in self.rows if r["recipe"] == recipe.name and r.get("alone")]
            self._steps.setdefault(recipe.step_kind, []).extend(seconds / recipe.n_steps for seconds in alone)

    def seconds(self, recipe: Recipe) -> float:
        """Return the seconds of a run, from steps of its kind on a quiet machine."""
        steps = self._steps[recipe.step_kind]
        return recipe.n_steps * statistics.median(steps) if steps else float("nan")

    def shares(self, recipe: Recipe) -> list[str]:
        scored = [set(r["nats"]) for r in self.rows if r["recipe"] == recipe.name]
        return sorted(set.intersection(*scored)) if scored else []

    def together(self, one: Recipe, share: str, other: Recipe, other_share: str) -> tuple[np.ndarray, np.ndarray]:
        """Return bits per byte of two recipes on the sets that both have."""
        (sets, bits), (others, other_bits) = (
            values(self.rows, one.name, share),
            values(self.rows, other.name, other_share),
        )
        both = sorted(set(sets) & set(others))
        return bits[[sets.index(s) for s in both]], other_bits[[others.index(s) for s in both]]


def render(library: Library, args: argparse.Namespace) -> str:
    results = Results(library, args.work)
    lines = [
        "| recipe | averaged | sets | steps | s/run | bits/byte | sd set | sd seed | ICC (90 %) | N x h2 /h "
        "| times plain (90 %) | valid |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        if not args.recipe or recipe.name in args.recipe:
            lines += [_line(recipe, share, results, args) for share in results.shares(recipe)]
    return "\n".join(line for line in lines if line)


def _line(recipe: Recipe, share: str, results: Results, args: argparse.Namespace) -> str:
    sets, bits = values(results.rows, recipe.name, share)
    if len(sets) < 4:
        return ""
    two_way, seconds = bool(recipe.common), results.seconds(recipe)
    between, within = components(bits, two_way)
    h2, (low, high) = icc(bits, two_way), interval(bits, two_way)
    plain = by_name("plain")
    one, other = results.together(recipe, share, plain, "0.0")
    times = (
        gain(one, other, (two_way, False), (seconds, results.seconds(plain))) if len(one) >= 8 else [float("nan")] * 3
    )
    valid = float("nan")
    if args.reference:
        reference = by_name(args.reference)
        one, other = results.together(recipe, share, reference, "0.0")
        if len(one) >= 8 and reference is not recipe:
            valid = validity(one, other, (two_way, bool(reference.common)))
    return (
        f"| {recipe.name} | {share} | {len(sets)} | {recipe.n_steps} | {seconds:.2f} | {bits.mean():.3f} | "
        f"{max(0.0, between) ** 0.5:.4f} | {within**0.5:.4f} | {h2:.2f} ({low:.2f} to {high:.2f}) | "
        f"{3600 / seconds * h2:.0f} | {times[0]:.1f} ({times[1]:.1f} to {times[2]:.1f}) | {valid:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
