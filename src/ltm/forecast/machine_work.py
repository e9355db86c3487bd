"""Count the work of one training step of ltm's own engine: what is multiplied, moved and called, by kind.

Pure arithmetic over a model's shape. It follows `ltm.model` line by line - attention as plain batched products, output
layer and loss a chunk at a time, the norm's gradient by hand - and cuts a step into **pieces** that can be run alone.
Every piece is a sum of **terms**: an amount times one constant of the machine, in seconds per unit. The same terms
describe a timed piece and a whole step, so constants measured on pieces forecast steps.

Letters: M tokens of a micro batch, T sequence length, D width, H and K query and key heads, C head size, F hidden
width, V vocabulary, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ltm.errors import InputError
from ltm.model.sizes import ModelConfig

DTYPES = ("float32", "bfloat16")
_NEAR_ELEMENTS, _FAR_DOUBLINGS = 1 << 17, 6  # a tensor of 0.5 MiB is near, one of 32 MiB far; between, by its logarithm
_LANES = 16  # a head size that is no multiple leaves the products a tail
_SNAPSHOTS, _AVERAGE_SHARE = 32, 0.2  # of the averaged weights, as in ltm.runs.train
CHUNK_ELEMENTS = 1 << 21  # logits held at once, as in ltm.model.loss

# Constants by class; a class is what gets one correction from whole steps. Units: seconds per FLOP, element, row, call.
# `far` is what an element costs more when its tensor lies beyond the caches.
CLASSES: dict[str, tuple[str, ...]] = {
    "matmul": ("mm_flop", "mm_in", "mm_out", "mm_weight", "mm_far", "dw_flop", "dw_in", "dw_out", "dw_far"),
    "attention": (
        *("bmm_flop", "score", "score_tail", "score_far", "head_element", "gqa_element"),
        *("rotary_element", "rotary_row", "rotary_far"),
    ),
    "elementwise": (
        *("rms_element", "rms_row", "ln_element", "ln_row"),
        *("swiglu_element", "swiglu_row", "gelu_element", "bias_element", "element_far"),
    ),
    "loss": ("loss_element", "loss_row", "head_weight", "embed_row", "embed_element", "embed_weight"),
    "parameters": ("optimizer_parameter", "gradient_parameter", "cast_parameter"),
    "overhead": (
        *("linear_call", "bias_call", "attention_call", "rotary_call", "gqa_call", "rms_call", "ln_call"),
        *("swiglu_call", "gelu_call", "loss_call", "chunk_call", "embedding_call", "cast_call"),
        *("optimizer_call", "optimizer_tensor", "gradient_tensor", "product_call"),
    ),
}
CONSTANTS: tuple[str, ...] = tuple(name for names in CLASSES.values() for name in names)
_CLASS_OF = {name: group for group, names in CLASSES.items() for name in names}
Terms = dict[str, float]  # constant -> amount


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
        """Parameter tensors, each a call of its own to clip, accumulate and average."""
        per_layer = 12 if self.config.family == "gpt2" else 6
        return per_layer * self.config.n_layer + 2 + (2 if self.config.family == "gpt2" else 0)


def product(kind: str, m: float, n: float, k: float) -> Terms:
    """Return the terms of one matrix product (M, K) x (K, N): FLOPs, and elements of each operand."""
    flops = 2 * m * n * k
    if kind == "grad_weight":
        return {"dw_flop": flops, "dw_in": (m + n) * k, "dw_out": m * n, "dw_far": _far((m + n) * k)}
    return {"mm_flop": flops, "mm_in": m * k, "mm_out": m * n, "mm_weight": n * k, "mm_far": _far(m * (n + k))}


def piece(name: str, **d: int) -> Terms:
    """Return the terms of one forward and backward pass of a piece.

    Args:
        name: linear, forward, grad_input, grad_weight (m n k); attention, rotary_attention (m t h k c); rms, ln (m d);
            swiglu, gelu (m f); bias (m n); loss, embedding (m d v); optimizer, accumulate, cast (p tensors).
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


def _attention(m: int, t: int, h: int, k: int, c: int) -> Terms:
    terms: Terms = {"bmm_flop": 6 * 2 * m * t * h * c, "score": m * h * t, "head_element": m * h * c}
    terms |= {"score_far": _far(m * h * t), "attention_call": 1}
    if c % _LANES:
        terms["score_tail"] = m * h * t
    if k != h:
        terms |= {"gqa_element": m * h * c, "gqa_call": 1}
    return terms


def _rotary_attention(m: int, t: int, h: int, k: int, c: int) -> Terms:
    rotary: Terms = {"rotary_element": m * (h + k) * c, "rotary_row": m * (h + k), "rotary_call": 1}
    rotary["rotary_far"] = _far(m * (h + k) * c)
    return _attention(m, t, h, k, c) | rotary


def _loss(m: int, d: int, v: int) -> Terms:
    n_chunks = chunks(m, v)[1]
    per_chunk = {"head_weight": n_chunks * v * d, "chunk_call": n_chunks}
    return {"loss_element": m * v, "loss_row": m, "loss_call": 1, **per_chunk}


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
    "optimizer": lambda p, tensors: {"optimizer_parameter": p, "optimizer_tensor": tensors, "optimizer_call": 1},
    "accumulate": lambda p, tensors: {"gradient_parameter": p, "gradient_tensor": tensors},
    "cast": lambda p, tensors: {"cast_parameter": p, "cast_call": tensors},
}


