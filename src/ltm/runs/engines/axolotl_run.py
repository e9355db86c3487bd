"""Run Axolotl on one run of a study, keep the run alive in the folder, and bring back what it made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ltm.errors import TrainError
from ltm.runs import hardware, queue
from ltm.runs.engines import axolotl, base_model
from ltm.runs.queue import Recipe
from ltm.runs.train import Stopped, TrainState
from ltm.tokens.stream import Stream

FOLDER, LOG = "axolotl", "axolotl.log"
_GRACE_SECONDS = 20.0
# What a run keeps of what Axolotl leaves, by the folder that engine `hf` uses for the same.
_KEPT = {base_model.ADAPTER: ("adapter_*",), base_model.MODEL: ("*.safetensors", "*.json", "*.jinja")}


def train(
    folder: Path, recipe: Recipe, stream: Stream, init_seed: int, stop: Callable[[], bool]
) -> tuple[TrainState, int, str, str]:
    """Train one run; Axolotl goes on from its own last checkpoint.

    Args:
        folder: The run's folder.
        recipe: What all runs of the study share.
        stream: The variant's tokens.
        init_seed: Of adapters.
        stop: Says whether to stop.

    Returns:
        The state after the last step, the micro batch in tokens, the device and the precision.

    Raises:
        TrainError: Axolotl failed; with the last line that it said.
        Stopped: it was asked to stop.
        InputError: Axolotl is not installed, or left nothing.
        ConfigError: `runs.axolotl` has a key that Axolotl does not know.
    """
    section = recipe.runs
    program = axolotl.command()
    device = hardware.pick_device(section)
    dtype = axolotl.precision(section, device)
    place = folder / FOLDER
    config = axolotl.write_inputs(place, recipe, stream, init_seed, device, dtype)
    launcher = ["--launcher", "torchrun", "--", f"--nproc_per_node={section.processes_per_run}"]
    command = [
        *program,
        "train",
        config.name,
        *(launcher if section.processes_per_run > 1 else ["--launcher", "python"]),
    ]
    _wait(command, place, folder, recipe.n_steps(), stop)
    steps, losses = axolotl.curve(place)
    _keep(place, folder, section.method != "full")
    state = TrainState(step=recipe.n_steps(), seconds=axolotl.seconds(place / LOG))
    state.curve_tokens, state.curve_loss = [step * section.batch_tokens for step in steps], losses
    for leftover in ("prepared", axolotl.OUT, axolotl.STREAM):
        shutil.rmtree(place / leftover, ignore_errors=True)
        (place / leftover).unlink(missing_ok=True)
    shape = recipe.model.shape(0)
    return state, section.micro_batch_tokens or shape.block_size, device, dtype


def _wait(command: list[str], place: Path, folder: Path, n_steps: int, stop: Callable[[], bool]) -> None:
    environment = {**os.environ, "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    asked, beaten = 0.0, 0.0
    with open(place / LOG, "wb") as log:
        child = subprocess.Popen(command, cwd=place, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while child.poll() is None:
            time.sleep(0.2)
            now = time.monotonic()
            if now - beaten >= queue.HEARTBEAT_SECONDS:
                queue.beat(folder, "running", axolotl.steps_done(place), n_steps)
                beaten = now
            if stop() and not asked:
                child.send_signal(signal.SIGINT)  # Axolotl saves what it has
                asked = now
            if asked and now - asked > _GRACE_SECONDS:
                child.kill()
    if asked:
        queue.beat(folder, "stopped", axolotl.steps_done(place), n_steps)
        raise Stopped
    if child.returncode:
        lines = (place / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = next((line for line in reversed(lines) if "Error" in line), (lines or ["it said nothing"])[-1])
        raise TrainError(
            f"Axolotl ended with {child.returncode}: {said.strip()}", f"all that it said is in {place / LOG}"
        )


def _keep(place: Path, folder: Path, adapters: bool) -> None:
    """Copy adapters, or the whole model, to where the scores look for them."""
    name = base_model.ADAPTER if adapters else base_model.MODEL
    kept = folder / name
    kept.mkdir(exist_ok=True)
    found = [path for pattern in _KEPT[name] for path in (place / axolotl.OUT).glob(pattern)]
    if not any(path.suffix == ".safetensors" for path in found):
        raise TrainError("Axolotl left no weights in safetensors", f"all that it said is in {place / LOG}")
    for path in found:
        shutil.copyfile(path, kept / path.name)
