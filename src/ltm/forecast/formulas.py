"""Time and memory of training, as arithmetic on arrays: the one source of truth for Python and for the page.

Each function takes `c` (a case: the columns of `ltm.forecast.case`), `d` (its device) and `k` (fitted constants,
`data/constants.json`), and works on numbers and NumPy arrays alike. `ltm.forecast.transpile` turns this very file into
the page's JavaScript, so it keeps to a small language: assignments, arithmetic, comparisons (1 or 0), calls of the
functions below and of the names imported here, and one `return`. No branches, no loops.

The model of time is a roofline per kernel class (matrix products, attention, element-wise passes, the vocabulary,
optimizer, launches, network): work / rate, with a few fitted constants. Its shape follows Calculon, llm-analysis and
the transformer arithmetic of EleutherAI; the constants are fitted on `data/throughput.csv` by `bench/forecast/fit.py`.

Units: seconds, bytes, FLOPs (a multiply-add counts twice), for ONE device and ONE step of the optimizer unless the name
says otherwise. Causal attention is counted once (half the square).
"""

from __future__ import annotations

from typing import Any

from numpy import ceil, exp, log, maximum, minimum, where

Number = Any  # a float or an array of them
Parts = dict[str, Number]

BYTES_PER_TOKEN = 4.5  # of text, with the vocabularies in use


def layout(c: Any) -> Parts:
    """Return how the work is dealt out: ranks, micro steps, and what one device holds of the model."""
    dp = maximum(1.0, c.n_devices / (c.tp * c.pp * c.cp))
    micro_tokens = c.micro_batch * c.seq_len / c.cp
    micro_steps = maximum(1.0, ceil(c.global_batch_tokens / (c.micro_batch * c.seq_len * dp) - 0.000001))
    return {
        "dp": dp,
        "micro_tokens": micro_tokens,
        "micro_steps": micro_steps,
        "step_tokens": micro_steps * c.micro_batch * c.seq_len * dp,
        "layers": c.n_layer / c.pp,
        "bubble": 1.0 + (c.pp - 1.0) / (micro_steps * maximum(1.0, c.interleave)),
        "nodes": ceil(c.n_devices / c.devices_per_node - 0.000001),
    }


def parameters(c: Any) -> Parts:
    """Return parameter counts: of one block, of the embeddings, of all, and those that are trained."""
    q = c.n_head * c.head_size
    kv = c.n_kv_head * c.head_size
    attention = c.n_embd * (2.0 * q + 2.0 * kv)
    mlp = c.n_embd * c.n_hidden * (2.0 + c.gated)
    embeddings = c.vocab_size * c.n_embd * (2.0 - c.tied) + c.learned_positions * c.seq_len * c.n_embd
    blocks = c.n_layer * (attention + mlp + 2.0 * c.n_embd)
    total = where(c.n_params > 0, c.n_params, blocks + embeddings + c.n_embd)
    # LoRA: two thin matrices beside each adapted one; the share says how many of the block's matrices are adapted.
    around_attention = 2.0 * c.n_embd + 2.0 * q + 2.0 * kv + 2.0 * c.n_embd
    around_mlp = (2.0 + c.gated) * (c.n_embd + c.n_hidden)
    adapter = c.n_layer * c.lora_rank * (c.lora_attention * around_attention + c.lora_mlp * around_mlp)
    trained_lora = adapter + c.lora_embeddings * c.vocab_size * c.n_embd * 2.0
    return {
        "attention": attention,
        "mlp": mlp,
        "blocks": blocks,
        "embeddings": embeddings,
        "total": total,
        "trained": where(c.method > 0, trained_lora, total),
    }


def matmul_rate(c: Any, d: Any) -> Number:
    """Return the dense matrix rate that the precision may reach on the device, in FLOP/s; 0 = the device lacks it."""
    return where(
        c.precision == 0,
        d.fp32_flops,
        where(
            c.precision == 1,
            d.tf32_flops,
            where(c.precision == 2, d.fp16_flops, where(c.precision == 3, d.bf16_flops, d.fp8_flops)),
        ),
    )


