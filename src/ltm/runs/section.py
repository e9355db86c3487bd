"""The `runs` section of a study: how every variant is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ltm.config import Count, Section
from ltm.forecast.section import parse_size

Share = Annotated[float, Field(ge=0, le=1)]
WITHOUT_EFFECT = (
    "threads",
    "memory_per_worker",
    "keep_weights",
    "free_disk",
    "executor",
    "cluster",
    "slurm",
    "halving",
)


class LoraSection(Section):
    """Low-rank adapters."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Of the two matrices beside each adapted one."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Their product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a layer's input that its adapter does not see."""
    targets: str | list[str] = "all-linear"
    """Names of the layers that get adapters; `all-linear` = all but the output layer."""


class ClusterSection(Section):
    """Workers on other machines, with `runs.executor: ray`."""

    address: str = ""
    """Of a Ray cluster that runs (`host:6379`, `auto`, `ray://host:10001`); empty = a new one on this machine."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Processor cores of each worker."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """Graphics cards of each worker; 0.25 = four workers share one."""
    workers: Annotated[int, Field(ge=0)] = 0
    """The most workers; 0 = as many as the cluster has room for, also while nodes come and go."""
    shared_folder: bool = True
    """Whether all nodes see the work folder under the same path. Without, each node fetches what it needs once, and
    sends back what it makes."""
    storage: str = ""
    """Without a shared folder: where nodes fetch from and send to (`s3://bucket/study`, any fsspec address); empty =
    through Ray itself."""


class SlurmSection(Section):
    """A Slurm job array whose tasks work on one study; each is a start of `ltm run` with `runs.executor: crew`."""

    tasks: Annotated[int, Field(ge=1)] = 4
    """Tasks of the array."""
    cpus: Annotated[int, Field(ge=1)] = 8
    """Processor cores of each task; it has one worker per core, or one per card."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """Graphics cards of each task."""
    hours: Annotated[float, Field(gt=0)] = 24.0
    """Time limit of each task. One that reaches it is put back into the queue and goes on."""
    memory: Annotated[int, BeforeValidator(parse_size), Field(ge=0)] = 0
    """Memory of each task: bytes, or 16GB. 0 = what the cluster gives."""
    partition: str = ""
    """Partition; empty = the cluster's default."""
    setup: list[str] = []
    """Shell lines before the work begins (`module load ...`)."""


class HalvingSection(Section):
    """Stop early what will not be among the best. Only variants that were proposed because of scores are stopped;
    what enters p-values, the confirmation and a random 30 % of the rest are trained to their end."""

    enabled: bool = False
    """Whether runs are stopped early."""
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = [0.25, 0.5]
    """Shares of a run after which the candidates are compared on the fast items."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the candidates that goes on after each rung."""


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
    """Worker processes, spread over the graphics cards where there are any. 0 = one per CPU core, or one per GPU."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times a run that fails by its own error is tried again."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between two checkpoints of a run."""
    engine: Literal["native", "hf", "axolotl"] = "native"
    """What trains: ltm's own decoder (from scratch, or from a run of ltm), any local Hugging Face causal language model
    (`model.base`), or Axolotl."""
    method: Literal["full", "lora", "qlora"] = "full"
    """Of hf and axolotl: all weights, adapters beside frozen ones, or adapters beside frozen 4-bit ones."""
    lora: LoraSection = LoraSection()
    """The adapters of lora and qlora."""
    axolotl: dict[str, Any] = {}
    """Axolotl's own settings, laid over those that ltm writes (`engine: axolotl`)."""
    parallel: Literal["none", "ddp", "fsdp", "zero2"] = "none"
    """Of hf: how the processes of one run share it. `ddp` copies the model, `fsdp` (FSDP2) shards it, `zero2` is
    DeepSpeed's: gradients and optimizer states are sharded."""
    processes_per_run: Annotated[int, Field(ge=1)] = 1
    """Processes, each with a device of its own, that train one run together."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of each worker on a CPU. One is fastest for micro models; another number rounds differently."""
    memory_per_worker: Annotated[int, BeforeValidator(parse_size), Field(ge=0)] = 0
    """The most memory of a worker: bytes, or 2GB. One that takes more is ended, and its run goes on with a smaller
    micro batch. 0 = its share of what is free when the study starts."""
    keep_weights: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    """Weights to keep once the study is done: of all runs, or of so many of the best."""
    free_disk: Annotated[int, BeforeValidator(parse_size), Field(ge=0)] | Literal["auto"] = "auto"
    """Stop, with a checkpoint of every run, before the disk has less free than this. `auto` = room for what all
    workers are about to write, and 1 % of the disk up to 1 GB."""
    executor: Literal["local", "ray", "crew"] = "local"
    """Where workers run: on this machine, on a Ray cluster (`runs.cluster`), or wherever `ltm run` of this study is
    started with `crew` on a shared work folder: one start leads, the others help, and take over if it ends."""
    halving: HalvingSection = HalvingSection()
    """Successive halving of the adaptive round."""
    cluster: ClusterSection = ClusterSection()
    """The Ray cluster."""
    slurm: SlurmSection = SlurmSection()
    """What `ltm run STUDY --submit slurm` asks for."""

    def outcome(self) -> dict[str, Any]:
        """Return the settings that can change what comes out of a run."""
        without = {"workers", "retries", "checkpoint_seconds", *WITHOUT_EFFECT}
        if self.engine == "native":
            without |= {"engine", "method", "lora", "axolotl", "parallel", "processes_per_run"}
        else:
            without |= {"lora"} if self.method == "full" else set()
            without |= {"axolotl"} if self.engine == "hf" else set()
        return self.model_dump(exclude=without)

    @model_validator(mode="after")
    def _fits(self) -> RunsSection:
        if self.schedule == "wsd" and self.warmup_share + self.decay_share > 1:
            room = round(1 - self.warmup_share, 6)
            raise ValueError(
                f"warmup_share and decay_share leave no room: together they are above 1; nearest: decay_share {room:g}"
            )
        if self.engine == "native" and (self.method != "full" or self.parallel != "none"):
            raise ValueError("method and parallel are for engine hf; native trains all weights in one process")
        if (self.parallel == "none") != (self.processes_per_run == 1):
            raise ValueError("parallel and processes_per_run go together: set both, or neither")
        if self.micro_batch_tokens and self.batch_tokens % self.micro_batch_tokens:
            raise ValueError(
                f"micro_batch_tokens {self.micro_batch_tokens} does not divide batch_tokens {self.batch_tokens}"
            )
        return self
