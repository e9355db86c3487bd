"""One training of `time_to_bpb.py` in a process of its own: nanoGPT by its script, nanoGPT tuned, or ltm.

    python bench/peers/bpb_training.py JOB.json     (prints a line of JSON last)

A job says how long to train, as tokens, or as seconds of this process's own processor time at the rate that its first
steps show; with `rate_seconds` it trains nothing to the end and prints its rate alone.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_PARAMS = 818_000  # of nanoGPT's CPU example with the characters of these books
BASE_WIDTH = 64  # of muP, as a study has it by default
N_HEAD = 4
_TOLERANCE = 0.02  # of the number of parameters
_WARM_STEPS, _FEWEST_STEPS, _RATE_STEPS = 3, 3, 5000
_RATE_SECONDS = 1.5
_README = (  # nanoGPT's, for a CPU
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --lr_decay_iters=2000 --dropout=0.0"
)
_DEFAULT_BATCH_TOKENS, _DEFAULT_BLOCK, DEFAULT_STEPS = 12 * 64, 64, 2000

Job = dict[str, Any]


def main() -> int:
    job: Job = json.loads(Path(sys.argv[1]).read_text())
    threads = 2 if job["contender"] == "default" else 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported
        os.environ[name] = str(threads)
    if threads == 1:
        from ltm.runs.executors.local import keep_freed_memory

        keep_freed_memory()
    import torch

    torch.set_num_threads(threads)
    run = {"default": _default, "nanogpt": _nanogpt, "ltm": _ltm}[job["contender"]]
    row = run(job)
    if "seconds" in job:  # a trial of the search: chosen by the mean of two seeds, or a lucky one is
        values = [row["bits_per_byte"], run(job | {"seed": job["seed"] + 1, "tokens": row["tokens"]})["bits_per_byte"]]
        row |= {"bits_per_byte": statistics.mean(values), "bits_per_byte_by_seed": values}
    print(json.dumps(row))
    return 0


def _text(job: Job) -> Any:
    from bpb_text import Text

    return Text(Path(job["books"]), Path(job["work"]))


# --- nanoGPT as its README says -------------------------------------------------------------------------------------


def _default(job: Job) -> Job:
    """Run its own train.py on the books' characters; only its seed is written anew."""
    import pickle

    import numpy as np

    text = _text(job)
    folder = Path(job["work"]) / f"default-{job['seed']}"
    data = folder / "data" / "books"
    data.mkdir(parents=True, exist_ok=True)
    for name in ("model.py", "configurator.py", "config/train_shakespeare_char.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(Path(job["nanogpt"]) / name, folder / name)
    script = (Path(job["nanogpt"]) / "train.py").read_text()
    assert "manual_seed(1337 " in script
    (folder / "train.py").write_text(script.replace("manual_seed(1337 ", f"manual_seed({1337 + job['seed']} "))
    tokens, _ = text.tokens(0)
    tokens.tofile(data / "train.bin")
    np.array(text.encoder(0)("".join(w.context + w.scored for w in text.windows())), np.uint16).tofile(data / "val.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(text.characters())}))
    n_steps = job.get("steps", DEFAULT_STEPS)
    arguments = [f"--max_iters={n_steps}", f"--eval_interval={n_steps}", "--always_save_checkpoint=True"]
    arguments += ["--dataset=books", "--out_dir=out"]  # it evaluates and saves at the end alone
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *_README.split(), *arguments]
    out = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    times = [float(ms) / 1e3 for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", out, re.MULTILINE)]
    step_seconds = statistics.median(times)
    evaluated = (0, n_steps)  # the times of these two hold evaluations
    seconds = sum(step_seconds if i in evaluated else taken for i, taken in enumerate(times[:n_steps]))
    row = {"step_seconds": step_seconds, "seconds": seconds, "tokens": n_steps * _DEFAULT_BATCH_TOKENS}
    return row | ({} if "steps" in job else _default_score(job, text, folder))


def _default_score(job: Job, text: Any, folder: Path) -> Job:
    import torch
    from bpb_text import bits_per_byte

    from ltm.bench.contenders import nanogpt

    kept = torch.load(folder / "out" / "ckpt.pt", weights_only=False)
    source = nanogpt._import(Path(job["nanogpt"]) / "model.py")
    model = source.GPT(source.GPTConfig(**kept["model_args"]))
    model.load_state_dict(kept["model"])
    model.eval()
    value = bits_per_byte(text, 0, _DEFAULT_BLOCK, lambda tokens: model(tokens, tokens)[0])
    return {"bits_per_byte": value, "n_params": sum(p.numel() for p in model.parameters()), "steps": kept["iter_num"]}


# --- nanoGPT tuned --------------------------------------------------------------------------------------------------


def nanogpt_config(job: Job) -> Any:
    """Return nanoGPT's shape with the wanted number of parameters: its width is what is free."""
    from ltm.model.sizes import ModelConfig

    n_layer, vocab_size, block_size = job["n_layer"], job["vocab_size"], job["block_size"]

    def off(width: int) -> float:
        count = width * (vocab_size + block_size + 12 * n_layer * width + 2 * n_layer + 1)
        return float(abs(count / N_PARAMS - 1))

    for multiple, heads in ((16, N_HEAD), (8, N_HEAD), (4, N_HEAD), (2, N_HEAD // 2)):  # round widths are faster
        width = min(range(64, 320, multiple), key=off)
        if off(width) <= _TOLERANCE:
            return ModelConfig("gpt2", n_layer, heads, heads, width, 4 * width, vocab_size, block_size)
    raise SystemExit(f"no width has {N_PARAMS} parameters with {n_layer} layers and {vocab_size} tokens")


def _nanogpt(job: Job) -> Job:
    import torch
    from bpb_text import bits_per_byte

    from ltm.bench.contenders import nanogpt
    from ltm.bench.seat import Seat
    from ltm.forecast.machine_work import Case
    from ltm.runs.engine import keep_compiled_code

    keep_compiled_code()
    text = _text(job)
    batch_size = job["batch_tokens"] // job["block_size"]
    case = Case(nanogpt_config(job), job["batch_tokens"], 0, "bfloat16")
    seat = Seat("nanogpt", case, "cpu", 1, True, True, attention="eager", nanogpt=job["nanogpt"], folder=job["work"])
    torch.manual_seed(1337 + job["seed"])
    model = nanogpt._model(seat)
    start_weights = {name: value.clone() for name, value in model.state_dict().items()}
    compiled: Any = torch.compile(model)
    size = job["block_size"]
    data = torch.from_numpy(text.tokens(job["vocab_size"])[0].astype("int64"))

    def begin(n_steps: int) -> Callable[[], None]:
        torch.manual_seed(2 * 1337 + job["seed"])  # of the crops, however many steps were timed before
        model.load_state_dict(start_weights)
        optimizer = model.configure_optimizers(job["weight_decay"], job["lr"], (0.9, job["beta2"]), "cuda")  # fused
        step = -1

        def one_step() -> None:
            nonlocal step
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = nanogpt_rate(job, step, n_steps)
            starts = torch.randint(len(data) - size, (batch_size,)).tolist()
            x = torch.stack([data[i : i + size] for i in starts])
            y = torch.stack([data[i + 1 : i + 1 + size] for i in starts])
            with nanogpt._precision(seat):
                _, loss = compiled(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return one_step

    row = _train(job, begin) | {"n_params": sum(p.numel() for p in model.parameters())}
    if "rate_seconds" not in job:
        model.eval()
        row["bits_per_byte"] = bits_per_byte(text, job["vocab_size"], size, lambda tokens: model(tokens, tokens)[0])
    return row


def nanogpt_rate(job: Job, step: int, n_steps: int) -> float:
    """Return its `get_lr`: warm-up in a line, then a cosine down to `min_lr`."""
    peak, least, warmup = job["lr"], job["lr"] * job["min_lr_share"], round(job["warmup_share"] * n_steps)
    if step < warmup:
        return float(peak * (step + 1) / (warmup + 1))
    done = (step - warmup) / max(1, n_steps - warmup)
    return float(least + 0.5 * (1 + math.cos(math.pi * min(1.0, done))) * (peak - least))


# --- ltm ------------------------------------------------------------------------------------------------------------


def ltm_config(job: Job) -> Any:
    """Return ltm's shape with the wanted number of parameters: the width is given, the hidden layer fills up."""
    from ltm.model.sizes import ModelConfig

    n_layer, vocab_size = job["n_layer"], job["vocab_size"]

    def shape(width: int) -> ModelConfig:
        room = N_PARAMS - width * (vocab_size + n_layer * (4 * width + 2) + 1)
        hidden = max(16, round(room / (3 * width * n_layer) / 16) * 16)
        return ModelConfig(
            "llama", n_layer, N_HEAD, N_HEAD, width, hidden, vocab_size, job["block_size"], base_width=BASE_WIDTH
        )

    shapes = [shape(width) for width in range(64, 257, 16)]
    return min(
        (s for s in shapes if abs(s.n_params / N_PARAMS - 1) <= _TOLERANCE),
        key=lambda s: abs(s.n_hidden / s.n_embd - 8 / 3),
    )


def _ltm(job: Job) -> Job:
    import torch
    from bpb_text import bits_per_byte

    from ltm.model.gpt import GPT
    from ltm.runs.engine import Engine, EngineSettings, keep_compiled_code
    from ltm.runs.section import RunsSection
    from ltm.runs.train import Trainer

    keep_compiled_code()
    text = _text(job)
    fields = ("lr", "batch_tokens", "warmup_share", "decay_share", "weight_decay", "beta2", "optimizer", "schedule")
    section = RunsSection(dtype="bfloat16", average_share=0.0, **{name: job[name] for name in fields})
    config = ltm_config(job)
    engine = Engine(EngineSettings(config, "cpu", torch.bfloat16, compiled=True))
    trainers: list[Trainer] = []

    def begin(n_steps: int) -> Callable[[], None]:
        stream = _stream(text, job, n_steps * job["batch_tokens"])
        trainers.append(Trainer(section, engine, stream, n_steps, init_seed=1 + job["seed"]))
        return trainers[-1].one_step

    row = _train(job, begin) | {"n_params": config.n_params}
    if "rate_seconds" not in job:
        model = GPT(config)
        for name, value in trainers[-1].scored_weights().items():
            model.get_parameter(name).data.copy_(value)
        row["bits_per_byte"] = bits_per_byte(text, job["vocab_size"], job["block_size"], model)
    return row


def _stream(text: Any, job: Job, n_tokens: int) -> Any:
    """Return the shuffled passages of all training books, an equal share of each, as a study has them."""
    import numpy as np

    from ltm.records import Shard, Variant
    from ltm.sets.section import SetsSection
    from ltm.tokens.stream import Stream, segments

    tokens, lengths = text.tokens(job["vocab_size"])
    ids = [f"{i:08x}" for i in range(len(lengths))]
    starts = np.cumsum([0, *lengths])
    shards = {b: Shard(b, int(s), n, [0]) for b, s, n in zip(ids, starts, lengths, strict=False)}
    seed = 1000 + job["seed"]
    variant = Variant("0", 0, "", 0, 0, "seeds", "base", ids, "shuffled", "none", 1.0, 1, seed, [0])
    quota = max(16, math.ceil(n_tokens / len(ids)))
    sets = SetsSection(books_per_set=len(ids), book_tokens=quota, passage_tokens=job["passage_tokens"])
    bos_id = text._tokenizer(job["vocab_size"]).bos_id
    return Stream(tokens, segments(variant, sets, shards), bos_id)


# --- for both -------------------------------------------------------------------------------------------------------


def _train(job: Job, begin: Callable[[int], Callable[[], None]]) -> Job:
    """Compile, take the rate, begin anew and train to the end; times are wall clock and processor seconds."""
    before = time.perf_counter()
    step = begin(_RATE_STEPS)
    step()
    row: Job = {"compile_seconds": time.perf_counter() - before}
    for _ in range(_WARM_STEPS):
        step()
    if "tokens" not in job:
        row |= _rate(step, job.get("rate_seconds", _RATE_SECONDS), job["batch_tokens"])
        if "rate_seconds" in job:
            return row
    n_tokens = job.get("tokens") or job["seconds"] * job["batch_tokens"] / row["step_processor_seconds"]
    n_steps = max(10, round(n_tokens / job["batch_tokens"]))
    step = begin(n_steps)
    start, used = time.perf_counter(), time.process_time()
    for _ in range(n_steps):
        step()
    row |= {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - used}
    return row | {"steps": n_steps, "tokens": n_steps * job["batch_tokens"]}


def _rate(step: Callable[[], None], seconds: float, batch_tokens: int) -> Job:
    """Return the middle step's wall clock and processor seconds, and the rate of all of them."""
    wall: list[float] = []
    own: list[float] = []
    until = time.perf_counter() + seconds
    while (time.perf_counter() < until or len(own) < _FEWEST_STEPS) and len(own) < _RATE_STEPS - _WARM_STEPS - 1:
        start, used = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        own.append(time.process_time() - used)
    rate = batch_tokens * len(wall) / sum(wall)
    middle = {"step_seconds": statistics.median(wall), "step_processor_seconds": statistics.median(own)}
    return middle | {"tokens_per_second": rate}


if __name__ == "__main__":
    sys.exit(main())
