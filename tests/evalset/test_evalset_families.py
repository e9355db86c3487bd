"""Families, controls, levels and tiers; and that rules which understand nothing are at chance."""

import json
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from eval_library import POOL, king_james, library
from ltm.books.catalogue import TextStore, read_catalogue
from ltm.errors import StoreError
from ltm.evalset import evalfile, shortcuts, stage
from ltm.evalset.bank import read_bank
from ltm.evalset.evalfile import Family
from ltm.evalset.frames import Frame, fill
from ltm.evalset.language import packaged
from ltm.evalset.linking import chapter_suffix
from ltm.evalset.material import Material
from ltm.evalset.passages import EvalBook, Sizes
from ltm.evalset.questions import wanted_items
from ltm.evalset.roles import roles
from ltm.evalset.section import EvalsetSection
from ltm.progress import Progress
from ltm.records import Book
from ltm.scores.measures import family_tables
from ltm.scores.ngram import NgramModel
from ltm.scores.plan import make_plan
from ltm.tokens.tokenizer import train as train_tokenizer

ITEMS = 60


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    work = library(tmp_path_factory.mktemp("kjv"), king_james())
    stage.build(EvalsetSection(items_per_family=ITEMS), work, 3, Progress(quiet=True))
    return work, read_bank(work, "a"), read_bank(work, "b")


def of(items, family, control=""):
    return [item for item in items if item.family == family and item.control == control]


def test_rules_that_understand_nothing_are_at_chance(bank):
    """On the demo's books; the easy steps may be told by words, and say so (docs/evalset.md)."""
    _, a, b = bank
    for family, row in shortcuts.judge([*a, *b], {}).items():
        if family not in ("L2", "L2c", "L4", "T0c"):
            assert not shortcuts.telling(row), (family, row)


def test_who_counts_five_words_in_a_row_is_at_chance(bank, kjv_texts):
    """Exactly: what the right option has in its favour lies further back than four tokens, whatever the tokenizer."""
    text = "\n".join(kjv_texts[name] for name in ("Genesis", "Exodus"))
    tokenizer = train_tokenizer([text], 2000)
    items = [i for i in bank[1] if i.family in ("L1", "T0c", "T1g", "T1n", "T2") and not i.control]
    plan = make_plan(items, tokenizer.encode, tokenizer.bos_id, 512)
    model = NgramModel(np.array(tokenizer.encode(text)), tokenizer.vocab_size)
    answers = plan.answers(model.logprobs(plan, tokenizer.bos_id))[None]
    tables = family_tables(items, answers, plan.n_bytes[None].astype(float))
    assert len(tables) == 5
    for table in tables:
        assert np.all(table.correct_RI == 0.5), table.family


def test_agreement_is_told_by_the_noun_alone(bank):
    """Both premises are the same text but for one word and its title; half of the items are about men, or one."""
    for family, words in (
        ("T1g", {"he", "his", "him", "himself"}),
        ("T1n", {"was", "is", "has", "he", "he was", "his"}),
    ):
        right = [item.continuations[0].strip() for item in of(bank[1], family)]
        assert 0.3 < np.mean([answer in words for answer in right]) < 0.7, family
        for item in of(bank[1], family):
            one, two = (context.split() for context in item.contexts[:2])
            assert len(one) == len(two)
            assert 1 <= sum(x != y for x, y in zip(one, two, strict=True)) <= 2


def test_in_templates_the_answer_stands_first_as_often_as_last(bank):
    for family in ("T1", "T2", "T3", "T4"):
        last = []
        for item in of(bank[1], family) + of(bank[2], family):
            right, other = item.continuations[0].strip(), item.continuations[2].strip()
            if right in item.contexts[0] and other in item.contexts[0]:
                last.append(item.contexts[0].rfind(right) > item.contexts[0].rfind(other))
        assert 0.4 < np.mean(last) < 0.6, family


def test_two_sources_are_needed_and_places_give_nothing_away(bank):
    items = of(bank[1], "S2")
    assert len(items) == ITEMS
    first = []
    for item in items:
        both, a_alone, b_alone, neither = item.contexts[::2]
        assert item.contexts[1::2] == item.contexts[::2]
        assert len({both, a_alone, b_alone, neither}) == 4
        lengths = [len(context.split()) for context in (both, a_alone, b_alone, neither)]
        assert max(lengths) - min(lengths) <= 4
        right, wrong = item.continuations[:2]
        assert item.continuations == [right, wrong] * 4
        ask = both.rsplit("\n\n", 1)[1]
        for context in (a_alone, neither):  # without B's fact the answer is not even named
            assert (right.strip() in context) == (wrong.strip() in context)
        assert context.endswith(ask)
        first.append(both.find(right.strip()) < both.find(wrong.strip()))
    assert 0.35 < np.mean(first) < 0.65


