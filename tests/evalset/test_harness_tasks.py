"""Tasks of lm-evaluation-harness: the same strings as the harness itself makes, and what is refused."""

import json

import pytest

from ltm.errors import ConfigError
from ltm.evalset.questions import questions
from ltm.evalset.section import EvalsetSection

DOCS = [
    {"q": f"Question {i}?", "choices": ["red", "green", "blue"], "label": i % 3, "text": f"Once {i} more"}
    for i in range(7)
]
SHOTS = [{"q": f"Example {i}?", "choices": ["up", "down", "left"], "label": i % 3, "text": f"x {i}"} for i in range(5)]

MULTIPLE = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {train: shots.jsonl, test: docs.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{q}}\\nA:"
doc_to_choice: choices
doc_to_target: label
description: "Answer.\\n\\n"
"""
ROLLING = """
task: words
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
fewshot_split: test
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
"""


def write(folder, yaml):
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCS)), encoding="utf-8")
    (folder / "shots.jsonl").write_text("\n".join(map(json.dumps, SHOTS)), encoding="utf-8")
    path = folder / "task.yaml"
    path.write_text(yaml, encoding="utf-8")
    return path


def drafts(path):
    return questions(EvalsetSection(path=str(path)))[1]


def test_a_bare_task_file_is_an_eval_file(tmp_path):
    found = drafts(write(tmp_path, MULTIPLE))
    assert len(found) == 7
    first = found[0]
    assert first.contexts[0] == "Answer.\n\nQ: Question 0?\nA:"
    assert first.continuations == [" red", " green", " blue"]
    assert [draft.gold for draft in found] == [i % 3 for i in range(7)]
    assert (first.family, first.ability, first.rule, first.source) == (
        "colours",
        "colours",
        "likelihood",
        "docs.jsonl:1",
    )


def test_loglikelihood_scores_the_target_after_the_text(tmp_path):
    found = drafts(write(tmp_path, ROLLING))
    assert (found[2].rule, found[2].contexts, found[2].continuations) == ("bits_per_byte", ["Once 2"], [" more"])


def test_tasks_are_named_in_an_eval_file_and_join_an_ability(tmp_path):
    write(tmp_path, MULTIPLE)
    (tmp_path / "mine.yaml").write_text(
        "extends: ltm\ntasks:\n  - task.yaml\n  - {include: task.yaml, task: more, ability: transfer, limit: 2}\n",
        encoding="utf-8",
    )
    found = drafts(tmp_path / "mine.yaml")
    assert [d.family for d in found] == ["colours"] * 7 + ["more"] * 2
    assert found[-1].ability == "transfer"


@pytest.mark.parametrize(("shots", "sampler"), [(0, "default"), (2, "default"), (3, "first_n")])
@pytest.mark.parametrize("kind", [MULTIPLE, ROLLING])
@pytest.mark.filterwarnings("ignore")
def test_prompts_are_those_of_the_harness(tmp_path, monkeypatch, kind, shots, sampler):
    pytest.importorskip("datasets")
    api = pytest.importorskip("lm_eval.api.task")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, f"{kind}num_fewshot: {shots}\nfewshot_config: {{sampler: {sampler}}}\n")
    from ruamel.yaml import YAML

    config = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    task = api.ConfigurableTask(
        config={**config, "dataset_kwargs": {**config["dataset_kwargs"], "cache_dir": str(tmp_path)}}
    )
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=None, rank=0, world_size=1)
    theirs = [tuple(instance.args) for instance in task.instances]
    ours = [cell for draft in drafts(path) for cell in zip(draft.contexts, draft.continuations, strict=True)]
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('doc_to_text: "Q: {{q}}', 'doc_to_text: "Q: {{qq}}'), "'qq' is undefined"),
        (("doc_to_target: label", "doc_to_target: q"), "is none of its choices"),
        (("doc_to_choice: choices", "doc_to_choice: [a, a]"), "options 0 and 1 are the same text"),
        (("doc_to_choice: choices\n", ""), "needs `doc_to_choice`"),
        (("output_type: multiple_choice", "outptu_type: multiple_choice"), "did you mean `output_type`?"),
        (("dataset_path: json", "dataset_path: allenai/ai2_arc"), "must be one of json, csv, parquet"),
        (("test: docs.jsonl", "test: nothing.jsonl"), "cannot read nothing.jsonl"),
        (("test_split: test", "test_split: dev"), "has no split `dev`"),
        (("task: colours", "process_docs: !function utils.process_docs\ntask: colours"), "runs no code of tasks"),
        (("{{q}}", "{{q.__class__.__mro__}}"), "unsafe"),
        (("task: colours", "num_fewshot: 9\ntask: colours"), "wants 9 few-shot examples, but there are 5"),
        (("task: colours\n", ""), "the task needs a name"),
    ],
)
def test_what_is_wrong_with_a_task_is_told(tmp_path, change, words):
    path = write(tmp_path, MULTIPLE.replace(*change))
    with pytest.raises(ConfigError) as caught:
        drafts(path)
    assert words in str(caught.value)


def test_columns_of_numbers_in_csv_are_numbers(tmp_path):
    (tmp_path / "docs.csv").write_text("q,label,year\nOne,1,1.5\nTwo,0,2\n", encoding="utf-8")
    path = tmp_path / "task.yaml"
    path.write_text(
        "{task: t, dataset_path: csv, data_files: docs.csv, output_type: multiple_choice, doc_to_choice: [a, b],"
        " doc_to_text: '{{q}} {{year}}', doc_to_target: label}",
        encoding="utf-8",
    )
    found = drafts(path)
    assert [d.gold for d in found] == [1, 0]
    assert found[1].contexts[0] == "Two 2.0"
