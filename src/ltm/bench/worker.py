"""One process of a contender: set up as its seat says, then handed to the contender. No torch at the top."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from ltm.bench.gate import Broken, Gate
from ltm.bench.seat import Seat


def serve(pipe: Connection, seat: Seat, log: str) -> None:
    """Run a contender until its gate closes; what it prints goes to a file, for the case that it breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its crews
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when torch is imported
        os.environ[name] = str(seat.threads)
    if seat.device == "cuda":  # one card for everybody; the Trainer would spread over all it sees
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched while something is timed
    try:
        _train(pipe, seat)
    except (EOFError, BrokenPipeError):
        pass  # the parent went away
    except Exception as error:
        text = str(error).strip().splitlines()
        with contextlib.suppress(OSError):
            pipe.send(Broken(f"{type(error).__name__}: {text[0] if text else ''}", traceback.format_exc()))


def _train(pipe: Connection, seat: Seat) -> None:
    if seat.keeps_memory:
        from ltm.runs.executors.local import keep_freed_memory

        keep_freed_memory()
    import torch

    from ltm.runs.calibrate_steps import peak_bytes

    torch.set_num_threads(seat.threads)
    wait_for_device = torch.cuda.synchronize if seat.device == "cuda" else _nothing
    gate = Gate(pipe, float(seat.case.batch_tokens), wait_for_device, lambda: peak_bytes(seat.device))
    Path(seat.folder).mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"ltm.bench.contenders.{seat.contender}").run(seat, gate)


def _nothing() -> None:
    """A CPU is done when the call returns."""
