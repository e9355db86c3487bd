"""Training time to a fixed held-out bits per byte: nanoGPT as its README says, nanoGPT tuned, and ltm.

    python bench/peers/time_to_bpb.py --books DIR --nanogpt DIR [--trials N]
    python bench/peers/time_to_bpb.py --table

All have the same number of parameters within 2 %. The first target is what nanoGPT reaches with its README's settings;
the second what it reaches, tuned, in a minute. Tuned nanoGPT and ltm get the same search for each target: the same
number of trials of the same processor time, two seeds each; one field is changed at a time and kept if it helps. Then
each is trained for lengths around the one whose end reaches the target, three seeds; the time is interpolated between
the two nearest. Lengths are tokens; seconds are tokens by the rate that interleaved rounds on the quiet machine gave,
compiling and evaluation left out. Every result is a line of `results.jsonl` in the work folder, not made twice.
"""

from __future__ import annotations

import argparse
import itertools
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
HARD_SECONDS = 60.0  # of tuned nanoGPT: what it reaches then is the second target
SEARCH_SECONDS = {"hard": 8.0, "easy": 2.0}  # a trial; the second search begins where the first ended
STAGES = ("default", "search", "rates", "easy", "hard")
TUNED = ("nanogpt", "ltm")
NAMES = {"default": "nanoGPT, its README", "nanogpt": "nanoGPT tuned", "ltm": "ltm"}

