"""What is believed of every constant before the data speak: value, spread (sd of its logarithm), unit, meaning.

Values are physical estimates: counts of tensor passes, data-sheet shares, published profiles of kernels. They were set
with the table of runs at hand and loosened or tightened while fitting; errors with a source left out are therefore a
little kind.
"""

from __future__ import annotations

from typing import NamedTuple


class Prior(NamedTuple):
    """One constant before fitting."""

    value: float
    spread: float
    unit: str
    what: str


TIME: dict[str, Prior] = {
    "matmul_efficiency": Prior(
        0.90, 0.08, "fraction", "of the measured large-product rate that training products reach"
    ),
    "hopper_efficiency": Prior(0.82, 0.10, "fraction", "left to Hopper under its power limit with real data"),
    "matmul_traffic": Prior(
        1.0, 0.40, "passes", "over inputs, outputs and weights of a product that are not hidden by it"
    ),
    "fp8_efficiency": Prior(0.95, 0.15, "fraction", "of the fp8 product rate in very wide models"),
    "fp8_half_width": Prior(800.0, 0.30, "width", "of a model at which casts and scales halve that rate"),
    "adapter_cost": Prior(8.0, 0.20, "times", "the thin products of LoRA adapters cost over their FLOPs"),
    "unpack_bytes": Prior(12.0, 0.30, "bytes/weight", "to unpack a 4-bit weight in each pass"),
    "flash_efficiency": Prior(0.52, 0.15, "fraction", "of the product rate that fused attention reaches"),
    "flash2_hopper": Prior(0.35, 0.15, "fraction", "the same for kernels older than FlashAttention 3 on Hopper"),
    "flash3_efficiency": Prior(0.65, 0.20, "fraction", "the same for FlashAttention 3, cuDNN and Transformer Engine"),
    "flex_efficiency": Prior(0.80, 0.40, "fraction", "of fused attention that flex attention with block masks reaches"),
    "plain_efficiency": Prior(0.50, 0.40, "fraction", "of the product rate in plain attention's batched products"),
    "plain_passes": Prior(6.0, 0.30, "passes", "over the square of scores, each of forward and backward"),
    "plain_compiled": Prior(0.80, 0.20, "fraction", "of those passes left after compiling"),
    "width_passes": Prior(34.0, 0.30, "passes", "over tensors of the model's width in a block, forward and backward"),
    "hidden_passes": Prior(
        14.0, 0.25, "passes", "over tensors of the feed-forward width in a block, forward and backward"
    ),
    "compiled_traffic": Prior(0.50, 0.30, "fraction", "of element-wise traffic left after compiling"),
    "fused_traffic": Prior(0.75, 0.15, "fraction", "of element-wise traffic left with hand-fused kernels"),
    "cast_bytes": Prior(6.0, 0.50, "bytes/parameter", "to cast fp32 weights to 16 bits in each micro step"),
    "logit_passes": Prior(8.0, 0.30, "passes", "over the fp32 logits"),
    "optimizer_bytes": Prior(85.0, 0.30, "bytes/parameter", "that AdamW, clipping and unscaling move in each step"),
    "launch_plain": Prior(8.5e-4, 0.20, "seconds", "of the host for one pass through one block, plain calls"),
    "launch_compiled": Prior(0.50, 0.30, "fraction", "of that after compiling"),
    "launch_fused": Prior(0.90, 0.10, "fraction", "of that with hand-fused kernels"),
    "launch_lora": Prior(0.40, 0.30, "fraction", "more of that with adapters"),
    "launch_unpack": Prior(0.70, 0.30, "fraction", "more of that with 4-bit weights"),
    "launch_optimizer": Prior(5e-4, 0.80, "seconds", "of the host for the optimizer, for each block"),
    "link_efficiency": Prior(0.75, 0.20, "fraction", "of a link's nominal rate in collectives"),
    "link_latency": Prior(2e-4, 0.60, "seconds", "of one collective"),
    "overlap_power": Prior(4.0, 0.30, "exponent", "of the smooth maximum of times that overlap"),
    "network_exposed": Prior(
        0.20, 0.50, "fraction", "of communication that is not hidden however long the computation"
    ),
    "reduce_overlap": Prior(0.70, 0.30, "fraction", "of a backward pass that gradient reduction can hide behind"),
    "crowd_loss": Prior(0.015, 0.50, "fraction", "lost for each e-fold of nodes: stragglers and jitter"),
    "usual_loop_speed": Prior(0.85, 0.06, "fraction", "of a tuned loop's speed that usual training scripts reach"),
    "whole_run_speed": Prior(
        0.75, 0.10, "fraction", "the same over whole production runs, evaluations and restarts included"
    ),
}

MEMORY: dict[str, Prior] = {
    "cached_casts": Prior(1.5, 0.30, "bytes/parameter", "of 16-bit copies that autocast keeps beside fp32 weights"),
    "nf4_bytes": Prior(0.56, 0.03, "bytes/weight", "of a 4-bit weight with its scales"),
    "adapter_bytes": Prior(2.7, 0.20, "bytes/parameter", "of an adapter's weight, gradient and each moment"),
    "kept_width": Prior(6.5, 0.15, "tensors", "of the model's width kept for the backward pass of a block"),
    "kept_hidden": Prior(
        1.9, 0.10, "tensors", "of the feed-forward width kept for the backward pass, per input matrix"
    ),
    "kept_lora": Prior(1.0, 0.10, "fraction", "of those with adapters"),
    "kept_qlora": Prior(1.25, 0.20, "fraction", "of those with adapters on 4-bit weights"),
    "kept_compiled": Prior(0.90, 0.15, "fraction", "of those after compiling"),
    "kept_scores": Prior(2.5, 0.30, "tensors", "of the square of scores that plain attention keeps"),
    "logit_bytes": Prior(10.0, 0.30, "bytes/logit", "at the peak of the loss"),
    "logit_compiled": Prior(0.5, 0.30, "fraction", "of that after compiling"),
    "unpack_workspace": Prior(800.0, 0.50, "MB", "more of workspace with 4-bit weights"),
    "optimizer_temporary": Prior(
        1.2, 0.20, "fraction", "of the gradients' bytes that a plain optimizer step needs at once"
    ),
    "workspace_bytes": Prior(250.0, 0.40, "MB", "of kernel workspaces"),
    "framework_bytes": Prior(1100.0, 0.30, "MB", "of the driver's context and the allocator's slack"),
    "fragments": Prior(0.06, 0.40, "fraction", "of activations and workspace lost between allocations"),
}
