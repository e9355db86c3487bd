"""The largest micro batch that fits, half of it when memory ran out, and the same gradient either way."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import types
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltm.errors import InputError, TrainError
from ltm.model.sizes import SIZES
from ltm.runs import free_memory
from ltm.runs.micro_batch import (
    candidates,
    free_caches,
    halved,
    is_out_of_memory,
    largest_that_fits,
    nearest_micro,
    run_with_halving,
    worker_bytes,
)

blocks = st.sampled_from([1, 7, 64, 128, 256, 1000])
counts = st.integers(1, 3000)


@given(counts, blocks)
def test_every_candidate_divides_the_batch_and_holds_whole_sequences(n_sequences, block):
    batch = n_sequences * block
    found = candidates(batch, block)
    assert found == [m for m in range(batch, 0, -block) if batch % m == 0]


@given(counts, blocks)
def test_halving_ends_at_one_sequence_in_few_steps(n_sequences, block):
    batch = n_sequences * block
    micro, ladder = batch, [batch]
    while (smaller := halved(micro, batch, block)) is not None:
        assert smaller <= micro / 2
        assert smaller in candidates(batch, block)
        micro = smaller
        ladder.append(micro)
    assert micro == block
    assert len(ladder) <= 1 + math.log2(n_sequences)


@given(counts, blocks, st.integers(1, 10**7))
def test_no_candidate_is_nearer_than_the_nearest(n_sequences, block, wrong):
    batch = n_sequences * block
    near = nearest_micro(wrong, batch, block)
    assert all(abs(near - wrong) <= abs(other - wrong) for other in candidates(batch, block))


@pytest.mark.parametrize(("batch", "block"), [(1000, 256), (0, 256), (100, 256)])
def test_a_batch_without_whole_sequences_is_refused(batch, block):
    with pytest.raises(InputError, match="whole sequences") as error:
        candidates(batch, block)
    assert int(error.value.hint.rpartition("=")[2]) % block == 0


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("size", ["llama-0.5m", "gpt2-125m", "mistral-30m"])
def test_the_largest_that_fits_fits_and_the_next_does_not(device, dtype, size):
    config = dataclasses.replace(SIZES[size], vocab_size=8192)
    batch = 48 * config.block_size
    sizes = candidates(batch, config.block_size)
    needed = [worker_bytes(config, micro, dtype, device) for micro in sizes]
    assert needed == sorted(needed, reverse=True)
    for free in (0.0, needed[-1], needed[3] * 1.001, needed[0], 1e15):
        micro = largest_that_fits(config, batch, dtype, device, free)
        place = sizes.index(micro)
        assert needed[place] <= free or micro == config.block_size
        assert place == 0 or needed[place - 1] > free


def test_checkpointing_moves_the_largest_that_fits():
    config = dataclasses.replace(SIZES["llama-15m"], vocab_size=8192)
    batch = 64 * config.block_size
    free = worker_bytes(config, batch // 4, "float32", "cpu")
    plain = largest_that_fits(config, batch, "float32", "cpu", free)
    assert plain == batch // 4
    again = largest_that_fits(config, batch, "float32", "cpu", free, activation_checkpointing=True)
    assert again > plain


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
        (OSError(12, "Cannot allocate memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(error, expected):
    assert is_out_of_memory(error) is expected


def test_memory_that_ran_out_while_a_graph_was_recorded_is_found_behind_the_error_that_arrives():
    def recording(inner):
        try:
            raise inner
        finally:  # leaving the recording fails in turn
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    for inner, expected in ((torch.OutOfMemoryError("CUDA out of memory"), True), (RuntimeError("a bug"), False)):
        with pytest.raises(RuntimeError, match="during capture") as error:
            recording(inner)
        assert is_out_of_memory(error.value) is expected
    with pytest.raises(RuntimeError) as error:
        raise RuntimeError("the compiler failed") from torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(error.value)

    def mistaken():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError:
            raise RuntimeError("shapes do not fit")  # noqa: B904  (a bug of its own, met on the way)

    with pytest.raises(RuntimeError, match="shapes") as error:
        mistaken()
    assert not is_out_of_memory(error.value)


def test_recorded_graphs_are_dropped_before_the_next_attempt_on_a_card(monkeypatch):
    did = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: did.append("cache"))
    monkeypatch.setitem(sys.modules, "torch._dynamo", types.SimpleNamespace())
    monkeypatch.setattr(torch, "_dynamo", types.SimpleNamespace(reset=lambda: did.append("graphs")), raising=False)
    free_caches()
    assert did == ["graphs", "cache"]


def test_an_allocation_that_no_machine_can_make_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**48)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("no"), KeyboardInterrupt(), TrainError("x")]
)
def test_any_other_error_passes_through_untouched(error):
    tried = []

    def attempt(micro):
        tried.append(micro)
        raise error

    with pytest.raises(type(error)) as raised:
        run_with_halving(attempt, 1024, 1024, 256, on_halve=lambda *_: pytest.fail("halved"))
    assert raised.value is error
    assert tried == [1024]


class _Held:
    """Stands for the tensors of a failed attempt."""


def test_a_failed_attempt_is_forgotten_before_the_next_and_each_half_is_said():
    held, said = [], []

    def attempt(micro):
        assert all(reference() is None for reference in held), "the failed attempt still holds its memory"
        tensors = _Held()
        held.append(weakref.ref(tensors))
        if micro > 512:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return micro

    assert run_with_halving(attempt, 4096, 4096, 256, on_halve=lambda *pair: said.append(pair)) == 512
    assert said == [(4096, 2048), (2048, 1024), (1024, 512)]


def test_when_not_one_sequence_fits_the_way_out_is_said():
    def attempt(_micro):
        raise MemoryError

    with pytest.raises(TrainError, match="one sequence of 256 tokens does not fit") as error:
        run_with_halving(attempt, 1024, 1024, 256)
    for way in ("model.size", "block_size", "workers", "activation_checkpointing"):
        assert way in error.value.hint


_CHILD = """
import dataclasses, json, resource, sys, torch
from ltm.model.gpt import GPT
from ltm.model.sizes import SIZES
from ltm.runs.free_memory import fence
from ltm.runs.micro_batch import run_with_halving

