"""What a user gets for bad input: a message with its place, exit code 2, no traceback, nothing lost."""

import copy
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ltm as package
from ltm.config import Document, validate
from ltm.errors import ConfigError
from ltm.runs import capabilities
from ltm.runs.capabilities import Abilities
from ltm.study import check_machine
from ltm.study.check import findings
from ltm.study.check_file import everything_wrong
from ltm.study.settings import StudySettings

ROOT = Path(__file__).parents[2]


def ltm(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "ltm.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert "Traceback" not in done.stderr
    return done


def study(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\n" + text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("books: {path: /no/such/folder}\n", "no such folder of books: /no/such/folder"),
        ("sets: {books_per_set: 67}\n", ":2:8: `sets.books_per_set` is 67, but the library has 66 files"),
        (
            "runs: {batch_tokens: 1000}\n",
            "`runs.batch_tokens` is 1000, not a multiple of the block size 256; nearest: 1024",
        ),
        ("setz: {}\n", ":2:1: unknown key `setz`; did you mean `sets`?"),
        ("seed: 1\nseed: 2\n", ':3:1: found duplicate key "seed"'),
        ("sets: {count: many}\n", "`sets.count` not a count: 'many'"),
        ("sets: {book_tokens: 64, books_per_set: 3}\n", "steps for 192 tokens a run; at least 10"),
        ("evalset: {path: none.yaml}\n", "`evalset.path` no such file: none.yaml"),
        ("runs: {device: cuda}\n", "`runs.device` is cuda, but PyTorch sees no GPU here; nearest: auto"),
        ("model: {n_head: 5}\n", ":2:9: `model` n_head 5 does not divide n_embd 96; nearest: 4"),
        (
            "runs: {micro_batch_tokens: 600}\n",
            ":2:8: `runs` micro_batch_tokens 600 does not divide batch_tokens 512; ",
        ),
    ],
)
def test_check_names_place_and_remedy(tmp_path, text, expected):
    if "cuda" in text:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    path = study(tmp_path, text)
    done = ltm("check", path)
    assert done.returncode == 2
    assert expected in done.stderr
    refused = ltm("run", path, "--work", tmp_path / "w")
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert not (tmp_path / "w" / "runs").exists()


def test_check_as_json_is_one_document(tmp_path):
    done = ltm("check", study(tmp_path, "setz: {}\n"), "--json")
    assert json.loads(done.stdout)["ok"] is False
    good = ltm("check", study(tmp_path, ""), "--json")
    assert (good.returncode, json.loads(good.stdout)) == (0, {"ok": True, "problems": [], "warnings": []})


def found(tmp_path, text):
    """Return the problems and warnings of a study, in this process."""
    try:
        notes = package.load(study(tmp_path, text)).notes()
    except ConfigError as error:
        return error.problems, []
    return notes.problems, notes.warnings


