"""Training time to a fixed held-out bits per byte: nanoGPT as its README says, nanoGPT tuned, and ltm.

    python bench/peers/time_to_bpb.py --books DIR --nanogpt DIR [--trials N]
    python bench/peers/time_to_bpb.py --table

All have the same number of parameters within 2 %. The first target is what nanoGPT reaches with its README's settings;
the second what it reaches, tuned, in a minute. Tuned nanoGPT and ltm get the same search: the same number of trials
of the same processor time, one field changed at a time, kept if it helps. Then each is trained for lengths around the
one whose end reaches the target, three seeds; the time is interpolated between the two nearest lengths. Lengths are
tokens; seconds are tokens by the rate that interleaved rounds on the quiet machine gave, compiling and evaluation left
out. Every result is a line of `results.jsonl` in the work folder, and is not made twice.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from bpb_training import ltm_config, nanogpt_config

Job = dict[str, Any]
SEEDS = (0, 1, 2)
ROUNDS, ROUND_SECONDS, DEFAULT_ROUND_STEPS = 3, 5.0, 150
SEARCH_SECONDS, HARD_SECONDS = 8.0, 60.0
STAGES = ("default", "search", "rates", "easy", "hard")
TUNED = ("nanogpt", "ltm")
NAMES = {"default": "nanoGPT, its README", "nanogpt": "nanoGPT tuned", "ltm": "ltm"}

START: Job = {"vocab_size": 1024, "block_size": 128, "batch_tokens": 1024, "n_layer": 4, "lr": 2e-3, "beta2": 0.95}
START |= {"warmup_share": 0.05, "weight_decay": 0.1}
STARTS: dict[str, Job] = {
    "nanogpt": START | {"min_lr_share": 0.1},
    "ltm": START | {"schedule": "wsd", "decay_share": 0.3, "optimizer": "adamw", "passage_tokens": 128},
}
OWN_AXES: dict[str, list[tuple[str, list[Any]]]] = {
    "nanogpt": [("min_lr_share", [0.1, 0.0]), ("block_size", [256, 128, 64]), ("beta2", [0.9, 0.95, 0.99])],
    "ltm": [("decay_share", [0.3, 0.6]), ("optimizer", ["adamw", "muon"]), ("passage_tokens", [128, 512])],
}
AXES: dict[str, list[tuple[str, list[Any]]]] = {  # in the order of their turn; the first way to go is up
    contender: [
        ("lr", [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3]),
        ("n_layer", [5, 4, 3, 2]),
        ("batch_tokens", [4096, 2048, 1024, 512, 256]),
        ("vocab_size", [512, 1024, 2048, 4096]),
        *own,
    ]
    for contender, own in OWN_AXES.items()
}


class _Enough(Exception):
    """The time in which trainings may begin is over."""


class Results:
    """All that was trained, by job."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.path = args, args.work / "results.jsonl"
        self.until = time.monotonic() + args.seconds
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = {json.dumps(row["job"]): row for row in map(json.loads, lines)}

    def get(self, job: Job) -> Job | None:
        """Return what a job gave, if it was done."""
        row = self.rows.get(json.dumps(job))
        return row["result"] if row else None

    def run(self, job: Job) -> Job:
        """Return what a job gives; train where it was not done."""
        known = self.get(job)
        if known is not None:
            return known
        if time.monotonic() > self.until:
            raise _Enough
        args = self.args
        path = args.work / f"job-{job['contender']}.json"
        paths = {"books": str(args.books), "nanogpt": str(args.nanogpt), "work": str(args.work)}
        path.write_text(json.dumps(job | {k: str(Path(v).resolve()) for k, v in paths.items()}))
        command = [sys.executable, str(Path(__file__).parent / "bpb_training.py"), str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result: Job = json.loads(done.stdout.splitlines()[-1])
        self.rows[json.dumps(job)] = {"job": job, "result": result}
        with open(self.path, "a") as file:
            file.write(json.dumps({"job": job, "result": result}) + "\n")
        print(job, result, file=sys.stderr, flush=True)
        return result


def main() -> int:
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    results = Results(args)
    if args.table:
        print(render(results))
        return 0
    try:
        for stage in STAGES if args.stage == "all" else (args.stage,):
            _make(results, stage, args.only or TUNED)
    except _Enough:
        return 3
    return 0


def _make(results: Results, stage: str, only: Sequence[str]) -> None:
    """Train all that a stage needs."""
    if stage == "default":
        easy_target(results)
    elif stage == "search":
        for contender in only:
            search(results, contender)
    elif stage == "rates":
        for turn in range(ROUNDS):
            for contender in ("default", *TUNED):
                results.run(_rate_job(results, contender, turn))
    elif stage == "easy":
        for contender in only:
            times_to(results, contender, easy_target(results), SEARCH_SECONDS / 2)
    else:
        hard = hard_target(results)
        if "ltm" in only:
            times_to(results, "ltm", hard, HARD_SECONDS / 3)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, default=Path("shared/books"), help="a folder with manifest.csv")
    parser.add_argument("--nanogpt", type=Path, default=Path("nanoGPT"), help="a clone of karpathy/nanoGPT")
    parser.add_argument("--trials", type=int, default=10, help="of the search, for each of the two")
    parser.add_argument("--work", type=Path, default=Path("time-to-bpb"))
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--only", nargs="*", choices=TUNED, help="search or train these alone")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no training later; exit 3 if some are left"
    )
    parser.add_argument("--table", action="store_true", help="print what was found")
    return parser.parse_args()


