"""Talking to models: the same seed gives the same text, what is read once counts, passages are real and cited."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

import hugging_face as hf
import tiny_study
from ltm.errors import InputError, MissingPartError
from ltm.export import retrieve, speakers
from ltm.export.chat import Chat, side_by_side
from ltm.export.conversation import Conversation
from ltm.export.generate import OwnReader, Sampling, Writer, choose
from ltm.export.hf import export_hf
from ltm.model.decode import Memory, read
from ltm.runs import checkpoint
from ltm.tokens.tokenizer import BOS, train

GREEDY = Sampling(temperature=0, repeat_penalty=1.0, max_tokens=30)


@pytest.fixture(scope="module")
def tokenizer(kjv_texts):
    return train([kjv_texts["Genesis"][:60_000], "Слово было у Бога 🙂 日本"], 420)


@pytest.fixture
def model(tokenizer):
    return hf.our_model(hf.our_config("llama-grouped", vocab_size=tokenizer.vocab_size, block_size=64))


@pytest.fixture
def writer(model, tokenizer):
    return Writer(OwnReader(model), tokenizer)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_study.finished(tmp_path_factory.mktemp("chat") / "w")


@pytest.fixture
def study(made, tmp_path):
    """A finished study whose first two runs have weights."""
    shutil.copytree(made.work.root, tmp_path / "work" / "w")
    study = tiny_study.load(tmp_path / "work" / "w")
    from ltm.tokens.tokenizer import load

    for seed, job in enumerate(study.jobs()[:2]):
        config = hf.our_config("llama", vocab_size=load(study.work).vocab_size, block_size=64)
        weights = dict(hf.our_model(config, seed + 1).named_parameters())
        checkpoint.save_weights(study.work.path("runs", job.run_id, "weights.safetensors"), weights, config)
    return study


def text_of(writer, prompt, sampling=GREEDY):
    return "".join(writer.go_on(prompt, sampling))


def test_the_greedy_text_is_that_of_the_whole_model(writer, model, tokenizer):
    tokens = [tokenizer.bos_id, *tokenizer.encode("In the beginning")]
    for _ in range(GREEDY.max_tokens):
        with torch.inference_mode():
            token = int(model(torch.tensor([tokens]))[0, -1].argmax())
        if token == tokenizer.bos_id:
            break
        tokens.append(token)
    assert text_of(writer, "In the beginning") == tokenizer.decode(tokens[1:])[len("In the beginning") :]


def test_a_seed_is_a_text(writer):
    one, again = (text_of(writer, "And God said", Sampling(seed=5, max_tokens=40)) for _ in range(2))
    assert one == again
    assert one != text_of(writer, "And God said", Sampling(seed=6, max_tokens=40))


def test_what_was_read_is_not_read_again_and_changes_nothing(writer, model, tokenizer, monkeypatch):
    counted = []
    from ltm.export import generate

    monkeypatch.setattr(generate, "read", lambda m, t, memory: (counted.append(len(t)), read(m, t, memory))[1])
    text_of(writer, "In the beginning God created")
    counted.clear()
    longer = text_of(writer, "In the beginning God created the heaven")
    assert counted[0] < len(tokenizer.encode("In the beginning God created the heaven"))
    assert longer == text_of(Writer(OwnReader(model), tokenizer), "In the beginning God created the heaven")


def test_texts_longer_than_the_context_go_on(writer):
    text = text_of(writer, "In the beginning God created the heaven and the earth. " * 20, Sampling(max_tokens=150))
    assert len(text) > 150 / 4


def test_letters_that_come_in_pieces_arrive_whole(writer, tokenizer):
    from ltm.export.generate import _Letters

    letters = _Letters(tokenizer)
    text = "Слово 🙂 日本語 é"
    pieces = [letters.add(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + letters.rest() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_sampling_keeps_to_its_settings():
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    generator = torch.Generator().manual_seed(1)

    def seen(sampling, before=()):
        return {choose(logits, sampling, before, generator) for _ in range(300)}

    free = Sampling(temperature=3, top_p=1, repeat_penalty=1)
    assert seen(free) == {0, 1, 2, 3}
    assert seen(Sampling(temperature=3, top_p=1, repeat_penalty=1, top_k=2)) == {2, 3}
    assert seen(Sampling(temperature=1, top_p=0.6, repeat_penalty=1)) == {3}
    assert seen(Sampling(temperature=0, repeat_penalty=1)) == {3}
    assert seen(Sampling(temperature=0, repeat_penalty=3), before=[3]) == {2}
    assert logits.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("temperature", -1, "0"), ("top_p", 0, "0.01"), ("max_tokens", 0, "1"), ("top_p", float("nan"), "0.01")],
)
def test_settings_that_make_no_sense_are_refused(name, value, near):
    with pytest.raises(InputError) as error:
        Sampling(**{name: value}).checked()
    assert error.value.hint == f"nearest: {near}"


def test_the_memory_is_of_the_block_size(model):
    assert Memory(model).kv_L2KSC.shape[3] == 64


def test_a_conversation_in_the_terminal(study):
    one, two = (speakers.of_run(study.work, job.run_id) for job in study.jobs()[:2])
    out = io.StringIO()
    conversation = Conversation([one], Sampling(max_tokens=12))
    chat = Chat(conversation, lambda word: {"two": two}[word], out)
    lines = ["In the beginning", "/set temperature 0", "/compare two", "And God", "/retry", "/history", "/undo"]
    chat.run(iter([*lines, "/set nothing 1", "/set temperature x", "/what", "", "/reset", "/undo", "/quit", "never"]))
    text = out.getvalue()
    assert f"{one.name} and {two.name}" in text
    assert " | " in text
    assert text.count("error:") == 4
    assert "never" not in text
    assert chat.first_token_seconds > 0
    assert conversation.sampling.seed == 2
    assert conversation.turns == []


def test_a_model_goes_on_from_its_own_answers(study):
    speaker = speakers.of_run(study.work, study.jobs()[0].run_id)
    conversation = Conversation([speaker], GREEDY)
    first = conversation.ask("In the beginning")
    "".join(conversation.answer(0))
    conversation.ask("And")
    assert conversation.prompt(0) == f"In the beginning{first.answers[0]}\nAnd"


def test_a_tuned_run_is_asked_by_its_template(study):
    job = study.jobs()[0]
    tuned = study.work.path("dialogue", job.run_id)
    tuned.mkdir(parents=True)
    shutil.copy(study.work.path("runs", job.run_id, "weights.safetensors"), tuned)
    (tuned / "tuned.json").write_text("{}")
    speaker = speakers.of_run(study.work, job.run_id)
    assert "tuned" in speaker.name
    conversation = Conversation([speaker], GREEDY)
    conversation.ask("Who art thou?")
    assert conversation.prompt(0) == f"{BOS}> Who art thou?\n"
    assert isinstance("".join(conversation.answer(0)), str)


def test_passages_are_found_and_cited(study):
    pytest.importorskip("bm25s")
    library = retrieve.Library(study.work)
    (best, *_) = library.find("who built the ark of gopher wood?")
    assert best.title == "Genesis"
    assert "chapter 6" in best.place
    assert "gopher" in best.text
    assert best.source.startswith("Genesis by ")
    assert library.find("xyzzyqwert") == []
    assert all(20 < len(p.text.split()) < 400 for p in library.passages[::50])
    prompt = retrieve.prompt_with(library.find("the ark of gopher wood"), "Who built it?", 900)
    assert prompt.endswith("Who built it?")
    assert "[1] Genesis" in prompt
    assert len(prompt) < 1500


def test_passages_are_given_to_the_model_and_shown(study):
    pytest.importorskip("bm25s")
    out = io.StringIO()
    speaker = speakers.of_run(study.work, study.jobs()[0].run_id)
    conversation = Conversation([speaker], GREEDY, retrieve.Library(study.work))
    Chat(conversation, lambda _: speaker, out).line("the ark of gopher wood")
    assert "[1] Genesis by " in out.getvalue()
    assert conversation.prompt(0).startswith("[1] Genesis by ")
    assert conversation.prompt(0).endswith("\n\nthe ark of gopher wood")


def test_a_hugging_face_folder_answers(model, tokenizer, tmp_path):
    export_hf(model, tokenizer, tmp_path / "m")
    found = speakers.of_path(tmp_path / "m", 1)
    assert "".join(found.go_on("In the", GREEDY, lambda: False)) == text_of(
        Writer(OwnReader(model), tokenizer), "In the"
    )


def test_a_gguf_file_answers_and_can_be_stopped(model, tokenizer, tmp_path):
    pytest.importorskip("xllamacpp")
    from ltm.export.gguf import export_gguf

    export_gguf(model, tokenizer, tmp_path / "m.gguf", "f32")
    found = speakers.of_path(tmp_path / "m.gguf", 1)
    assert found.context_tokens == 64
    assert "".join(found.go_on("In the", GREEDY, lambda: False))
    pieces = list(found.go_on("In the", Sampling(max_tokens=60), lambda: True))
    assert len(pieces) <= 3


@pytest.mark.parametrize("name", ["m.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl"])
def test_pickles_are_not_loaded(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(InputError, match="pickle"):
        speakers.of_path(tmp_path / name, 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="pickle"):
        speakers.of_path(tmp_path, 1)


def test_what_is_missing_is_named(model, tokenizer, tmp_path, study, monkeypatch):
    export_hf(model, tokenizer, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no tokenizer.json"):
        speakers.of_path(tmp_path / "m", 1)
    with pytest.raises(InputError, match="has no weights here"):
        speakers.of_run(study.work, study.jobs()[3].run_id)
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing more")
    monkeypatch.setattr(retrieve.importlib.util, "find_spec", lambda _: None)
    for call, line in (
        (lambda: speakers.of_path(tmp_path / "x.gguf", 1), "pip install 'ltm[gguf]'"),
        (lambda: retrieve.Library(study.work), "pip install 'ltm[rag]'"),
    ):
        with pytest.raises(MissingPartError) as error:
            call()
        assert error.value.hint == line


def test_a_damaged_gguf_file_is_said(tmp_path):
    pytest.importorskip("xllamacpp")
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(InputError, match="cannot load"):
        speakers.of_path(tmp_path / "x.gguf", 1)


def test_columns_hold_long_words_and_narrow_terminals():
    text = side_by_side(["a", "b"], ["x" * 100, "y z\n\nw"], 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert side_by_side(["a", "b"], ["one", "two"], 40) == "a:\none\nb:\ntwo"


def test_the_command_line(study):
    def run(*words, given=""):
        command = [sys.executable, "-m", "ltm.cli", "chat", *words]
        where = study.work.root.parents[1]
        return subprocess.run(
            command, capture_output=True, text=True, input=given, cwd=where, env={**os.environ}, check=False
        )

    one, two = (job.run_id for job in study.jobs()[:2])
    said = run(one[:8], "--say", "In the", "--max-tokens", "8", "--compare", two, "--json")
    value = json.loads(said.stdout)
    assert [answer["model"] for answer in value["answers"]] == [one, two]
    talked = run("work/w", one, "--max-tokens", "8", given="In the\n/quit\n")
    assert (talked.returncode, one in talked.stdout) == (0, True)
    for words in (("nothing",), (one, "--temperature", "-1", "--say", "x"), ("a", "b", "c"), (one, "--json")):
        wrong = run(*words)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False), words
