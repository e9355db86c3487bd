"""Workers on a Ray cluster: a new one on this machine, or one that runs already; nodes may come and go.

Each worker is an actor that stays warm. An actor that dies, alone or with its node, leaves a job that is given to the
next one; the job itself goes on from its last checkpoint. The cluster holds nothing that counts: the work folder does,
so that a driver that was killed is started again and goes on. Where the nodes do not see the work folder they have one
of their own (see `node`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltm.errors import InputError, MissingPartError
from ltm.runs.executors import node
from ltm.runs.executors.base import (
    GRACE_SECONDS,
    OVER_MEMORY,
    STALL_SECONDS,
    STOPPED,
    Job,
    Outcome,
    ask_this_process_to_stop,
    call,
)
from ltm.runs.executors.deaths import Deaths, Stalls
from ltm.runs.executors.local import keep_freed_memory
from ltm.runs.executors.node import Inputs, NodeFolder
from ltm.runs.section import RunsSection
from ltm.store import WorkFolder, fingerprint, write_bytes

_TICK_SECONDS = 1.0
_RESOURCES_EVERY_SECONDS = 2.0
_NO_ROOM_SECONDS = 60.0  # a cluster that has room for no worker for so long has none
_REACH_SECONDS = 5.0
_OBJECT_STORE_BYTES = 200 << 20  # of a cluster on this machine: tokens lie in the work folder
_PEEK_EVERY_SECONDS = 5.0
_INSTALL = "pip install 'ltm[cluster]'"


@dataclass(eq=False)
class _Actor:
    """One worker: its handle, and what it is doing."""

    handle: Any
    greeting: Any  # answered once it runs
    node: str = ""
    job: Job | None = None
    answer: Any = None
    peek: Any = None
    peeked_at: float = 0.0
    known: dict[str, tuple[int, int]] = field(default_factory=dict)


class RayExecutor:
    """Warm workers on a Ray cluster.

    Args:
        section: How many and where; its `cluster` says which.
        work: The work folder; needed where nodes do not see it.

    Raises:
        MissingPartError: Ray is not installed.
        InputError: no cluster answers, or it has another version.
    """

    def __init__(self, section: RunsSection, work: WorkFolder | None = None) -> None:
        self._section, self._cluster, self._work = section, section.cluster, work
        self._actors: list[_Actor] = []
        self._looked_at = float("-inf")
        self._room = 0
        self._without_room_since: float | None = None
        self.may_work: Callable[[], bool] = lambda: True
        self.on_tick: Callable[[], None] = lambda: None
        self._ray = _import_ray()
        self._own = _connect(self._ray, section)
        self._class = self._ray.remote(
            num_cpus=self._cluster.cpus_per_worker,
            num_gpus=self._cluster.gpus_per_worker,
            max_restarts=0,
            concurrency_groups={"work": 1, "control": 1},
        )(Worker)
        self._inputs: Inputs | None = None
        self._stalls = Stalls(STALL_SECONDS)
        self._asked_for: dict[str, set[str]] = {}
        if not self._cluster.shared_folder and work is not None:
            self._inputs = Inputs(work, self._send)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(graceful=kind is None or issubclass(kind, KeyboardInterrupt))

    def map(self, task: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield an outcome per job, in the order in which they end.

        Raises:
            InputError: the cluster has no room for a worker, or a node has another version of ltm.
        """
        todo, deaths, working, ticked = deque(jobs), Deaths(), True, time.monotonic()
        while todo or self._busy():
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                working = self._tick(working)
            if working:
                self._grow(len(todo))
                self._give(task, todo, deaths)
            for actor in self._ready():
                job = actor.job
                assert job is not None  # only busy ones are waited for
                outcome = self._take(actor, job)
                if outcome is None:
                    self._let_go(actor)
                    outcome = deaths.of(job, None) if working else None
                    if outcome is None:
                        todo.append(job) if working else todo.appendleft(job)
                        continue
                elif self._asks_for_more(outcome):
                    todo.appendleft(job)
                    continue
                elif outcome.kind == STOPPED:
                    self._let_go(actor)
                    todo.appendleft(job)
                    continue
                yield self._at_home(outcome)

    def _busy(self) -> list[_Actor]:
        return [actor for actor in self._actors if actor.job]

    def _tick(self, working: bool) -> bool:
        self.on_tick()
        if self._inputs is not None:
            for actor in self._busy():
                self._look_at_files(actor)
        for actor in self._busy():
            if actor.job is not None and self._stalls.has_stalled(actor.job, id(actor)):
                self._ray.kill(actor.handle)
        if working and not self.may_work():
            self._ask_to_stop()
            return False
        return self.may_work()

    def _grow(self, n_waiting: int) -> None:
        """Start workers while the cluster has room and there is work; nodes that came or went are noticed here."""
        if time.monotonic() - self._looked_at >= _RESOURCES_EVERY_SECONDS:
            self._looked_at = time.monotonic()
            self._room = self._cluster.workers or self._workers_that_fit()
        self._complain_if_no_room()
        free = sum(actor.job is None for actor in self._actors)
        while len(self._actors) < self._room and free < n_waiting:
            handle = self._class.remote(self._section.threads)
            self._actors.append(_Actor(handle, _control(handle.hello).remote()))
            free += 1

    def _workers_that_fit(self) -> int:
        total = 0
        for one in self._ray.nodes():
            if not one["Alive"]:
                continue
            resources = one["Resources"]
            fit = resources.get("CPU", 0.0) / self._cluster.cpus_per_worker
            if self._cluster.gpus_per_worker:
                fit = min(fit, resources.get("GPU", 0.0) / self._cluster.gpus_per_worker)
            total += int(fit + 1e-9)
        return total

    def _complain_if_no_room(self) -> None:
        if self._room or self._actors:
            self._without_room_since = None
            return
        since = self._without_room_since = self._without_room_since or time.monotonic()
        if time.monotonic() - since >= _NO_ROOM_SECONDS:
            wanted = f"{self._cluster.cpus_per_worker:g} CPUs and {self._cluster.gpus_per_worker:g} GPUs"
            raise InputError(
                f"no node of the Ray cluster has room for one worker ({wanted})",
                "add nodes, or lower runs.cluster.cpus_per_worker or gpus_per_worker",
            )

    def _give(self, task: Callable[..., Any], todo: deque[Job], deaths: Deaths) -> None:
        for actor in [actor for actor in self._actors if not actor.job and self._is_up(actor)]:
            for _ in range(len(todo)):
                job = todo.popleft()
                if deaths.wait_seconds(job) > 0:
                    todo.append(job)
                    continue
                actor.job, actor.known = job, {}
                work = actor.handle.work.options(concurrency_group="work")
                actor.answer = work.remote(f"{task.__module__}:{task.__qualname__}", job, self._needs(job))
                break

    def _is_up(self, actor: _Actor) -> bool:
        """Return whether a worker has begun to run; one that cannot is let go.

        Raises:
            InputError: it has another version of ltm.
        """
        if actor.node:
            return True
        if not self._ray.wait([actor.greeting], timeout=0)[0]:
            return False
        try:
            greeting = self._ray.get(actor.greeting)
        except self._ray.exceptions.RayError:
            self._let_go(actor)
            return False
        if greeting["versions"] != _versions():
            raise InputError(
                f"the node {greeting['host']} has {greeting['versions']}, this machine {_versions()}",
                "install the same versions on all nodes",
            )
        actor.node = greeting["node"]
        return True

    def _ready(self) -> list[_Actor]:
        """Wait a moment for workers to end a job, or to die."""
        by_answer = {actor.answer: actor for actor in self._busy()}
        starting = [actor.greeting for actor in self._actors if not actor.node]
        if not by_answer and not starting:
            time.sleep(0.1)
            return []
        ready, _ = self._ray.wait([*by_answer, *starting], timeout=_TICK_SECONDS)
        return [by_answer[ref] for ref in ready if ref in by_answer]

    def _take(self, actor: _Actor, job: Job) -> Outcome | None:
        """Return the outcome, or None if the worker died."""
        try:
            outcome, files = self._ray.get(actor.answer)
        except self._ray.exceptions.OutOfMemoryError as error:
            self._let_go(actor)
            return Outcome(job.key, f"Ray ended its worker for want of memory: {error}".splitlines()[0], OVER_MEMORY)
        except self._ray.exceptions.RayTaskError as error:  # around the job: its task is not there, for example
            actor.job = actor.answer = actor.peek = None
            return Outcome(job.key, str(error.cause or error), type(error).__name__, trace=str(error))
        except self._ray.exceptions.RayError:
            return None
        actor.job = actor.answer = actor.peek = None
        self._write(job.key, files)
        return outcome  # type: ignore[no-any-return]

    def _let_go(self, actor: _Actor) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
        with contextlib.suppress(Exception):  # it may be gone with its node
            self._ray.kill(actor.handle)

    def _ask_to_stop(self) -> None:
        for actor in list(self._actors):
            if actor.job:
                _control(actor.handle.stop).remote()
            else:
                self._let_go(actor)

    def _needs(self, job: Job) -> dict[str, Any] | None:
        """Return what a node without the work folder has to know of a job."""
        if self._inputs is None or self._work is None:
            return None
        root = str(self._work.root)
        name = fingerprint([os.uname().nodename, os.getuid(), root])
        return {"root": root, "name": name, "inputs": self._inputs.of(job.key, self._asked_for.get(job.key, ()))}

    def _asks_for_more(self, outcome: Outcome) -> bool:
        """Note a file that a node misses and this machine has: the weights of another run, for example."""
        if self._work is None or not outcome.damaged or Path(outcome.damaged).is_absolute():
            return False
        asked = self._asked_for.setdefault(outcome.key, set())
        if outcome.damaged in asked or not self._work.path(outcome.damaged).exists():
            return False
        asked.add(outcome.damaged)
        return True

    def _at_home(self, outcome: Outcome) -> Outcome:
        """Return an outcome whose damaged file, if any, is one of this machine's."""
        if self._work is None or not outcome.damaged:
            return outcome
        return dataclasses.replace(outcome, damaged=str(self._work.root / outcome.damaged))  # a whole path stays

    def _send(self, name: str, data: bytes) -> Any:
        if self._cluster.storage:
            return node.put(self._cluster.storage, name, data)
        return self._ray.put(data)

    def _look_at_files(self, actor: _Actor) -> None:
        """Bring heartbeats and checkpoints of a node without the work folder home, now and then."""
        if actor.job is None:
            return
        if actor.peek is None:
            if time.monotonic() - actor.peeked_at >= _PEEK_EVERY_SECONDS:
                actor.peek = _control(actor.handle.peek).remote(actor.job.key, dict(actor.known))
            return
        if not self._ray.wait([actor.peek], timeout=0)[0]:
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            files = self._ray.get(actor.peek)
            actor.known |= {name: stamp for name, stamp, _ in files}
            self._write(actor.job.key, files)
        actor.peek, actor.peeked_at = None, time.monotonic()

    def _write(self, key: str, files: list[tuple[str, tuple[int, int], bytes]]) -> None:
        """Write what a node has made into the work folder; what the end of a run clears away goes here too."""
        if self._inputs is None or self._work is None:
            return
        for name, _, data in files:
            write_bytes(self._work.path(name), data)
        if any(name.endswith("/run.json") for name, _, _ in files):
            for leftover in ("checkpoint.safetensors", "heartbeat.json", "log.txt"):
                self._work.path("runs", key, leftover).unlink(missing_ok=True)
            self._inputs.forget(key)

    def close(self, graceful: bool = True) -> None:
        """End the workers, and the cluster if it is this executor's own."""
        try:
            if graceful and self._busy():
                self._ask_to_stop()
                self._last_words()
            elif self._inputs is not None:
                self._clean_nodes()
        finally:
            for actor in list(self._actors):
                self._let_go(actor)
            if self._own:
                self._ray.shutdown()

    def _last_words(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while (busy := self._busy()) and time.monotonic() < deadline:
            ready, _ = self._ray.wait([actor.answer for actor in busy], timeout=deadline - time.monotonic())
            for actor in busy:
                if actor.answer in ready and actor.job is not None:
                    self._take(actor, actor.job)
                    actor.job = None

    def _clean_nodes(self) -> None:
        by_node = {actor.node: actor for actor in self._actors if actor.node}
        cleaned = [_control(actor.handle.clean).remote() for actor in by_node.values()]
        if cleaned:
            self._ray.wait(cleaned, num_returns=len(cleaned), timeout=_REACH_SECONDS)


def _control(method: Any) -> Any:
    """Return an actor's method as one that is answered while its job runs."""
    return method.options(concurrency_group="control")


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise MissingPartError("runs.executor is ray, but Ray is not installed", _INSTALL) from None
    return ray


def _connect(ray: Any, section: RunsSection) -> bool:
    """Join the cluster; returns whether it is a new one of this process.

    Raises:
        InputError: no cluster answers, or it has another version.
    """
    if ray.is_initialized():
        return False
    address = section.cluster.address
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if not address:
        from ltm.runs import hardware

        n_workers = section.cluster.workers or hardware.n_workers(section, hardware.pick_device(section))
        n_cpus = max(1, round(n_workers * section.cluster.cpus_per_worker))
        ray.init(
            address="local", num_cpus=n_cpus, object_store_memory=_OBJECT_STORE_BYTES, dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1", **quiet,
        )  # fmt: skip
        return True
    _reach(address)
    try:
        quiet.pop("include_dashboard")
        ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "start it (`ray start --head`), name another runs.cluster.address, or leave it empty for a new one here"
        raise InputError(f"cannot join the Ray cluster at {address}: {reason}", hint) from None
    return True


def _reach(address: str) -> None:
    """Ask whether anybody listens: Ray itself would wait for a minute.

    Raises:
        InputError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, or the name of a cluster
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except OSError as error:
        hint = "start it (`ray start --head`), name another runs.cluster.address, or leave it empty for a new one here"
        raise InputError(f"no Ray cluster answers at {address}: {error.strerror or error}", hint) from None


class Worker:
    """A warm worker: one thread trains, another (`control`) hears that it should stop."""

    def __init__(self, threads: int) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when a task imports torch
            os.environ[name] = str(threads)
        keep_freed_memory()
        self.folder: NodeFolder | None = None

    def hello(self) -> dict[str, str]:
        """Tell where this is and which code it has."""
        return {"node": _node_id(), "host": os.uname().nodename, "versions": _versions()}

    def work(self, task: str, job: Job, needs: dict[str, Any] | None) -> tuple[Outcome, list[Any]]:
        """Run a job; returns how it ended and, without a shared folder, the files that it made."""
        module, _, name = task.partition(":")
        function = getattr(import_module(module), name)
        if needs is None:
            return call(function, job), []
        folder = self.folder = NodeFolder(f"{needs['name']}-{_node_id()[:8]}", _bring)
        outcome = call(folder.fetch, Job(job.key, (needs["inputs"],)))
        if outcome.ok:
            outcome = folder.at_home(call(function, folder.here(job, needs["root"])))
        files = list(folder.made(job.key, {}))
        folder.forget(job.key)
        return outcome, files

    def peek(self, key: str, known: dict[str, tuple[int, int]]) -> list[Any]:
        """Return the files of a run under way that have changed."""
        return list(self.folder.made(key, known)) if self.folder is not None else []

    def stop(self) -> None:
        """Ask the job to write a checkpoint and end."""
        ask_this_process_to_stop()

    def clean(self) -> None:
        """Delete this machine's copy of the work folder."""
        if self.folder is not None:
            self.folder.delete()


def _node_id() -> str:
    return str(_import_ray().get_runtime_context().get_node_id())


def _versions() -> str:
    """Return what has to be the same everywhere for a run to come out the same."""
    return f"ltm {version('ltm')}, PyTorch {version('torch').partition('+')[0]}"


def _bring(part: Any) -> bytes:
    data: bytes = node.get(part) if isinstance(part, str) else _import_ray().get(part)
    return data