# --- search ---------------------------------------------------------------------------------------------------------


def search(results: Results, contender: str) -> list[tuple[Job, Job, str]]:
    """Return the trials: settings, result, and what was changed; where trials are missing they are made."""
    trials: list[tuple[Job, Job, str]] = []

    def attempt(settings: Job, change: str) -> bool:
        """Try one; return whether it is the best so far."""
        best = min((result["bits_per_byte"] for _, result, _ in trials), default=math.inf)
        result = results.run(_search_job(contender, settings))
        trials.append((settings, result, change))
        return bool(result["bits_per_byte"] < best)

    best = STARTS[contender]
    attempt(best, "start")
    while True:
        for name, values in AXES[contender]:
            way = 1
            for turn in (0, 1):
                place = values.index(best[name]) + way
                if not 0 <= place < len(values) or not _possible(contender, best | {name: values[place]}):
                    way = -1
                    continue
                settings = best | {name: values[place]}
                if any(settings == tried for tried, _, _ in trials):
                    way = -1
                    continue
                if len(trials) >= results.args.trials:
                    return trials
                if attempt(settings, f"{name} {values[place]}"):
                    best = settings
                elif turn == 0:
                    way = -1
        if all(_tried_around(trials, best, axis) for axis in AXES[contender]):
            return trials


def _tried_around(trials: list[tuple[Job, Job, str]], best: Job, axis: tuple[str, list[Any]]) -> bool:
    name, values = axis
    place = values.index(best[name])
    near = [best | {name: values[i]} for i in (place - 1, place + 1) if 0 <= i < len(values)]
    return all(any(settings == tried for tried, _, _ in trials) for settings in near)


def _possible(contender: str, settings: Job) -> bool:
    try:
        (nanogpt_config if contender == "nanogpt" else ltm_config)(settings)
    except (SystemExit, ValueError):
        return False
    return True


def _search_job(contender: str, settings: Job) -> Job:
    return {"stage": "search", "contender": contender, "seed": 0, "seconds": SEARCH_SECONDS} | settings


def found(results: Results, contender: str) -> Job:
    """Return the best settings of a search that is done."""
    return min(search(results, contender), key=lambda trial: trial[1]["bits_per_byte"])[0]


# --- times ----------------------------------------------------------------------------------------------------------


def _rate_job(results: Results, contender: str, turn: int) -> Job:
    if contender == "default":
        return {"stage": "rates", "contender": "default", "seed": 0, "round": turn, "steps": DEFAULT_ROUND_STEPS}
    job = {"stage": "rates", "contender": contender, "seed": 0, "round": turn, "rate_seconds": ROUND_SECONDS}
    return job | found(results, contender)


def rate(results: Results, contender: str) -> float:
    """Return tokens (for the README's nanoGPT: characters) per second, the median of the rounds."""
    rows = [results.run(_rate_job(results, contender, turn)) for turn in range(ROUNDS)]
    return statistics.median(float(row.get("tokens_per_second") or row["tokens"] / row["seconds"]) for row in rows)


