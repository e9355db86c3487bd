"""One token after another with remembered keys and values: what is read once is never computed again.

The same function as `GPT.forward`, for one sequence; a test holds both against each other. Shape letters: T new tokens,
S tokens seen so far (T included), D width, H query heads, K key and value heads, C head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltm.errors import DataError
from ltm.model.gpt import GPT, rotated


class Memory:
    """Keys and values of one sequence, up to the block size.

    Args:
        model: Whose they are.
    """

    def __init__(self, model: GPT) -> None:
        config = model.config
        weight = model.embed.weight
        shape = (config.n_layer, 2, config.n_kv_head, config.block_size, config.head_size)
        self.kv_L2KSC = torch.empty(shape, device=weight.device, dtype=weight.dtype)
        self.length = 0

    def cut(self, length: int) -> None:
        """Forget all tokens from this place on."""
        self.length = min(self.length, length)


@torch.inference_mode()
def read(model: GPT, tokens_T: Tensor, memory: Memory) -> Tensor:
    """Read tokens and return the logits of the one that follows the last, shape (V,), float32.

    Args:
        model: In evaluation mode.
        tokens_T: What comes after all that the memory holds.
        memory: Grows by T.

    Raises:
        DataError: there is nothing to read, or no room.
    """
    start, end = memory.length, memory.length + len(tokens_T)
    if not start < end <= model.config.block_size:
        raise DataError(f"cannot read {len(tokens_T)} tokens after {start}: the context is {model.config.block_size}")
    x_TD = model.embed(tokens_T)
    if model.positions is not None:
        x_TD = x_TD + model.positions.weight[start:end]
    angles = (model.cos_TC[start:end], model.sin_TC[start:end])
    hidden_TS = _hidden(start, end, model.config.window, x_TD.device)
    blocks: Any = model.blocks
    for layer, block in enumerate(blocks):
        attended = _attend(block, block.attention_norm(x_TD), angles, memory.kv_L2KSC[layer], start, end, hidden_TS)
        x_TD = x_TD + attended
        x_TD = x_TD + block.mlp(block.mlp_norm(x_TD))
    memory.length = end
    x_D = model.norm(x_TD[-1])
    logits_V: Tensor = model.head(x_D * model.config.logit_scale)
    return logits_V.float()


def _attend(
    block: Any,
    x_TD: Tensor,
    angles: tuple[Tensor, Tensor],
    kv_2KSC: Tensor,
    start: int,
    end: int,
    hidden_TS: Tensor | None,
) -> Tensor:
    attention = block.attention
    config = attention.config
    H, K, C = config.n_head, config.n_kv_head, config.head_size
    qk_THC, v_TKC = attention.qkv(x_TD).view(-1, H + 2 * K, C).split([H + K, K], dim=1)
    if config.family != "gpt2":
        qk_THC = rotated(qk_THC, *angles)
    q_THC, k_TKC = qk_THC.split([H, K], dim=1)
    kv_2KSC[0, :, start:end] = k_TKC.transpose(0, 1)
    kv_2KSC[1, :, start:end] = v_TKC.transpose(0, 1)
    q_KGTC = q_THC.view(-1, K, H // K, C).permute(1, 2, 0, 3)
    k_KSC, v_KSC = kv_2KSC[0, :, :end], kv_2KSC[1, :, :end]
    scores_KGTS = q_KGTC @ k_KSC[:, None].transpose(-1, -2) * config.attention_scale
    if hidden_TS is not None:
        scores_KGTS = scores_KGTS.masked_fill(hidden_TS, float("-inf"))
    y_KGTC = scores_KGTS.softmax(-1) @ v_KSC[:, None]
    out: Tensor = attention.out(y_KGTC.permute(2, 0, 1, 3).reshape(-1, H * C))
    return out


def _hidden(start: int, end: int, window: int, device: torch.device) -> Tensor | None:
    """Return what each new token must not see, shape (T, S); None where it sees all."""
    if end - start == 1 and not 0 < window < end:
        return None
    row, column = torch.arange(start, end, device=device)[:, None], torch.arange(end, device=device)[None]
    hidden = column > row
    return hidden | (column <= row - window) if window else hidden
