"""Cards and processors by name: peaks, memory, bandwidth, links, from `data/gpus.csv` or the user's own data sheet.

Rates are dense, with fp32 accumulation, in FLOP/s. Where people have measured large matrix products on a card, that
sustained rate stands in place of the nominal peak, since real products exceed it (3090) or stay far below (L4, MI300X);
where nobody has, the nominal peak is scaled by what is usual for the architecture.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files

from ltm.errors import InputError
from ltm.forecast.card_names import match

_TERA, _GIGA = 1e12, 1e9
# Sustained over nominal rate where no sweep was found: the median of the cards of that maker or class that have one.
_USUAL_SHARE = {"Apple": 0.72, "CPU": 0.6, "Gaudi": 0.8, "CDNA": 0.56, "RDNA": 0.75, "Google": 0.75}
_USUAL_SHARE_ELSEWHERE = 0.88
# Usable GB/s of a device in one direction of a ring: the nominal rate of its link, halved for two directions.
_LINKS = (
    ("1.8 TB/s", 900.0), ("900 GB/s", 450.0), ("600 GB/s", 300.0), ("400 GB/s", 200.0), ("NVLink2", 150.0),
    ("NVLink1", 80.0), ("NVLink-C2C", 450.0), ("NVLink4", 450.0), ("Infinity Fabric", 350.0), ("RoCE", 150.0),
    ("ICI", 90.0), ("NVLink bridge", 50.0), ("PCIe5 x8", 25.0), ("PCIe5, P2P", 50.0), ("PCIe5", 25.0),
    ("PCIe4 x8", 8.0),
    ("PCIe4, no P2P", 12.0), ("PCIe4", 20.0), ("PCIe3", 10.0), ("unified", 50.0),
)  # fmt: skip
_USUAL_LINK = 20.0


@dataclass(frozen=True, slots=True)
class Device:
    """One card or processor. Rates 0 = it cannot do that precision."""

    name: str
    arch: str
    memory_bytes: float
    bandwidth: float  # bytes/s of its memory
    fp32_flops: float
    tf32_flops: float
    fp16_flops: float
    bf16_flops: float
    fp8_flops: float
    peak_flops: float  # nominal dense bf16 (or fp16, fp32) peak, the denominator of MFU
    link: float  # bytes/s and direction to its neighbours in the machine
    watts: float
    hopper: float  # 1 = fused attention kernels older than FlashAttention 3 leave much of it idle
    source: str = ""
    speed_scale: float = 1.0  # learned from runs on cards of the same architecture


def device(name: str | Mapping[str, float | str]) -> Device:
    """Return a device by name, or made from a data sheet.

    Args:
        name: A name in `data/gpus.csv` or a common short form; or a mapping with `name`, `memory_gib`,
            `bandwidth_gbps`, `bf16_tflops` and, where they differ, `fp16_tflops`, `tf32_tflops`, `fp8_tflops`,
            `fp32_tflops`, `watts`, `link_gbps`.

    Raises:
        InputError: the name is unknown (lists the nearest) or the data sheet lacks a number.
    """
    if not isinstance(name, str):
        return _from_sheet(name)
    known = _table()
    key = name.strip().lower()
    found = key if key in known else match(name, list(known))
    if found is not None:
        return known[found]
    near = [known[key].name for key in difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.0)]
    raise InputError(
        f"unknown card: {name}",
        f"nearest: {', '.join(near)}; or give its data sheet: --gpu 'name=X,memory_gib=24,bandwidth_gbps=1008,"
        "bf16_tflops=165,fp32_tflops=82,watts=450'",
    )


def device_names() -> list[str]:
    """Return the names of all known devices."""
    return [card.name for card in _table().values()]


def parse_sheet(text: str) -> dict[str, float | str]:
    """Return the mapping that `name=X,memory_gib=24,...` writes.

    Raises:
        InputError: a part is not `key=number`.
    """
    sheet: dict[str, float | str] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        try:
            sheet[key.strip()] = value.strip() if key.strip() == "name" else float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise InputError(
                f"not key=number: {part.strip()!r}", "write memory_gib=24,bandwidth_gbps=1008,bf16_tflops=165"
            )
    return sheet


@functools.cache
def _table() -> dict[str, Device]:
    text = (files("ltm.forecast") / "data" / "gpus.csv").read_text(encoding="utf-8")
    made = [_from_row(row) for row in csv.DictReader(text.splitlines())]
    return {card.name.lower(): card for card in made if card is not None}


def _from_row(row: Mapping[str, str]) -> Device | None:
    """Return a device, or None for a row without the rates that a forecast needs."""
    peaks = {
        key: _number(row[f"{key}_tflops"]) for key in ("bf16_dense", "fp16_dense", "tf32_dense", "fp8_dense", "fp32")
    }
    best = peaks["bf16_dense"] or peaks["fp16_dense"] or peaks["fp32"]
    measured = _measured(row["mamf_bf16_tflops"])
    nominal = "bf16" if peaks["bf16_dense"] else "fp16" if peaks["fp16_dense"] else "fp32" if peaks["fp32"] else "bf16"
    nominal = nominal if best or "bf16" in measured else "fp32"
    sustained = measured.get(nominal, 0.0)
    best = best or sustained
    if not best:
        return None
    share = sustained / best or _usual_share(row, best)
    rate = {key: value * share * _TERA for key, value in peaks.items()}
    tensor_cores = peaks["tf32_dense"] > 0 or best > 3 * peaks["fp32"]
    fp32 = peaks["fp32"] * (_USUAL_SHARE_ELSEWHERE if tensor_cores else share) * _TERA
    bf16 = rate["bf16_dense"]
    if not bf16 and not (tensor_cores and peaks["fp16_dense"]):  # cards before bf16 emulate it slowly: not offered
        bf16 = fp32 or sustained * _TERA
    return Device(
        name=row["name"],
        arch=row["arch"],
        memory_bytes=(_number(row["mem_gib"]) or 0.0) * 1024**3,
        bandwidth=(_number(row["mem_bw_gbps"]) or 80.0) * _GIGA,
        fp32_flops=fp32 or measured.get("fp32", 0.0) * _TERA or bf16 / 16,
        tf32_flops=rate["tf32_dense"] or fp32,
        fp16_flops=rate["fp16_dense"] or bf16,
        bf16_flops=bf16,
        fp8_flops=rate["fp8_dense"],
        peak_flops=best * _TERA,
        link=_link(row["interconnect"]),
        watts=_number(row["tdp_w"]) or 100.0,
        hopper=float(row["arch"].startswith(("Hopper", "Blackwell GB100")) or row["arch"] == "Blackwell"),
        source=row["source"] or row["mamf_note"],
    )


def _from_sheet(sheet: Mapping[str, float | str]) -> Device:
    known = {"name", "memory_gib", "bandwidth_gbps", "bf16_tflops", "fp16_tflops", "tf32_tflops", "fp8_tflops",
             "fp32_tflops", "watts", "link_gbps"}  # fmt: skip
    unknown = sorted(set(sheet) - known)
    missing = [key for key in ("memory_gib", "bandwidth_gbps", "bf16_tflops") if not sheet.get(key)]
    if unknown or missing:
        problem = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise InputError(f"a data sheet of a card: {problem}", f"it may hold {', '.join(sorted(known))}")
    number = {key: float(value) for key, value in sheet.items() if key != "name"}
    bad = [key for key, value in number.items() if not 0 < value < 1e9]
    if bad:
        raise InputError(f"a data sheet of a card: {bad[0]} must be above 0", "memory_gib=24,bandwidth_gbps=1008,...")
    bf16 = number["bf16_tflops"]
    rate = _USUAL_SHARE_ELSEWHERE * _TERA
    return Device(
        name=str(sheet.get("name", "your card")),
        arch="data sheet",
        memory_bytes=number["memory_gib"] * 1024**3,
        bandwidth=number["bandwidth_gbps"] * _GIGA,
        fp32_flops=number.get("fp32_tflops", bf16 / 4) * rate,
        tf32_flops=number.get("tf32_tflops", bf16 / 2) * rate,
        fp16_flops=number.get("fp16_tflops", bf16) * rate,
        bf16_flops=bf16 * rate,
        fp8_flops=number.get("fp8_tflops", 0.0) * rate,
        peak_flops=bf16 * _TERA,
        link=number.get("link_gbps", _USUAL_LINK) * _GIGA,
        watts=number.get("watts", 300.0),
        hopper=0.0,
        source="the user's data sheet",
    )


def numeric_fields() -> list[str]:
    """Return the names of the fields that formulas use."""
    return [f.name for f in fields(Device) if f.name not in ("name", "arch", "source")]


def _measured(text: str) -> dict[str, float]:
    """Return precision -> TFLOPS from texts such as `368-418`, `fp16 42; bf16 ~2.3`, `28.4 (fp32 4.9)`."""
    found: dict[str, float] = {}
    for precision, low, high in re.findall(
        r"(?:(fp32|fp16|bf16) ~?)?(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text.split(" (one")[0]
    ):
        value = (float(low) + float(high)) / 2 if high else float(low)
        found.setdefault(precision or "bf16", value)
    return found


def _usual_share(row: Mapping[str, str], peak: float) -> float:
    """Return sustained over nominal rate of a card without a sweep: the fewer watts for a TFLOPS, the further below."""
    words = f"{row['name']} {row['arch']}"
    watts = _number(row["tdp_w"])
    capped = (
        min(1.0, 0.58 + 0.16 * watts / peak) if watts and _number(row["tf32_dense_tflops"]) else _USUAL_SHARE_ELSEWHERE
    )
    return next((share for word, share in _USUAL_SHARE.items() if word in words), capped)


def _link(text: str) -> float:
    return next((rate for word, rate in _LINKS if word in text), _USUAL_LINK) * _GIGA


def _number(text: str) -> float:
    return float(text) if text else 0.0
