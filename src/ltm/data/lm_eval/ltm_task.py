"""Items of ltm as tasks of lm-evaluation-harness: one document per item, one request per cell.

This file stands beside the tasks that `ltm evalset STUDY --to lm-eval DIR` writes and needs nothing of ltm. The
formulas are those of docs/scores.md, written down a second time on purpose: the harness is the judge.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

TIE_PER_BYTE, TIE = 1e-7, 1e-5  # nats: of a whole log-probability that is the noise of float32


class LtmTask(ConfigurableTask):
    """One family of items; the YAML file of the task names it."""

    VERSION = 1

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        plain = {key: value for key, value in (config or {}).items() if key != "class"}
        super().__init__(config=plain)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        """Read the items that stand beside this file: no network, whatever the current folder."""
        path = Path(__file__).parent / f"{self.config.task}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list([json.loads(line) for line in lines])})

    def doc_to_text(self, doc: dict[str, Any], *_: Any, **__: Any) -> str:
        """Return nothing: every cell has a context of its own."""
        return ""

    def doc_to_target(self, doc: dict[str, Any], *_: Any, **__: Any) -> str:
        """Return the right continuation, for people who read the samples."""
        return str(doc["continuations"][doc["gold"]])

    def doc_to_choice(self, doc: dict[str, Any], *_: Any, **__: Any) -> list[str]:
        """Return the continuations."""
        return list(doc["continuations"])

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Instance]:
        """Return a request per cell."""
        about = {"doc": doc, "metadata": kwargs.get("metadata")}
        return [
            Instance(request_type="loglikelihood", arguments=pair, idx=index, **about)
            for index, pair in enumerate(zip(doc["contexts"], doc["continuations"], strict=True))
        ]

    def process_results(self, doc: dict[str, Any], results: Any) -> dict[str, Any]:
        """Return what one item says."""
        logprobs = [float(answer[0]) for answer in results]
        n_bytes = [len(text.encode()) for text in doc["continuations"]]
        values: dict[str, Any] = {"margin": margin(doc["rule"], logprobs, n_bytes, doc["gold"], doc["neutral"])}
        if doc["rule"] != "bits_per_byte":
            values["acc"] = correct(doc["rule"], logprobs, n_bytes, doc["gold"], doc["neutral"])
        own = gold_cells(doc["rule"], doc["gold"])
        values["bits_per_byte"] = (-sum(logprobs[i] for i in own) / math.log(2), sum(n_bytes[i] for i in own))
        return values

    def aggregation(self) -> dict[str, Any]:
        """Return how items become one number."""
        return {"margin": mean, "acc": mean, "bits_per_byte": bits_per_byte}

    def higher_is_better(self) -> dict[str, bool]:
        """Return the direction of each metric."""
        return {"margin": True, "acc": True, "bits_per_byte": False}


def margin(rule: str, l: list[float], b: list[int], gold: int, neutral: bool) -> float:  # noqa: E741
    """Return the margin of an item in nats per byte."""
    if rule == "pair":
        return (1 if gold == 0 else -1) * (l[0] - l[1]) / ((b[0] + b[1]) / 2)
    if rule == "contrast":
        return (l[0] - l[1]) / b[0] - (l[2] - l[3]) / b[2]
    if rule == "gain":
        return (l[1] / b[1] - l[2] / b[2]) / math.log(2)
    if rule == "synergy":
        return sum(sign * (l[i] / b[i] - l[i + 1] / b[i + 1]) for sign, i in ((1, 0), (-1, 2), (-1, 4), (1, 6)))
    if rule == "bits_per_byte":
        return l[0] / math.log(2) / b[0]
    s = per_byte(l, b, neutral)
    return s[gold] - sum(value for i, value in enumerate(s) if i != gold) / (len(s) - 1)


def correct(rule: str, l: list[float], b: list[int], gold: int, neutral: bool) -> float:  # noqa: E741
    """Return 1 for right, 0 for wrong, and a share for a tie."""
    if rule in ("choice", "likelihood"):
        values, tie = (per_byte(l, b, neutral), TIE_PER_BYTE) if rule == "choice" else (l, TIE)
        tied = [value >= max(values) - tie for value in values]
        return tied[gold] / sum(tied)
    value = margin(rule, l, b, gold, neutral)
    return 1.0 if value > TIE_PER_BYTE else 0.0 if value < -TIE_PER_BYTE else 0.5


def per_byte(l: list[float], b: list[int], neutral: bool) -> list[float]:  # noqa: E741
    """Return the log-probability of each option per byte, less the one after the neutral context if there is one."""
    n = len(l) // 2 if neutral else len(l)
    return [(l[i] - (l[n + i] if neutral else 0.0)) / b[i] for i in range(n)]


def gold_cells(rule: str, gold: int) -> list[int]:
    """Return which cells hold a right continuation after its full context."""
    return {"contrast": [0, 3], "gain": [1], "synergy": [0]}.get(rule, [gold])


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def bits_per_byte(pairs: list[tuple[float, int]]) -> float:
    """Return all bits over all bytes."""
    return sum(bits for bits, _ in pairs) / sum(size for _, size in pairs)
