"""Eval files and items with planted defects: each is told with file, line and item, and nothing is half-written."""

import json
import time

import pytest

from eval_library import king_james, library
from ltm.errors import ConfigError, StoreError
from ltm.evalset import evalfile, stage
from ltm.evalset.bank import read_bank
from ltm.evalset.questions import questions
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress

SET = "items: [{name: x, file: my.%s}]\n"


def found(folder, yaml, **files):
    """Return the problems of an eval file, paths shortened."""
    for name, content in {"mine__yaml": yaml, **files}.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(ConfigError) as caught:
        questions(EvalsetSection(path=str(folder / "mine.yaml")))
    assert caught.value.hint
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def read(folder, kind, content):
    (folder / f"my.{kind}").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    (folder / "mine.yaml").write_text(SET % kind, encoding="utf-8")
    return questions(EvalsetSection(path=str(folder / "mine.yaml")))[1]


def family(frame, code="en", languages=""):
    return (
        "families:\n  - name: X1\n    ability: transfer\n    builder: frames\n    rule: contrast\n    items: 5\n"
        f"    frames:\n      {code}:\n        - {frame}\n{languages}"
    )


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            '{name: f, facts: ["The {g} met the {h} there."], ask: "It was cold, and soon", answer: "{g:he|she}"}',
            "`facts` must name the answer, and not its counterpart",
        ),
        (
            '{name: f, names: one, facts: ["{A} took {o}.", "{B} took {p}."], ask: "They saw the", answer: "{o}"}',
            "`facts` must name the answer, and not its counterpart",
        ),
        (
            '{name: f, facts: ["{A} took the {o}."], ask: "Now the {o} was with", answer: "{a}"}',
            "`facts` must name both the answer and its counterpart",
        ),
        (
            '{name: f, facts: ["{A} took {o}.", "{B} took {p}."], ask: "Now {b} is not here, but", answer: "{a}"}',
            "`ask` must not name the answer or its counterpart",
        ),
        (
            '{name: f, facts: ["The {g} sat down."], ask: "{g:His|Her} hands were cold, and", answer: "{g:he|she}"}',
            "`ask` must not name the answer or its counterpart",
        ),
        ('{name: f, facts: ["{A} took it.", "{B} left."], ask: "It is with", answer: "{z}"}', "one slot such as"),
        ('{name: f, facts: ["{A} took {r}.", "{B} left."], ask: "It is with", answer: "{a}"}', "unknown slot {r}"),
        ('{name: f, facts: ["{A} took it. {", "{B} left."], ask: "It is with", answer: "{a}"}', "is not closed"),
    ],
)
def test_a_template_that_gives_its_answer_away_is_refused_at_its_line(tmp_path, frame, words):
    problems = found(tmp_path, family(frame))
    assert [line for line in problems if line.startswith("mine.yaml:9:") and words in line], problems