def test_roles_are_swapped_and_nothing_else(bank):
    for item in of(bank[1], "S3"):
        one, two = (text.strip() for text in item.continuations)
        assert one != two
        assert sorted(re.findall(r"\w+", one)) == sorted(re.findall(r"\w+", two))
        assert item.contexts[0] == item.contexts[1]
    assert 0.4 < np.mean([item.gold for item in of(bank[1], "S3") + of(bank[2], "S3")]) < 0.6


def test_forms_of_words_say_nothing_of_russian_roles():
    """Before, a person stood in the passage as a subject more often than as an object: "said before" was right 60 %."""
    rng = np.random.default_rng(0)
    language = packaged("ru")
    persons = [noun for nouns in language.persons.values() for noun in nouns]
    assert all(len(noun.acc or noun.nom) == len(noun.nom) for noun in persons)  # the right sentence is no shorter one
    verbs = [verb for verbs in language.person_verbs.values() for verb in verbs]
    things = [noun for nouns in language.role_things.values() for noun in nouns]

    def one(pool):
        return pool[int(rng.integers(len(pool)))]

    texts = []
    for _ in range(3):
        lines = [
            f"Вечером {one(persons).nom} долго {one(verbs)} {one(things).forms()['acc']} и молча стоял у самого окна."
            if rng.random() < 0.5
            else f"Утром все увидели {one(persons).acc} там, где {one(things).nom} ещё вчера стоял без дела."
            for _ in range(700)
        ]
        texts.append(" ".join(lines))
    books = [
        EvalBook.of(Book(f"b{i}", "T", f"A{i}", None, "ru", "g", "s", "pd", 0, "eval_a", 1, 1, [0], {}), text)
        for i, text in enumerate(texts)
    ]
    counts = Counter(re.findall(r"\w+", " ".join(texts).lower()))
    drafts = list(islice(roles(books[0], books, language, counts, Sizes(100, 1, 0, "N."), rng), 60))
    assert len(drafts) >= 40
    said, frequent = [], []
    for draft in drafts:
        right, wrong = (re.findall(r"\w+", draft.continuations[i].lower()) for i in (draft.gold, 1 - draft.gold))
        passage = set(re.findall(r"\w+", draft.contexts[0].rpartition("\n\n")[0].lower()))
        said.append(np.sign(sum(word in passage for word in right) - sum(word in passage for word in wrong)))
        odds = sum(np.log(counts[word] + 0.5) for word in right) - sum(np.log(counts[word] + 0.5) for word in wrong)
        frequent.append(np.sign(round(odds, 9)))
        assert sum(map(len, right)) == sum(map(len, wrong))
    assert abs(sum(said)) <= 1 < np.count_nonzero(said)
    assert abs(sum(frequent)) <= 1 < np.count_nonzero(frequent)


def test_the_banks_are_cut_from_different_books(bank):
    work, *banks = bank
    store = TextStore(work)
    pools = {book.book_id: book.pool for book in read_catalogue(work)}
    texts = {pool: [store.read(b) for b, p in pools.items() if p == pool] for pool in ("eval_a", "eval_b", "train")}
    for items, pool in zip(banks, ("eval_a", "eval_b"), strict=True):
        cut = [item for item in items if item.cluster in pools and not item.control]
        assert {item.family[0] for item in cut} == set("LSF")
        assert {pools[item.cluster] for item in cut} == {pool}
        for item in cut[::7]:
            pieces = [p for c in item.contexts + item.continuations for p in c.split("\n\n") if len(p) > 120]
            for other in texts.keys() - {pool}:
                assert not any(piece in text for piece in pieces for text in texts[other])


def test_analogies_ask_one_word_for_two_relatives(bank):
    for item in of(bank[1], "S4"):
        tables = [relation.words for relation in packaged("en").relations]
        query = item.contexts[0].rsplit('"', 2)[1]
        relatives = next(words[query] for words in tables if query in words)
        assert [item.continuations[0], item.continuations[2]] == [f' "{word}' for word in relatives]
        assert item.contexts[0] != item.contexts[1]


def test_demonstrations_show_either_rule_and_both_answers_equally_often(bank):
    for item in of(bank[1], "Tfew"):
        p, p_other = item.contexts[:2]
        assert p.split(".")[-1] == p_other.split(".")[-1]  # the question
        if item.cluster.endswith((":words", ":went")):
            for answer in (item.continuations[0], item.continuations[2]):
                assert p.count(answer.strip()) == p_other.count(answer.strip()) == 2


