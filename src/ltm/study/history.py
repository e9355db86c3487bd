"""What this machine has taken for studies before: one JSON line per finished study, and the rehearsals of plans.

Writes and reads: `history.jsonl` and `plans/` in the user's cache folder (`$LTM_CACHE`, else `$XDG_CACHE_HOME/ltm`,
else `~/.cache/ltm`). All of it may be deleted at any time; it only makes forecasts better and cheaper.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ltm.errors import StoreError
from ltm.forecast.bill import Costs
from ltm.forecast.machine import cpu_model
from ltm.forecast.machine_work import ENGINE
from ltm.store import cache_folder, fingerprint, json_safe, read_json, write_json

_LINES = 200  # read back at most
_STUDIES = 20  # the newest of a machine
_PRIOR_STUDIES = 3.0  # how many studies the rehearsal itself counts for
_FARTHEST = math.log(1.6)  # beyond it a study was disturbed, and says nothing about the stage
_PLAN_SECONDS = 24 * 3600.0  # a rehearsal of the day before may have met another machine state


def version() -> str:
    """Return the version of ltm whose measurements can be compared; empty where it is not installed as a package."""
    try:
        return metadata.version("ltm")
    except metadata.PackageNotFoundError:
        return ""


def machine_id(device: str) -> str:
    """Return a fingerprint of what makes a machine fast or slow: processor, cores, graphics card, ltm's engine."""
    return fingerprint([platform.machine(), cpu_model(), len(os.sched_getaffinity(0)), _card(device), ENGINE])


def _card(device: str) -> str:
    if device != "cuda":
        return ""
    import torch

    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def append(row: Mapping[str, Any]) -> None:
    """Add a finished study; a cache that cannot be written is done without."""
    path = cache_folder() / "history.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(json_safe(dict(row)), ensure_ascii=False, allow_nan=False) + "\n")
    except OSError:
        return


def rows(machine: str, of_version: str) -> list[dict[str, Any]]:
    """Return the newest studies of this machine and ltm; lines that cannot be read are passed over."""
    try:
        lines = (cache_folder() / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines[-_LINES:]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and row.get("machine") == machine and row.get("version") == of_version:
            found.append(row)
    return found[-_STUDIES:]


def corrections(past: list[dict[str, Any]]) -> dict[str, float]:
    """Return by stage how many times longer it took than was forecast, shrunk towards 1 while few studies tell.

    What is not a pair of numbers is passed over.

    >>> corrections([{"stages": {"books": [10.0, 12.0]}}, {"stages": {"books": [5.0, 6.0]}}])
    {'books': 1.075683962557257}
    """
    logs: dict[str, list[float]] = {}
    for row in past:
        stages = row.get("stages")
        for name, pair in stages.items() if isinstance(stages, dict) else []:
            forecast, measured = _pair(pair)
            if forecast > 0.5 and measured > 0.5 and abs(math.log(measured / forecast)) <= _FARTHEST:
                logs.setdefault(name, []).append(math.log(measured / forecast))
    return {
        name: math.exp(statistics.median(values) * len(values) / (len(values) + _PRIOR_STUDIES))
        for name, values in logs.items()
    }


def _pair(value: Any) -> tuple[float, float]:
    """Return two numbers that were forecast and measured; zeros for anything else, which tell nothing."""
    try:
        forecast, measured = (float(x) for x in (value if isinstance(value, list) else ()))
        return (forecast, measured) if math.isfinite(forecast + measured) else (0.0, 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0, 0.0


def store_plan(key: str, costs: Costs, library: Mapping[str, Any]) -> None:
    """Keep a rehearsal, so that the run that follows need not repeat it; those too old to be used are deleted."""
    value = {"costs": dataclasses.asdict(costs), "library": dict(library), "made_at": time.time()}
    folder = cache_folder() / "plans"
    try:
        for path in folder.glob("*.json"):
            if time.time() - path.stat().st_mtime > _PLAN_SECONDS:
                path.unlink(missing_ok=True)
        write_json(folder / f"{key}.json", value)
    except (StoreError, OSError):
        return


def stored_plan(key: str) -> tuple[Costs, dict[str, Any]] | None:
    """Return a rehearsal of the same study on the same machine, if it is of today."""
    try:
        value = read_json(cache_folder() / "plans" / f"{key}.json")
        if not 0 <= time.time() - float(value["made_at"]) <= _PLAN_SECONDS:
            return None
        if set(value["costs"]) != {f.name for f in dataclasses.fields(Costs)}:  # of another ltm
            return None
        return costs_from(value["costs"]), dict(value["library"])
    except (StoreError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def costs_from(value: Mapping[str, Any]) -> Costs:
    """Return costs as they were stored; keys of another ltm are passed over."""
    known = {f.name for f in dataclasses.fields(Costs)}
    return Costs(**{name: item for name, item in value.items() if name in known})