def easy_target(results: Results) -> float:
    """Return the bits per byte that nanoGPT reaches with its README's settings."""
    rows = [results.run({"stage": "default", "contender": "default", "seed": seed}) for seed in SEEDS]
    return statistics.median(float(row["bits_per_byte"]) for row in rows)


def default_seconds(results: Results) -> float:
    """Return the training time of nanoGPT's README settings."""
    row = results.run({"stage": "default", "contender": "default", "seed": SEEDS[0]})
    return float(row["tokens"]) / rate(results, "default")


def hard_target(results: Results) -> float:
    """Return the bits per byte that tuned nanoGPT reaches in a minute."""
    return statistics.median(_end(results, "nanogpt", HARD_SECONDS, seed) for seed in SEEDS)


def times_to(results: Results, contender: str, target: float, guess_seconds: float) -> list[float]:
    """Return the seconds of training that each seed needs; two lengths around it are trained, a root of 2 apart."""
    place = round(2 * math.log2(guess_seconds))

    def missed(at: int) -> bool:
        return _end(results, contender, 2 ** (at / 2), SEEDS[0]) > target

    while missed(place):
        place += 1
    while not missed(place - 1):
        place -= 1
    times = []
    for seed in SEEDS:
        short, long = (_end(results, contender, 2 ** (at / 2), seed) for at in (place - 1, place))
        times.append(2 ** ((place - (target - long) / (short - long)) / 2))
    return times


def _end(results: Results, contender: str, seconds: float, seed: int) -> float:
    settings = found(results, contender)
    batch = settings["batch_tokens"]
    tokens = round(seconds * rate(results, contender) / batch) * batch
    job = {"stage": "times", "contender": contender, "seed": seed, "tokens": tokens} | settings
    return float(results.run(job)["bits_per_byte"])


# --- table ----------------------------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return all trials, the rates and the times as Markdown."""
    lines = []
    for contender in TUNED:
        lines += ["", f"**{NAMES[contender]}**, {SEARCH_SECONDS:.0f} s of processor time a trial", ""]
        lines += ["| trial | change of the best so far | shape | parameters | tokens/s | tokens | bits/byte |"]
        lines += ["|---|---|---|---|---|---|---|"]
        shape_of = nanogpt_config if contender == "nanogpt" else ltm_config
        for number, (settings, row, change) in enumerate(search(results, contender), start=1):
            shape = shape_of(settings)
            per_second = settings["batch_tokens"] / row["step_processor_seconds"]
            lines.append(
                f"| {number} | {change} | {shape.n_layer} x {shape.n_embd} ({shape.n_hidden}) | {row['n_params']} | "
                f"{per_second:.0f} | {row['tokens']} | {row['bits_per_byte']:.4f} |"
            )
    easy = easy_target(results)
    tuned = {contender: times_to(results, contender, easy, SEARCH_SECONDS / 2) for contender in TUNED}
    hard, hard_times = hard_target(results), times_to(results, "ltm", hard_target(results), HARD_SECONDS / 3)
    ours, theirs = statistics.median(tuned["ltm"]), statistics.median(tuned["nanogpt"])
    first = default_seconds(results)
    lines += [
        "",
        "| target | contender | tokens/s | seconds by seed | median | times ltm's |",
        "|---|---|---|---|---|---|",
    ]

    def line(target: float, contender: str, times: list[float], own: float) -> str:
        by_seed, middle = ", ".join(f"{t:.2f}" for t in times), statistics.median(times)
        speed = rate(results, contender)
        return f"| {target:.4f} | {NAMES[contender]} | {speed:.0f} | {by_seed} | {middle:.2f} | {middle / own:.2f} |"

    lines += [line(easy, "default", [first], ours), line(easy, "nanogpt", tuned["nanogpt"], ours)]
    lines += [line(easy, "ltm", tuned["ltm"], ours)]
    middle = statistics.median(hard_times)
    lines += [line(hard, "nanogpt", [HARD_SECONDS], middle), line(hard, "ltm", hard_times, middle)]
    lines += ["", f"ltm is {first / ours:.1f} and {theirs / ours:.2f} times as fast to the first target, "]
    lines[-1] += f"{HARD_SECONDS / middle:.2f} times to the second."
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
