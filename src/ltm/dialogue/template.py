"""How a conversation becomes text: the model's own chat template, or a small one that needs no new tokens.

Writes: the template travels with the tokenizer (`tokenizer_config.json`), so that any program that loads an exported
model renders the same text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ltm.errors import DataError
from ltm.store import WorkFolder
from ltm.tokens.adopted import CONFIG, start_token
from ltm.tokens.tokenizer import BOS

# The start mark; what is asked stands after `> `; the answer follows on its own line and ends with the end mark.
_PLAIN = (
    "@START@{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}@END@\n"
    "{% else %}> {{ message['content'] }}\n{% endif %}{% endfor %}"
)
Message = Mapping[str, str]
Part = tuple[str, bool]  # text, and whether the model learns to say it


class Template:
    """Render conversations with one template, never with a model's own code: Jinja in its sandbox.

    The text is whole: nothing is put before it, so that stock programs that use the template read the same.

    Args:
        source: In Jinja.
        start: What `bos_token` stands for in it.
        end: What `eos_token` stands for in it.
    """

    def __init__(self, source: str, start: str, end: str) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        environment.globals["raise_exception"] = _refuse
        self.source, self.start, self.end = source, start, end
        self._template = environment.from_string(source)

    def text(self, messages: Sequence[Message], ask: bool = False) -> str:
        """Return the text of a conversation; `ask` adds what stands before an answer.

        Raises:
            DataError: the template refuses it.
        """
        return self._template.render(
            messages=list(messages), add_generation_prompt=ask, bos_token=self.start, eos_token=self.end
        )

    def parts(self, messages: Sequence[Message]) -> list[Part]:
        """Return a conversation as text that is only read and text that is learned: the answers with their ends.

        Raises:
            DataError: the template changes earlier turns when later ones follow, or refuses the conversation.
        """
        parts: list[Part] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.text(messages[:index], ask=True)
            after = self.text(messages[: index + 1])
            if not (before.startswith(done) and after.startswith(before)):
                raise DataError("the chat template changes earlier turns: answers cannot be told from questions")
            parts += [(before[len(done) :], False), (after[len(before) :], True)]
            done = after
        return parts


def template_of(work: WorkFolder) -> Template:
    """Return the template of the study's tokenizer: the base model's own where it has one, else the plain one."""
    values = _config(work)
    found = template_in(values)
    if found is not None:
        return found
    start, end = BOS, BOS
    if work.path("tokens", CONFIG).exists():
        text = work.path("tokens", "tokenizer.json").read_text(encoding="utf-8")
        start = start_token(text, json.dumps(values)) or BOS
        end = _token(values, "eos_token") or start
    return plain(start, end)


def own_template(work: WorkFolder) -> bool:
    """Return whether the study's base model brought a template: it was made for talking."""
    return template_in(_config(work)) is not None


def template_in(values: Mapping[str, Any]) -> Template | None:
    """Return the template in a `tokenizer_config.json`; None where it has none."""
    source = values.get("chat_template")
    if not isinstance(source, str):
        return None
    return Template(source, _token(values, "bos_token"), _token(values, "eos_token"))


def _config(work: WorkFolder) -> dict[str, Any]:
    path = work.path("tokens", CONFIG)
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}


def plain(start: str = BOS, end: str = BOS) -> Template:
    """Return the template of models that have none, between the marks that they know."""
    return Template(_PLAIN.replace("@START@", start).replace("@END@", end), start, end)


def _token(values: Mapping[str, Any], key: str) -> str:
    found = values.get(key)
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else ""


def _refuse(message: str) -> None:
    raise DataError(f"the chat template refuses a conversation: {message}")