def test_controls_damage_the_distant_context_of_the_same_item(bank):
    items = bank[1]
    real = {item.item_id: item for item in items if not item.control}
    damaged = [item for item in items if item.control]
    assert {(item.family, item.control) for item in damaged} == {
        (family, control) for family in ("L2", "L3", "L4", "S1") for control in ("shuffled", "nouns")
    }
    for item in damaged:
        original = real[item.item_id.removesuffix(f"-{item.control}")]
        assert item.continuations == original.continuations
        assert (item.gold, item.level, item.ability) == (original.gold, original.level, original.ability)
        assert item.contexts != original.contexts
        context, before = item.contexts[0], original.contexts[0]
        assert context.split()[-5:] == before.split()[-5:]
        if item.control == "shuffled":
            assert sorted(context.split()) == sorted(before.split())
        else:
            assert len(context.split()) < 0.9 * len(before.split())
    assert not any(item.tier == "fast" for item in damaged)


def test_ladders_have_steps_and_the_fast_bank_is_spread_over_all_families(bank):
    levels = {
        family: {item.level for item in of(bank[1], family)} for family in ("L1", "L4", "L4h", "L3", "T1", "T4", "S2")
    }
    assert levels == {
        "L1": {1, 2},
        "L4": {1},
        "L4h": {2},
        "L3": {1, 2, 3},
        "T1": {1, 2, 3},
        "T4": {1, 2, 3},
        "S2": {1, 2},
    }
    fast = [item for item in bank[1] if item.tier == "fast"]
    assert abs(len(fast) - 500) <= 1
    assert {item.family for item in fast} == {item.family for item in bank[1]}
    gaps = [
        np.mean([len(item.contexts[0].split()) for item in of(bank[1], "T1") if item.level == level])
        for level in (1, 2, 3)
    ]
    assert gaps[0] < gaps[1] < gaps[2]


def test_items_per_ability_are_shared_by_its_families():
    file = evalfile.load(None)
    counts = wanted_items(EvalsetSection(items_per_ability=100), file)
    of_ability = {f.name: f.ability for f in file.families}
    for ability in ("linking", "transfer", "synthesis"):
        assert abs(sum(n for name, n in counts.items() if of_ability[name] == ability) - 100) <= 3
    assert "Tadapt" not in counts
    assert set(wanted_items(EvalsetSection(families=["L1", "T2"], items_per_family=7), file).values()) == {7}


def test_names_stand_in_no_book_and_the_banks_share_none():
    language = packaged("en")
    everything = Material(language, set(), "a")
    taken = {everything.names["f"][0].lower() + "a", everything.names["m"][0].lower(), everything.labels[0]}
    a, b = Material(language, taken, "a"), Material(language, taken, "b")
    assert everything.names["f"][0] not in a.names["f"]
    assert everything.names["m"][0] not in a.names["m"]
    assert everything.labels[0] not in a.labels
    for gender in "mf":
        assert not set(a.names[gender]) & set(b.names[gender])
        assert len(a.names[gender]) > 50
    assert not set(a.labels) & set(b.labels)


@pytest.mark.parametrize("code", ["en", "ru"])
def test_every_template_can_be_filled_in_every_form(code):
    file = evalfile.load(None)
    material = Material(file.language(code), set(), "a")
    n = 0
    for family in file.families:
        for frame in family.frames.get(code, []):
            assert material.usable(frame)
            for seed in range(20):
                filling = material.draw(frame, np.random.default_rng(seed))
                text = " ".join(fill(part, filling) for part in (*frame.facts, frame.ask, frame.answer))
                assert not re.search(r"[{}|]", text), text
                n += 1
    assert n > 500


def test_russian_words_agree_and_are_declined():
    """Endings by hand, apart from the file's forms: an accusative like the genitive would be an animate noun."""
    language = packaged("ru")
    vowels = "аеёиоуыэюя"
    for noun in language.things:
        if noun.gender == "m":
            assert noun.nom[-1] not in vowels
            assert noun.acc in (None, noun.nom)
            assert noun.gen[-1] in "ая"
        elif noun.gender == "f":
            assert (noun.nom[-1] in "ая" and noun.acc[-1] in "ую") or (noun.nom[-1] == "ь" and noun.acc is None)
            assert noun.gen[-1] in "ыи"
        else:
            assert noun.nom[-1] in "ое"
            assert noun.acc is None
            assert noun.gen[-1] in "ая"
    for place in language.places:
        assert place.loc.split()[0] == place.to.split()[0] in ("в", "на")
        assert place.loc.endswith(("е", "и"))
        assert place.to.endswith("ю") or place.to.endswith("у") or place.to.split()[1] == place.nom
    for person in language.persons["m"]:
        assert person.acc[-1] in "аяую" or person.acc.endswith("го")
    for gender, ending in (("m", "л"), ("f", "ла")):
        assert all(verb.endswith((ending, "крал", "нёс")) for verb in language.person_verbs[gender])
    ends = {stem[-1] for ends in language.name_ends.values() for stem in ends}
    assert not ends & set("гкхжшщчцйь" + vowels)


