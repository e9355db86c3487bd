"""Disturb small studies in every way until enough has gone wrong, and compare each with the undisturbed one.

    python bench/soak/soak.py --folder DIR --minutes 9         # goes on where it stopped, until the counts are reached
    python bench/soak/soak.py --folder DIR --report            # what happened so far
    python bench/soak/soak.py --folder OTHER --sets 450 --kills 60 --rounds 1    # one campaign of some 500 runs

Each round is a whole study of real training (12 sets of the demo's library, about 13 runs of about a second): it is
started, disturbed at random moments, started again, until it is done; then its findings have to be the bytes of the
undisturbed study, every run has to be complete, and none may be counted twice. Everything that was done is one line of
`events.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import faults

SETTINGS = {
    "sets.books_per_set": 6, "sets.book_tokens": 2048, "sets.shares.seeds": 0.1,
    "sets.shares.single": 0.4, "sets.shares.order": 0.25, "sets.shares.gaps": 0.25, "sets.passage_tokens": 64,
    "tokens.vocab_size": 400, "tokens.sample_bytes": 100_000, "model.size": "llama-0.1m", "model.n_embd": 32,
    "model.block_size": 128, "runs.batch_tokens": 256, "runs.workers": 2, "runs.checkpoint_seconds": 0.2,
    "evalset.items_per_family": 6, "evalset.context_words": 40, "patterns.redraws": 99,
}  # fmt: skip
WANTED = {"kill": 200, "full disk": 20, "damaged file": 20, "clock": 20}
COMPARED = ("patterns/findings.json", "patterns/effects.parquet", "patterns/ranking.parquet", "scores/measures.parquet")
MOMENTS = ("", "", "", "checkpoint", "weights", "run.json", "done.json", "parquet", "jobs.json")
DISK_MB = 60
_LONGEST_START_SECONDS, _LONGER_PER_SET = 400, 10


def command(work: Path, sets: int) -> list[str]:
    settings = SETTINGS | {"sets.count": sets}
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "ltm.cli", "run", "demo", "--quiet", "--work", str(work), *given]


class Soak:
    """Rounds of disturbed studies in one folder; what happened so far is read from there."""

    def __init__(self, folder: Path, sets: int = 12, kills: int = 0) -> None:
        self.folder, self.sets, self.kills = folder, sets, kills
        self.events = folder / "events.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["LTM_CACHE"] = str(folder / "cache")
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def note(self, **row: object) -> None:
        self.rows.append(row)
        with open(self.events, "a") as file:
            file.write(json.dumps(row) + "\n")

    def counts(self) -> Counter[str]:
        """Return how often each kind of fault was done, in rounds that came to their end."""
        ended = {row["round"] for row in self.rows if row["what"] == "end"}
        return Counter(row["what"] for row in self.rows if row["round"] in ended)

    def undisturbed(self) -> Path:
        """Return the study that nothing happened to."""
        work = self.folder / "calm"
        if not (work / COMPARED[0]).exists() or not (work / "ltm_result_dashboard.html").exists():
            shutil.rmtree(work, ignore_errors=True)
            subprocess.run(command(work, self.sets), check=True, stdout=subprocess.DEVNULL)
        return work

    def round(self, number: int, kinds: list[str]) -> bool:
        """Disturb one study until it is done; returns whether it ended as the undisturbed one."""
        calm, rng = self.undisturbed(), random.Random(number)
        disk = self.folder / "disk"
        with small_disk(disk) if "full disk" in kinds else contextlib.nullcontext():
            work = (disk if "full disk" in kinds else self.folder) / f"round-{number}"
            if rng.random() < 0.7:  # most of the time the moments are for training and after, not for the rehearsal
                _copy_without_runs(calm, work)
            disturbed = Disturbed(
                self.sets, work, self.folder, rng, kinds, lambda **row: self.note(round=number, **row)
            )
            disturbed.left["kill"] = self.kills or disturbed.left["kill"]
            disturbed.until_done()
            problems = compare(calm, work)
            self.note(round=number, what="end", starts=disturbed.starts, seconds=disturbed.seconds, problems=problems)
            if not problems:
                shutil.rmtree(work, ignore_errors=True)
        return not problems


class Disturbed:
    """One study under fire."""

    def __init__(
        self,
        sets: int,
        work: Path,
        logs: Path,
        rng: random.Random,
        kinds: list[str],
        note: Callable[..., None],
    ) -> None:
        self.sets, self.work, self.rng, self.kinds, self.note = sets, work, rng, kinds, note
        self.left = {"kill": rng.randint(8, 14), "full disk": 2, "damaged file": 3, "clock": 3}
        self.starts, self.seconds = 0, 0.0
        self.clock = logs / f"{work.name}.clock"
        self.log = logs / f"{work.name}.log"  # not on the disk that is filled

    def until_done(self) -> None:
        began = time.monotonic()
        while True:
            code = self._start()
            if code == 0 and not self._damage_at_rest():
                break
            if code not in (0, 3, -9, 137, 1):
                raise SystemExit(f"unexpected exit code {code}: {self._log()}")
            if code == 1 and "disk is full" not in self._log() and "cannot write" not in self._log():
                raise SystemExit(f"the study gave up: {self._log()}")
        self.seconds = time.monotonic() - began
        self.clock.unlink(missing_ok=True)

    def _log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def _start(self) -> int:
        """Start the study and disturb it until it ends; returns its exit code."""
        self.starts += 1
        environment = dict(os.environ)
        if "clock" in self.kinds:
            self.clock.write_text("+0\n")
            environment |= faults.clock_environment(self.clock)
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                command(self.work, self.sets),
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        longest = _LONGEST_START_SECONDS + _LONGER_PER_SET * self.sets
        deadline = time.monotonic() + longest
        moments = faults.Moments(self.work)
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise SystemExit(f"a start took more than {longest} s: {self.work}")
                kind = self.rng.choice([k for k in self.kinds if self.left[k]] or ["none"])
                getattr(self, f"_{kind.replace(' ', '_')}")(process, moments)
        finally:
            moments.close()
        return process.returncode

    def _none(self, process: subprocess.Popen[bytes], _moments: faults.Moments) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)

    def _kill(self, process: subprocess.Popen[bytes], moments: faults.Moments) -> None:
        """Kill a worker, the driver, or both; at any moment, or while a certain file is written."""
        part = self.rng.choice(MOMENTS)
        if part:
            if not moments.wait_for(part, 4.0, process):
                return
        elif not self._pass(process, self.rng.uniform(0.2, 3.0)):
            return
        target = self.rng.choice(("worker", "worker", "worker", "driver", "both"))
        workers = faults.workers(process.pid)
        if target == "worker":
            done = bool(workers) and faults.kill(self.rng.choice(workers))
        else:
            done = faults.kill(process.pid)
            if target == "both":
                for pid in workers:
                    faults.kill(pid)
        if done:
            self.left["kill"] -= 1
            self.note(what="kill", target=target, moment=part or "any")
        if target != "worker":
            process.wait()

    def _full_disk(self, process: subprocess.Popen[bytes], _moments: faults.Moments) -> None:
        """Fill the disk until the study stops by itself, then make room."""
        if not self._pass(process, self.rng.uniform(1.0, 8.0)):
            return
        filler = faults.fill_disk(self.work.parent)
        try:
            code = process.wait(120)
        except subprocess.TimeoutExpired:
            code = None  # nothing was written meanwhile
        finally:
            filler.unlink()
        self.left["full disk"] -= 1
        self.note(what="full disk", exit=code)

    def _damaged_file(self, process: subprocess.Popen[bytes], _moments: faults.Moments) -> None:
        """Stop the study hard, and damage a file before the next start; the last is left for the finished study."""
        begun = (self.work / "runs" / "jobs.json").exists() and self.left["damaged file"] > 1
        if self._pass(process, self.rng.uniform(1.0, 8.0)) and begun:
            faults.kill(process.pid)
            process.wait()
            self._damage()

    def _damage_at_rest(self) -> bool:
        """Damage a file of the finished study; returns whether it was done."""
        if "damaged file" in self.kinds and self.left["damaged file"]:
            self._damage(("patterns", "scores", "evalset", "sets"))
            return True
        return False

    def _damage(self, stages: tuple[str, ...] = ()) -> None:
        files = faults.can_be_damaged(self.work)
        files = [f for f in files if not stages or f.relative_to(self.work).parts[0] in stages]
        if files:
            path = self.rng.choice(files)
            how = faults.damage(path, self.rng)
            self.left["damaged file"] -= 1
            self.note(what="damaged file", file=str(path.relative_to(self.work)), how=how)

    def _clock(self, process: subprocess.Popen[bytes], _moments: faults.Moments) -> None:
        """Set the clock on the wall forward or back."""
        if self._pass(process, self.rng.uniform(0.5, 5.0)):
            jump = self.rng.choice((-86_400, -3600, -40, 40, 3600, 86_400, 40_000_000))
            self.clock.write_text(f"{jump:+d}\n")
            self.left["clock"] -= 1
            self.note(what="clock", seconds=jump)

    def _pass(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Let some time pass; returns whether the study still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.poll() is None


def compare(calm: Path, work: Path) -> list[str]:
    """Return what is not as in the undisturbed study."""
    problems = [name for name in COMPARED if (calm / name).read_bytes() != (work / name).read_bytes()]
    asked = [job["run_id"] for job in json.loads((work / "runs/jobs.json").read_text())["jobs"]]
    complete = sorted(path.parent.name for path in work.glob("runs/*/run.json"))
    if sorted(asked) != complete:
        problems.append(f"runs: {len(asked)} asked for, {len(complete)} complete")
    scored = [path.stem for path in work.glob("scores/*.parquet")]
    problems += [f"run {run_id} has no scores" for run_id in asked if run_id not in scored]
    import pyarrow.parquet as pq

    rows = pq.read_table(work / "scores/measures.parquet", columns=["run_id", "family"]).to_pylist()
    if len({(row["run_id"], row["family"]) for row in rows}) != len(rows):
        problems.append("a run is counted twice")
    left = [str(path) for path in work.glob("runs/*/.*.tmp")]
    return problems + [f"left behind: {name}" for name in left]


@contextlib.contextmanager
def small_disk(folder: Path):  # type: ignore[no-untyped-def]
    """Give a disk of a few megabytes (tmpfs; needs root)."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _copy_without_runs(calm: Path, work: Path) -> None:
    shutil.copytree(calm, work, ignore=shutil.ignore_patterns("scores", "patterns", "*.html", ".lock", ".owner"))
    for folder in [path for path in (work / "runs").iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    (work / "runs" / "index.parquet").unlink(missing_ok=True)


def main() -> int:
    """Go on with the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--sets", type=int, default=12, help="of each study; with 12 it has about 13 runs")
    parser.add_argument("--kills", type=int, default=0, help="in each round; default: 8 to 14")
    parser.add_argument(
        "--rounds", type=int, default=0, help="stop after so many; default: when the counts are reached"
    )
    options = parser.parse_args()
    soak = Soak(options.folder.resolve(), options.sets, options.kills)
    deadline = time.monotonic() + 60 * options.minutes
    while not options.report and time.monotonic() < deadline:
        counts = soak.counts()
        wanted = [kind for kind, count in WANTED.items() if counts[kind] < count]
        if not wanted or (options.rounds and counts["end"] >= options.rounds):
            break
        number = 1 + max((row["round"] for row in soak.rows), default=0)
        extra = wanted[number % len(wanted)]
        if not soak.round(number, sorted({"kill", extra})):
            print(f"round {number} ended differently: {soak.rows[-1]['problems']}", file=sys.stderr)
            return 1
    ends = [row for row in soak.rows if row["what"] == "end"]
    print(json.dumps({**soak.counts(), "rounds": len(ends), "starts": sum(row["starts"] for row in ends),
                      "rounds that ended differently": sum(bool(row["problems"]) for row in ends)}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
