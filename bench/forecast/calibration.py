"""Check the calibrated forecast against training steps that no probe has seen: python bench/forecast/calibration.py

Calibrates this machine, then draws random shapes from a seed (three families, named sizes and shapes in between,
batches, micro batches, sequence lengths, vocabularies, precisions), times the real trainer on each in interleaved
rounds - one worker alone, then all at once - measures each one's peak memory in a fresh process, and prints forecast
against measured. `--compiled` does so with compiled steps, of bfloat16 and one to three layers, since compiling takes
seconds a layer; with a probe that timed compiled steps too (`--no-compile`: one that did not). `--out FILE.json` also
keeps the rows; `--machine FILE.json` uses a record instead of a probe; several of them are summed up by `--report
FILE...`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from ltm.forecast.machine import Machine, read_machine
from ltm.forecast.machine_work import Case
from ltm.model.sizes import SIZES, ModelConfig
from ltm.runs.executors.local import Job, LocalExecutor
from ltm.store import write_json

BLOCKS = [64, 96, 128, 192, 256, 320, 512, 768, 1024]
VOCABULARIES = [257, 512, 1024, 2048, 4096, 8192]
ROUNDS = 3
SECONDS_A_ROUND = 0.3


def draw(rng: np.random.Generator, most_seconds: float) -> Case:
    """Return a random case whose step takes at most about `most_seconds` on a 100 GFLOP/s core."""
    while True:
        config = _config(rng)
        if not 8e4 < config.n_params < 32e6:
            continue
        batch = math.exp(rng.uniform(math.log(512), math.log(32_768)))
        n_micro = int(rng.choice([1, 1, 2, 4, 8]))
        micro = max(1, round(batch / n_micro / config.block_size)) * config.block_size
        if micro * n_micro > 33_000:
            continue
        dtype = str(rng.choice(["float32", "bfloat16"]))
        case = Case(config, micro * n_micro, micro, dtype)
        flops = (6 * config.n_params + 12 * config.n_layer * config.n_embd * config.block_size) * case.batch_tokens
        if flops / (90e9 if dtype == "float32" else 180e9) < most_seconds:
            return case


def _config(rng: np.random.Generator) -> ModelConfig:
    family = str(rng.choice(["llama", "mistral", "gpt2"]))
    block = int(rng.choice(BLOCKS))
    vocab = int(rng.choice(VOCABULARIES))
    if rng.random() < 0.5:
        vocab = int(math.exp(rng.uniform(math.log(257), math.log(8192))))
    window = max(32, block // 2) if family == "mistral" else 0
    if rng.random() < 0.5:
        names = [name for name, size in SIZES.items() if size.family == family and size.n_params < 40e6]
        named = SIZES[str(rng.choice(names))]
        return dataclasses.replace(named, block_size=block, window=window, vocab_size=vocab)
    while True:
        head_size, n_head = int(rng.choice([16, 24, 32, 48, 64, 80])), int(rng.integers(1, 9))
        width = head_size * n_head
        if 32 <= width <= 512:
            break
    n_kv_head = n_head
    if family != "gpt2":
        n_kv_head = int(rng.choice([k for k in range(1, n_head + 1) if n_head % k == 0]))
    hidden = math.ceil(width * rng.uniform(2, 4.2) / 32) * 32
    n_layer = int(rng.integers(2, 11))
    return ModelConfig(family, n_layer, n_head, n_kv_head, width, hidden, vocab, block, window)


def time_case(case: Case, seconds: float, compiled: bool) -> list[float]:
    """Return the seconds of the steps of one round in this worker."""
    from ltm.runs import calibrate_pieces
    from ltm.runs import calibrate_steps as steps

    calibrate_pieces.one_thread()
    if compiled:
        steps.allow_many_shapes()
    trainer = steps.make_trainer(case, "cpu", compiled=compiled)
    steps.one_step(trainer)
    steps.one_step(trainer)
    end = time.perf_counter() + seconds
    taken = [steps.one_step(trainer)]
    while time.perf_counter() < end:
        taken.append(steps.one_step(trainer))
    return steps.undisturbed(taken)


def compile_all(cases: list[Case]) -> None:
    """Compile all shapes, as many at once as there are processors, and keep the code."""
    from ltm.runs.calibrate_steps import compile_one

    with LocalExecutor(len(os.sched_getaffinity(0))) as pool:
        for outcome in pool.map(compile_one, [Job(str(i), (case, "cpu")) for i, case in enumerate(cases)]):
            assert outcome.ok, outcome.error


def measure(cases: list[Case], n_workers: int, compiled: bool) -> list[float]:
    """Return the typical step of each case: the lowest decile of interleaved rounds, over all workers."""
    from ltm.runs.calibrate_steps import typical

    taken: list[list[float]] = [[] for _ in cases]
    with LocalExecutor(n_workers) as pool:
        for _ in range(1 if compiled else ROUNDS):  # a worker makes a compiled step ready again every time
            for index, case in enumerate(cases):
                seconds = ROUNDS * SECONDS_A_ROUND if compiled else SECONDS_A_ROUND
                jobs = [Job(str(worker), (case, seconds, compiled)) for worker in range(n_workers)]
                for outcome in pool.map(time_case, jobs):
                    assert outcome.ok, outcome.error
                    taken[index] += outcome.value
    return [typical(steps) for steps in taken]


def peak(case: Case) -> float:
    """Return the peak memory of a fresh worker that trains a case."""
    from ltm.runs.calibrate_steps import memory_peak

    with LocalExecutor(1) as pool:
        (outcome,) = pool.map(memory_peak, [Job("peak", (case, "cpu"))])
    assert outcome.ok, outcome.error
    return float(outcome.value)


def rows_of(machine: Machine, cases: list[Case], memory: bool, compiled: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"seconds": s, "n_workers": 1} for s in measure(cases, 1, compiled)]
    if machine.n_workers > 1:
        rows += [{"seconds": s, "n_workers": machine.n_workers} for s in measure(cases, machine.n_workers, compiled)]
    for index, row in enumerate(rows):
        case = cases[index % len(cases)]
        found = machine.predict(
            case.config,
            case.batch_tokens,
            case.micro_batch_tokens,
            case.dtype,
            n_workers=row["n_workers"],
            compiled=compiled,
        )
        row |= {"case": dataclasses.asdict(case), "measured": case.batch_tokens / row["seconds"]}
        row |= {"forecast": found.tokens_per_second, "low": found.low, "high": found.high, "why": found.limited_by}
        if memory and row["n_workers"] == 1:
            row |= {"peak_bytes": peak(case), "forecast_peak_bytes": found.peak_memory_bytes}
            row |= {"peak_low": found.peak_memory_bytes_low, "peak_high": found.peak_memory_bytes_high}
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    result = [
        "| model | vocab | block | batch | micro | dtype | workers | tokens/s | forecast | error | GiB | forecast |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        case, c = row["case"], row["case"]["config"]
        shape = f"{c['family']} {c['n_layer']}x{c['n_embd']} h{c['n_head']}/{c['n_kv_head']} f{c['n_hidden']}"
        memory = "|" if "peak_bytes" not in row else f"{_gib(row['peak_bytes'])} | {_gib(row['forecast_peak_bytes'])}"
        sizes = f"{c['vocab_size']} | {c['block_size']} | {case['batch_tokens']} | {case['micro_batch_tokens']}"
        speed = f"{row['measured']:,.0f} | {row['forecast']:,.0f} | {row['forecast'] / row['measured'] - 1:+.1%}"
        result.append(f"| {shape} | {sizes} | {case['dtype']} | {row['n_workers']} | {speed} | {memory} |")
    return result


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 1024**3:.2f}"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    result = ["| rows | n | median error | p90 | max | inside the 90 % range |", "|---|---|---|---|---|---|"]
    groups = [("all", rows)]
    for key, name in (("n_workers", "{} worker(s)"), ("dtype", "{}")):
        values = sorted({row.get(key, row["case"].get(key)) for row in rows})
        groups += [(name.format(v), [r for r in rows if r.get(key, r["case"].get(key)) == v]) for v in values]
    for name, part in groups:
        errors = np.array([abs(r["forecast"] / r["measured"] - 1) for r in part])
        inside = np.mean([r["low"] <= r["measured"] <= r["high"] for r in part])
        result.append(_line(name, errors, float(inside)))
    part = [r for r in rows if "peak_bytes" in r]
    if part:
        errors = np.array([abs(r["forecast_peak_bytes"] / r["peak_bytes"] - 1) for r in part])
        inside = np.mean([r["peak_low"] <= r["peak_bytes"] <= r["peak_high"] for r in part])
        result.append(_line("peak memory", errors, float(inside)))
    return result


def _line(name: str, errors: np.ndarray[Any, Any], inside: float) -> str:
    median, p90 = float(np.median(errors)), float(np.quantile(errors, 0.9))
    return f"| {name} | {len(errors)} | {median:.1%} | {p90:.1%} | {errors.max():.1%} | {inside:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--most-seconds", type=float, default=2.0, help="of one step, so that a section stays short")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="in the probe, with --compiled")
    parser.add_argument("--machine", type=Path)
    parser.add_argument("--save-machine", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path, nargs="*")
    options = parser.parse_args()
    if options.report:
        rows = [row for path in options.report for row in json.loads(path.read_text())["rows"]]
        print("\n".join([*summary(rows), "", *table(rows)]))
        return
    machine = read_machine(options.machine) if options.machine else _probe(options)
    if options.save_machine:
        write_json(options.save_machine, dataclasses.asdict(machine))
    rng = np.random.default_rng(options.seed)
    cases = [draw(rng, options.most_seconds) for _ in range(options.cases)]
    if options.compiled:
        cases = [shallow(case, 1 + index % 3) for index, case in enumerate(cases)]
        compile_all(cases)
    rows = rows_of(machine, cases, not (options.no_memory or options.compiled), options.compiled)
    print("\n".join([*table(rows), "", *summary(rows)]))
    if options.out:
        write_json(options.out, {"seed": options.seed, "probe_seconds": machine.probe_seconds, "rows": rows})


def shallow(case: Case, n_layer: int) -> Case:
    return dataclasses.replace(case, config=dataclasses.replace(case.config, n_layer=n_layer), dtype="bfloat16")


def _probe(options: argparse.Namespace) -> Machine:
    from ltm.progress import Progress
    from ltm.runs.calibrate import calibrate, lines

    compiled = options.compiled and not options.no_compile
    machine = calibrate(options.seconds, Progress(), compile=compiled, device="cpu", save=False)
    print("\n".join(lines(machine)))
    return machine


if __name__ == "__main__":
    main()
