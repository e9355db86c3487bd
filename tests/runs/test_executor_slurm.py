"""A real Slurm on this machine (Debian's slurm-wlm and munge): a study submitted, its leader cancelled, all done."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ltm
from ltm.errors import BusyError, InputError
from ltm.runs.executors import slurm
from ltm.runs.section import SlurmSection
from ltm.store import WorkFolder, read_json

SMALL = {
    "sets.count": 12, "sets.books_per_set": 6, "sets.book_tokens": 2048, "sets.shares.seeds": 0.1,
    "sets.shares.single": 0.4, "sets.shares.order": 0.25, "sets.shares.gaps": 0.25, "sets.passage_tokens": 64,
    "tokens.vocab_size": 400, "tokens.sample_bytes": 100_000, "model.size": "llama-0.1m", "model.n_embd": 32,
    "model.block_size": 128, "runs.batch_tokens": 256, "runs.workers": 1, "runs.checkpoint_seconds": 0.2,
    "evalset.items_per_family": 6, "evalset.context_words": 40, "patterns.redraws": 99,
    "runs.slurm.tasks": 3, "runs.slurm.cpus": 1, "runs.slurm.hours": 0.5,
}  # fmt: skip
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    programs = ("slurmctld", "slurmd", "munged", "sbatch")
    found = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in programs}
    if not all(found.values()) or os.getuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=os.uname().nodename, folder=folder))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    parts = [
        [found["munged"], "-F", "-f", "-S", f"{folder}/munge.socket", "--key-file", f"{folder}/munge.key",
         "--pid-file", f"{folder}/munge.pid", "--log-file", f"{folder}/munge.log", "--seed-file", f"{folder}/seed"],
        [found["slurmctld"], "-D"],
        [found["slurmd"], "-D"],
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for part in parts:
            process = subprocess.Popen(part, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            time.sleep(1.0)
        wait_for(lambda: "idle" in slurm_says("sinfo", "-h", "-o", "%T"))
        yield folder
    del os.environ["SLURM_CONF"]


def slurm_says(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert condition()


def leader(work):
    """The number of the array task that leads, from the environment of its process."""
    try:
        pid = read_json(work / ".owner")["pid"]
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except Exception:
        return None
    return next((v.split(b"=")[1].decode() for v in variables if v.startswith(b"SLURM_ARRAY_TASK_ID=")), None)


@pytest.mark.slow
def test_an_array_works_on_one_study_and_outlives_its_leader(cluster, tmp_path):
    given = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "ltm.cli", "run", "demo", "--work", str(tmp_path), "--submit", "slurm", *given]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    number = said.split()[1].rstrip(":")
    assert "3 tasks work on" in said
    work = WorkFolder(tmp_path)
    with pytest.raises(BusyError, match=f"array {number} of this study is in the queue"):
        slurm.submit(SlurmSection(), work, ["run", "demo"], "demo")
    wait_for(lambda: any(tmp_path.glob("runs/*/heartbeat.json")), 300)
    subprocess.run(["scancel", f"{number}_{leader(tmp_path)}"], check=True)
    wait_for(lambda: not slurm_says("squeue", "-h", "-j", number).strip(), 600)
    study = ltm.load("demo", SMALL, work=str(tmp_path))
    status = study.status()
    assert set(status["stages"].values()) == {"complete"}
    assert status["runs"]["complete"] == len(study.jobs())
    assert read_json(work.path("board", "now.json"))["over"]


@pytest.mark.slow
def test_slurm_that_refuses_is_quoted(cluster, tmp_path):
    with pytest.raises(InputError, match="Slurm refuses the job.*partition"):
        slurm.submit(SlurmSection(partition="none"), WorkFolder(tmp_path), ["run", "demo"], "demo")


def test_without_slurm_it_is_said(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="`sbatch` is not found"):
        slurm.submit(SlurmSection(), WorkFolder(tmp_path), ["run", "demo"], "demo")
    assert not list(tmp_path.iterdir())