PROBLEMS = [
    ("model: {n_head: 3, n_embd: 99}", ":2:20: `model` rotary positions need an even head size", "nearest: n_embd 96"),
    ("model: {n_head: 4, n_kv_head: 3}", ":2:20: `model` n_kv_head 3 does not divide n_head 4", "nearest: 2"),
    ("model: {size: llama-5m, n_head: 3}", ":2:25: `model` n_head 3 does not divide n_embd 256", "nearest: "),
    ("model: {size: llama-5mm}", "unknown size `llama-5mm`", "nearest: llama-5m"),
    ("model: {block_size: 0}", "`model.block_size` must be greater than or equal to 1", "nearest: 1"),
    ("model: {block_size: 300000}", ":2:9: `model.block_size` is 300000, longer than a whole set", "nearest: 20000"),
    ("model: {window: 64}", ":2:9: `model.window` is 64, but llama has no sliding window", "nearest: set model.family"),
    ("model: {size: mistral-5m, family: gpt2, n_kv_head: 4}", ":2:27: `model.family` is gpt2", "a model.size of gpt2"),
    (
        "runs: {batch_tokens: 1000}",
        "`runs.batch_tokens` is 1000, not a multiple of the block size 256",
        "nearest: 1024",
    ),
    ("runs: {batch_tokens: 32768}", "leaves 6 steps for 200000 tokens a run; at least 10", "nearest: 19968"),
    ("runs: {batch_tokens: 300032}", "leaves 0 steps for 200000 tokens a run; at least 10", "nearest: 19968"),
    ("runs: {micro_batch_tokens: 600}", ":2:8: `runs` micro_batch_tokens 600 does not divide", "nearest: 512"),
    ("runs: {micro_batch_tokens: 128}", "is 128, not a multiple of the block size 256", "nearest: 256"),
    ("sets: {book_tokens: 64, books_per_set: 4, epochs: 40}", "more than the 256 tokens of a whole set", "256"),
    ("sets: {book_tokens: 64, books_per_set: 3}", "at least 10: raise sets.book_tokens to 854", ""),
    (
        "tokens: {vocab_size: 3000000000}",
        ":2:10: `tokens.vocab_size` must be less",
        "(token ids are stored in 16 or 32",
    ),
    ("tokens: {vocab_size: 3000000000}", "not 3000000000", "nearest: 2147483647"),
    ("tokens: {vocab_size: 100}", "not 100 (256 bytes and a start mark)", "nearest: 257"),
    ("runs: {device: gpu}", ":2:8: `runs.device` must be 'auto', 'cpu'", "not 'gpu'; nearest: cuda"),
    ("runs: {device: 'cuda:1'}", "not 'cuda:1'", "nearest: cuda"),
    ("runs: {dtype: bf16}", ":2:8: `runs.dtype` must be 'auto', 'float32'", "not 'bf16'; nearest: bfloat16"),
    ("runs: {dtype: fp32}", "not 'fp32'", "nearest: float32"),
    ("runs: {dtype: half}", "not 'half'", "nearest: float16"),
    ("runs: {device: metal}", "not 'metal'", "nearest: mps"),
    ("runs: {compile: maybe}", ":2:8: `runs.compile` must be 'auto' or a valid boolean, not 'maybe'", ""),
    ("runs: {schedule: cosin}", "not 'cosin'", "nearest: cosine"),
]


@pytest.mark.parametrize(("text", "what", "nearest"), PROBLEMS)
def test_what_could_not_be_trained_is_said_with_the_nearest_value(tmp_path, text, what, nearest):
    problems, _ = found(tmp_path, text + "\n")
    assert any(what in line and nearest in line for line in problems), problems
    assert all(str(tmp_path / "s.yaml") in line for line in problems)


WARNINGS = [
    ("model: {size: mistral-5m, window: 1024}", ":2:27: `model.window` is 1024, not below the block size 512", "256"),
    ("model: {family: mistral}", ":2:9: `model.family` is mistral, but no window is set", "model.window to 128"),
    ("runs: {batch_tokens: 16384}", "`runs.batch_tokens` leaves only 12 steps", "nearest: 9984"),
    ("tokens: {vocab_size: 300000}", "more than 4000000 bytes of text can fill", "nearest: 80257"),
    ("sets: {book_tokens: 200, epochs: 99}", "longer than the 200 tokens that each book gives", "nearest: 192"),
    ("model: {size: llama-7b}\nruns: {batch_tokens: 4096}", ":2:9: `model.size` takes up to", "choose a smaller model"),
    ("runs: {workers: 4000}", ":2:8: `runs.workers` is 4000, but each worker takes up to", "nearest: "),
]


@pytest.mark.parametrize(("text", "what", "nearest"), WARNINGS)
def test_what_is_hardly_meant_is_a_warning(tmp_path, monkeypatch, text, what, nearest):
    monkeypatch.setattr(check_machine, "free_bytes", lambda _device: 16e9)
    monkeypatch.setattr(capabilities, "may_have_accelerator", lambda: False)
    problems, warnings = found(tmp_path, text + "\n")
    assert not problems
    assert [line for line in warnings if what in line and nearest in line], warnings


def test_a_micro_batch_above_the_memory_is_a_warning_with_one_that_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(capabilities, "may_have_accelerator", lambda: False)
    monkeypatch.setattr(check_machine, "free_bytes", lambda _device: 2e9)
    text = "model: {size: llama-5m}\nruns: {workers: 1, batch_tokens: 8192, micro_batch_tokens: 8192}\n"
    problems, warnings = found(tmp_path, text)
    assert not problems
    (line,) = warnings
    assert ":3:40: `runs.micro_batch_tokens` is 8192, which takes up to" in line
    nearest = int(line.rpartition(" ")[2])
    assert 0 < nearest < 8192
    assert found(tmp_path, text.replace("micro_batch_tokens: 8192", f"micro_batch_tokens: {nearest}")) == ([], [])