def sustained_rate(c: Any, d: Any, k: Any) -> Number:
    """Return the FLOP/s that products of training reach; Hopper loses more to its power limit than sweeps show."""
    return matmul_rate(c, d) * k.matmul_efficiency * where(d.hopper > 0, k.hopper_efficiency, 1.0)


def element_bytes(c: Any) -> Number:
    """Return the bytes of one activation element."""
    return where(c.precision <= 1, 4.0, 2.0)


def matmul_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds of the blocks' matrix products in one micro step, by what limits them.

    A product of M x K by K x N takes its FLOPs over the sustained rate plus its traffic over the bandwidth; adding the
    two bends the efficiency of small products down as measured sweeps do.
    """
    p = parameters(c)
    lay = layout(c)
    width = element_bytes(c)
    m = lay["micro_tokens"]
    backward = where(c.method > 0, 1.0, 2.0)
    passes = 1.0 + backward + c.checkpointing
    weights = (p["attention"] + p["mlp"]) / c.tp
    # fp8 speeds up the products alone; small ones drown in casts and scales
    fp8 = k.fp8_efficiency * c.n_embd / (c.n_embd + k.fp8_half_width)
    rate = sustained_rate(c, d, k) * where(c.precision == 4, fp8, 1.0)
    flops = 2.0 * m * weights * passes * lay["layers"]
    q = c.n_head * c.head_size
    kv = c.n_kv_head * c.head_size
    tall = m * (2.0 * c.n_embd + (2.0 * q + 2.0 * kv) / c.tp + 2.0 * c.n_embd + (2.0 + c.gated) * c.n_hidden / c.tp)
    traffic = width * (tall + weights) * passes * lay["layers"]
    adapters = where(c.method > 0, 6.0 * m * p["trained"] * (1.0 - c.lora_embeddings) / c.tp / c.pp, 0.0)
    # QLoRA unpacks every 4-bit weight again in each pass
    unpack = where(c.method == 2, weights * lay["layers"] * passes * k.unpack_bytes, 0.0)
    return {
        "flops": 2.0 * m * weights * (1.0 + backward) * lay["layers"] + adapters,  # recomputing is not counted
        "compute": (flops + k.adapter_cost * adapters) / rate,
        "traffic": (k.matmul_traffic * traffic + unpack) / d.bandwidth,
    }


def attention_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds of attention (scores, softmax, weighted sum) in one micro step.

    Fused kernels never write the square of scores; plain ones read and write it several times and do not skip the
    masked half.
    """
    lay = layout(c)
    m = lay["micro_tokens"]
    span = minimum(c.seq_len, where(c.window > 0, c.window, c.seq_len))
    seen = span * (1.0 - 0.5 * span / c.seq_len)  # keys that a query sees on average, masked half left out
    q = c.n_head * c.head_size
    per_pass = 4.0 * m * q / c.tp * lay["layers"]
    fused_passes = 1.0 + 2.5 + c.checkpointing
    plain_passes = 3.0 + c.checkpointing
    bf16 = where(c.precision <= 1, matmul_rate(c, d), where(d.bf16_flops > d.fp16_flops, d.bf16_flops, d.fp16_flops))
    share = where(c.attention == 2, k.flash3_efficiency, where(d.hopper > 0, k.flash2_hopper, k.flash_efficiency))
    share = where(c.attention == 3, k.flex_efficiency * share, share)
    fused = per_pass * seen * fused_passes / (bf16 * share)
    # autocast keeps the softmax in fp32 unless a fused kernel does it
    score_bytes = where(c.mixed * where(c.kernels == 1, 0.0, 1.0) > 0, 4.0, element_bytes(c))
    scores = m * c.seq_len * c.n_head / c.tp * lay["layers"] * score_bytes
    passes = (
        plain_passes
        * k.plain_passes
        * where(c.kernels == 2, k.plain_compiled, where(c.kernels == 1, k.fused_traffic, 1.0))
    )
    plain = per_pass * c.seq_len * plain_passes / (bf16 * k.plain_efficiency) + scores * passes / d.bandwidth
    return {
        "flops": per_pass * seen * 3.0,
        "seconds": where(c.attention == 0, plain, fused),
    }


