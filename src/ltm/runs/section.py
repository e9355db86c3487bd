"""The `runs` section of a study: how every variant is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltm.config import Count, Section

Share = Annotated[float, Field(ge=0, le=1)]


class RunsSection(Section):
    """How a run is trained; the same for all runs of a study."""

    lr: Annotated[float, Field(gt=0)] = 4e-3
    """Peak learning rate; under muP that of the base width."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw`, or `muon` for the matrices inside the blocks and AdamW for the rest."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "wsd"
    """After the warm-up: constant; falling to 0 in a line or a cosine; or constant, then falling (`wsd`)."""
    warmup_share: Share = 0.05
    """Share of the steps in which the learning rate rises."""
    decay_share: Share = 0.3
    """Share of the steps in which `wsd` falls to 0."""
    batch_tokens: Annotated[Count, Field(ge=1)] = 512
    """Tokens per step; a whole number of sequences of the model's block size."""
    micro_batch_tokens: Annotated[Count, Field(ge=0)] = 0
    """Tokens per forward pass; smaller saves memory and changes nothing else. 0 = the largest that fits, up to the
    whole batch; out of memory is answered with half of it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of matrices; norms and biases have none."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first average."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """AdamW's second average."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    average_share: Share = 0.0
    """The weights that are scored are the average over this last share of the steps; 0 = the last ones. Under `wsd` the
    average changed neither seed noise nor loss for the better (LOG.md)."""
    average: Literal["mean", "ema"] = "mean"
    """The mean over that share, or an exponential moving average that forgets over that share of the steps."""
    document_mask: bool = False
    """Attention does not cross a start mark, so that a book never sees the one before it in the stream."""
    activation_checkpointing: bool = False
    """Make activations again in the backward pass instead of keeping them: less memory, a third more time."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes CUDA where there is one."""
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products and activations; weights are updated in float32 whatever it is. `auto` takes
    bfloat16 where the hardware multiplies it fast. float16 scales its loss; tf32 is for NVIDIA cards."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the model (seconds, needs a C++ compiler; kept for the next worker and study), then train 1.2-2 times
    faster. `auto` compiles where there is a compiler and a run is long enough to repay it."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes. 0 = one per CPU core, or one per GPU."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times a run that fails by its own error is tried again."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between two checkpoints of a run."""

    @model_validator(mode="after")
    def _fits(self) -> RunsSection:
        if self.schedule == "wsd" and self.warmup_share + self.decay_share > 1:
            raise ValueError("warmup_share and decay_share leave no room: together they are above 1")
        if self.micro_batch_tokens and self.batch_tokens % self.micro_batch_tokens:
            raise ValueError(
                f"micro_batch_tokens {self.micro_batch_tokens} does not divide batch_tokens {self.batch_tokens}"
            )
        return self
