"""Everything wrong with a study file that cannot be read as it is: what is set wrong, and what does not go together.

A validator stops at the first contradiction of its section, and the checks across sections need a whole study. So each
setting that cannot be read is noted with the nearest value that can, then left out, until the rest is a study; the
checks see that rest, and say nothing on account of what was left out.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ltm import config
from ltm.config import Document
from ltm.errors import ConfigError
from ltm.runs.micro_batch import nearest_micro
from ltm.study.check import findings
from ltm.study.settings import StudySettings

_MOST_ROUNDS = 20
_FARTHEST = 256  # from a wrong number to the nearest right one
_ALIASES = {  # what people write for it elsewhere
    **dict.fromkeys(("gpu", "nvidia", "rocm", "hip"), "cuda"),
    **dict.fromkeys(("metal", "apple"), "mps"),
    **dict.fromkeys(("tpu", "xpu", "npu", "processor"), "cpu"),
    **dict.fromkeys(("bf16", "fp8", "float8", "int8"), "bfloat16"),
    **dict.fromkeys(("fp16", "half"), "float16"),
    **dict.fromkeys(("fp32", "float", "single", "float64", "fp64", "double"), "float32"),
    "adam": "adamw",
}
_WHY = {"tokens.vocab_size": {"le": " (token ids are stored in 16 or 32 bits)", "ge": " (256 bytes and a start mark)"}}
Key = tuple[str, ...]


def everything_wrong(document: Document) -> list[str]:
    """Return all problems of a file that `config.validate` refuses, those behind the first ones too."""
    data = copy.deepcopy(document.data)
    problems: list[str] = []
    unread: set[str] = set()
    for _ in range(_MOST_ROUNDS):
        current = Document(data, document.positions, document.path)
        try:
            settings = config.validate(StudySettings, current)
        except ConfigError as error:
            refused = _refused(data)
            explained = _all_explained(error.problems, refused, data, document)
            problems += [text for text in explained if text not in problems]
            left_out = {".".join(key) for detail in refused if (key := _leave_out(data, detail))}
            if not left_out:
                return problems
            unread |= left_out
        else:
            return problems + findings(settings, document, frozenset(unread)).problems
    return problems


def _refused(data: Mapping[str, Any]) -> list[Any]:
    try:
        StudySettings.model_validate(data)
    except ValidationError as error:
        return list(error.errors(include_url=False))
    return []


def _all_explained(texts: list[str], refused: list[Any], data: Mapping[str, Any], document: Document) -> list[str]:
    """Return one line per wrong setting; pydantic has one for each kind of value that it could have been."""
    found: list[str] = []
    alternatives: dict[Key, list[str]] = {}
    for text, detail in zip(texts, refused, strict=True):
        key = _existing(data, detail)
        if not key or len(detail["loc"]) == len(key) or isinstance(_at(data, key), dict | list):
            found.append(_explained(text, detail, data, document))
            continue
        alternatives.setdefault(key, []).append(detail["msg"].removeprefix("Input should be ").split(",")[0])
    for key, kinds in alternatives.items():
        expected = " or ".join(kinds)
        text = f"{document.where(key)}: `{'.'.join(key)}` must be {expected}, not {_at(data, key)!r}"
        near = _nearest_word(str(_at(data, key)), expected)
        found.append(text + (f"; nearest: {near}" if near else ""))
    return found


def _explained(text: str, detail: Any, data: Mapping[str, Any], document: Document) -> str:
    """Return a problem with the nearest valid value, and with the place of the setting that would have to change."""
    key = _existing(data, detail)
    dotted, context = ".".join(key), detail.get("ctx") or {}
    if detail["type"] == "literal_error":
        near = _nearest_word(str(detail["input"]), str(context.get("expected", "")))
        return text + (f"; nearest: {near}" if near else "")
    for bound in ("le", "ge"):
        if bound in context:
            return f"{text}{_WHY.get(dotted, {}).get(bound, '')}; nearest: {context[bound]}"
    culprit = _culprit(data, key, detail)
    if culprit is None:
        return text
    name, number = culprit
    before = f"{document.where(tuple(detail['loc']))}: "
    text = f"{document.where((*key, name))}: {text.removeprefix(before)}"
    if number is None or "nearest" in text:
        return text
    return f"{text}; nearest: {number if _subject(detail) == name else f'{name} {number}'}"


def _nearest_word(given: str, expected: str) -> str | None:
    """Return the word of pydantic's list that is most like the given one, or is meant by it.

    >>> _nearest_word("gpu", "'auto', 'cpu' or 'cuda'"), _nearest_word("cuda:1", "'auto', 'cpu' or 'cuda'")
    ('cuda', 'cuda')
    """
    known = expected.replace("'", "").replace(" or ", ", ").split(", ")
    word = given.lower().partition(":")[0].removeprefix("torch.").strip()
    meant = _ALIASES.get(word, word)
    return meant if meant in known else next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.4)), None)


def _leave_out(data: dict[str, Any], detail: Any) -> Key:
    """Take out the setting that an error is about, or the one of its section that heals it; returns which."""
    if detail["loc"] == ("name",):
        data["name"] = "unnamed"
        return ("name",)
    key, number = _existing(data, detail), None
    culprit = _culprit(data, key, detail)
    if culprit is not None:
        key, number = (*key, culprit[0]), culprit[1]
    if not key:
        return ()
    section = _at(data, key[:-1])
    section.pop(key[-1], None)
    if number is not None and _is_refused(data, detail):
        section[key[-1]] = number
    return key


def _existing(data: Mapping[str, Any], detail: Any) -> Key:
    """Return the part of an error's location that is a setting of the file."""
    key: Key = ()
    for part in detail["loc"]:
        if not isinstance(_at(data, key), dict) or part not in _at(data, key):
            break
        key = (*key, str(part))
    return key