kind, more = sys.argv[1], 150e6
torch.set_num_threads(1)
torch.manual_seed(1)
config = dataclasses.replace(SIZES["llama-1m"], vocab_size=512)
batch, block = 16 * config.block_size, config.block_size
model = GPT(config)
tokens = torch.randint(0, 512, (batch + 1,))

def step(micro):
    model.zero_grad(set_to_none=True)
    for start in range(0, batch, micro):
        piece = tokens[start : start + micro + 1]
        loss = model.loss(piece[:-1].view(-1, block), piece[1:].view(-1, block)) / (batch // micro)
        loss.backward()
    return micro, [p.grad.clone() for p in model.parameters()]

step(block)  # work space that every size needs
halves = []
if kind == "fence":
    with fence(more):
        micro, cut = run_with_halving(step, batch, batch, block, lambda *pair: halves.append(pair))
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
else:
    size = 1024 * next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize:"))
    resource.setrlimit(resource.RLIMIT_AS, (int(size + more), resource.RLIM_INFINITY))
    micro, cut = run_with_halving(step, batch, batch, block, lambda *pair: halves.append(pair))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
_, whole = step(batch)
worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(cut, whole))
# not ru_maxrss: that begins with what the process had before its exec, the test program's own
status = open("/proc/self/status").read()
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({"halves": halves, "micro": micro, "batch": batch, "worst": worst, "peak": peak}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
@pytest.mark.parametrize("kind", ["fence", "address space"])
def test_a_real_step_that_runs_out_of_memory_goes_on_with_less_and_has_the_same_gradient(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path))  # no calibration of this machine, quick as a test's can be
    done = subprocess.run([sys.executable, "-c", _CHILD, kind], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["halves"]
    assert found["halves"][0][0] == found["batch"]
    assert found["micro"] == found["halves"][-1][1] < found["batch"]
    assert found["worst"] < 1e-4
    config = dataclasses.replace(SIZES["llama-1m"], vocab_size=512)
    forecast = worker_bytes(config, found["batch"], "float32", "cpu")
    assert 0.4 * forecast < found["peak"] < forecast, "the forecast's upper end does not hold the measured peak"


def _write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _machine(tmp_path, groups):
    _write(tmp_path, proc__meminfo="MemTotal: 16000000 kB\nMemFree: 10 kB\nMemAvailable:   8000000 kB\n")
    _write(tmp_path, proc__self__cgroup=groups)
    return tmp_path


def test_free_memory_is_what_the_machine_has_left_divided_by_its_workers(tmp_path):
    root = _machine(tmp_path, "0::/\n")
    assert free_memory.free_bytes("cpu", root=root) == 8_000_000 * 1024
    assert free_memory.free_bytes("cpu", 4, root) == 2_000_000 * 1024


def test_limits_of_control_groups_count_at_every_level(tmp_path):
    root = _machine(tmp_path, "0::/batch/job\n")
    unlimited = {"memory.max": "max\n", "memory.current": "77\n"}
    for folder, files in {
        "sys/fs/cgroup/batch": {"memory.max": "3000000000\n", "memory.current": "1000000000\n",
                                "memory.stat": "anon 5\ninactive_file 400000000\n"},
        "sys/fs/cgroup/batch/job": unlimited,
    }.items():  # fmt: skip
        for name, text in files.items():
            _write(root, **{f"{folder}/{name}": text})
    assert free_memory.free_bytes("cpu", root=root) == 2_400_000_000
    _write(root, **{"sys/fs/cgroup/batch/job/memory.max": "500000077\n"})
    assert free_memory.free_bytes("cpu", 5, root) == 100_000_000


def test_version_1_groups_and_their_sign_for_no_limit(tmp_path):
    root = _machine(tmp_path, "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/\n")
    folder = "sys/fs/cgroup/memory"  # inside a container the group is seen as the root
    _write(root, **{f"{folder}/memory.limit_in_bytes": "9223372036854771712", f"{folder}/memory.usage_in_bytes": "9"})
    assert free_memory.free_bytes("cpu", root=root) == 8_000_000 * 1024
    _write(root, **{f"{folder}/memory.limit_in_bytes": "1000", f"{folder}/memory.usage_in_bytes": "1500"})
    assert free_memory.free_bytes("cpu", root=root) == 0


CARDS = "".join(
    f"{index}, GPU-{uuid}, {free}, NVIDIA H100, [N/A]\\n"
    for index, uuid, free in ((0, "aaa", 40000), (1, "bbb", 10000), (2, "ccc", 70000))
)
MIXED = CARDS.replace("H100", "L40", 1)


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """An `nvidia-smi` that says what a test wants; PyTorch must not be asked unless it has to."""

    def say(text, visible=None, torch_says=None):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{text}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
        told = torch_says or []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(told))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index=0: told[index])
        return free_memory.free_bytes("cuda", 2)

    return say