def traffic_share(c: Any, k: Any) -> Number:
    """Return the element-wise traffic left by the kernels in use: plain, hand-fused or compiled."""
    return where(c.kernels == 2, k.compiled_traffic, where(c.kernels == 1, k.fused_traffic, 1.0))


def elementwise_seconds(c: Any, d: Any, k: Any) -> Number:
    """Return seconds of norms, residuals, activations, rotary positions and casts in one micro step."""
    lay = layout(c)
    m = lay["micro_tokens"]
    passes = (where(c.method > 0, 2.0, 3.0) + c.checkpointing) / 3.0
    narrow = c.n_embd * k.width_passes
    wide = c.n_hidden * (1.0 + c.gated) / c.tp * k.hidden_passes
    fused = traffic_share(c, k)
    master = where(c.mixed > 0, k.cast_bytes * parameters(c)["total"] / (c.tp * c.pp), 0.0)
    return (m * lay["layers"] * (narrow + wide) * element_bytes(c) * passes * fused + master) / d.bandwidth


def head_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds of the output layer and the loss over the vocabulary in one micro step (last pipeline stage)."""
    m = layout(c)["micro_tokens"]
    products = where(c.method * (1.0 - c.lora_embeddings) > 0, 2.0, 3.0)
    flops = 2.0 * m * c.n_embd * c.vocab_size / c.tp * products
    rate = sustained_rate(c, d, k) * where(c.precision == 4, 0.5, 1.0)  # the head stays in 16 bits
    logits = m * c.vocab_size / c.tp * 4.0 * k.logit_passes * traffic_share(c, k)
    return {"flops": flops, "compute": flops / rate, "traffic": logits / d.bandwidth}


def optimizer_seconds(c: Any, d: Any, k: Any) -> Number:
    """Return seconds of one optimizer step: reads and writes of weights, gradients and states, clipping included."""
    p = parameters(c)
    lay = layout(c)
    shards = where(c.zero >= 1, lay["dp"], 1.0)
    held = p["trained"] / (c.tp * c.pp) / shards
    state = where(c.optimizer == 1, 0.5, where(c.optimizer == 3, 0.4, 1.0))  # 8-bit states; SGD
    adam = held * k.optimizer_bytes * state / d.bandwidth
    # Muon: five Newton-Schulz steps of three square-ish products on every matrix
    muon = 30.0 * p["blocks"] * c.n_embd / sustained_rate(c, d, k) / shards / (c.tp * c.pp)
    return adam + where(c.optimizer == 2, muon, 0.0)


def launch_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds that the host needs to start the kernels of one micro step, and of one optimizer step."""
    lay = layout(c)
    passes = where(c.method > 0, 3.0, 3.0) + c.checkpointing
    calls = where(c.kernels == 2, k.launch_compiled, where(c.kernels == 1, k.launch_fused, 1.0))
    per_pass = k.launch_plain * calls * c.launch_scale
    thick = 1.0 + where(c.method > 0, k.launch_lora, 0.0) + where(c.method == 2, k.launch_unpack, 0.0)
    micro = (lay["layers"] + 1.0) * passes * per_pass * thick
    step = where(c.method > 0, 0.5, 1.0) * k.launch_optimizer * c.launch_scale * lay["layers"]
    return {"micro": micro, "step": step}


