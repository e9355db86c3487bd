"""What fits on a card: the largest micro batch, and the nearest setting when the one that was asked for does not fit.

A setting is proposed when it fits in about four of five cases (half way, on a logarithmic scale, between the median of
its memory and the upper end of the 90 % range): a proposal that fails in every second case is none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ltm.forecast.case import CHECKPOINTING, METHODS, Case
from ltm.forecast.devices import Device
from ltm.forecast.estimate import Forecast, forecast, forecast_many

_SHORTEST = 128  # tokens; a sequence is not made shorter than this
_MOST_CARDS = 4096
OVERSHOOT = 1.05  # by which a micro batch that does not divide the batch may enlarge a step
_USUAL_RANK = 16.0
CPU_MICRO_TOKENS = 8192


@dataclass(frozen=True)
class Way:
    """A setting that fits, and how it differs from the one that was asked for."""

    words: str
    forecast: Forecast
    trains_all: bool  # no adapters in place of full training
    cards: int


def likely(found: Forecast) -> bool:
    """Say whether it fits in about four of five cases."""
    wanted = math.sqrt(found.peak_memory_bytes * found.peak_memory_high)
    return found.device.memory_bytes <= 0 or wanted <= found.device.memory_bytes


def surely(found: Forecast) -> bool:
    """Say whether even the upper end of the memory's range fits."""
    return found.device.memory_bytes <= 0 or found.peak_memory_high <= found.device.memory_bytes


def largest_micro_batch(case: Case, card: Device) -> Case:
    """Return the case with the largest micro batch that likely fits at the same global batch; 1 if none does."""
    candidates = [dataclasses.replace(case, micro_batch=float(n)) for n in _micro_batches(case)]
    if card.arch.startswith("CPU"):  # more than its caches hold is not faster
        candidates = [c for c in candidates if c.micro_batch * c.seq_len <= CPU_MICRO_TOKENS] or candidates[:1]
    if card.memory_bytes <= 0:  # unknown memory: what keeps a usual card busy
        return next((c for c in reversed(candidates) if c.micro_batch * c.seq_len <= 16_384), candidates[0])
    found = forecast_many(candidates, [card] * len(candidates))
    good = [f.case for f in found if likely(f)]
    return good[-1] if good else candidates[0]