@pytest.mark.parametrize(
    ("visible", "fullest_mib"), [(None, 10_000), ("0,2", 40_000), ("GPU-ccc", 70_000), ("2, GPU-bbb", 10_000)]
)
def test_the_fullest_of_the_visible_cards_counts(cards, visible, fullest_mib):
    assert cards(CARDS, visible) == fullest_mib * 2**20 / 2


def test_the_number_of_a_card_is_trusted_only_where_all_are_alike_or_counted_by_place(cards, monkeypatch):
    assert cards(MIXED, "2") == 10_000 * 2**20 / 2
    assert cards(MIXED, "GPU-ccc") == 70_000 * 2**20 / 2
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert cards(MIXED, "2") == 70_000 * 2**20 / 2


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("", None),
        ("0, GPU-aaa, [N/A], NVIDIA H100, Disabled\\n", None),
        ("0, GPU-aaa, 40000, NVIDIA H100, Enabled\\n", None),
        (CARDS, "MIG-123"),
    ],
)
def test_where_the_driver_does_not_tell_pytorch_is_asked(cards, text, visible):
    assert cards(text, visible, [(8e9, 9e9), (6e9, 9e9)]) == 3e9


def test_a_worker_keeps_to_its_part_of_a_card(monkeypatch):
    shares = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1e9, 40e9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    with free_memory.card_fence(10.6e9):
        assert shares == [0.25]
    with pytest.raises(KeyError), free_memory.card_fence(1e8):
        raise KeyError
    with free_memory.card_fence(1e15):
        pass
    assert shares == [0.25, 1.0, 0.0, 1.0, 1.0, 1.0]


def test_a_system_without_proc_counts_half_its_memory(tmp_path):
    import os

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free_memory.free_bytes("cpu", root=tmp_path) == total / 2


def test_a_fence_never_loosens_a_limit_and_does_nothing_without_proc(tmp_path):
    code = (
        "import resource, pathlib, sys\nfrom ltm.runs.free_memory import fence\n"
        "limit = lambda: resource.getrlimit(resource.RLIMIT_DATA)[0]\n"
        "with fence(1e9, pathlib.Path(sys.argv[1])): assert limit() == resource.RLIM_INFINITY\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (10**9, resource.RLIM_INFINITY))\n"
        "with fence(1e12): assert limit() == 10**9\n"
        "with fence(1e6): assert limit() < 10**9\n"
        "assert limit() == 10**9\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