def network_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds of communication: tensor parallel per micro step, gathers per micro step, reduction per step."""
    p = parameters(c)
    lay = layout(c)
    width = element_bytes(c)
    m = lay["micro_tokens"]
    inside = minimum(c.tp, c.devices_per_node) >= c.tp
    tp_rate = where(inside, d.link, c.node_link) * k.link_efficiency
    reduces = lay["layers"] * (4.0 + 2.0 * c.checkpointing)
    tensor = where(
        c.tp > 1,
        reduces * (2.0 * (c.tp - 1.0) / c.tp * m * c.n_embd * width / tp_rate + k.link_latency),
        0.0,
    )
    one_node = c.n_devices <= c.devices_per_node
    # across nodes the slower of the card's link and the node's network carries the ring
    # and with tensor parallelism as many rings as ranks share that network
    rings = minimum(c.tp, c.devices_per_node)
    dp_rate = where(one_node, d.link, minimum(d.link, c.node_link / rings)) * k.link_efficiency
    share = (lay["dp"] - 1.0) / lay["dp"]
    held = p["total"] / (c.tp * c.pp)
    trained = p["trained"] / (c.tp * c.pp)
    latency = k.link_latency * lay["layers"] * where(lay["dp"] > 1, 1.0, 0.0)
    gathers = where(c.zero >= 3, 2.0 * share * held * width / dp_rate + 2.0 * latency, 0.0)
    scatter = share * trained * width / dp_rate
    reduced = where(c.zero >= 3, 0.0, 2.0 * scatter + latency)
    pipe = where(c.pp > 1, 2.0 * m * c.n_embd * width / (minimum(d.link, c.node_link) * k.link_efficiency), 0.0)
    return {
        "tensor": tensor,
        "gathers": gathers + where(c.zero >= 2, scatter, 0.0),
        "reduced": where(c.zero == 2, 0.0, reduced),
        "pipe": pipe,
    }


def soft_maximum(a: Number, b: Number, power: Number) -> Number:
    """Return a smooth maximum of two positive times: overlap that is good but not perfect."""
    top = maximum(maximum(a, b), 1e-30)
    return top * exp(log((a / top) ** power + (b / top) ** power) / power)


def step_seconds(c: Any, d: Any, k: Any) -> Parts:
    """Return seconds of one optimizer step and its parts; `total` is the step, the parts say what it is made of."""
    lay = layout(c)
    mm = matmul_seconds(c, d, k)
    att = attention_seconds(c, d, k)
    head = head_seconds(c, d, k)
    launch = launch_seconds(c, d, k)
    net = network_seconds(c, d, k)
    elementwise = elementwise_seconds(c, d, k)
    busy = mm["compute"] + mm["traffic"] + att["seconds"] + elementwise + head["compute"] + head["traffic"]
    micro_alone = soft_maximum(busy + net["tensor"] + net["pipe"], launch["micro"], k.overlap_power)
    micro = soft_maximum(micro_alone, net["gathers"], k.overlap_power) + k.network_exposed * net["gathers"]
    optimizer = soft_maximum(optimizer_seconds(c, d, k), launch["step"], k.overlap_power)
    hidden = k.reduce_overlap * micro * 0.66
    reduced = maximum(net["reduced"] - hidden, 0.0) + k.network_exposed * net["reduced"]
    crowd = 1.0 + k.crowd_loss * log(maximum(1.0, lay["nodes"]))
    compute = (micro * lay["micro_steps"] * lay["bubble"] + optimizer + reduced) * crowd
    total = compute / (
        c.speed_scale
        * d.speed_scale
        * where(c.loop == 1, 1.0, where(c.loop == 2, k.whole_run_speed, k.usual_loop_speed))
    )
    n = lay["micro_steps"]
    return {
        "total": total,
        "matmul": (mm["compute"] + mm["traffic"]) * n,
        "attention": att["seconds"] * n,
        "elementwise": elementwise * n,
        "vocabulary": (head["compute"] + head["traffic"]) * n,
        "optimizer": optimizer,
        "launch": launch["micro"] * n + launch["step"],
        "network": (net["tensor"] + net["pipe"] + net["gathers"]) * n + net["reduced"],
        "bubble": (lay["bubble"] - 1.0) * micro * n,
        "compute_bound": (mm["compute"] + att["seconds"] + head["compute"]) * n,
        "memory_bound": (mm["traffic"] + elementwise + head["traffic"]) * n + optimizer,
        "model_flops": (mm["flops"] + att["flops"] + head["flops"] / c.pp) * n,
        "step_tokens": lay["step_tokens"],
    }


def tokens_per_second(c: Any, d: Any, k: Any) -> Number:
    """Return tokens per second of all devices together."""
    step = step_seconds(c, d, k)
    return step["step_tokens"] / step["total"]


def state_bytes(c: Any, k: Any) -> Parts:
    """Return bytes of weights, gradients and optimizer on one device."""
    p = parameters(c)
    dp = layout(c)["dp"]
    width = element_bytes(c)
    sharded = where(c.zero >= 3, dp, 1.0)
    held = p["total"] / (c.tp * c.pp) / sharded
    linear = p["blocks"] / (c.tp * c.pp) / sharded
    trained = p["trained"] / (c.tp * c.pp)
    copies = where(c.mixed > 0, 4.0 + where(c.zero >= 3, 2.0, k.cached_casts), width)
    packed = linear * k.nf4_bytes + maximum(held - linear, 0.0) * width
    adapters = where(c.method > 0, trained * k.adapter_bytes, 0.0)
    wide = where(c.mixed > 0, 4.0, where(c.method > 0, k.adapter_bytes, width))
    moments = where(c.optimizer == 1, 2.0, where(c.optimizer == 2, wide, where(c.optimizer == 3, 0.0, 2.0 * wide)))
    return {
        "weights": where(c.method == 2, packed, held * copies) + adapters,
        "gradients": trained * wide / where(c.zero >= 2, dp, 1.0),
        "optimizer": trained * moments / where(c.zero >= 1, dp, 1.0),
    }


def activation_bytes(c: Any, k: Any) -> Number:
    """Return bytes kept for the backward pass on one device.

    Tensors of the residual width, of the feed-forward width, and - for plain attention - the square of scores
    (Korthikanti et al. 2022). Checkpointing keeps one tensor a block and the full set of one block.
    """
    lay = layout(c)
    width = element_bytes(c)
    q = c.n_head * c.head_size
    m = lay["micro_tokens"]
    # queries, keys and values (spread over all heads), and the attention's output
    tensors = c.n_embd * k.kept_width + 4.0 * q / c.tp + c.n_hidden * (1.0 + c.gated) / c.tp * k.kept_hidden
    tensors = tensors * where(c.method == 2, k.kept_qlora, where(c.method == 1, k.kept_lora, 1.0))
    tensors = tensors * where(c.kernels == 2, k.kept_compiled, 1.0)
    square = where(c.attention == 0, c.seq_len * c.n_head / c.tp * k.kept_scores, 0.0)
    block = m * (tensors + square) * width
    in_flight = minimum(c.pp, lay["micro_steps"])
    full = block * lay["layers"] * in_flight
    entries = m * c.n_embd * width * lay["layers"] * in_flight
    recomputed = entries + block + (1.0 - c.checkpointing) * maximum(full - entries, 0.0)
    return where(c.checkpointing > 0, recomputed, full)


def memory_bytes(c: Any, d: Any, k: Any) -> Parts:
    """Return peak bytes on one device by part."""
    p = parameters(c)
    width = element_bytes(c)
    state = state_bytes(c, k)
    activations = activation_bytes(c, k)
    logits = layout(c)["micro_tokens"] * c.vocab_size / c.tp * k.logit_bytes
    logits = logits * where(c.kernels == 2, k.logit_compiled, 1.0)
    # sharded models are gathered two blocks at a time; with adapters, measured peaks hold the whole model once
    two_blocks = (2.0 * (p["attention"] + p["mlp"]) + p["embeddings"]) * width
    gathered = where(c.zero >= 3, where(c.method > 0, p["total"] / (c.tp * c.pp) * width, two_blocks), 0.0)
    unpacked = where(c.method == 2, k.unpack_workspace * 1e6 + c.n_embd * c.n_hidden * 2.0, 0.0)
    workspace = k.workspace_bytes * 1e6 + gathered + unpacked
    # a program that prints its allocated peak leaves out the driver's context and what the allocator holds back
    outside = where(c.allocated_only > 0, 0.0, 1.0)
    framework = outside * k.framework_bytes * 1e6 + c.memory_extra
    # plain optimizers make temporaries as large as the weights, when activations are gone
    temporary = where(c.kernels == 0, k.optimizer_temporary * state["gradients"], 0.0)
    work = maximum(activations + logits, temporary) + workspace
    fragments = outside * k.fragments * work
    states = state["weights"] + state["gradients"] + state["optimizer"]
    return {
        "weights": state["weights"],
        "gradients": state["gradients"],
        "optimizer": state["optimizer"],
        "activations": activations,
        "logits": logits,
        "workspace": workspace + maximum(temporary - activations - logits, 0.0),
        "framework": framework,
        "fragments": fragments,
        "total": states + work + fragments + framework,
    }


def spread(c: Any, d: Any, k: Any) -> Parts:
    """Return the 90 % range as factors on the time of a step and on the peak memory, and what makes it wide.

    Conformal: scaled errors of forecasts for sources that took no part in the fit; narrower (`known`) for frameworks
    whose runs did. The `from_` entries are shares of the logarithmic half-width.
    """
    step = step_seconds(c, d, k)
    launch = minimum(1.0, step["launch"] / step["total"])
    network = minimum(1.0, (step["network"] + step["bubble"]) / step["total"])
    adapters = where(c.method > 0, 1.0, 0.0)
    plain = where(c.attention == 0, 1.0, 0.0) * minimum(1.0, step["attention"] / step["total"])
    base = k.spread_base
    width = base + k.spread_launch * launch + k.spread_network * network + k.spread_adapters * adapters
    width = width + k.spread_plain * plain + k.spread_guess * c.guesses
    fast = where(c.known > 0, k.spread_known_fast, k.spread_fast)
    slow = where(c.known > 0, k.spread_known_slow, k.spread_slow)
    memory = k.memory_spread_base + k.memory_spread_adapters * adapters + k.memory_spread_guess * c.guesses
    less = where(c.known > 0, k.memory_spread_known_less, k.memory_spread_less)
    more = where(c.known > 0, k.memory_spread_known_more, k.memory_spread_more)
    return {
        "time_low": exp(-fast * width),
        "time_high": exp(slow * width),
        "memory_low": exp(-less * memory),
        "memory_high": exp(more * memory),
        "from_framework": base / width,
        "from_launch": k.spread_launch * launch / width,
        "from_network": k.spread_network * network / width,
        "from_adapters": k.spread_adapters * adapters / width,
        "from_plain_attention": k.spread_plain * plain / width,
        "from_guesses": k.spread_guess * c.guesses / width,
    }


def power_watts(c: Any, d: Any, k: Any) -> Number:
    """Return the mean electric power of all devices and their hosts, in watts.

    A card draws about a third of its limit while it waits for the host and nearly all of it in large products.
    """
    step = step_seconds(c, d, k)
    busy = minimum(1.0, (step["compute_bound"] + step["memory_bound"]) / step["total"])
    return c.n_devices * (d.watts * (0.35 + 0.55 * busy) + 60.0)


def fixed_seconds(c: Any, d: Any, tokens: Number) -> Parts:
    """Return seconds that a run takes beside its steps, whatever their number: they outweigh short runs.

    Args:
        tokens: Distinct tokens that have to be tokenized first, at 80 MB/s on each machine's cores.
    """
    weights = parameters(c)["total"] * 4.0
    return {
        "start": 20.0 + 2.0 * log(maximum(1.0, c.n_devices)),
        "compile": where(c.kernels == 2, 30.0 + 1.5 * c.n_layer, 0.0),
        "warm_up": 5.0,
        "load_weights": where(c.continued > 0, weights / 2.0 / 1e9, 0.0),
        "tokenize": tokens * BYTES_PER_TOKEN / (80e6 * layout(c)["nodes"]),
        "save": weights / 1e9 + 2.0,
    }