def _micro_batches(case: Case) -> list[int]:
    """Return the numbers of sequences, ascending, that make up the global batch in whole micro steps."""
    replicas = max(1.0, case.n_devices / (case.tp * case.pp * case.cp))
    most = max(1, int(case.global_batch_tokens / (case.seq_len * replicas) + 1e-9))
    divisors = {n for k in range(1, int(most**0.5) + 1) if most % k == 0 for n in (k, most // k)}
    powers = {2**k for k in range(most.bit_length())}
    return sorted(n for n in divisors | powers if -(-most // n) * n <= OVERSHOOT * most)


def longest_sequence(case: Case, card: Device) -> int:
    """Return `seq_len`, or the longest power of two whose activations fit on the card when one sequence's do not.

    Weights are left out of it (they can be shared between cards), and full checkpointing is assumed; 0 = not even a
    short sequence fits, so its length is not what is wrong.
    """
    length = int(case.seq_len)
    while length >= _SHORTEST or length == case.seq_len:
        one = dataclasses.replace(
            case, seq_len=float(length), micro_batch=1.0, checkpointing=1.0, global_batch_tokens=float(length)
        )
        parts = forecast(one, card).memory_parts_bytes
        if card.memory_bytes <= 0 or parts["activations"] + parts["logits"] <= card.memory_bytes:
            return length
        length = 1 << (length - 1).bit_length() - 1
    return 0


def nearest(case: Case, card: Device) -> list[Way]:
    """Return the nearest setting that likely fits, and, if it trains adapters, the nearest that trains all weights.

    Tried in order, each on top of the ones before: a smaller micro batch at the same global batch, fused attention,
    checkpointing, 8-bit optimizer, sharding over the given cards; then LoRA, QLoRA, more cards. Empty if nothing helps.
    """
    steps = [*_same_training(case, card), *_adapters(case)]
    found = forecast_many([step for _, step in steps], [card] * len(steps))
    first = next((i for i, f in enumerate(found) if likely(f)), None)
    if first is None:
        first = next((i for i, f in enumerate(found) if f.fits), None)
    ways = [] if first is None else [_way(case, steps[first][1], card, steps[first][0])]
    if not ways or not likely(ways[0].forecast) or (case.method == 0 and not ways[0].trains_all):
        more = _more_cards(case, card)
        ways += [more] if more else []
    return ways


def _same_training(case: Case, card: Device) -> Iterator[tuple[str, Case]]:
    """Yield settings that train the same weights on the same cards, each nearer to fitting than the one before."""
    words: list[str] = []
    now = dataclasses.replace(case, micro_batch=1.0)
    yield "a smaller micro batch", now
    if case.attention == 0 and not card.arch.startswith(("Pascal", "Maxwell", "CPU")):
        now = dataclasses.replace(now, attention=1.0)
        words.append("FlashAttention")
        yield ", ".join(words), now
    for name in ("selective", "full"):
        if CHECKPOINTING[name] > case.checkpointing:
            now = dataclasses.replace(now, checkpointing=CHECKPOINTING[name])
            yield ", ".join([*words, f"{name} checkpointing"]), now
    if now.checkpointing > case.checkpointing:
        words.append("full checkpointing")
    if case.optimizer == 0:
        now = dataclasses.replace(now, optimizer=1.0)
        words.append("8-bit AdamW")
        yield ", ".join(words), now
    replicas = case.n_devices / (case.tp * case.pp * case.cp)
    for stage in (1, 2, 3):
        if replicas > 1 and stage > case.zero:
            now = dataclasses.replace(now, zero=float(stage))
            yield ", ".join([*words, f"ZeRO-{stage} over {case.n_devices:g} cards"]), now


def _adapters(case: Case) -> Iterator[tuple[str, Case]]:
    for code in (1, 2):
        if code <= case.method:
            continue
        name = {"lora": "LoRA", "qlora": "QLoRA"}[METHODS[code]] + ("" if case.continued else " on a trained model")
        half = case.precision if case.precision in (2.0, 3.0) else 3.0
        now = dataclasses.replace(
            case, method=float(code), micro_batch=1.0, mixed=0.0, precision=half, continued=1.0, attention=1.0,
            lora_rank=case.lora_rank or _USUAL_RANK, lora_attention=1.0, lora_mlp=1.0,
        )  # fmt: skip
        yield name, now
        if case.checkpointing < 1:
            yield f"{name}, full checkpointing", dataclasses.replace(now, checkpointing=1.0)


def _more_cards(case: Case, card: Device) -> Way | None:
    """Return the fewest cards (doubling) that hold it in shards with full checkpointing, or None."""
    cards, cases = int(case.n_devices) * 2, []
    while cards <= _MOST_CARDS:
        replicas = cards / (case.tp * case.pp)
        batch = max(case.global_batch_tokens, case.seq_len * replicas)
        per_node = max(case.devices_per_node, min(8.0, cards))
        cases.append(
            dataclasses.replace(
                case,
                micro_batch=1.0,
                n_devices=float(cards),
                devices_per_node=per_node,
                zero=3.0,
                checkpointing=1.0,
                global_batch_tokens=batch,
            )
        )
        cards *= 2
    found = forecast_many(cases, [card] * len(cases))
    first = next((f for f in found if likely(f)), None)
    if first is None:
        return None
    return _way(case, first.case, card, f"{first.case.n_devices:g} cards with ZeRO-3 (FSDP), full checkpointing")


def _way(asked: Case, now: Case, card: Device, words: str) -> Way:
    settled = largest_micro_batch(now, card)
    if words == "a smaller micro batch":
        words = f"micro batch {settled.micro_batch:g} in place of {asked.micro_batch:g}"
    elif settled.micro_batch != asked.micro_batch:
        words += f", micro batch {settled.micro_batch:g}"
    return Way(words, forecast(settled, card), settled.method == 0, int(settled.n_devices))
