"""How well speed-ups are forecast: pairs of published runs of one source that differ in one setting only.

    python bench/forecast/ratios.py

For each pair the measured ratio of tokens per second is held against the forecast one. The 90 % quantile of the
absolute log error per setting is what `ltm.forecast.table_speedups` shows as the range of a ratio.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from ltm.forecast.tabulate import forecast_rows

DATA = Path(__file__).parents[2] / "src/ltm/forecast/data/throughput.csv"
SAME = ("source", "framework", "model_name", "params", "n_layer", "d_model", "seq_len", "gpu", "n_gpu")
SETTINGS = ("attention", "activation_checkpointing", "compile", "precision", "method", "micro_batch", "parallelism")


def main() -> None:
    with open(DATA, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["tokens_per_s_total"] and "SUSPECT" not in row["note"]]
    found = forecast_rows(rows)
    groups = defaultdict(list)
    for row, answer in zip(rows, found, strict=True):
        if answer["forecast_tokens_per_s"]:
            pair = (math.log(float(row["tokens_per_s_total"])), math.log(float(answer["forecast_tokens_per_s"])))
            groups[tuple(row[name] for name in SAME)].append((row, *pair))
    errors, changes = defaultdict(list), defaultdict(list)
    for members in groups.values():
        for (a, real_a, said_a), (b, real_b, said_b) in itertools.combinations(members, 2):
            differ = [name for name in SETTINGS if a[name] != b[name]]
            if len(differ) == 1:
                errors[differ[0]].append(abs((said_a - said_b) - (real_a - real_b)))
                changes[differ[0]].append(abs(real_a - real_b))
    print(f"{'setting':26s} pairs  median  90 % within  (median measured change)")
    for name, values in errors.items():
        print(
            f"{name:26s} {len(values):5d}  {math.expm1(np.median(values)):6.1%}  "
            f"x{math.exp(np.quantile(values, 0.9)):.3f}"
            f" (log {np.quantile(values, 0.9):.3f})  x{math.exp(np.median(changes[name])):.2f}"
        )
    every = [value for values in errors.values() for value in values]
    print(f"{'all':26s} {len(every):5d}  {math.expm1(np.median(every)):6.1%}  x{math.exp(np.quantile(every, 0.9)):.3f}")


if __name__ == "__main__":
    main()
