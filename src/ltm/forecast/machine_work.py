"""Count the work of one training step of ltm's own engine: what is multiplied, moved and called, by kind.

Pure arithmetic over a model's shape. It follows `ltm.model` line by line - attention as plain batched products, a
chunk of queries at a time; output layer and loss a chunk of rows at a time; all weights in one buffer - and cuts a
step into **pieces** that can be run alone. Every piece is a sum of **terms**: an amount times one constant of the
machine, in seconds per unit. The same terms describe a timed piece and a whole step, so constants measured on pieces
forecast steps. Compiled code does the same work with other constants: a factor per class.

Letters: M tokens of a micro batch, T sequence length, D width, H and K query and key heads, C head size, F hidden
width, V vocabulary, P parameters, Q queries of a chunk, S keys that the chunk sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ltm.errors import InputError
from ltm.model.chunk import chunk_rows
from ltm.model.sizes import ModelConfig

ENGINE = 2  # of the training code whose work is counted here; what was measured of another one is not used
DTYPES = ("float32", "bfloat16")
_NEAR_ELEMENTS, _FAR_DOUBLINGS = 1 << 17, 6  # a tensor of 0.5 MiB is near, one of 32 MiB far; between, by its logarithm
_LANES = 16  # a head size that is no multiple leaves the products a tail
_SNAPSHOTS, _AVERAGE_SHARE = 32, 0.2  # of averaged weights: as in ltm.runs.train; the share that is usually asked for
CHUNK_QUERIES = 128  # queries of one attention product, as in ltm.model.attention

# Constants by class; a class is what gets one correction from whole steps. Units: seconds per FLOP, element, row, call.
# `far` is what an element costs more when its tensor lies beyond the caches.
CLASSES: dict[str, tuple[str, ...]] = {
    "matmul": ("mm_flop", "mm_in", "mm_out", "mm_weight", "mm_far", "dw_flop", "dw_in", "dw_out", "dw_far"),
    "attention": (
        *("bmm_flop", "score", "score_tail", "score_far", "head_element", "slice_element"),
        *("rotary_element", "rotary_row", "rotary_far"),
    ),
    "elementwise": (
        *("rms_element", "rms_row", "ln_element", "ln_row"),
        *("swiglu_element", "swiglu_row", "gelu_element", "bias_element", "element_far"),
    ),
    "loss": ("loss_element", "loss_row", "head_weight", "embed_row", "embed_element", "embed_weight"),
    "parameters": ("update_parameter", "gather_parameter", "average_parameter"),
    "overhead": (
        *("linear_call", "bias_call", "attention_call", "queries_call", "rotary_call", "rms_call", "ln_call"),
        *("swiglu_call", "gelu_call", "loss_call", "chunk_call", "embedding_call"),
        *("update_call", "gather_call", "gather_tensor", "average_call", "product_call", "compiled_call"),
    ),
}
CONSTANTS: tuple[str, ...] = tuple(name for names in CLASSES.values() for name in names)
_CLASS_OF = {name: group for group, names in CLASSES.items() for name in names}
Terms = dict[str, float]  # constant -> amount

# What compiled code takes of the plain time of a constant; 1 where nothing is said. Fitted on 16 shapes in bfloat16
# (docs/forecast_calibrate.md); a machine corrects them by class. Products and the update stay PyTorch's own.
_COMPILED_SHARES = {
    **{"mm_flop": 1.05, "dw_flop": 0.9, "bmm_flop": 0.85, "score": 0.53, "score_tail": 0.53, "score_far": 0.53},
    **{"head_element": 0.55, "slice_element": 0.5, "rotary_element": 0.22, "rotary_row": 0.22, "rotary_far": 0.22},
    **{"rms_element": 0.27, "rms_row": 0.27, "swiglu_element": 0.66, "swiglu_row": 0.66, "gelu_element": 1.1},
    **{"element_far": 0.5, "loss_element": 0.11, "loss_row": 0.11, "head_weight": 0.65, "update_parameter": 1.1},
    **{"gather_parameter": 1.2},
    **dict.fromkeys(("linear_call", "bias_call", "attention_call", "queries_call", "rotary_call", "rms_call"), 0.23),
    **dict.fromkeys(("ln_call", "swiglu_call", "gelu_call", "loss_call", "chunk_call"), 0.23),
}
_COMPILED_CALL_SECONDS = 4.9e-4  # guards and wrappers around the compiled code of one micro batch


def compiled_constants(constants: Mapping[str, float]) -> dict[str, float]:
    """Return what the constants of plain code usually become in compiled code."""
    faster = {name: seconds * _COMPILED_SHARES.get(name, 1.0) for name, seconds in constants.items()}
    return faster | {"compiled_call": _COMPILED_CALL_SECONDS}


REPAID_FLOPS = {
    "cpu": 1e11,
    "cuda": 1e14,
}  # of one run, a CPU core or a GPU: seconds of training, the price of compiling


def repays_compiling(device: str, n_params: float, run_tokens: float) -> bool:
    """Say whether a run is long enough to be compiled, where there is a compiler."""
    return device in REPAID_FLOPS and 6 * n_params * run_tokens >= REPAID_FLOPS[device]


@dataclass(frozen=True, slots=True)
class Case:
    """A model and how it is trained: what decides the time of a step.

    Raises:
        InputError: micro batches do not fit the batch or hold no whole sequences, or the precision is unknown.
    """

    config: ModelConfig
    batch_tokens: int
    micro_batch_tokens: int = 0  # 0 = the whole batch
    dtype: str = "float32"
    averaged: bool = False  # the scored weights are an average over the last steps, which is held beside the weights

    def __post_init__(self) -> None:
        block, batch, micro = self.config.block_size, self.batch_tokens, self.micro_tokens
        if self.dtype not in DTYPES:
            raise InputError(f"unknown precision `{self.dtype}`", f"choose one of {', '.join(DTYPES)}")
        if batch <= 0 or micro <= 0 or batch % micro or micro % block:
            raise InputError(
                f"a batch of {batch} tokens in micro batches of {micro} does not hold whole sequences of {block}",
                f"nearest: batch_tokens={max(1, round(batch / block)) * block}, micro_batch_tokens=0",
            )

    @property
    def micro_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.micro_batch_tokens or self.batch_tokens

    @property
    def n_micro(self) -> int:
        """Forward passes of one step."""
        return self.batch_tokens // self.micro_tokens

    @property
    def n_tensors(self) -> int:
        """Parameter tensors, whose gradients are gathered into one buffer."""
        return n_tensors(self.config)


def n_tensors(config: ModelConfig) -> int:
    """Return how many parameter tensors a model has; a tied embedding counts once."""
    gpt2 = config.family == "gpt2"
    return (12 if gpt2 else 6) * config.n_layer + (4 if gpt2 else 2) + (0 if config.tie_embeddings else 1)


def product(kind: str, m: float, n: float, k: float) -> Terms:
    """Return the terms of one matrix product (M, K) x (K, N): FLOPs, and elements of each operand."""
    flops = 2 * m * n * k
    if kind == "grad_weight":
        return {"dw_flop": flops, "dw_in": (m + n) * k, "dw_out": m * n, "dw_far": _far((m + n) * k)}
    return {"mm_flop": flops, "mm_in": m * k, "mm_out": m * n, "mm_weight": n * k, "mm_far": _far(m * (n + k))}


def piece(name: str, **d: int) -> Terms:
    """Return the terms of one forward and backward pass of a piece.

    Args:
        name: linear, forward, grad_input, grad_weight (m n k); attention, rotary_attention (m t h k c w, w the window
            or 0); rms, ln (m d); swiglu, gelu (m f); bias (m n); loss, with its products, and embedding (m d v);
            update, gather, average (layers d v) of all weights of `flat_config`.
        d: The sizes.

    Raises:
        InputError: there is no such piece.
    """
    if name not in _PIECES:
        raise InputError(f"unknown piece `{name}`", f"choose one of {', '.join(_PIECES)}")
    return _PIECES[name](**d)


def _linear(m: int, n: int, k: int) -> Terms:
    terms: Terms = {"linear_call": 1}
    for kind, *sizes in products(m, n, k):
        _add(terms, product(kind, *sizes))
    return terms


def attention_chunks(t: int, window: int = 0) -> Iterator[tuple[int, int]]:
    """Yield queries and visible keys of each chunk of one sequence; later keys and those before the window are skipped.

    >>> list(attention_chunks(300))
    [(128, 128), (128, 256), (44, 300)]
    """
    for start in range(0, t, CHUNK_QUERIES):
        end = min(t, start + CHUNK_QUERIES)
        yield end - start, end - (max(0, start - window + 1) if window else 0)


def _attention(m: int, t: int, h: int, k: int, c: int, w: int = 0) -> Terms:
    sequences, chunks_ = m / t, list(attention_chunks(t, w))
    scores = sequences * h * sum(queries * keys for queries, keys in chunks_)
    terms: Terms = {"bmm_flop": 6 * 2 * scores * c, "score": scores, "head_element": m * (h + k) * c}
    terms |= {"score_far": sum(_far(sequences * h * queries * keys) for queries, keys in chunks_)}
    # the gradient of a slice is as large as the whole: zeros, and a sum over the chunks
    terms |= {"slice_element": len(chunks_) * m * (h + 2 * k) * c, "attention_call": 1, "queries_call": len(chunks_)}
    if c % _LANES:
        terms["score_tail"] = scores
    return terms


def _rotary_attention(m: int, t: int, h: int, k: int, c: int, w: int = 0) -> Terms:
    rotary: Terms = {"rotary_element": m * (h + k) * c, "rotary_row": m * (h + k), "rotary_call": 1}
    rotary["rotary_far"] = _far(m * (h + k) * c)
    return _attention(m, t, h, k, c, w) | rotary


def _loss(m: int, d: int, v: int) -> Terms:
    rows, n_chunks = chunks(m, v)
    # once more than there are chunks: the sum of their gradients is rounded, and scaled in the backward pass
    terms: Terms = {"loss_element": m * v, "loss_row": m, "loss_call": 1}
    terms |= {"head_weight": (n_chunks + 1) * v * d, "chunk_call": n_chunks}
    for kind, a, b, inner in products(rows, v, d):
        _add(terms, product(kind, a, b, inner), n_chunks)
    return terms


def _update(p: float) -> Terms:
    return {"update_parameter": p, "update_call": 1}  # the gradient's norm, AdamW over all segments, rounding


def _gather(p: float, tensors: int) -> Terms:
    return {"gather_parameter": p, "gather_tensor": tensors, "gather_call": 1}


def _average(p: float) -> Terms:
    return {"average_parameter": p, "average_call": 1}


def flat_config(layers: int, d: int, v: int) -> ModelConfig:
    """Return the model whose weights the pieces over all weights are timed on."""
    return ModelConfig("llama", layers, 1, 1, d, 3 * d, v, 64)


_PIECES: dict[str, Callable[..., Terms]] = {
    "linear": _linear,
    "forward": lambda m, n, k: product("forward", m, n, k) | {"product_call": 1},
    "grad_input": lambda m, n, k: product("grad_input", m, n, k) | {"product_call": 1},
    "grad_weight": lambda m, n, k: product("grad_weight", m, n, k) | {"product_call": 1},
    "attention": _attention,
    "rotary_attention": _rotary_attention,
    "rms": lambda m, d: {
        "rms_element": m * d,
        "rms_row": m,
        "element_far": _far(m * d),
        "rms_call": 1,
    },  # with its residual path
    "ln": lambda m, d: {"ln_element": m * d, "ln_row": m, "element_far": _far(m * d), "ln_call": 1},  # the same
    "swiglu": lambda m, f: {"swiglu_element": m * f, "swiglu_row": m, "element_far": _far(m * f), "swiglu_call": 1},
    "gelu": lambda m, f: {"gelu_element": m * f, "element_far": _far(m * f), "gelu_call": 1},
    "bias": lambda m, n: {"bias_element": m * n, "bias_call": 1},
    "loss": _loss,
    "embedding": lambda m, d, v: {
        "embed_row": m,
        "embed_element": m * d,
        "embed_weight": v * d,
        "embedding_call": 1,
    },
    "update": lambda **d: _update(flat_config(**d).n_params),
    "gather": lambda **d: _gather(flat_config(**d).n_params, n_tensors(flat_config(**d))),
    "average": lambda **d: _average(flat_config(**d).n_params),
}


def products(m: float, n: float, k: float) -> list[tuple[str, float, float, float]]:
    """Return the three products (kind, M, N, K) of a matrix layer (M, K) -> (M, N)."""
    return [("forward", m, n, k), ("grad_input", m, k, n), ("grad_weight", n, k, m)]


def chunks(m: int, v: int) -> tuple[float, int]:
    """Return the mean rows of a chunk of logits, and how many chunks a micro batch has."""
    n_chunks = -(-m // chunk_rows(v, "cpu"))
    return m / n_chunks, n_chunks


def linears(config: ModelConfig) -> list[tuple[int, int]]:
    """Return (inside, outside) of the matrix layers of one block."""
    c = config
    return [
        (c.n_embd, (c.n_head + 2 * c.n_kv_head) * c.head_size),
        (c.n_embd, c.n_embd),
        (c.n_embd, c.n_hidden * (1 if c.family == "gpt2" else 2)),
        (c.n_hidden, c.n_embd),
    ]


def step_terms(case: Case) -> Terms:
    """Return the terms of one step, all in the precision of the case but the update, which is float32 in any."""
    c, m, n_micro = case.config, case.micro_tokens, case.n_micro
    gpt2 = c.family == "gpt2"
    step: Terms = {}
    in_blocks = c.n_layer * n_micro
    for inside, outside in linears(c):
        _add(step, piece("linear", m=m, n=outside, k=inside), in_blocks)
        if gpt2:
            _add(step, piece("bias", m=m, n=outside), in_blocks)
    heads = {"m": m, "t": c.block_size, "h": c.n_head, "k": c.n_kv_head, "c": c.head_size, "w": c.window}
    _add(step, piece("attention" if gpt2 else "rotary_attention", **heads), in_blocks)
    _add(step, piece("gelu" if gpt2 else "swiglu", m=m, f=c.n_hidden), in_blocks)
    _add(step, piece("ln" if gpt2 else "rms", m=m, d=c.n_embd), 2 * in_blocks + n_micro)
    if gpt2:  # learned positions: added to every sequence, and their gradient summed over all
        _add(step, piece("bias", m=m, n=c.n_embd), n_micro)
    for name in ("loss", "embedding"):
        _add(step, piece(name, m=m, d=c.n_embd, v=c.vocab_size), n_micro)
    _add(step, _gather(c.n_params, case.n_tensors), n_micro)
    _add(step, _update(c.n_params))
    _add(step, {"compiled_call": n_micro})  # free in plain code
    return step


def average_terms(terms: Terms, case: Case, n_steps: int) -> Terms:
    """Return the terms of a step with its share of the snapshots, where the scored weights are the mean of some."""
    if not case.averaged:
        return terms
    result = dict(terms)
    snapshots = min(_SNAPSHOTS, _AVERAGE_SHARE * n_steps)
    _add(result, _average(case.config.n_params), snapshots / n_steps)
    return result


def memory_parts(case: Case) -> dict[str, float]:
    """Return bytes by part at the peak of one step: what is saved for the backward pass and what comes and goes."""
    c, m, p = case.config, case.micro_tokens, case.config.n_params
    size = 4 if case.dtype == "float32" else 2
    gpt2 = c.family == "gpt2"
    chunks_ = list(attention_chunks(c.block_size, c.window))
    keys = sum(queries * keys for queries, keys in chunks_) / c.block_size  # that one query is multiplied with
    norm = c.n_embd * (size if gpt2 else 8)  # a root mean square norm keeps two tensors in float32
    heads = (c.n_head + 2 * c.n_kv_head) * c.head_size + c.n_head * keys  # queries, keys, values; probabilities
    hidden = c.n_hidden * (2 if gpt2 else 4)
    saved = c.n_layer * (2 * norm + size * (3 * c.n_embd + heads + hidden)) + norm + size * c.n_embd
    rows, _ = chunks(m, c.vocab_size)
    states = (5 if case.averaged else 4) * 4.0 * p  # weights, gradients, two averages of AdamW, averaged weights
    rounded = 0.0 if size == 4 else 2.0 * p
    loss = 16 * rows * c.vocab_size + 12 * c.vocab_size * c.n_embd + 2 * size * m * c.n_embd
    largest = m / c.block_size * c.n_head * max(queries * keys for queries, keys in chunks_)
    backward = size * (3 * largest + 4 * m * c.n_hidden)
    gathered = size * float(p)  # the gradients once more as one tensor; each one's own counts as state
    return {
        "states": states + rounded + size * p,
        "activations": float(m * saved),
        "passing": float(max(loss, backward, gathered)),
    }


def matmul_flops(case: Case) -> int:
    """Return the FLOPs of all matrix products of one step, attention's included with what a chunk sees in vain."""
    terms = step_terms(case)
    return round(sum(terms.get(name, 0) for name in ("mm_flop", "dw_flop", "bmm_flop")))


def class_seconds(terms: Mapping[str, float], constants: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by class: amounts times the machine's constants of one precision."""
    seconds = dict.fromkeys(CLASSES, 0.0)
    for name, amount in terms.items():
        seconds[_CLASS_OF[name]] += amount * constants[name]
    return seconds


def _far(elements: float) -> float:
    """Return how many of a tensor's elements count as beyond the caches."""
    return elements * min(1.0, max(0.0, math.log2(max(1.0, elements) / _NEAR_ELEMENTS) / _FAR_DOUBLINGS))


def _add(into: Terms, terms: Terms, factor: float = 1) -> None:
    for name, amount in terms.items():
        into[name] = into.get(name, 0.0) + amount * factor
