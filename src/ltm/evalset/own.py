"""A user's own items: in the eval file itself, or in a JSONL or CSV file.

Reads: the files that an eval file names. Writes: nothing. An item is options after a context (rule likelihood), a text
whose predictability counts (bits_per_byte), answers that must be written (generate), or the cells of any rule of ltm.
Every wrong item is told with the file, the line and its name; nothing is guessed and nothing left out silently.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from ltm.config import Document, Section
from ltm.evalset.rows import MOST_PROBLEMS, Problems, Row, read_rows, shown
from ltm.records import ABILITIES, FLUENCY

Bank = Literal["both", "split"]
_CELLS = {"choice": 2, "pair": 2, "contrast": 4, "gain": 3, "synergy": 8, "bits_per_byte": 1, "adapt": 2}  # at least
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]
_EXACT = ("pair", "contrast", "gain", "synergy", "bits_per_byte")


def _no_slip(ability: str) -> str:
    """Refuse a name that is nearly one of ltm's abilities: it would be an ability of its own."""
    known = [*ABILITIES, FLUENCY]
    near = difflib.get_close_matches(ability, known, n=1, cutoff=0.8)
    if near and ability not in known:
        raise ValueError(f"must be one of {', '.join(known)}, or a name of your own; did you mean {near[0]}?")
    return ability


def _place_or_text(value: Any) -> Any:
    if value is None or type(value) is int or isinstance(value, str):
        return value
    raise ValueError(f"must be a place, a letter or the text of an option, not {shown(value)}")


Ability = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_no_slip)]


class OwnItem(Section):
    """One item."""

    id: Annotated[str, Field(min_length=1)] | int | None = None
    """Its name, for messages and results."""
    context: str = ""
    """What the model reads first."""
    options: list[Text] | None = None
    """Continuations to choose from."""
    answer: Annotated[int | str | None, BeforeValidator(_place_or_text)] = None
    """The right option: its place from 0, or its text, or its letter (A, B, ...)."""
    text: str | None = None
    """A text to be predicted after the context, in place of options."""
    answers: list[Text] | None = None
    """What may be written after the context, in place of options; any of them is right (generation)."""
    contexts: list[str] | None = None
    """Cells of a rule of ltm: their contexts, with `continuations` and `rule`."""
    continuations: list[str] | None = None
    """Cells of a rule of ltm: their continuations."""
    rule: str | None = None
    """The rule of these cells."""
    gold: Annotated[int, Field(ge=0)] = 0
    """The right cell of these cells."""
    cluster: Text | None = None
    """What the item was made from; items of one cluster share their error."""
    language: str | None = None
    """Its language, where it is not that of its set."""
    level: Annotated[int, Field(ge=0, le=99)] = 0
    """Step of difficulty, from 1."""

    @model_validator(mode="after")
    def _one_kind(self) -> OwnItem:
        kinds = [name for name in ("options", "text", "answers", "contexts") if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) if kinds else "none of them"
            raise ValueError(f"give one of options, text, answers or contexts; found {found}")
        return self


