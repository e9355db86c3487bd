"""The learning rate by step."""

from __future__ import annotations

import math

from ltm.runs.section import RunsSection


def learning_rate(section: RunsSection, step: int, n_steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Warm-up rises in a line; `linear` and `cosine` end near 0; `wsd` stays at its peak and falls in a line at the end.
    """
    warmup = round(section.warmup_share * n_steps)
    if step < warmup:
        return section.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, n_steps - warmup)
    if section.schedule == "linear":
        return section.lr * (1 - done)
    if section.schedule == "cosine":
        return section.lr * 0.5 * (1 + math.cos(math.pi * done))
    if section.schedule == "wsd":
        decay = max(1, round(section.decay_share * n_steps))
        return section.lr * min(1.0, (n_steps - step) / decay)
    return section.lr
