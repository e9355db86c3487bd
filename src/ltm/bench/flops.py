"""How much arithmetic a trained token takes, for model FLOPs utilisation (MFU)."""

from __future__ import annotations

from ltm.model.sizes import ModelConfig


def flops_per_token(config: ModelConfig, masked_half: bool = True, n_multiplied: int = 0) -> float:
    """Return the FLOPs that training on one token takes, forward and backward: 6 N + 12 L H C S.

    N counts the parameters that are multiplied: all but position embeddings and, where they are not tied to the output
    layer, token embeddings, which are looked up. L layers of H heads of size C look at S positions: the block size, or
    the sliding window where it is shorter. Recomputation, optimizer and element-wise work do not count.

    Args:
        config: The shape.
        masked_half: Count the half of the scores that the causal mask hides, as PaLM and nanoGPT do. Without it S is
            the mean number of positions that a token may see, as `ltm forecast` counts.
        n_multiplied: N, where a peer's shape differs; 0 = the shape's own.

    Source:
        Chowdhery et al. 2022, PaLM, appendix B; nanoGPT's `estimate_mfu` is the same.
    """
    looked_up = config.block_size * config.n_embd if config.family == "gpt2" else 0
    if not config.tie_embeddings:
        looked_up += config.vocab_size * config.n_embd
    span = min(config.window or config.block_size, config.block_size)
    seen = float(span) if masked_half else span * (1.0 - 0.5 * span / config.block_size)
    multiplied = n_multiplied or config.n_params - looked_up
    return 6.0 * multiplied + 12.0 * config.n_layer * config.n_head * config.head_size * seen
