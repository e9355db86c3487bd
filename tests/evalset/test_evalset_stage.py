"""Banks from real text: the King James books of the demo library, and the shared library where it is present."""

import csv
import re
from pathlib import Path

import pytest

from eval_library import king_james, library
from ltm.errors import ConfigError, InputError, LibraryError
from ltm.evalset import evalfile, stage
from ltm.evalset.bank import bank_fingerprint, read_bank
from ltm.evalset.build import stream
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.material import Material
from ltm.evalset.passages import Sizes
from ltm.evalset.section import EvalsetSection
from ltm.evalset.transfer import contrasts
from ltm.progress import Progress

SHARED = Path(__file__).parents[3] / "shared" / "books"


@pytest.fixture(scope="session")
def kjv_texts():
    return king_james()


@pytest.fixture(scope="session")
def kjv(tmp_path_factory, kjv_texts):
    work = library(tmp_path_factory.mktemp("kjv"), kjv_texts)
    result = stage.build(EvalsetSection(items_per_family=40), work, 7, Progress(quiet=True))
    return work, result


def test_every_family_is_filled_and_spread_over_books(kjv):
    work, _ = kjv
    chapters = {"L2c"}  # the texts of this library have no chapters
    for bank in "ab":
        families = stage.report(work)["banks"][bank]["families"]
        assert {name: f["items"] for name, f in families.items()} == {n: 0 if n in chapters else 40 for n in families}
    held_a = {i.cluster for i in read_bank(work, "a") if i.family == "L1"}
    held_b = {i.cluster for i in read_bank(work, "b") if i.family == "L1"}
    assert len(held_a) == 3
    assert len(held_b) == 2
    assert not held_a & held_b


def test_same_seed_gives_the_same_bytes_and_another_seed_other_items(kjv, kjv_texts, tmp_path):
    work, result = kjv
    again = library(tmp_path / "again", kjv_texts)
    assert stage.build(EvalsetSection(items_per_family=40), again, 7, Progress(quiet=True)) == result
    for name in ("bank_a.parquet", "bank_b.parquet", "report.json"):
        assert again.path("evalset", name).read_bytes() == work.path("evalset", name).read_bytes()
    assert stage.build(EvalsetSection(items_per_family=40), again, 8, Progress(quiet=True)) != result


def test_items_fit_their_length_and_have_distinct_cells(kjv):
    work, result = kjv
    items = read_bank(work, "a")
    assert len({item.item_id for item in items}) == len(items)
    assert bank_fingerprint(work, "a") == result[0]
    for item in items:
        cells = list(zip(item.contexts, item.continuations, strict=True))
        assert len(set(cells)) == len(cells)
        for context, continuation in cells:
            assert len((context + continuation).split()) <= 155
            assert not context[-1:].isspace()
            assert not context or continuation[0].isspace()


