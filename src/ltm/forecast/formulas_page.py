"""What the page asks and answers beside `formulas`, in the same restricted language: the case of a question, the
share of the peak, the bill, and what a claim implies.

Like `formulas` it is transpiled for the page and runs on numbers and NumPy arrays alike. `q` holds the numbers of a
question (codes count into the tuples of `ltm.forecast.case`), `s` a shape. It says what `ltm.forecast.question` and
`ltm.forecast.estimate` say in plain Python; the tests of the page hold the two against each other.
"""

from __future__ import annotations

from typing import Any

from numpy import floor, maximum, minimum, sqrt, where

from ltm.forecast.formulas import (
    Number,
    Parts,
    fixed_seconds,
    memory_bytes,
    parameters,
    power_watts,
    spread,
    step_seconds,
)

TOKENS_PER_PAGE = 500.0  # 500 pages are 250K tokens
USUAL_BATCH_TOKENS = 524288.0
FEWEST_STEPS = 100.0  # a default batch is never so large that a run has fewer
FIXED_RANGE = 2.0  # start-up and compiling are known to within a factor of two either way
POWER_RANGE = 1.15  # mean power to about 15 %


def case_of(q: Any, s: Any) -> Parts:
    """Return the fields of a case; what a question does not ask keeps its default."""
    adapters = where(q.method > 0, 1.0, 0.0)
    return {
        "n_layer": s.n_layer,
        "n_embd": s.n_embd,
        "n_head": s.n_head,
        "n_kv_head": s.n_kv_head,
        "head_size": s.head_size,
        "n_hidden": s.n_hidden,
        "vocab_size": s.vocab_size,
        "gated": s.gated,
        "tied": s.tied,
        "learned_positions": s.learned_positions,
        "window": s.window,
        "n_params": s.n_params,
        "seq_len": q.seq_len,
        "micro_batch": maximum(q.micro_batch, 1.0),
        "global_batch_tokens": q.batch_tokens,
        "precision": q.precision,
        "mixed": where(q.precision > 1, 1.0 - adapters, 0.0),
        "attention": q.attention,
        "checkpointing": q.checkpointing,
        "kernels": q.kernels,
        "method": q.method,
        "lora_rank": q.lora_rank * adapters,
        "lora_attention": 1.0,
        "lora_mlp": adapters,
        "optimizer": q.optimizer,
        "loop": q.loop,
        "continued": maximum(q.continued, adapters),
        "n_devices": q.n_devices,
        "devices_per_node": minimum(q.devices_per_node, q.n_devices),
        "node_link": q.node_link,
        "tp": q.tp,
        "pp": q.pp,
        "zero": where(q.n_devices > 1, q.zero, 0.0),
    }


def data_tokens(q: Any) -> Parts:
    """Return the tokens of a question: distinct ones, those trained on, and those worked on, padding included."""
    distinct = where(q.in_books > 0, q.books * q.pages * TOKENS_PER_PAGE, q.tokens)
    trained = distinct * q.epochs
    return {"distinct": distinct, "trained": trained, "worked": trained / q.packing}


def batch_of(q: Any, trained: Number) -> Number:
    """Return the tokens of one step: as asked, or half a million in whole micro batches, and at least 100 steps."""
    replicas = maximum(1.0, floor(q.n_devices / (q.tp * q.pp)))
    least = q.seq_len * replicas * maximum(1.0, q.micro_batch)
    wanted = minimum(USUAL_BATCH_TOKENS, trained / FEWEST_STEPS)
    return where(q.batch_tokens > 0, q.batch_tokens, maximum(1.0, floor(wanted / least)) * least)


def nominal_peak(c: Any, d: Any) -> Number:
    """Return the dense FLOP/s of all cards by their data sheet, the denominator of MFU."""
    return d.peak_flops * where((c.precision == 4) * (d.fp8_flops > 0) > 0, 2.0, 1.0) * c.n_devices