START: Job = {"vocab_size": 2048, "block_size": 128, "batch_tokens": 512, "n_layer": 2, "beta2": 0.95}
START |= {"warmup_share": 0.05, "weight_decay": 0.1}
ORDER = {  # of the fields that both have
    "hard": ("lr", "n_layer", "batch_tokens", "vocab_size"),
    "easy": ("vocab_size", "batch_tokens", "lr", "n_layer"),
}
STARTS: dict[str, Job] = {
    "nanogpt": START | {"lr": 1e-3, "min_lr_share": 0.1},
    "ltm": START | {"lr": 2e-3, "schedule": "wsd", "decay_share": 0.3, "optimizer": "adamw", "passage_tokens": 128},
}
OWN_AXES: dict[str, list[tuple[str, list[Any]]]] = {
    "nanogpt": [("min_lr_share", [0.1, 0.0]), ("block_size", [256, 128, 64]), ("beta2", [0.9, 0.95, 0.99])],
    "ltm": [("decay_share", [0.3, 0.6]), ("optimizer", ["adamw", "muon"]), ("passage_tokens", [128, 512])],
}
AXES: dict[str, list[tuple[str, list[Any]]]] = {  # in the order of their turn; the first way to go is on in the list
    contender: [
        ("lr", [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3]),
        ("n_layer", [5, 4, 3, 2, 1]),
        ("batch_tokens", [4096, 2048, 1024, 512, 256, 128]),
        ("vocab_size", [512, 1024, 2048, 4096, 8192]),
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
        for aim in SEARCH_SECONDS:
            for contender in only:
                search(results, contender, aim)
    elif stage == "rates":
        for turn in range(ROUNDS):
            for contender, aim in (("default", ""), *itertools.product(TUNED, SEARCH_SECONDS)):
                results.run(_rate_job(results, contender, aim, turn))
    elif stage == "easy":
        for contender in only:
            times_to(results, contender, "easy")
    else:
        hard_target(results)
        if "ltm" in only:
            times_to(results, "ltm", "hard")


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


def search(results: Results, contender: str, aim: str) -> list[tuple[Job, Job, str]]:
    """Return the trials: settings, result, and what was changed; where trials are missing they are made."""
    trials: list[tuple[Job, Job, str]] = []

    def attempt(settings: Job, change: str) -> bool:
        """Try one; return whether it is the best so far."""
        best = min((result["bits_per_byte"] for _, result, _ in trials), default=math.inf)
        job = {"stage": "search", "contender": contender, "seed": 0, "seconds": SEARCH_SECONDS[aim]}
        result = results.run(job | settings)
        trials.append((settings, result, change))
        return bool(result["bits_per_byte"] < best)

    best = STARTS[contender] if aim == "hard" else found(results, contender, "hard")
    axes = sorted(AXES[contender], key=lambda axis: ORDER[aim].index(axis[0]) if axis[0] in ORDER[aim] else 9)
    attempt(best, "start")
    while True:
        for name, values in axes:
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
        if all(_tried_around(trials, best, axis) for axis in axes):
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


def found(results: Results, contender: str, aim: str) -> Job:
    """Return the best settings of a search that is done."""
    return min(search(results, contender, aim), key=lambda trial: trial[1]["bits_per_byte"])[0]


# --- times ----------------------------------------------------------------------------------------------------------


def _rate_job(results: Results, contender: str, aim: str, turn: int) -> Job:
    if contender == "default":
        return {"stage": "rates", "contender": "default", "seed": 0, "round": turn, "steps": DEFAULT_ROUND_STEPS}
    job = {"stage": "rates", "contender": contender, "seed": 0, "round": turn, "rate_seconds": ROUND_SECONDS}
    return job | found(results, contender, aim)


def rate(results: Results, contender: str, aim: str = "") -> float:
    """Return tokens (for the README's nanoGPT: characters) per second, the median of the rounds."""
    rows = [results.run(_rate_job(results, contender, aim, turn)) for turn in range(ROUNDS)]
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
    return statistics.median(_end(results, "nanogpt", "hard", HARD_SECONDS, seed) for seed in SEEDS)


def times_to(results: Results, contender: str, aim: str) -> list[float]:
    """Return the seconds of training that each seed needs; two lengths around it are trained, a root of 2 apart."""
    target = easy_target(results) if aim == "easy" else hard_target(results)
    place = round(2 * math.log2(SEARCH_SECONDS["easy"] if aim == "easy" else HARD_SECONDS / 3))

    def missed(at: int) -> bool:
        return _end(results, contender, aim, 2 ** (at / 2), SEEDS[0]) > target

    while missed(place):
        place += 1
    while not missed(place - 1):
        place -= 1
    times = []
    for seed in SEEDS:
        short, long = (_end(results, contender, aim, 2 ** (at / 2), seed) for at in (place - 1, place))
        times.append(2 ** ((place - (target - long) / (short - long)) / 2))
    return times


def _end(results: Results, contender: str, aim: str, seconds: float, seed: int) -> float:
    settings = found(results, contender, aim)
    batch = settings["batch_tokens"]
    tokens = round(seconds * rate(results, contender, aim) / batch) * batch
    job = {"stage": "times", "contender": contender, "seed": seed, "tokens": tokens} | settings
    return float(results.run(job)["bits_per_byte"])


# --- table ----------------------------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return all trials, the rates and the times as Markdown."""
    lines = []
    for contender, aim in itertools.product(TUNED, SEARCH_SECONDS):
        lines += _trials(results, contender, aim)
    lines += ["", "| target | contender | tokens/s | seconds by seed | median | ltm is faster by |"]
    lines += ["|---|---|---|---|---|---|"]
    easy, hard = easy_target(results), hard_target(results)
    ours = {aim: times_to(results, "ltm", aim) for aim in SEARCH_SECONDS}
    rows = [
        (easy, "default", "", "easy", [default_seconds(results)]),
        (easy, "nanogpt", "easy", "easy", times_to(results, "nanogpt", "easy")),
        (easy, "ltm", "easy", "easy", ours["easy"]),
        (hard, "nanogpt", "hard", "hard", [HARD_SECONDS]),
        (hard, "ltm", "hard", "hard", ours["hard"]),
    ]
    for target, contender, rated, aim, times in rows:
        by_seed, middle = ", ".join(f"{t:.2f}" for t in times), statistics.median(times)
        ratio = f"{middle / statistics.median(ours[aim]):.2f}" if contender != "ltm" else ""
        speed = rate(results, contender, rated)
        lines.append(f"| {target:.4f} | {NAMES[contender]} | {speed:.0f} | {by_seed} | {middle:.2f} | {ratio} |")
    return "\n".join(lines)


def _trials(results: Results, contender: str, aim: str) -> list[str]:
    lines = ["", f"**{NAMES[contender]}**, {SEARCH_SECONDS[aim]:.0f} s of processor time a trial", ""]
    lines += [
        "| trial | tried on the best so far | layers x width (hidden) | parameters | tokens/s | tokens | bits/byte |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    shape_of = nanogpt_config if contender == "nanogpt" else ltm_config
    for number, (settings, row, change) in enumerate(search(results, contender, aim), start=1):
        shape = shape_of(settings)
        per_second = settings["batch_tokens"] / row["step_processor_seconds"]
        lines.append(
            f"| {number} | {change} | {shape.n_layer} x {shape.n_embd} ({shape.n_hidden}) | {row['n_params']} | "
            f"{per_second:.0f} | {row['tokens']} | {row['bits_per_byte']:.4f} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
