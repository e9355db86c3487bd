"""Submit a study to Slurm: a job array whose tasks work together on one work folder (see `crew`).

Writes: `slurm/` in the work folder: submitit's scripts and logs, and `submitted.json` with the number of the array. The
tasks are plain starts of `ltm run`; a task that ends too early is missed by nobody, and one that Slurm puts back into
the queue goes on.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ltm.errors import BusyError, InputError, MissingPartError
from ltm.runs.section import SlurmSection
from ltm.store import WorkFolder, read_json, write_json

_WARNING_SECONDS = 60  # before the time limit: enough for checkpoints
_INSTALL = "pip install 'ltm[cluster]'"


class ArrayTask:
    """One task of the array; submitit stores it and calls it on the node."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Work on the study; returns the exit code of `ltm run`."""
        self.process = subprocess.Popen([sys.executable, "-m", "ltm.cli", *self.arguments])
        code = self.process.wait()
        if code not in (0, 1, 3, 130):  # done, some runs failed, budget reached, stopped
            raise RuntimeError(f"ltm {' '.join(self.arguments)} ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:
        """Stop in good time before the limit, and come back: Slurm is about to end this task."""
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        return submitit.helpers.DelayedSubmission(ArrayTask(self.arguments))


def submit(section: SlurmSection, work: WorkFolder, arguments: list[str], name: str) -> str:
    """Submit the array; returns its number.

    Args:
        section: What to ask for.
        work: The work folder; every node has to see it under the same path.
        arguments: Of `ltm`, as each task is to start it.
        name: Of the job.

    Raises:
        MissingPartError: submitit is not installed.
        InputError: there is no Slurm here, or it refuses the job.
        BusyError: an array of this study is in the queue already.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise MissingPartError("`--submit slurm` needs submitit, which is not installed", _INSTALL) from None
    if shutil.which("sbatch") is None:
        raise InputError("there is no Slurm here: `sbatch` is not found", "submit on a login node of the cluster")
    work.create()
    before = work.path("slurm", "submitted.json")
    if before.exists() and (number := str(read_json(before)["array"])) and _is_queued(number):
        raise BusyError(f"array {number} of this study is in the queue", f"wait for it, or `scancel {number}`")
    executor = submitit.SlurmExecutor(folder=str(work.path("slurm").resolve()), python=sys.executable)
    executor.update_parameters(**_parameters(section, name))
    try:
        jobs = executor.map_array(_start, [ArrayTask(arguments)] * section.tasks)
    except (subprocess.CalledProcessError, FailedJobError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise InputError(f"Slurm refuses the job: {text.strip().splitlines()[-1]}", "see runs.slurm") from None
    number = str(jobs[0].job_id).partition("_")[0]
    write_json(before, {"array": number, "tasks": section.tasks})
    return number


def _start(task: ArrayTask) -> int:
    return task()


def _parameters(section: SlurmSection, name: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "job_name": f"ltm-{name}",
        "array_parallelism": section.tasks,
        "cpus_per_task": section.cpus,
        "ntasks_per_node": 1,
        "time": max(1, math.ceil(60 * section.hours)),
        "signal_delay_s": _WARNING_SECONDS,
        "stderr_to_stdout": True,
        "setup": list(section.setup),
    }
    if section.gpus:
        wanted["gres"] = f"gpu:{section.gpus}"
    if section.memory:
        wanted["mem"] = f"{max(1, section.memory >> 20)}M"
    if section.partition:
        wanted["partition"] = section.partition
    return wanted


def _is_queued(number: str) -> bool:
    """Return whether Slurm still has tasks of an array."""
    asked = subprocess.run(
        ["squeue", "--noheader", "--jobs", number], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    return asked.returncode == 0 and bool(asked.stdout.strip())


def log_folder(work: WorkFolder) -> Path:
    """Return where the tasks' logs lie."""
    return work.path("slurm")