def rates(c: Any, d: Any, k: Any) -> Parts:
    """Return speed with its range, the share of the peak, and what each resource takes of a step in seconds."""
    step = step_seconds(c, d, k)
    wide = spread(c, d, k)
    speed = step["step_tokens"] / step["total"]
    return {
        "tokens_per_second": speed,
        "tokens_per_second_low": speed / wide["time_high"],
        "tokens_per_second_high": speed / wide["time_low"],
        "mfu": step["model_flops"] * c.n_devices / step["total"] / nominal_peak(c, d),
        "compute": step["compute_bound"],
        "bandwidth": step["memory_bound"],
        "launch": step["launch"],
        "network": step["network"] + step["bubble"],
    }


def peak_memory(c: Any, d: Any, k: Any) -> Parts:
    """Return peak bytes of one card with their range, and what must be free for it to fit in four of five cases."""
    total = memory_bytes(c, d, k)["total"]
    wide = spread(c, d, k)
    high = total * wide["memory_high"]
    return {"total": total, "low": total * wide["memory_low"], "high": high, "likely": sqrt(total * high)}


def bill_of(c: Any, d: Any, k: Any, tokens: Any, prices: Any) -> Parts:
    """Return seconds, kWh and USD of a whole training, each with its range; `tokens` as `data_tokens` returns them.

    The loss on held-out text is measured too: 1M tokens or a tenth of the data, forward passes alone.
    """
    speed = rates(c, d, k)
    fixed = fixed_seconds(c, d, tokens.distinct)
    evaluate = minimum(1000000.0, 0.1 * tokens.distinct) / (3.0 * speed["tokens_per_second"])
    beside = fixed["start"] + fixed["compile"] + fixed["warm_up"] + fixed["load_weights"] + fixed["tokenize"]
    beside = beside + fixed["save"] + evaluate
    watts = where(prices.watts > 0, prices.watts * c.n_devices, power_watts(c, d, k))
    swing = where(prices.watts > 0, 1.0, POWER_RANGE)
    rent = prices.usd_per_hour * c.n_devices
    return amounts(speed, tokens.worked, beside, watts, swing, prices.usd_per_kwh, rent)


def amounts(
    speed: Any, tokens: Number, beside: Number, watts: Number, swing: Number, usd_per_kwh: Number, rent: Number
) -> Parts:
    """Return seconds, kWh and USD, each with its range.

    Args:
        speed: `rates`, or a forecast's speed with its range.
        tokens: Worked on, repetitions and padding included.
        beside: Seconds of all that is not a step.
        watts: Of all cards; known to within a factor `swing` either way.
        usd_per_kwh: Price of electricity.
        rent: USD an hour of all cards.
    """
    training = tokens / speed["tokens_per_second"]
    seconds = training + beside
    low = tokens / speed["tokens_per_second_high"] + beside / FIXED_RANGE
    high = tokens / speed["tokens_per_second_low"] + beside * FIXED_RANGE
    energy = seconds * watts / 3600000.0
    energy_low = low * watts / 3600000.0 / swing
    energy_high = high * watts / 3600000.0 * swing
    return {
        "training": training,
        "fixed": beside,
        "seconds": seconds,
        "seconds_low": low,
        "seconds_high": high,
        "mostly_fixed": beside > 0.5 * seconds,
        "kwh": energy,
        "kwh_low": energy_low,
        "kwh_high": energy_high,
        "usd": energy * usd_per_kwh + seconds * rent / 3600.0,
        "usd_low": energy_low * usd_per_kwh + low * rent / 3600.0,
        "usd_high": energy_high * usd_per_kwh + high * rent / 3600.0,
    }


def claimed(c: Any, d: Any, tokens: Number, seconds: Number) -> Parts:
    """Return what a claimed time implies, not clipped: tokens per second and the share of all cards' nominal peak.

    6 FLOPs per parameter and token; 4 with adapters, which spare the gradients of the frozen weights. `products` is
    the share that large matrix products alone reach.
    """
    flops = where(c.method > 0, 4.0, 6.0) * parameters(c)["total"] * tokens
    sustained = where(d.bf16_flops > 0, d.bf16_flops, where(d.fp16_flops > 0, d.fp16_flops, d.fp32_flops))
    return {
        "tokens_per_second": tokens / seconds,
        "share": flops / (seconds * d.peak_flops * c.n_devices),
        "products": sustained / d.peak_flops,
    }