def products(m: float, n: float, k: float) -> list[tuple[str, float, float, float]]:
    """Return the three products (kind, M, N, K) of a matrix layer (M, K) -> (M, N)."""
    return [("forward", m, n, k), ("grad_input", m, k, n), ("grad_weight", n, k, m)]


def chunks(m: int, v: int) -> tuple[float, int]:
    """Return the mean rows of a chunk of logits, and how many chunks a micro batch has."""
    n_chunks = -(-m // max(1, CHUNK_ELEMENTS // v))
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


def step_terms(case: Case) -> dict[str, Terms]:
    """Return the terms of one step by precision; under bfloat16 one product of the loss stays in float32."""
    c, m, dtype, n_micro = case.config, case.micro_tokens, case.dtype, case.n_micro
    gpt2 = c.family == "gpt2"
    step: Terms = {}
    in_blocks = c.n_layer * n_micro
    for inside, outside in linears(c):
        _add(step, piece("linear", m=m, n=outside, k=inside), in_blocks)
        if gpt2:
            _add(step, piece("bias", m=m, n=outside), in_blocks)
    heads = {"m": m, "t": c.block_size, "h": c.n_head, "k": c.n_kv_head, "c": c.head_size}
    _add(step, piece("attention" if gpt2 else "rotary_attention", **heads), in_blocks)
    _add(step, piece("gelu" if gpt2 else "swiglu", m=m, f=c.n_hidden), in_blocks)
    _add(step, piece("ln" if gpt2 else "rms", m=m, d=c.n_embd), 2 * in_blocks + n_micro)
    for name in ("loss", "embedding"):
        _add(step, piece(name, m=m, d=c.n_embd, v=c.vocab_size), n_micro)
    if dtype != "float32":
        _add(step, piece("cast", p=c.n_params, tensors=case.n_tensors), n_micro)
    _add(step, piece("optimizer", p=c.n_params, tensors=case.n_tensors))
    _add(step, piece("accumulate", p=c.n_params, tensors=case.n_tensors), n_micro - 1)
    result: dict[str, Terms] = {dtype: step}
    for (_, precision), terms in head_products(dtype, m, c.n_embd, c.vocab_size).items():
        _add(result.setdefault(precision, {}), terms, n_micro)
    return result


def average_terms(terms: Terms, case: Case, n_steps: int) -> Terms:
    """Return the terms of a step with its share of the snapshots that the scored weights are the mean of."""
    result = dict(terms)
    snapshots = min(_SNAPSHOTS, _AVERAGE_SHARE * n_steps)
    _add(result, piece("accumulate", p=case.config.n_params, tensors=case.n_tensors), snapshots / n_steps)
    return result


def memory_parts(case: Case) -> dict[str, float]:
    """Return bytes by part at the peak of one step: what is saved for the backward pass and what comes and goes."""
    c, m = case.config, case.micro_tokens
    size = 4 if case.dtype == "float32" else 2
    gpt2 = c.family == "gpt2"
    heads = c.n_head * (4 * c.head_size + c.block_size)  # queries, keys, values, outputs; probabilities
    hidden = c.n_hidden * (2 if gpt2 else 4)
    saved = c.n_layer * (2 * c.n_embd * (4 + size) + size * (heads + hidden))
    rows, _ = chunks(m, c.vocab_size)
    states = 5 * 4.0 * c.n_params  # weights, gradients, two averages of AdamW, averaged weights
    casts = 0.0 if size == 4 else size * float(c.n_params)
    loss = 4 * (2 * rows * c.vocab_size + 3 * c.vocab_size * c.n_embd + 2 * m * c.n_embd)
    backward = size * (3 * m * c.n_head * c.block_size + 4 * m * c.n_hidden)
    return {"states": states + casts, "activations": float(m * saved), "passing": float(max(loss, backward))}


def head_products(dtype: str, m: int, d: int, v: int) -> dict[tuple[str, str], Terms]:
    """Return the terms of the loss's matrix products by kind and precision, all chunks of one pass."""
    rows, n_chunks = chunks(m, v)
    shapes = [("forward", dtype, rows, v, d), ("grad_weight", dtype, v, d, rows)]
    shapes.append(("grad_input", "float32", rows, d, v))  # its result is written into a float32 buffer
    return {
        (kind, precision): {name: amount * n_chunks for name, amount in product(kind, a, b, k).items()}
        for kind, precision, a, b, k in shapes
    }


def matmul_flops(case: Case) -> int:
    """Return the FLOPs of all matrix products of one step, attention's included with its masked half."""
    parts = step_terms(case).values()
    return round(sum(terms.get(name, 0) for terms in parts for name in ("mm_flop", "dw_flop", "bmm_flop")))


def class_seconds(terms: Mapping[str, Terms], constants: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return seconds by class: amounts times the machine's constants of their precision."""
    seconds = dict.fromkeys(CLASSES, 0.0)
    for dtype, amounts in terms.items():
        for name, amount in amounts.items():
            seconds[_CLASS_OF[name]] += amount * constants[dtype][name]
    return seconds


def _far(elements: float) -> float:
    """Return how many of a tensor's elements count as beyond the caches."""
    return elements * min(1.0, max(0.0, math.log2(max(1.0, elements) / _NEAR_ELEMENTS) / _FAR_DOUBLINGS))


def _add(into: Terms, terms: Terms, factor: float = 1) -> None:
    for name, amount in terms.items():
        into[name] = into.get(name, 0.0) + amount * factor