def test_chapters_are_told_by_their_text_and_not_by_their_headings():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(300)]

    def sentence():
        return "The " + " ".join(words[int(i)] for i in rng.integers(0, 300, 9)) + "."

    text, starts = "", []
    for number in range(1, 13):
        starts.append(len(text))
        text += (
            f"CHAPTER {number}.\n\nThe Title of Number {number}\n\n" + " ".join(sentence() for _ in range(60)) + "\n\n"
        )
    size = (len(text.split()), len(text.encode()))
    book = EvalBook.of(Book("b", "T", "A", None, "en", "g", "s", "pd", 0, "eval_a", *size, starts, {}), text)
    family = next(family for family in evalfile.load(None).families if family.name == "L2c")
    found = list(chapter_suffix(book, family, Sizes(60, 20, 0, "N."), rng))
    assert len(found) >= 9
    for draft in found:
        options = draft.continuations[:4]
        assert all(option.startswith("\n\nThe word") for option in options), options
        assert "CHAPTER" not in draft.contexts[0]
        after = text.index(draft.contexts[0]) + len(draft.contexts[0])
        assert 0 < text.index(options[draft.gold].strip()) - after < 60
        assert [text.count(option.strip()) for option in options] == [1] * 4


def test_options_and_orders_cost_the_same_tokens(bank):
    tokenizer = train_tokenizer([king_james()[0][0]], 700)
    for family in ("S3",):
        for item in of(bank[1], family)[:40]:
            one, two = (sorted(tokenizer.encode(text)) for text in item.continuations)
            assert one == two


def test_a_bank_of_another_library_is_refused(bank, tmp_path):
    work, *_ = bank
    other = library(
        tmp_path, [(text, "train" if pool != "eval_a" else pool, lang) for text, pool, lang in king_james()[::3]]
    )
    other.path("evalset").mkdir()
    for name in "ab":
        source = work.path("evalset", f"bank_{name}.parquet")
        other.path("evalset", source.name).write_bytes(source.read_bytes())
    with pytest.raises(StoreError, match="another library") as caught:
        read_bank(other, "a")
    assert caught.value.hint
    assert len(POOL) == 5


def test_a_family_without_its_material_is_refused():
    frame = Frame(name="x", facts=["{A} saw {o.ins}.", "{B} saw {p.ins}."], ask="So {a} saw", answer="{o.ins}")
    family = Family(name="X", ability="transfer", builder="frames", rule="contrast", items=5, frames={"ru": [frame]})
    with pytest.raises(ValueError, match="asks for the form `ins`"):
        evalfile.EvalFile(families=[family])


def test_solvers_find_what_is_given_away(bank):
    item = of(bank[1], "L2")[0]
    told = [item.continuations[0] + " and more"] + [text[:9] for text in item.continuations[1:4]]
    import dataclasses

    given = dataclasses.replace(item, contexts=item.contexts[:4], continuations=told, gold=0, rule="likelihood")
    judged = shortcuts.judge([given] * 60, {})["L2"]
    assert judged["longest"]["accuracy"] == 1.0
    assert "longest" in shortcuts.telling(judged)


def test_short_answers_and_rule_systems_can_be_switched_on(tmp_path):
    text = evalfile.PACKAGED.read_text(encoding="utf-8").replace("items: 0", "items: 6")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    book = "The old man went down to the sea. He saw a lamp upon the water, and it was white. " * 30
    work = library(tmp_path / "work", [(book, "train", "en"), (book.replace("lamp", "ring"), "train", "ru")])
    section = EvalsetSection(path=str(tmp_path / "mine.yaml"), families=["G1", "Tadapt"])
    stage.build(section, work, 1, Progress(quiet=True))
    items = read_bank(work, "a")
    assert {item.language for item in items} == {"en", "ru"}
    for item in of(items, "G1"):
        assert (item.rule, item.gold, len(item.contexts)) == ("generate", 60_000_000, 1)
        assert item.continuations[0].strip() in item.contexts[0] or item.language == "ru"
    for item in of(items, "Tadapt"):
        assert (item.gold, len(item.contexts)) == (16, 24)
        kind = {
            c.split(".")[0].split()[-1]: o for c, o in zip(item.contexts[:16], item.continuations[:16], strict=True)
        }
        assert len(kind) == 4
        for context, continuation in zip(item.contexts[16:], item.continuations[16:], strict=True):
            assert kind[context.split(".")[0].split()[-1]] == continuation
            assert context not in item.contexts[:16]
    assert not any(item.tier == "fast" for item in items)


def test_the_schema_beside_the_eval_file_is_that_of_the_code():
    path = evalfile.PACKAGED.resolve().with_name("ltm_eval_set.schema.json")
    assert json.loads(path.read_text(encoding="utf-8")) == evalfile.EvalFile.model_json_schema()