def test_no_item_shares_13_words_with_a_training_book(kjv, kjv_texts):
    work, _ = kjv
    grams = set()
    for text, pool, _ in kjv_texts:
        if pool == "train":
            words = re.findall(r"\w+", text.lower())
            grams |= {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
    shared = 0
    for item in [*read_bank(work, "a"), *read_bank(work, "b")]:
        for text in {*item.contexts, *item.continuations}:
            words = re.findall(r"\w+", text.lower())
            shared += any(tuple(words[i : i + 13]) in grams for i in range(len(words) - 12))
    assert shared == 0


def test_overlap_needs_13_words_in_a_row():
    words = [f"word{i}" for i in range(40)]
    overlap = Overlap([" ".join(words)])
    overlap.add_training("Before, " + " ".join(words[5:17]) + " after", "en")
    assert not overlap.contains([" ".join(words)])
    overlap.add_training("Before, " + " ".join(words[5:18]).upper() + " after", "en")
    assert overlap.contains([" ".join(words)])
    assert not overlap.contains([" ".join(words[6:])])


def test_held_out_copy_of_a_training_book_yields_templates_only(kjv_texts, tmp_path):
    text = next(text for text, pool, _ in kjv_texts if pool == "eval_b")
    work = library(tmp_path, [(text + " x.", "eval_a", "en"), (text, "train", "en")])
    stage.build(EvalsetSection(items_per_family=10), work, 1, Progress(quiet=True))
    families = stage.report(work)["banks"]["a"]["families"]
    assert families["L1"]["items"] == 0
    assert families["L1"]["dropped"]["13 words in a row also stand in a training book"] > 5
    assert families["L1"]["note"]
    assert families["T2"]["items"] == 10


def test_nothing_to_build_is_an_error_with_a_hint(tmp_path):
    work = library(tmp_path, [("Ein kurzer Text.", "train", "de")])
    with pytest.raises(LibraryError) as caught:
        stage.build(EvalsetSection(), work, 1, Progress(quiet=True))
    assert caught.value.hint


def test_templates_are_symmetric_and_names_are_new(kjv, kjv_texts):
    work, _ = kjv
    train = {w for text, pool, _ in kjv_texts if pool == "train" for w in re.findall(r"\w+", text.lower())}
    items = [i for i in read_bank(work, "a") if i.family in ("T0", "T1", "T2", "T3", "T4")]
    assert len(items) == 200
    for item in items:
        one, two = item.contexts[0], item.contexts[1]
        same = sorted(re.findall(r"\w+", one.lower())) == sorted(re.findall(r"\w+", two.lower()))
        assert same or item.family == "T4"  # there partner templates balance how often a name is said
        assert item.continuations[0] != item.continuations[2]
        if item.family != "T0" and "number" not in item.cluster:
            text = one + item.continuations[0]
            names = [w for w in re.findall(r"[A-Z]\w+", text) if w.lower() not in train]
            assert names


def test_telling_order_is_balanced_so_that_the_last_name_is_no_hint(kjv):
    work, _ = kjv
    hits = []
    for item in read_bank(work, "a"):
        if item.cluster.split(":")[-1] in ("took", "bought", "hid", "gave", "took_from"):
            answer, other = item.continuations[0].strip(), item.continuations[2].strip()
            hits.append(item.contexts[0].rfind(answer) > item.contexts[0].rfind(other))
    assert 0.4 <= sum(hits) / len(hits) <= 0.6


def test_russian_templates_agree_in_case_and_gender():
    file = evalfile.load(None)
    material = Material(file.language("ru"), set(), "a")
    frames = {frame.name: frame for family in file.families for frame in family.frames.get("ru", [])}
    for seed in range(20):
        draft = next(contrasts(frames["took_from"], material, "ru", "c", Sizes(1, 1, 0, ""), stream(seed, "x")))
        match = re.match(r"(\w+) (забрал|забрала) (\w+) у (\w+)\.", draft.contexts[0])
        assert match, draft.contexts[0]
        assert (match[2] == "забрала") == match[1].endswith("а")
        assert match[4].endswith("ы") if match[1].endswith("а") else match[4].endswith("а")
        taken = next(noun for noun in file.language("ru").things if (noun.acc or noun.nom) == match[3])
        verb = {"m": "был", "f": "была", "n": "было"}[taken.gender]
        assert f"Теперь {taken.nom} {verb} у" in draft.contexts[0]
        nominative = match[1]
        genitive = nominative[:-1] + "ы" if nominative.endswith("а") else nominative + "а"
        assert draft.continuations[0] == f" {genitive}"


def test_eval_file_tells_all_problems_with_their_place(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "families:\n  - {name: A, ability: linking, builder: suffix, rule: pair, items: 5}\n"
        "  - {name: B, ability: linkin, builder: suffix, rule: choice, items: 5}\n"
        "  - {name: C, ability: transfer, builder: frames, rule: contrast, items: 5,\n"
        "     frames: {en: [{name: x, facts: ['{z} sat.'], ask: 'So', answer: '{a}'}]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        evalfile.load(str(path))
    text = str(caught.value)
    assert f"{path}:2:" in text
    assert f"{path}:3:" in text
    assert "unknown slot {z}" in text
    with pytest.raises(InputError):
        evalfile.load(str(tmp_path / "none.yaml"))


def test_show_prints_items_as_people_read_them(kjv):
    work, _ = kjv
    text = stage.show(work, 1)
    heads = [line for line in text.splitlines() if line.startswith("--- ")]
    assert [head.split()[1].rstrip(",") for head in heads if head.split()[1].startswith("S")] == ["S1"] * 3 + [
        "S2", "S3", "S4"
    ]  # fmt: skip
    assert "T0 (A0)" in text
    assert "control: distant context with its nouns only" in text
    for head, block in zip(heads, text.split("--- ")[1:], strict=True):
        assert ("\n      * " in block) == (not head.startswith(("--- S1", "--- F0", "--- L4"))), block


def test_study_length_scales_the_items(kjv_texts, tmp_path):
    work = library(tmp_path, kjv_texts[:8])
    section = EvalsetSection(items_per_family=12, context_words=60)
    stage.build(section, work, 7, Progress(quiet=True))
    longest = max(
        len((c + o).split()) for i in read_bank(work, "a") if i.rule != "contrast"
        for c, o in zip(i.contexts, i.continuations, strict=True)
    )  # fmt: skip
    assert 45 <= longest <= 66


@pytest.mark.skipif(not SHARED.exists(), reason="the shared library is not here")
def test_shared_russian_books_give_full_banks(tmp_path):
    manifest = (SHARED / "manifest.csv").read_text(encoding="utf-8").splitlines()
    rows = [row for row in csv.DictReader(manifest) if row["language"] == "ru"]
    rows = sorted(rows, key=lambda row: int(row["words"]))[40:52]
    texts = [(SHARED / row["file"]).read_text(encoding="utf-8") for row in rows]
    pools = ["eval_a"] * 3 + ["eval_b"] * 3 + ["train"] * 6
    work = library(tmp_path, list(zip(texts, pools, ["ru"] * 12, strict=True)))
    stage.build(EvalsetSection(items_per_family=24), work, 3, Progress(quiet=True))
    for bank in "ab":
        families = stage.report(work)["banks"][bank]["families"]
        short = {name for name, f in families.items() if f["items"] < 24}
        assert short <= {"L2c", "L3"}, families  # the one needs chapters, the other two people and more
        assert families["L3"]["items"] >= 12