def _culprit(data: Mapping[str, Any], section: Key, detail: Any) -> tuple[str, int | None] | None:
    """Return the setting whose change resolves a contradiction of its section, and its nearest valid number.

    The setting that the message is about comes first.
    """
    values = _at(data, section)
    if detail["type"] != "value_error" or not isinstance(values, dict) or not section:
        return None
    for name in sorted(values, key=lambda name: name != _subject(detail)):
        number = _nearest_number(data, section, name) if name == _subject(detail) else None
        trial = copy.deepcopy(dict(data))
        del _at(trial, section)[name]
        if number is not None:
            return str(name), number
        if not _is_refused(trial, detail):
            return str(name), _nearest_number(data, section, name)
    return None


def _subject(detail: Any) -> str:
    """Return the first word of a validator's message: the setting it is about."""
    return str(detail["msg"].removeprefix("Value error, ").split(" ")[0])


def _is_refused(data: Mapping[str, Any], detail: Any) -> bool:
    return any(other["loc"] == detail["loc"] for other in _refused(data))


def _nearest_number(data: Mapping[str, Any], section: Key, name: str) -> int | None:
    """Return the whole number nearest to a setting's value that its section accepts."""
    value = _at(data, (*section, name))
    if type(value) is not int:
        return None
    if (*section, name) == ("runs", "micro_batch_tokens"):
        return _nearest_micro(data, value)
    for distance in range(1, _FARTHEST):
        for near in (value - distance, value + distance):
            trial = copy.deepcopy(dict(data))
            _at(trial, section)[name] = near
            if near > 0 and not any(error["loc"][: len(section)] == section for error in _refused(trial)):
                return near
    return None


def _nearest_micro(data: Mapping[str, Any], value: int) -> int | None:
    """Return the nearest micro batch that divides the batch and holds whole sequences, of batch and block as given."""
    trial = copy.deepcopy(dict(data))
    del trial["runs"]["micro_batch_tokens"]
    try:
        settings = StudySettings.model_validate(trial)
    except ValidationError:
        return None
    block_size = settings.model.shape(settings.tokens.vocab_size).block_size
    batch = max(1, round(settings.runs.batch_tokens / block_size)) * block_size
    return nearest_micro(value, batch, block_size)


def _at(data: Mapping[str, Any], key: Key) -> Any:
    value: Any = data
    for part in key:
        value = value[part]
    return value