def test_fewer_than_four_pairs_are_refused(tmp_path):
    frame = '{name: sat, facts: ["Die {g} sass am Feuer."], ask: "Es war kalt, und bald kam", answer: "{g:er|sie}"}'
    pairs = "\n".join(f"      - [{{nom: m{i}, gender: m}}, {{nom: f{i}, gender: f}}]" for i in range(3))
    languages = f"languages:\n  de:\n    gender_pairs:\n{pairs}\n"
    (problem,) = found(tmp_path, family(frame, "de", languages))
    assert "template X1.sat needs four or more `gender_pairs` for language `de`" in problem
    (tmp_path / "mine.yaml").write_text(
        family(frame, "de", languages + "      - [{nom: m3, gender: m}, {nom: f3, gender: f}]\n"), encoding="utf-8"
    )
    assert len(questions(EvalsetSection(path=str(tmp_path / "mine.yaml")))[0].families) == 1
    number = '{name: n, facts: ["Der {i} kam."], ask: "Es war kalt, und bald ging", answer: "{i:er|sie}"}'
    assert "needs four or more `number_pairs`" in found(tmp_path, family(number, "de", languages))[0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_change_nothing(tmp_path, end, mark):
    rows = ['{"id": "a", "context": "One,", "options": ["two", "nine"], "answer": 0}', "", '{"id": "b", "text": "é"}']
    table = ["id,context,option_1,option_2,answer", 'a,"One,",two,nine,0', "", "c,Red and,blue,green,B"]
    told = read(tmp_path, "jsonl", mark + end.join(rows))
    assert [(item.name, item.source) for item in told] == [("a", "my.jsonl:1"), ("b", "my.jsonl:3")]
    assert [(item.name, item.source) for item in read(tmp_path, "csv", mark + end.join(table))] == [
        ("a", "my.csv:2"), ("c", "my.csv:4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("jsonl", "", "mine.yaml:1:9: the set x holds no item: my.jsonl is empty"),
        ("csv", "context,option_1,option_2,answer\n", "mine.yaml:1:9: the set x holds no item: my.csv is empty"),
        ("csv", "context,option_1,option_1,answer\nq,a,b,0\n", "my.csv:1: the heading 'option_1' stands twice"),
        ("csv", "context,,option_2,answer\nq,a,b,0\n", "my.csv:1: a column has no heading"),
        ("csv", 'context,option_1,option_2,answer\nq,"a,b,0\n', "my.csv:2: not CSV: unexpected end of data"),
        ("csv", b"context,option_1,option_2,answer\nok,a,b,0\n" + b"caf\xe9,a,b,0", "my.csv:3: not UTF-8"),
        ("jsonl", '{"text": "a"}\n'.encode("utf-16"), "my.jsonl:1: not UTF-8"),
        ("jsonl", '{"text": "a", "text": "b"}', "my.jsonl:1: not JSON that can be read: the key 'text' stands twice"),
        ("jsonl", '{"text": NaN}', "my.jsonl:1: not JSON that can be read: NaN is no number of JSON"),
        ("jsonl", "[" * 100_000, "my.jsonl:1: not JSON that can be read: brackets in brackets without end"),
        ("jsonl", '{"level": ' + "9" * 5000 + "}", "my.jsonl:1: not JSON that can be read: Exceeds the limit"),
        ("jsonl", '\n{"text": "a\\ud800b"}', "my.jsonl:2: not JSON that can be read: half of a surrogate pair"),
        ("jsonl", '\n{"text": "a\\u0000b"}', "my.jsonl:2: not JSON that can be read: the character NUL (\\u0000)"),
        ("jsonl", '{"level": 1e999, "text": "a"}', "my.jsonl:1: not JSON that can be read: 1e999 is too large"),
        ("jsonl", '{"level": -' + "9" * 400 + ".5}", "my.jsonl:1: not JSON that can be read: -99999"),
        ("json", '[{"text": "a"},\n{"text": "\\u0000"}]', "my.json:2: not JSON that can be read: the character NUL"),
        ("json", '[{"text": "1e999"},\n\n{"level": 1E+999}]', "my.json:3: not JSON that can be read: 1E+999 is"),
        ("csv", "context,option_1,option_2,answer\nq,a,b,0\nq,a\0,b,0\n", "my.csv:3: not CSV that can be read: the"),
        ("csv", "context,option_1\0,option_2,answer\nq,a,b,0\n", "my.csv:1: not CSV that can be read: the"),
        ("json", "[" * 100_000, "my.json: not JSON that can be read: brackets in brackets without end"),
        ("json", '[{"text": "a"}, 5]', "my.json[1]: item x[1] must be a mapping (context: ..., options: ...), not 5"),
        ("txt", "hello", "mine.yaml:1:19: my.txt: items are read from .jsonl, .json, .csv and .tsv files"),
    ],
)
def test_a_damaged_data_file_is_told_with_its_line(tmp_path, kind, content, problem):
    (told,) = found(tmp_path, SET % kind, **{f"my__{kind}": content})
    assert told.startswith(problem)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"options": "xy", "answer": 0}, "`options`: Input should be a valid list, not 'xy'"),
        ({"options": ["x", None], "answer": 0}, "`options.1`: Input should be a valid string, not None"),
        ({"options": ["x", "y"], "answer": True}, "`answer`: must be a place, a letter or the text of an option"),
        ({"options": ["x", "y"], "answer": 0.5}, "`answer`: must be a place, a letter or the text of an option"),
        ({"options": ["x", "y"], "answer": [0]}, "`answer`: must be a place, a letter or the text of an option"),
        ({"options": ["x", "y"], "answer": -1}, "`answer` is -1, but it has options 0 to 1"),
        ({"options": ["x", "y"], "answer": 0, "level": -1}, "`level`: Input should be greater than or equal to 0"),
        ({"options": ["x", "y"], "answer": 0, "contxt": "z"}, "has the unknown key `contxt`; did you mean `context`?"),
        ({"context": 5, "text": "x"}, "`context`: Input should be a valid string, not 5"),
        ({"text": ["x" * 500]}, "`text`: Input should be a valid string, not ['xxxx"),
    ],
)
def test_wrong_types_and_keys_are_told_in_one_short_line(tmp_path, item, problem):
    (told,) = found(tmp_path, SET % "jsonl", my__jsonl=json.dumps({"id": "q7", **item}))
    assert told.startswith(f"my.jsonl:1: item q7 {problem}")
    assert len(told) < 200


