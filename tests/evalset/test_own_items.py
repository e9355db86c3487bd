"""A user's own items: what they become, and every way in which they can be wrong."""

import json

import pytest

from eval_library import library
from ltm.errors import ConfigError
from ltm.evalset import stage
from ltm.evalset.bank import read_bank
from ltm.evalset.questions import questions, sources
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress

TEXT = "The old man went down to the sea. He saw a boat upon the water, and it was white. " * 40


def ask(folder, yaml, **files):
    """Return the drafts of an eval file."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "mine.yaml").write_text(yaml, encoding="utf-8")
    return questions(EvalsetSection(path=str(folder / "mine.yaml")))[1]


def problems(folder, yaml, **files):
    with pytest.raises(ConfigError) as caught:
        ask(folder, yaml, **files)
    assert caught.value.hint
    return caught.value.problems


INLINE = """
items:
  - name: riddles
    items:
      - {context: "It has keys but opens no door. It is a", options: [piano, window], answer: 0}
      - {id: second, context: "Two and two make", options: [five, four], answer: four, cluster: sums, level: 2}
      - {context: "Three, B:", options: [one, two], answer: B}
      - {context: "Once upon a", text: "time there was a king"}
"""


def test_items_in_the_file_become_cells(tmp_path):
    one, two, three, four = ask(tmp_path, INLINE)
    assert one.rule == two.rule == three.rule == "likelihood"
    assert one.continuations == [" piano", " window"]
    assert one.contexts == ["It has keys but opens no door. It is a"] * 2
    assert (one.gold, two.gold, three.gold) == (0, 1, 1)
    assert (two.name, two.cluster, two.level) == ("second", "sums", 2)
    assert one.ability == "riddles"
    assert (four.rule, four.continuations) == ("bits_per_byte", [" time there was a king"])
    assert one.source.endswith("mine.yaml:5:9")


def test_jsonl_and_csv_say_the_same(tmp_path):
    rows = [
        {"id": "a", "context": "One, two,", "options": ["three", "nine"], "answer": "three"},
        {"id": "b", "context": "Red and", "options": ["blue", "so, on"], "answer": 1},
    ]
    jsonl = "\n".join(json.dumps(row) for row in rows) + "\n"
    table = 'id,context,option_1,option_2,answer\na,"One, two,",three,nine,three\nb,Red and,blue,"so, on",1\n'
    yaml = "items: [{name: %s, ability: linking, file: my.%s}]"
    found = [
        ask(tmp_path, yaml % ("x", "jsonl"), my__jsonl=jsonl),
        ask(tmp_path, yaml % ("x", "csv"), my__csv="\ufeff" + table),
    ]
    jsonl_cells, csv_cells = ([(d.contexts, d.continuations, d.gold, d.name) for d in drafts] for drafts in found)
    assert jsonl_cells == csv_cells
    assert [d.source for d in found[0]] == ["my.jsonl:1", "my.jsonl:2"]
    assert [d.source for d in found[1]] == ["my.csv:2", "my.csv:3"]
    assert found[0][0].ability == "linking"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("{context: a}", "give one of options, text, answers or contexts"),
        ("{context: a, options: [x], answer: 0}", "needs two or more options, has 1"),
        ("{context: a, options: [], answer: 0}", "needs two or more options, has 0"),
        ("{context: a, options: [x, ' x'], answer: 0}", "options 0 and 1 are the same text"),
        ("{context: a, options: [x, ''], answer: 0}", "option 1 is empty"),
        ("{context: a, options: [x, y]}", "has no `answer`"),
        ("{context: a, options: [x, y], answer: 2}", "`answer` is 2, but it has options 0 to 1"),
        ("{context: a, options: [x, y], answer: zz}", "is none of its 2 options"),
        ("{context: a, option: [x, y], answer: 0}", "unknown key `option`; did you mean `options`?"),
        ("{context: a, text: b, options: [x, y]}", "found options and text"),
        ("{contexts: [a], continuations: [b, c], rule: pair}", "has 1 contexts, but 2 continuations"),
        ("{contexts: [a, b], continuations: [b, c], rule: contrast}", "needs 4 cells for the rule contrast, has 2"),
        ("{contexts: [a, a], continuations: [b, b], rule: pair}", "two cells that are the same text"),
        ("{contexts: [a, a], continuations: [b, c], rule: pear}", "`rule` must be one of"),
        ("{context: a, answers: []}", "at least one of `answers`"),
        ("just text", "must be a mapping (context: ..., options: ...)"),
    ],
)
def test_a_wrong_item_is_told_with_its_place(tmp_path, item, words):
    yaml = f"items:\n  - name: own\n    items:\n      - {item}\n      - {{text: fine}}\n"
    (problem,) = problems(tmp_path, yaml)
    assert f"{tmp_path}/mine.yaml:4:9: item own[0]" in problem
    assert words in problem


def test_all_wrong_items_of_all_files_are_told_at_once(tmp_path):
    lines = ['{"id": 1, "text": "a"}', "not json", '{"id": 1, "text": "b"}', '{"id": 2, "text": "a"}', "", '{"id": 3}']
    found = problems(
        tmp_path,
        "items:\n  - {name: x, file: a.jsonl}\n  - {name: x, file: b.csv}\n  - {name: y, file: none.csv}\n"
        "  - {name: z, file: c.csv}\n",
        a__jsonl="\n".join(lines),
        b__csv="context,option_1,option_2,answer\nq,a,b,0\nq,a\n",
        c__csv=b"context,text\nok,fine\nbad,caf\xe9\n",
    )
    text = "\n".join(found)
    assert "a.jsonl:2:1: not JSON" in text
    assert "a.jsonl:3: item 1 has the same id as the one at a.jsonl:1" in text
    assert "a.jsonl:4: item 2 asks the same as the one at a.jsonl:1" in text
    assert "a.jsonl:6: item 3 give one of options" in text
    assert "b.csv:3: has 2 columns, the heading 4" in text
    assert "mine.yaml:4:" in text
    assert "cannot read none.csv" in text
    assert "c.csv:3: not UTF-8 text (byte " in text
    assert "`x` is the name of" in text
    assert len(found) == 8


def test_own_items_stand_beside_the_built_ones_and_damaged_ones_write_nothing(tmp_path):
    work = library(tmp_path / "work", [(TEXT, "train", "en"), (TEXT.replace("boat", "ship"), "eval_a", "en")])
    (tmp_path / "mine.yaml").write_text("extends: ltm\n" + INLINE.lstrip(), encoding="utf-8")
    section = EvalsetSection(path=str(tmp_path / "mine.yaml"), families=["T2"], items_per_family=6)
    stage.build(section, work, 1, Progress(quiet=True))
    for bank in "ab":
        families = [item.family for item in read_bank(work, bank)]
        assert {name: families.count(name) for name in families} == {"T2": 6, "riddles": 4}
        assert next(item.source for item in read_bank(work, bank) if item.source) == "mine.yaml:5:9"  # no machine path
    assert stage.report(work)["banks"]["a"]["families"]["riddles"]["items"] == 4
    before = {path: path.read_bytes() for path in work.path("evalset").iterdir()}
    marks = sources(section)
    (tmp_path / "mine.yaml").write_text("items: [{name: x, items: [{context: a}]}]", encoding="utf-8")
    assert sources(section) != marks
    with pytest.raises(ConfigError):
        stage.build(section, work, 1, Progress(quiet=True))
    assert {path: path.read_bytes() for path in work.path("evalset").iterdir()} == before


def test_a_changed_data_file_is_another_eval_set(tmp_path):
    ask(tmp_path, "items: [{name: x, file: my.jsonl}]", my__jsonl='{"text": "a"}\n')
    section = EvalsetSection(path=str(tmp_path / "mine.yaml"))
    before = sources(section)
    assert sources(section) == before
    (tmp_path / "my.jsonl").write_text('{"text": "b"}\n', encoding="utf-8")
    assert sources(section) != before


def test_a_split_set_gives_each_cluster_to_one_bank(tmp_path):
    rows = "\n".join(json.dumps({"text": f"text {i}", "cluster": f"c{i // 2}"}) for i in range(20))
    (tmp_path / "my.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("items: [{name: x, file: my.jsonl, bank: split}]", encoding="utf-8")
    work = library(tmp_path / "work", [(TEXT, "train", "en")])
    stage.build(EvalsetSection(path=str(tmp_path / "mine.yaml")), work, 1, Progress(quiet=True))
    a, b = ({item.cluster for item in read_bank(work, bank)} for bank in "ab")
    assert (len(a), len(b)) == (5, 5)
    assert not a & b
    assert len(read_bank(work, "a")) == 10


def test_items_are_looked_at_although_another_part_of_the_file_is_wrong(tmp_path):
    yaml = (
        "families: [{name: T9}]\nitems:\n  - {name: x, abilty: linking, items: [{text: a}]}\n"
        "  - {name: y, items: [{context: a, options: [b, b], answer: 0}]}\n"
    )
    text = "\n".join(problems(tmp_path, yaml))
    for part in (
        "`families.0.builder` is missing",
        "did you mean `ability`?",
        "mine.yaml:4:23: item y[0] options 0 and 1",
    ):
        assert part in text


def test_unknown_families_and_slips_of_abilities_are_told(tmp_path):
    found = problems(tmp_path, "items: [{name: x, ability: transfr, items: [{text: a}]}]")
    assert "did you mean transfer?" in found[0]
    with pytest.raises(ConfigError, match="no family `L9`"):
        questions(EvalsetSection(families=["L9"]))