class OwnItems(Section):
    """A set of items; it is a family of the eval set."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
    """Name of the family."""
    ability: Ability | None = None
    """The ability that it belongs to: linking, transfer, synthesis, or one of its own (the default: its name)."""
    about: str | dict[str, str] = ""
    """The question in words."""
    language: str = "en"
    """ISO 639-1 code."""
    bank: Bank = "both"
    """both: every item is in bank A and in bank B; split: half of the clusters in each, so that B stays unseen."""
    file: str | None = None
    """A .jsonl or .csv file, relative to the eval file."""
    items: Annotated[list[Any], WithJsonSchema({"type": "array", "items": OwnItem.model_json_schema()})] | None = None
    """The items themselves."""
    min_parameters: Annotated[int, Field(ge=0)] = 0
    """Only models with at least so many parameters are asked (generation)."""

    @model_validator(mode="after")
    def _one_source(self) -> OwnItems:
        if (self.file is None) == (self.items is None):
            raise ValueError("name a `file`, or write the `items` here")
        return self


@dataclass(frozen=True)
class OwnDraft:
    """An item of a user, checked: its cells, and where it stands."""

    family: str
    ability: str
    language: str
    bank: Bank
    rule: str
    contexts: list[str]
    continuations: list[str]
    gold: int
    cluster: str
    level: int
    name: str
    source: str


def drafts(sets: Sequence[OwnItems | None], document: Document, problems: Problems) -> list[OwnDraft]:
    """Return the items of all sets; what is wrong is noted.

    Args:
        sets: As the eval file has them; None for one that cannot be read.
        document: The eval file, for places and for where it lies.
        problems: Where problems go.
    """
    found: list[OwnDraft] = []
    for index, own in enumerate(sets):
        if own is None:
            continue
        key, before = ("items", index), len(problems.lines)
        if own.file is None:
            rows: list[Row] = [
                Row(document.where((*key, "items", place)), value) for place, value in enumerate(own.items or [])
            ]
        else:
            path = Path(document.path).parent / own.file
            rows = [_gathered(row) for row in read_rows(path, own.file, document.where((*key, "file")), problems)]
        if not rows and len(problems.lines) == before:
            problems.add(document.where(key), f"the set {own.name} holds no item: {own.file or '`items`'} is empty")
        found += _set(own, rows, problems)
    return found


def cells(context: str, options: list[str], delimiter: str = " ") -> tuple[str, list[str]]:
    """Return context and continuations such that the white space between them opens the continuation."""
    bare = context.rstrip()
    space = context[len(bare) :]
    if not bare:
        return "", [f"{space}{option}" for option in options] if space else list(options)
    gap = space or delimiter
    return bare, [option if option[:1].isspace() else f"{gap}{option}" for option in options]


def right_option(answer: int | str | None, options: list[str]) -> int:
    """Return the place of the right option.

    Raises:
        ValueError: the answer is none of them.
    """
    if answer is None:
        raise ValueError("has no `answer`")
    if isinstance(answer, str):
        text = answer.strip()
        same = [place for place, option in enumerate(options) if option.strip() == text]
        if same:
            return same[0]
        if text.isdigit():
            answer = int(text)
        elif len(text) == 1 and text.isascii() and text.isupper():
            answer = ord(text) - ord("A")
        else:
            raise ValueError(f"`answer` {answer!r} is none of its {len(options)} options")
    if not 0 <= answer < len(options):
        raise ValueError(f"`answer` is {answer}, but it has options 0 to {len(options) - 1}")
    return answer


def check_options(options: list[str]) -> None:
    """Complain about options that cannot be told apart.

    Raises:
        ValueError: there are fewer than two, or one is empty, or two are equal.
    """
    if len(options) < 2:
        raise ValueError(f"needs two or more options, has {len(options)}")
    bare = [option.strip() for option in options]
    if "" in bare:
        raise ValueError(f"option {bare.index('')} is empty")
    for place, option in enumerate(bare):
        if option in bare[:place]:
            raise ValueError(f"options {bare.index(option)} and {place} are the same text: {option!r}")


def _set(own: OwnItems, rows: list[Row], problems: Problems) -> list[OwnDraft]:
    seen: dict[str, str] = {}
    asked: dict[str, str] = {}
    found = []
    before = len(problems.lines)
    for place, row in enumerate(rows):
        if len(problems.lines) - before >= MOST_PROBLEMS:
            problems.add(row.where, f"and so on: the other items of the set {own.name} were not looked at")
            break
        try:
            item = OwnItem.model_validate(row.value)
            name = str(item.id) if item.id is not None else f"{own.name}[{place}]"
        except ValidationError as error:
            given = row.value.get("id") if isinstance(row.value, dict) else None
            for text in explained(error, OwnItem):
                problems.add(row.where, f"item {given if given is not None else f'{own.name}[{place}]'} {text}")
            continue
        if name in seen:
            problems.add(row.where, f"item {name} has the same id as the one at {seen[name]}")
        seen.setdefault(name, row.where)
        try:
            draft = _draft(own, item, name, row.where)
        except ValueError as error:
            problems.add(row.where, f"item {name} {error}")
            continue
        content = json.dumps([draft.contexts, draft.continuations], ensure_ascii=False)
        if content in asked:
            problems.add(row.where, f"item {name} asks the same as the one at {asked[content]}")
        asked.setdefault(content, row.where)
        found.append(draft)
    return found


def _draft(own: OwnItems, item: OwnItem, name: str, where: str) -> OwnDraft:
    rule, contexts, continuations, gold = _as_cells(item)
    if any("\ud800" <= char <= "\udfff" for text in (name, *contexts, *continuations) for char in text):
        raise ValueError("holds half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    if rule == "generate":
        gold = own.min_parameters
    ability = own.ability or own.name.lower().replace("-", "_").replace(".", "_")
    return OwnDraft(
        own.name, ability, item.language or own.language, own.bank, rule, contexts, continuations, gold,
        item.cluster or f"{own.name}:{name}", item.level, name, where,
    )  # fmt: skip


def _as_cells(item: OwnItem) -> tuple[str, list[str], list[str], int]:
    if item.options is not None:
        check_options(item.options)
        gold = right_option(item.answer, item.options)
        context, continuations = cells(item.context, item.options)
        return "likelihood", [context] * len(continuations), continuations, gold
    if item.text is not None:
        if not item.text.strip():
            raise ValueError("has an empty `text`")
        context, continuations = cells(item.context, [item.text])
        return "bits_per_byte", [context], continuations, 0
    if item.answers is not None:
        if not item.answers or not all(answer.strip() for answer in item.answers):
            raise ValueError("needs at least one of `answers`, and none may be empty")
        context, continuations = cells(item.context, item.answers)
        return "generate", [context] * len(continuations), continuations, 0
    return _raw_cells(item)


def _raw_cells(item: OwnItem) -> tuple[str, list[str], list[str], int]:
    contexts, continuations, rule = item.contexts or [], item.continuations or [], item.rule or ""
    if rule not in _CELLS:
        raise ValueError(f"`rule` must be one of {', '.join(_CELLS)}, not {rule!r}")
    if len(contexts) != len(continuations):
        raise ValueError(f"has {len(contexts)} contexts, but {len(continuations)} continuations")
    least = _CELLS[rule]
    if len(contexts) < least or (rule in _EXACT and len(contexts) != least):
        raise ValueError(f"needs {least} cells for the rule {rule}, has {len(contexts)}")
    if item.gold >= len(contexts):
        raise ValueError(f"`gold` is {item.gold}, but it has cells 0 to {len(contexts) - 1}")
    if len(set(zip(contexts, continuations, strict=True))) < len(contexts):
        raise ValueError("has two cells that are the same text")
    if not all(text.strip() for text in continuations):
        raise ValueError("has an empty continuation")
    return rule, contexts, continuations, item.gold


def explained(error: ValidationError, model: type[Section]) -> Iterator[str]:
    """Yield the problems of a record in words."""
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"])
        words = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(detail["loc"][-1]), list(model.model_fields), n=1, cutoff=0.5)
            advice = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(model.model_fields)}"
            yield f"has the unknown key `{key}`{advice}"
        elif detail["type"] == "model_type":
            yield f"must be a mapping (context: ..., options: ...), not {shown(detail['input'])}"
        elif key:
            yield f"`{key}`: {words}" + ("" if ", not " in words else f", not {shown(detail['input'])}")
        else:
            yield words


def _gathered(row: Row) -> Row:
    """Gather the columns `option_1`, `option_2` ... and `answers_1` ... into lists; an empty column is left out."""
    if not isinstance(row.value, dict) or not any(key.rpartition("_")[2].isdigit() for key in row.value):
        return row
    result: dict[str, Any] = {}
    for key, value in row.value.items():
        stem, _, number = key.rpartition("_")
        if stem in ("option", "answers") and number.isdigit():
            if value:
                result.setdefault("options" if stem == "option" else "answers", []).append(value)
        elif value != "":
            result[key] = value
    return Row(row.where, result)