def test_escapes_and_numbers_that_only_look_wrong_are_read(tmp_path):
    rows = ['{"text": "\\ud83d\\ude00"}', '{"text": "a\\\\u0000 and 1e999"}', '{"text": "\\\\\\"1e999 \\\\ud800"}']
    told = read(tmp_path, "jsonl", "\n".join(rows))
    assert [item.continuations for item in told] == [["\U0001f600"], ["a\\u0000 and 1e999"], ['\\"1e999 \\ud800']]


def test_every_empty_set_is_told_beside_other_problems(tmp_path):
    yaml = "items:\n  - {name: x, file: my.csv}\n  - {name: y, file: no.csv}\n  - {name: z, items: []}\n"
    told = found(tmp_path, yaml, my__csv="context,option_1,option_2,answer\nq,a\n", no__csv="")
    assert told[0].startswith("my.csv:2: has 2 columns")
    assert "the set y holds no item: no.csv is empty" in told[1]
    assert "the set z holds no item: `items` is empty" in told[2]


def test_a_large_file_is_read_in_seconds_and_a_large_broken_one_is_told_shortly(tmp_path):
    rows = [
        json.dumps({"context": f"Number {i} is", "options": ["even", "odd"], "answer": i % 2}) for i in range(20_000)
    ]
    began = time.process_time()
    assert len(read(tmp_path, "jsonl", "\n".join(rows))) == 20_000
    assert time.process_time() - began < 10
    told = found(tmp_path, SET % "jsonl", my__jsonl="\n".join(row.replace("odd", "even") for row in rows))
    assert len(told) == 51
    assert told[-1] == "my.jsonl:51: and so on: the other items of the set x were not looked at"


def test_half_a_surrogate_pair_in_the_eval_file_is_told(tmp_path):
    (told,) = found(tmp_path, 'items: [{name: x, items: [{id: q, text: "a\\uD800b"}]}]')
    assert told.startswith("mine.yaml:1:27: item q holds half of a surrogate pair")


def test_a_bad_eval_file_leaves_no_folder_and_no_half_bank(tmp_path):
    work = library(tmp_path / "work", [("He saw a boat upon the water, and it was white. " * 60, "train", "en")])
    (tmp_path / "mine.yaml").write_text("items: [{name: x, items: [{text: fine}, {context: a}]}]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\[1\]"):
        stage.build(EvalsetSection(path=str(tmp_path / "mine.yaml")), work, 1, Progress(quiet=True))
    assert not work.path("evalset").exists()
    with pytest.raises(StoreError):
        read_bank(work, "a")


def test_a_cut_off_bank_is_refused_and_built_anew(tmp_path):
    work = library(tmp_path, king_james()[:3])
    section = EvalsetSection(families=["T2"], items_per_family=6)
    marks = stage.build(section, work, 1, Progress(quiet=True))
    path = work.path("evalset", "bank_a.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError) as caught:
        read_bank(work, "a")
    assert "bank_a.parquet" in caught.value.message
    assert stage.build(section, work, 1, Progress(quiet=True)) == marks
    assert path.read_bytes() == whole


def test_the_eval_file_that_comes_with_ltm_is_right():
    assert {family.ability for family in evalfile.load(None).families} == {
        "linking", "transfer", "synthesis", "fluency",
    }  # fmt: skip
