"""Fit the constants of inference on published rows and write `data/inference.json`; print the error of every row.

    python bench/forecast/inference.py [--check]

Spreads are the 90 % quantile of absolute log errors with each card left out in turn. `--check` compares with the
shipped file and changes nothing.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.optimize import least_squares

from ltm.forecast.devices import device
from ltm.forecast.formulas_inference import decode_seconds, prefill_seconds
from ltm.forecast.inference import QUANTS, inference_case
from ltm.forecast.shapes import shape

DATA = Path(__file__).parents[2] / "src/ltm/forecast/data"
WHAT = {
    "decode_half": ("fraction", "of the memory bandwidth that writing an answer with 16-bit weights reaches", 0.8),
    "decode_packed": ("fraction", "the same with weights of 8 or 4 bits", 0.6),
    "decode_cache": ("fraction", "of the memory bandwidth that reading keys and values reaches", 0.5),
    "wide_memory": ("exponent", "by which that share falls with bandwidth above 1 TB/s", 0.5),
    "prefill_half": ("fraction", "of the product rate that reading a prompt with 16-bit weights reaches", 0.6),
    "prefill_packed": ("fraction", "the same with weights of 8 or 4 bits", 0.5),
    "prefill_attention": ("fraction", "of the product rate that attention over the prompt reaches", 0.1),
    "launch_seconds": ("seconds/block", "to start the kernels of one block", 1e-5),
}
GIVEN = {
    "program_bytes": ("MB/device", "of the program and the driver's context", 600.0),
    "retrieval_seconds": (
        "seconds",
        "to search an index by words (BM25), whatever its size; assumed, not fitted",
        0.002,
    ),
    "retrieval_token_seconds": (
        "seconds/token",
        "to walk the postings of a question, per token of the library; assumed",
        1e-10,
    ),
    "index_token_seconds": ("seconds/token", "to build the index on one core; assumed: 5 MB/s of text", 9e-7),
}


def rows() -> list[dict]:
    with open(DATA / "inference.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for row in found:
        n = float(row["tokens"])
        row["c"] = inference_case(shape(row["model"]), QUANTS[row["quant"]], n, n, n)
        row["d"] = device(row["gpu"])
    return found


def errors(values: np.ndarray, some: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    k = SimpleNamespace(**dict(zip(WHAT, np.exp(values), strict=True)))
    decode, prefill = [], []
    for row in some:
        n = float(row["tokens"])
        if row["decode_tokens_per_s"]:
            forecast = 1 / float(decode_seconds(row["c"], row["d"], k, n / 2)["total"])
            decode.append(np.log(forecast / float(row["decode_tokens_per_s"])))
        if row["prefill_tokens_per_s"]:
            forecast = n / float(prefill_seconds(row["c"], row["d"], k, n)["total"])
            prefill.append(np.log(forecast / float(row["prefill_tokens_per_s"])))
    return np.array(decode), np.array(prefill)


def fit(some: list[dict]) -> np.ndarray:
    start = np.log([value for _, _, value in WHAT.values()])

    def loss(values: np.ndarray) -> np.ndarray:
        decode, prefill = errors(values, some)
        return np.concatenate([decode, prefill, 0.2 * (values - start)])  # weak pull to what is usual

    return least_squares(loss, start, loss="soft_l1", f_scale=0.2).x


def main() -> int:
    every = rows()
    decode_out, prefill_out = [], []
    for card in sorted({row["gpu"] for row in every}):
        values = fit([row for row in every if row["gpu"] != card])
        decode, prefill = errors(values, [row for row in every if row["gpu"] == card])
        print(
            f"{card:28s} left out: decode {np.exp(np.median(decode)) - 1:+.0%}"
            + (f", prefill {np.exp(np.median(prefill)) - 1:+.0%}" if len(prefill) else "")
        )
        decode_out.append(np.abs(decode))
        prefill_out.append(np.abs(prefill))
    values = fit(every)
    spread = {
        name: float(np.quantile(np.concatenate(out), 0.9))
        for name, out in (("decode", decode_out), ("prefill", prefill_out))
    }
    for name, out in (("decode", decode_out), ("prefill", prefill_out)):
        print(
            f"{name}: median error {np.expm1(np.median(np.concatenate(out))):.1%}, "
            f"90 % within x{np.exp(spread[name]):.2f}"
        )
    document = {
        "made_by": "bench/forecast/inference.py from inference.csv and gpus.csv",
        **{
            n: {"value": float(f"{np.exp(v):.4g}"), "unit": WHAT[n][0], "what": WHAT[n][1]}
            for n, v in zip(WHAT, values, strict=True)
        },
        **{n: {"value": v, "unit": u, "what": w} for n, (u, w, v) in GIVEN.items()},
        **{
            f"spread_{n}": {
                "value": float(f"{s:.4g}"),
                "unit": "log",
                "what": f"half-width of the 90 % range of {n}, cards left out",
            }
            for n, s in spread.items()
        },
    }
    text = json.dumps(document, indent=1) + "\n"
    path = DATA / "inference.json"
    if "--check" in sys.argv:
        same = path.read_text(encoding="utf-8") == text
        print("the shipped file is the same" if same else "the shipped file differs")
        return 0 if same else 1
    path.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
