"""Time and memory of inference, as arithmetic on arrays, in the same restricted language as `formulas` and for the same
reason: the page's JavaScript is transpiled from this file.

`c` is the columns of `ltm.forecast.inference.InferenceCase`, `d` a device, `k` the constants of `data/inference.json`,
fitted by `bench/forecast/inference.py` on the published rows of `data/inference.csv`.

A roofline: reading a prompt is products of matrices and bound by compute; writing an answer reads every weight and the
cache of keys and values once a token and is bound by bandwidth (Pope et al. 2022, "Efficiently scaling transformer
inference"). Several cards hold consecutive layers: they share memory, and one answer is no faster for it.
"""

from __future__ import annotations

from typing import Any

from numpy import exp, log, maximum, minimum, where

Number = Any
Parts = dict[str, Number]


def inference_weights(c: Any) -> Parts:
    """Return parameters: of the blocks, of one embedding table, and all of them."""
    q = c.n_head * c.head_size
    kv = c.n_kv_head * c.head_size
    block = c.n_embd * (2.0 * q + 2.0 * kv) + c.n_embd * c.n_hidden * (2.0 + c.gated) + 2.0 * c.n_embd
    table = c.vocab_size * c.n_embd
    total = c.n_layer * block + table * (2.0 - c.tied)
    return {"blocks": c.n_layer * block, "table": table, "total": where(c.n_params > 0, c.n_params, total)}


def inference_memory(c: Any, k: Any) -> Parts:
    """Return bytes of all cards together by part: weights, cache of keys and values, workspace, program.

    The cache holds the whole context of every answer under way; the workspace is one pass over a piece of the prompt.
    """
    w = inference_weights(c)
    weights = w["total"] * c.weight_bytes
    cache = 2.0 * c.n_layer * c.n_kv_head * c.head_size * c.cache_bytes * c.context_tokens * c.batch
    piece = minimum(c.prompt_tokens, 512.0) * c.batch
    workspace = piece * (4.0 * c.n_embd + 2.0 * c.n_hidden) * 2.0 + c.batch * c.vocab_size * 4.0
    program = k.program_bytes * 1e6 * c.n_devices
    return {
        "weights": weights,
        "cache": cache,
        "workspace": workspace,
        "program": program,
        "total": weights + cache + workspace + program,
    }


def inference_rate(d: Any) -> Number:
    """Return the FLOP/s of 16-bit products."""
    return maximum(maximum(d.fp16_flops, d.bf16_flops), d.fp32_flops)


def prefill_seconds(c: Any, d: Any, k: Any, tokens: Number) -> Parts:
    """Return seconds to read a prompt of so many tokens for each answer of the batch."""
    w = inference_weights(c)
    rate = inference_rate(d) * where(c.packed > 0, k.prefill_packed, k.prefill_half)
    products = 2.0 * w["blocks"] * tokens * c.batch / rate
    attention = (
        2.0 * c.n_layer * c.n_head * c.head_size * tokens * tokens * c.batch / (inference_rate(d) * k.prefill_attention)
    )
    traffic = w["total"] * c.weight_bytes / d.bandwidth
    return {
        "compute": products + attention,
        "bandwidth": traffic,
        "total": products + attention + traffic + c.n_layer * k.launch_seconds,
    }


def decode_seconds(c: Any, d: Any, k: Any, tokens: Number) -> Parts:
    """Return seconds of one token for every answer of the batch, with so many tokens before it."""
    w = inference_weights(c)
    share = where(c.packed > 0, k.decode_packed, k.decode_half)
    # wide memory is harder to fill with the thin products of one answer
    wide = maximum(1.0, d.bandwidth / 1e12) ** k.wide_memory
    read = (w["blocks"] + w["table"]) * c.weight_bytes / (d.bandwidth * share) * wide
    held = 2.0 * c.n_layer * c.n_kv_head * c.head_size * c.cache_bytes * tokens * c.batch
    cache = held / (d.bandwidth * k.decode_cache) * wide
    products = 2.0 * (w["blocks"] + w["table"]) * c.batch / (inference_rate(d) * k.prefill_half)
    launches = c.n_layer * k.launch_seconds
    busy = maximum(read, products) + cache
    return {"bandwidth": read + cache, "compute": products, "launch": launches, "total": busy + launches}


def inference(c: Any, d: Any, k: Any) -> Parts:
    """Return the whole of one question: rates of all answers together, time to the first token, time of an answer."""
    first = prefill_seconds(c, d, k, c.prompt_tokens)
    middle = decode_seconds(c, d, k, c.prompt_tokens + 0.5 * c.answer_tokens)
    retrieval = where(c.rag_passages > 0, k.retrieval_seconds + k.retrieval_token_seconds * c.rag_tokens, 0.0)
    answer = retrieval + first["total"] + c.answer_tokens * middle["total"]
    wide = exp(k.spread_prefill)
    narrow = exp(k.spread_decode)
    return {
        "prefill": c.prompt_tokens * c.batch / first["total"],
        "decode": c.batch / middle["total"],
        "first_token_seconds": retrieval + first["total"] + middle["total"],
        "answer_seconds": answer,
        "retrieval_seconds": retrieval,
        "prefill_factor": wide,
        "decode_factor": narrow,
        "answer_factor": exp(log(wide) * first["total"] / answer + log(narrow) * (1.0 - first["total"] / answer)),
        "decode_bandwidth": middle["bandwidth"],
        "decode_compute": middle["compute"],
        "decode_launch": middle["launch"],
        "prefill_compute": first["compute"],
        "prefill_bandwidth": first["bandwidth"],
    }