def test_a_book_shorter_than_a_sequence_is_a_warning_that_names_it(tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    for i in range(30):
        (library / f"{i}.txt").write_text("word " * (300 if i == 7 else 3000))
    text = f"books: {{path: {library}, min_words: 100}}\nmodel: {{block_size: 1024}}\nruns: {{batch_tokens: 2048}}\n"
    problems, warnings = found(tmp_path, text)
    assert not problems
    assert any(
        ":3:9: `model.block_size` is 1024, longer than 1 of the 30 files" in w and "7.txt" in w for w in warnings
    )
    assert found(tmp_path, text.replace("1024}", "256}")) == ([], [])


def test_warnings_do_not_stop_a_study(tmp_path):
    path = study(tmp_path, "tokens: {vocab_size: 300000}\n")
    done = ltm("check", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: fine\n")
    assert done.stderr.startswith(f"warning: {path}:2:10: `tokens.vocab_size` is 300000")
    value = json.loads(ltm("check", path, "--json").stdout)
    assert value["ok"] is True
    assert len(value["warnings"]) == 1


def test_everything_wrong_is_found_at_once_and_said_once(tmp_path):
    text = (
        "model: {n_head: 5}\nruns: {device: gpu, batch_tokens: 1000}\nsetz: {}\nsets: {books_per_set: 67, count: 0}\n"
    )
    problems, _ = found(tmp_path, text + "evalset: {path: none.yaml}\n")
    for place in (":2:9:", ":3:8:", ":3:21:", ":4:1:", ":5:8:", ":5:27:", ":6:11:"):
        assert sum(place in line for line in problems) == 1, (place, problems)
    assert len(problems) == 7


def test_nothing_is_said_on_account_of_a_value_that_is_not_known(tmp_path):
    problems, _ = found(tmp_path, "model: {block_size: many}\nruns: {batch_tokens: 1000}\n")
    assert len(problems) == 1
    assert "`model.block_size`" in problems[0]
    problems, _ = found(tmp_path, "model: 5\nruns: {batch_tokens: 1000}\nsets: [1]\n")
    assert len(problems) == 2


def test_a_name_that_is_missing_or_wrong_does_not_hide_the_rest(tmp_path):
    for first in ("", "name: [1]\n"):
        path = tmp_path / "s.yaml"
        path.write_text(first + "runs: {batch_tokens: 1000}\n")
        with pytest.raises(ConfigError) as error:
            package.load(path)
        assert len(error.value.problems) == 2
        assert "`name`" in error.value.problems[0]
        assert "nearest: 1024" in error.value.problems[1]


@pytest.mark.parametrize(
    ("dtype", "able", "stops", "nearest"),
    [
        ("tf32", Abilities("cpu", cpu_flags=frozenset({"avx2"})), True, "float32"),
        ("bfloat16", Abilities("cpu", cpu_flags=frozenset({"avx2"})), False, "float32"),
        ("float16", Abilities("cpu", cpu_flags=frozenset({"amx_bf16"})), False, "bfloat16"),
        ("bfloat16", Abilities("cuda", "Tesla V100", cuda_capability=(7, 0)), True, "float16"),
    ],
)
def test_a_precision_the_device_lacks(tmp_path, monkeypatch, dtype, able, stops, nearest):
    monkeypatch.setattr(check_machine, "_device", lambda *_: able.device)
    monkeypatch.setattr(capabilities, "abilities", lambda _device: able)
    one = package.load(study(tmp_path, "runs:\n  dtype: float32\n"))
    runs = one.settings.runs.model_copy(update={"dtype": dtype})
    notes = findings(one.settings.model_copy(update={"runs": runs}), one.document)
    (line,) = notes.problems if stops else notes.warnings
    assert f"s.yaml:3:3: `runs.dtype` is {dtype}: " in line
    assert line.endswith(f"; nearest: {nearest}")
    assert not (notes.warnings if stops else notes.problems)


def test_a_compiler_that_is_missing_is_said_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(capabilities, "may_have_accelerator", lambda: False)
    problems, _ = found(tmp_path, "runs: {compile: true}\n")
    assert [line.partition("s.yaml")[2] for line in problems] == [
        ":2:8: `runs.compile` needs a C++ compiler: install g++ or clang++; nearest: false"
    ]


_VALUES = (0, 1, 5, 7, 100, 256, 99_999, 3_000_000_000, "x", "auto", "cuda", "gpu", None, [], [1], {}, {"a": 1}, True,
           1.5, "10k", "llama-5m", "mistral-5m", "gpt2-5m")  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_no_study_file_is_too_wrong_to_be_explained(seed):
    rng = random.Random(seed)
    data = {"name": "s"} if seed % 5 else {}
    for name in rng.sample(["sets", "tokens", "model", "runs", "evalset", "scores", "budget", "zz"], 3):
        field = StudySettings.model_fields.get(name)
        keys = [*field.annotation.model_fields, "zz"] if field else ["zz"]
        section = {rng.choice(keys): rng.choice(_VALUES) for _ in range(3)}
        data[name] = section if rng.random() < 0.9 else rng.choice(_VALUES)
    document = Document(data, {(): (1, 1)}, "f.yaml")
    before = copy.deepcopy(data)
    try:
        lines = findings(validate(StudySettings, document), document).problems
    except ConfigError:
        lines = everything_wrong(document)
        assert lines
    assert len(set(lines)) == len(lines)
    assert all(line.startswith("f.yaml:1:1: ") for line in lines)
    assert data == before


def test_overrides_are_named_as_such(tmp_path):
    with pytest.raises(ConfigError) as error:
        package.load(study(tmp_path, ""), ["model.n_head=5", "runs.batch_tokens=1000"])
    assert [line.split(": ")[0] for line in error.value.problems] == ["--set model.n_head", "--set runs.batch_tokens"]


def test_check_is_quick_and_without_torch(tmp_path):
    code = (
        "import sys, ltm; from pathlib import Path; ltm.load(sys.argv[1]).notes(); "
        "print('torch' in sys.modules or any(Path(p).exists() for p in ('/dev/nvidiactl', '/dev/kfd')))"
    )
    start = time.perf_counter()
    path = study(tmp_path, "runs: {dtype: bfloat16, compile: true, device: cpu}\n")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 3
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["demo.yaml", "ltm_bruteforce_pipeline.yaml"])
def test_the_studies_that_come_with_ltm_are_fine(name):
    assert ltm("check", ROOT / "studies" / name).returncode == 0


def test_packaged_studies_are_found_by_name(tmp_path):
    assert ltm("check", "demo", cwd=tmp_path).returncode == 0
    unknown = ltm("check", "dmo", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "demo, ltm_bruteforce_pipeline" in unknown.stderr


def test_an_empty_library_is_said(tmp_path):
    (tmp_path / "books").mkdir()
    path = study(tmp_path, f"books: {{path: {tmp_path / 'books'}}}\nsets: {{books_per_set: 1}}\n")
    done = ltm("run", path, "--work", tmp_path / "w")
    assert done.returncode == 2
    assert "0 files" in done.stderr or "no usable book" in done.stderr


def test_init_writes_a_study_that_is_fine_and_is_never_overwritten(tmp_path):
    assert ltm("init", "mine", cwd=tmp_path).returncode == 0
    assert ltm("check", "mine.yaml", cwd=tmp_path).returncode == 0
    assert "exists already" in ltm("init", "mine", cwd=tmp_path).stderr
    assert "cannot name a study" in ltm("init", "a/b", cwd=tmp_path).stderr


def test_status_of_a_study_that_was_never_run(tmp_path):
    done = ltm("status", "demo", "--json", "--work", tmp_path / "w")
    value = json.loads(done.stdout)
    assert set(value["runs"]) == {"waiting", "running", "complete", "failed", "lost", "stopped"}
    assert value["eta_seconds"] is None
    assert value["elapsed_seconds"] == 0


def test_plan_says_time_money_and_power_before_anything_is_trained(tmp_path):
    value = json.loads(ltm("plan", "demo", "--json", "--work", tmp_path / "w").stdout)
    assert 0 < value["seconds_low"] < value["seconds"] < value["seconds_high"]
    assert {s["stage"] for s in value["stages"]} >= {"books", "tokens", "runs", "scores", "patterns"}
    assert value["disk_bytes"] > 0
    assert value["cost_usd_range"][0] < value["cost_usd"] < value["cost_usd_range"][1]
    assert value["power"]["n_books"] == 56
    assert not (tmp_path / "w").exists() or not any((tmp_path / "w").glob("runs/*"))


def test_help_is_fast_and_without_torch():
    code = (
        "import sys, time; t = time.time(); import ltm.cli; ltm.cli._parser().format_help(); "
        "print(time.time() - t, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    seconds, torch, pydantic = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (torch, pydantic) == ("False", "False")
    assert float(seconds) < 0.3
