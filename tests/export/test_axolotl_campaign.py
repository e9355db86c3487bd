"""A study leaves as Axolotl's: known keys, the exact tokens in their order, the same models to start from."""

import csv
import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML

import tiny_study
import trained_base
from ltm.cli import main
from ltm.errors import ConfigError, InputError
from ltm.export.campaign import export_campaign
from ltm.runs import queue
from ltm.runs.engines import axolotl
from ltm.sets.stage import read_variants
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import load

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A study whose runs start from random weights."""
    root = tmp_path_factory.mktemp("own")
    study = tiny_study.finished(root / "w", 0, **{"runs.device": "cpu", "runs.weight_decay": 0.2})
    told = export_campaign(study.work, root / "out", "demo", "Why?")
    return study, root / "out", told


def rows_of(folder):
    with open(folder / "campaign.csv") as file:
        return list(csv.DictReader(file))


def test_every_run_has_a_configuration_that_axolotl_knows(own):
    study, folder, told = own
    rows, jobs = rows_of(folder), study.jobs()
    assert {row["run_id"] for row in rows} == {job.run_id for job in jobs}
    assert (told["runs"], told["variants"]) == (len(jobs), len({job.variant_id for job in jobs}))
    assert len({(folder / row["config"]).read_text() for row in rows}) < len(rows)  # variants differ by their tokens
    for row in rows:
        values = YAML(typ="safe").load((folder / row["config"]).read_text())
        assert set(values) <= axolotl.known_keys()
        assert (values["curriculum_sampling"], values["sample_packing"], values["val_set_size"]) == (True, False, 0)
        assert (values["seed"], values["weight_decay"], values["bf16"]) == (int(row["init_seed"]), 0.2, False)
        assert (folder / row["config"]).parent.joinpath(values["base_model"], "config.json").is_file()
        assert str(study.work.root) not in (folder / row["config"]).read_text()


def test_rows_are_the_variants_tokens_in_their_order(own):
    study, folder, _ = own
    recipe, _ = queue.read_jobs(study.work)
    tokenizer, shards = load(study.work), read_shards(study.work)
    seen = set()
    for variant in read_variants(study.work)[:4]:
        n = recipe.n_steps() * recipe.runs.batch_tokens
        stream = open_stream(study.work, variant, recipe.sets, shards, tokenizer.bos_id, tokenizer.vocab_size)
        ids = np.array(pq.read_table(folder / variant.variant_id / "stream.parquet")["input_ids"].to_pylist())
        assert ids[:, :-1].flatten().tolist() == stream.read(0, n).tolist()
        assert ids[-1, -1] == stream.read(n, 1)[0]
        seen.add(ids.tobytes())
    assert len(seen) == 4


def test_runs_start_from_the_weights_that_they_have_here(own):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ltm.model.gpt import GPT
    from ltm.model.init import init_weights

    study, folder, _ = own
    seeds = {job.init_seed for job in study.jobs()}
    assert {path.name for path in folder.glob("start-*")} == {f"start-{seed}" for seed in seeds}
    seed = sorted(seeds)[0]
    tokenizer = load(study.work)
    model = GPT(study.settings.model.shape(tokenizer.vocab_size)).eval()
    init_weights(model, seed)
    some = torch.arange(30)[None]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder / f"start-{seed}")(input_ids=some).logits
        assert float((theirs - model(some)).abs().max()) <= 1e-5
    assert AutoTokenizer.from_pretrained(folder / f"start-{seed}")("and").input_ids == tokenizer.encode("and")


def test_what_axolotl_has_not_is_said(own):
    _, folder, told = own
    assert any("muP" in text for text in told["differs"])
    readme = (folder / "README.md").read_text()
    assert "axolotl train config-" in readme
    assert "muP" in readme
    assert "- `" in readme.partition("Books:")[2]


def test_a_base_is_linked_and_named_in_one_place(tmp_path, capsys):
    study, _ = trained_base.study_of(tmp_path, "qlora")
    words = ["export", str(study.work.root), "--to", "axolotl"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == len(study.jobs())
    base = tmp_path / "out" / "base"
    assert base.resolve() == tmp_path / "secret place" / "small"
    values = YAML(typ="safe").load((tmp_path / "out" / rows_of(tmp_path / "out")[0]["config"]).read_text())
    assert (values["base_model"], values["adapter"], values["load_in_4bit"]) == ("../base", "qlora", True)
    assert main(words) != 0
    assert "needs a folder" in capsys.readouterr().err
    assert main([*words, "abc", "--out", "x"]) != 0
    assert "all runs" in capsys.readouterr().err
    with pytest.raises(InputError, match="exists already"):
        export_campaign(study.work, tmp_path / "out", "demo", "")


def test_unknown_keys_and_half_precision_on_a_cpu_are_refused(own, tmp_path):
    work = own[0].work
    recipe, jobs = queue.read_jobs(work)
    for change, error in (({"axolotl": {"lora_rr": 3}}, ConfigError), ({"dtype": "bfloat16"}, InputError)):
        runs = recipe.runs.model_copy(update=change)
        queue.write_jobs(work, dataclasses.replace(recipe, runs=runs), jobs)
        with pytest.raises(error):
            export_campaign(work, tmp_path / "out", "demo", "")
    queue.write_jobs(work, recipe, jobs)
    assert not (tmp_path / "out").exists()
