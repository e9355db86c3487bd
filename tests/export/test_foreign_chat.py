"""Talking to models of transformers: the text is that of the whole model, and what was read is not read again."""

import io
import json
import shutil

import pytest
import torch

import tiny_base
import trained_base
from ltm.errors import InputError
from ltm.export import speakers
from ltm.export.chat import Chat
from ltm.export.conversation import Conversation
from ltm.export.foreign_reader import ForeignReader
from ltm.export.generate import Sampling
from ltm.runs.engines.start import load_trained

pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore")
GREEDY = Sampling(temperature=0, repeat_penalty=1.0, max_tokens=24)
CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("kind", "changes"), [("llama", {}), ("gpt2", {}), ("mistral", {"sliding_window": 8}), ("qwen3", {}), ("gemma", {})]
)
def test_what_is_remembered_changes_nothing(kind, changes, tmp_path):
    model = load(tiny_base.make_base(tmp_path / "base", kind, **changes))
    reader, read = ForeignReader(model, 256), []
    model.register_forward_pre_hook(lambda _m, _a, k: read.append(k["input_ids"].shape[1]), with_kwargs=True)
    one, two = [5, 9, 11, 3, 4, 8, 20, 31, 7, 6, 2, 90], [5, 9, 11, 3, 4, 8, 20, 31, 44, 45]
    steps = [(one, 0), ([*one, 50], len(one)), ([*one, 50, 51], len(one) + 1), (two, 8), (two[:5], 4), ([9, 9], 0)]
    for tokens, known in steps:
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        read.clear()
        assert torch.allclose(reader.read(tokens, known), whole, atol=2e-5), (tokens, known)
        assert read == [len(tokens) - known]


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_run_answers_as_its_model_does(method, tmp_path):
    study, run_id = trained_base.study_of(tmp_path, method)
    speaker = speakers.of_run(study.work, run_id)
    assert (speaker.template, speaker.context_tokens) == (None, 256)
    from ltm.tokens.tokenizer import load as load_tokenizer

    tokenizer = load_tokenizer(study.work)
    model = load_trained(study.work, run_id, "cpu", exact=True)
    tokens = [tokenizer.bos_id, *tokenizer.encode("In the beginning")]
    start = len(tokens)
    for _ in range(GREEDY.max_tokens):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
        if token in (0, 1, 2):  # <s>, </s>, and what the config calls the end
            break
        tokens.append(token)
    answer = "".join(speaker.go_on("In the beginning", GREEDY, lambda: False))
    assert answer == tokenizer.decode(tokens[start:])
    assert answer


def test_a_tuned_run_is_asked_by_its_template_and_two_answer_side_by_side(tmp_path):
    study, run_id = trained_base.study_of(tmp_path, "lora", tuned=True)
    shutil.copytree(
        study.work.path("runs", run_id), study.work.path("runs", study.jobs()[1].run_id), dirs_exist_ok=True
    )
    one, two = (speakers.of_run(study.work, job.run_id) for job in study.jobs()[:2])
    assert (one.name, two.name) == (f"{run_id} (tuned)", study.jobs()[1].run_id)
    out = io.StringIO()
    chat = Chat(Conversation([one], GREEDY), lambda _: two, out)
    chat.run(iter(["go and see", "/compare x", "and the light", "/history", "/quit"]))
    assert out.getvalue().count("go and see") >= 1
    assert run_id in out.getvalue().splitlines()[0]
    assert " | " in out.getvalue()
    assert chat.conversation.prompt(0).startswith("<s>> go and see\n")
    assert not chat.conversation.prompt(1).startswith("<s>")


def test_a_base_that_was_made_for_talking_is_asked_by_its_own_template_and_ends_where_it_says(tmp_path):
    base = tiny_base.make_base(tmp_path / "base", "qwen3")
    (base / "chat_template.jinja").write_text(CHATML)
    marks = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**marks, "eos_token": "<|im_end|>"}))
    speaker = speakers.of_path(base, 1)
    conversation = Conversation([speaker], GREEDY)
    conversation.ask("go?")
    assert conversation.prompt(0) == "<s>user: go?<|im_end|><s>assistant: "
    end = speaker._writer.tokenizer.marks["<|im_end|>"]
    assert end in speaker._writer._ends
    assert {0, 1, 2} >= speaker._writer._ends - {end}
    assert isinstance("".join(conversation.answer(0)), str)


def test_folders_that_are_not_ltms_own_decoder_answer_too_and_others_say_why(tmp_path):
    base = tiny_base.make_base(tmp_path / "base", "gemma")
    assert "".join(speakers.of_path(base, 1).go_on("In the", GREEDY, lambda: False))
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    with pytest.raises(InputError, match="own code"):
        speakers.of_path(base, 1)
    (base / "config.json").write_text(json.dumps({**values, "model_type": "unheard-of"}))
    with pytest.raises(InputError, match="transformers cannot load"):
        speakers.of_path(base, 1)
    (base / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no tokenizer.json"):
        speakers.of_path(base, 1)


def test_a_context_that_is_full_goes_on_with_its_newer_half(tmp_path):
    base = tiny_base.make_base(tmp_path / "base", "qwen3", max_position_embeddings=32)
    sampling = Sampling(temperature=1.5, max_tokens=80, seed=3)
    text = "".join(speakers.of_path(base, 1).go_on("go and see", sampling, lambda: False))
    assert text == "".join(speakers.of_path(base, 1).go_on("go and see", sampling, lambda: False))
    assert len(text) > 32
