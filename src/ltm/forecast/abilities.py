"""What a card can do: precisions, kernels of attention, what to use where nothing was asked for; and this machine."""

from __future__ import annotations

import os

from ltm.forecast.devices import Device
from ltm.forecast.flags import Problems


def this_machine() -> Device:
    """Return the processor at hand with usual rates."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        memory = 8 * 1024**3
    rate = 50e9 * cores  # of a usual core with 256-bit vectors, large products
    return Device(
        f"this machine ({cores} cores)", "CPU", memory, 20e9 + 2e9 * cores, rate, rate, rate, rate, 0.0, 2 * rate, 1e9,
        65.0, 0.0, "usual rates of a processor",
    )  # fmt: skip


def fill_for_card(words: dict[str, str], card: Device, notes: list[str]) -> None:
    """Choose the precision and attention that the card has, where none was asked for."""
    if not words["precision"]:
        plain = is_arch(card, "CPU")
        order = ("bf16", "fp16", "fp32") if not plain or words["method"] == "qlora" else ("fp32",)
        chosen = next(name for name in order if has_precision(card, name) or name == "fp32")
        words["precision"] = chosen
        if chosen != "bf16" and not plain:
            notes.append(f"{chosen}: {card.name} has no bf16")
    if not words["attention"]:
        words["attention"] = "eager" if is_arch(card, "Pascal", "Maxwell", "CPU") else "flash"
        if is_arch(card, "Pascal", "Maxwell"):
            notes.append(f"plain attention: FlashAttention does not run on {card.name}")


def is_arch(card: Device, *architectures: str) -> bool:
    """Say whether a card is of one of these architectures."""
    return card.arch.startswith(architectures)


def has_precision(card: Device, precision: str) -> bool:
    """Say whether a card computes in a precision at all, emulation left out."""
    if precision == "bf16":
        return card.bf16_flops > 0 and not is_arch(card, "Pascal", "Maxwell", "Volta", "Turing")
    if precision == "tf32":
        return card.tf32_flops > card.fp32_flops
    return {"fp32": card.fp32_flops, "fp16": card.fp16_flops, "fp8": card.fp8_flops}[precision] > 0


def has_attention(card: Device, attention: str) -> bool:
    """Say whether a kernel of attention runs on a card."""
    if attention == "flash3":
        return is_arch(card, "Hopper", "Blackwell GB100") or card.arch == "Blackwell"
    return attention == "eager" or not is_arch(card, "Pascal", "Maxwell")


def card_problems(words: dict[str, str], card: Device, problems: Problems) -> None:
    """Note what is asked of a card that it cannot do."""
    precision, attention = words["precision"], words["attention"]
    if not has_precision(card, precision):
        able = [name for name in ("bf16", "fp16", "fp32") if has_precision(card, name)]
        since = {
            "fp8": "; it came with Ada, Hopper and Blackwell",
            "bf16": "; it came with Ampere",
            "tf32": "; it came with Ampere",
        }
        problems.add(
            f"--precision {precision}: {card.name} ({card.arch}) cannot compute in it{since.get(precision, '')}",
            f"use --precision {' or '.join(able[:2])}",
        )
    if not has_attention(card, attention):
        instead = "flash" if has_attention(card, "flash") else "eager"
        problems.add(f"--attention {attention} does not run on {card.name} ({card.arch})", f"use --attention {instead}")
