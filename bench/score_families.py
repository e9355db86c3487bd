"""Which item families can be measured: ask the runs of a study the eval set as it is now, and say how far to trust it.

    python bench/score_families.py WORK SCRATCH [--runs 16] [--untrained 3] [--families L2,L4] [--items N] [--bank a]

WORK is the work folder of a study whose runs are trained; nothing is written into it. Banks and scores go to SCRATCH,
on the same disk (books and weights are linked), and are kept: a second call goes on. Prints the rows of
`ltm scores STUDY --json` as a table.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from pathlib import Path

import torch

from ltm.evalset import stage as evalset
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress
from ltm.records import Reliability
from ltm.runs import queue
from ltm.scores import stage as scores
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, read_json, read_rows, write_json

_SHARED = ("books", "sets", "tokens", "runs")


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    source, work = WorkFolder(Path(options.work)), WorkFolder(Path(options.scratch))
    for name in _SHARED:
        if not work.path(name).exists():
            shutil.copytree(source.path(name), work.path(name), copy_function=os.link)
    study = read_json(source.path("study.json"))
    progress = Progress(quiet=True)
    section = EvalsetSection(
        context_words=study["evalset"]["context_words"],
        families=options.families.split(",") if options.families else None,
        items_per_family=options.items or None,
    )
    if not work.path("evalset", "bank_a.parquet").exists():
        evalset.build(section, work, study["seed"], progress)
    gate = ScoresSection(untrained=options.untrained, bank=options.bank, baselines=options.baselines)
    write_json(work.path("scores", "settings.json"), gate.model_dump())
    runs = queue.complete_runs(work)[: options.runs or None]
    todo = scores.unanswered(work, scores.wanted_marks(gate, work, runs), options.bank)
    began = time.process_time()
    for name in todo:
        scores.score_run(str(work.root), name, options.bank)
    if todo:
        print(f"{len(todo)} models asked in {time.process_time() - began:.0f} s of CPU")
    scores.condense(gate, work, runs, progress)
    rows = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    print(
        f"{len(runs)} runs, {runs[0].n_params:,} parameters, {runs[0].n_tokens:,} tokens; {options.untrained} untrained"
    )
    print("\n".join(table(rows)))


def table(rows: list[Reliability]) -> list[str]:
    """Return a line per family, abilities last."""
    head = "family      items  metric   right 5-gram ending     z z(5g)halves   ICC (90 %)            SNR  passes"
    return [head, *(_line(row) for row in rows)]


def _line(row: Reliability) -> str:
    name = row.family if row.family != "*" else row.ability
    told = "yes" if row.admitted else ", ".join(row.reasons)
    return (
        f"{name:12}{row.n_items:>5}  {row.metric:8}{_n(row.accuracy):>6}{_n(row.ngram):>7}{_n(row.ending):>7}"
        f"{_n(row.z_over_chance, 1):>6}{_n(row.z_over_ngram, 1):>6}{_n(row.split_half, 2):>6}   "
        f"{_n(row.icc, 2)} ({_n(row.icc_low, 2)} to {_n(row.icc_high, 2)}){_n(row.snr, 1):>6}  {told}"
    )


def _n(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    parser.add_argument("scratch")
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--untrained", type=int, default=3)
    parser.add_argument("--families", default="")
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--bank", default="a")
    parser.add_argument("--baselines", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
