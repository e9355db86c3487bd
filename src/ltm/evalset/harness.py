"""Tasks as lm-evaluation-harness writes them, with local data.

Reads: the task's JSON, JSON Lines, CSV or Parquet files. Writes: nothing. Prompts are put together as the harness does
(0.4.13: description, few-shot examples drawn with its seed, text, delimiter, choice), so that the same task asks the
same strings here and there. Templates are Jinja2 in a sandbox; Python functions (`!function`) are refused, since an
eval file is data and must not run code. Source: lm-evaluation-harness, docs/task_guide.md and lm_eval/api/task.py.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ltm.config import Document, Section, read_yaml, validate
from ltm.errors import ConfigError, LtmError
from ltm.evalset.own import Ability, OwnDraft, cells, check_options
from ltm.evalset.rows import Problems, Row, read_rows

_FEWSHOT_SEED = 1234  # of lm-evaluation-harness
_LOADERS = ("json", "csv", "parquet")
_CODE = ("process_docs", "process_results", "use_prompt", "custom_dataset", "doc_to_image", "doc_to_audio")
_MOST_PROBLEMS = 20  # of one task: a wrong template fails on every record
OutputType = Literal["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"]


class HarnessTask(Section):
    """A task of lm-evaluation-harness, with a few keys of ltm's own: ability, language, bank, cluster, limit."""

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "unnamed"
    """Its name; it is a family of the eval set."""
    ability: Ability | None = None
    """The ability that it belongs to: linking, transfer, synthesis, or one of its own (the default: its name)."""
    about: str | dict[str, str] = ""
    """The question in words."""
    language: str = "en"
    """ISO 639-1 code."""
    bank: Literal["both", "split"] = "both"
    """both: every item is in bank A and in bank B; split: half of the clusters in each."""
    cluster: str | None = None
    """Column or template that says what an item was made from; items of one cluster share their error."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many records."""
    min_parameters: Annotated[int, Field(ge=0)] = 0
    """Only models with at least so many parameters are asked (generate_until)."""
    include: str | None = None
    """Another task file, relative to this one, whose keys hold where this one has none."""
    dataset_path: str = "json"
    """json, csv or parquet: how the local data are read."""
    dataset_name: str | None = None
    """Not used: local data have no configurations."""
    dataset_kwargs: dict[str, Any] = Field(default_factory=dict)
    """`data_files`: a file, or a file by split, relative to the eval file."""
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    """The same, without `dataset_kwargs`."""
    training_split: str | None = None
    """Examples come from here unless `fewshot_split` says otherwise."""
    validation_split: str | None = None
    """Items come from here when there is no `test_split`."""
    test_split: str | None = None
    """Items come from here."""
    fewshot_split: str | None = None
    """Few-shot examples come from here."""
    doc_to_text: str | int = ""
    """Column or template of the question; a number (or a column of numbers) says that the choices are contexts."""
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    """Choices, or the column or template that gives them."""
    doc_to_target: str | int | list[str] = ""
    """Column or template of the answer: its place among the choices, or its text."""
    output_type: OutputType = "generate_until"
    """What is asked of the model."""
    description: str = ""
    """Column or template before everything."""
    num_fewshot: Annotated[int, Field(ge=0, le=64)] | None = None
    """Examples before the question."""
    fewshot_config: dict[str, Any] = Field(default_factory=dict)
    """`sampler`: default or first_n."""
    fewshot_delimiter: str = "\n\n"
    """Between examples."""
    target_delimiter: str = " "
    """Between question and answer."""
    gen_prefix: str | None = None
    """Beginning of every answer."""
    tag: Any = None
    """Not used."""
    group: Any = None
    """Not used."""
    task_alias: Any = None
    """Not used."""
    metric_list: Any = None
    """Not used: ltm stores every log-probability and derives its measures from them."""
    generation_kwargs: Any = None
    """Not used: generation is greedy."""
    filter_list: Any = None
    """Not used."""
    repeats: Any = None
    """Not used."""
    metadata: Any = None
    """Not used."""
    should_decontaminate: Any = None
    """Not used."""
    doc_to_decontamination_query: Any = None
    """Not used."""
    unsafe_code: Any = None
    """Not used: ltm runs no code of tasks."""
    process_docs: Any = None
    """Refused: ltm runs no code of tasks."""
    process_results: Any = None
    """Refused."""
    use_prompt: Any = None
    """Refused."""
    custom_dataset: Any = None
    """Refused."""
    doc_to_image: Any = None
    """Refused."""
    doc_to_audio: Any = None
    """Refused."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_functions(cls, value: Any) -> Any:
        if type(value).__name__ == "TaggedScalar":
            raise ValueError("is a Python function; ltm runs no code of tasks: prepare the data beforehand")
        return value

    @model_validator(mode="after")
    def _valid(self) -> HarnessTask:
        if self.include is not None:
            return self  # it is whole, and looked at, once the other file is read
        if "task" not in self.model_fields_set:
            raise ValueError("`task` is missing: the task needs a name")
        for key in _CODE:
            if getattr(self, key) is not None:
                raise ValueError(f"`{key}` is not supported: ltm runs no code of tasks; prepare the data beforehand")
        if self.dataset_path not in _LOADERS:
            raise ValueError(
                f"`dataset_path` must be one of {', '.join(_LOADERS)} (local data), not {self.dataset_path!r}"
            )
        if self.files() is None:
            raise ValueError("names no local data: write `dataset_kwargs: {data_files: ...}`")
        if self.output_type == "multiple_choice" and self.doc_to_choice is None:
            raise ValueError("needs `doc_to_choice` for the output type multiple_choice")
        if self.fewshot_config.get("sampler", "default") not in ("default", "first_n"):
            raise ValueError("`fewshot_config.sampler` must be default or first_n")
        return self

    def files(self) -> Any:
        """Return the data files as they were given."""
        return self.dataset_kwargs.get("data_files") or self.data_files


def as_task(value: Any) -> Any:
    """Return a task that is given by the name of its file as one that includes it."""
    return {"include": value} if isinstance(value, str) else value


def resolved(tasks: list[HarnessTask], document: Document, problems: Problems) -> list[tuple[HarnessTask, Path, str]]:
    """Return tasks as (task, folder that its data are relative to, place); the files that they include are read.

    Args:
        tasks: As the eval file has them.
        document: The eval file.
        problems: Where problems go.
    """
    folder = Path(document.path).parent
    found = []
    for index, entry in enumerate(tasks):
        where = document.where(("tasks", index))
        if entry.include is None:
            found.append((entry, folder, where))
            continue
        path = folder / entry.include
        given = entry.model_dump(exclude_unset=True, exclude={"include"})
        try:
            base = _merged(read_yaml(path))
            task = validate(HarnessTask, Document({**base.data, **given}, base.positions, base.path))
            own_data = {"data_files", "dataset_kwargs"} & given.keys()
            found.append((task, folder if own_data else path.parent, f"{entry.include}:1"))
        except ConfigError as error:
            problems.lines += error.problems
        except LtmError as error:
            problems.add(where, error.message)
    return found


def drafts(task: HarnessTask, folder: Path, where: str, problems: Problems) -> list[OwnDraft]:
    """Return the items of a task; what is wrong is noted.

    Args:
        task: The task.
        folder: What its data files are relative to.
        where: Its place, for messages.
        problems: Where problems go.
    """
    splits = _splits(task, folder, where, problems)
    chosen = task.test_split or task.validation_split or next(iter(splits), "")
    if chosen not in splits:
        if not problems.lines:
            problems.add(
                where, f"task {task.task} has no split `{chosen}`; its data have: {', '.join(splits) or 'none'}"
            )
        return []
    shots = _Shots(task, splits, chosen)
    found: list[OwnDraft] = []
    own = Problems()
    for place, row in enumerate(splits[chosen][: task.limit]):
        try:
            found.append(_draft(task, row, place, shots.before(row.value)))
        except (ValueError, TypeError, SyntaxError, KeyError) as error:
            own.add(row.where, f"task {task.task}, record {place}: {_in_words(error)}")
            if len(own.lines) >= _MOST_PROBLEMS:
                own.add(where, f"task {task.task}: more problems of this kind are not listed")
                break
    problems.lines += own.lines
    if not found and not own.lines:
        problems.add(where, f"task {task.task} has no record in its split `{chosen}`")
    return found


def _merged(found: Document, depth: int = 0) -> Document:
    """Put the keys of an included file under those of the file that includes it."""
    name = found.data.get("include")
    if name is None:
        return found
    if depth > 8:
        raise ConfigError([f"{found.where(('include',))}: files include each other"], "take one `include` out")
    base = _merged(read_yaml(Path(found.path).parent / str(name)), depth + 1)
    own = {key: value for key, value in found.data.items() if key != "include"}
    return Document({**base.data, **own}, found.positions, found.path)


class _Shots:
    """The few-shot examples before each question, drawn as lm-evaluation-harness draws them."""

    def __init__(self, task: HarnessTask, splits: dict[str, list[Row]], chosen: str) -> None:
        given = task.fewshot_config.get("split") or task.fewshot_split
        split = given or task.training_split or task.validation_split or chosen
        self.task = task
        self.same = split == chosen
        self.pool = [row.value for row in splits.get(split, [])]
        self.first = task.fewshot_config.get("sampler", "default") == "first_n"
        self.random = random.Random(_FEWSHOT_SEED)

    def before(self, record: Any) -> str:
        """Return the examples before the question about a record."""
        n = self.task.num_fewshot or 0
        return "".join(_example(self.task, shot) for shot in self._draw(record, n)) if n else ""

    def _draw(self, record: Any, n: int) -> list[Any]:
        others = [row for row in self.pool if row != record] if self.same else self.pool
        if n > len(others):
            raise ValueError(f"wants {n} few-shot examples, but there are {len(others)}")
        if self.first:
            return others[:n]
        if not self.same:
            return self.random.sample(self.pool, n)
        drawn = [row for row in self.random.sample(self.pool, n + 1) if row != record][:n]
        return drawn if len(drawn) == n else self.random.sample(others, n)


def _draft(task: HarnessTask, row: Row, place: int, shots: str) -> OwnDraft:
    record = row.value
    if not isinstance(record, dict):
        raise ValueError("is not a mapping of columns")
    before = _text_of(task, record, task.description) + shots
    rule, contexts, continuations, gold = _cells(task, record, before)
    ability = task.ability or re.sub(r"\W", "_", task.task.lower())
    ability = ability if ability[:1].isalpha() else f"task_{ability}"
    cluster = str(_resolve(record, task.cluster)) if task.cluster else f"{task.task}:{place}"
    return OwnDraft(
        task.task, ability, task.language, task.bank, rule, contexts, continuations, gold, cluster, 0,
        f"{task.task}[{place}]", row.where,
    )  # fmt: skip


def _cells(task: HarnessTask, record: dict[str, Any], before: str) -> tuple[str, list[str], list[str], int]:
    target = _target(task, record)
    if task.output_type == "loglikelihood_rolling":
        return "bits_per_byte", [""], [_as_text(target)], 0
    text = _question(task, record)
    if task.output_type == "loglikelihood":
        context, continuations = cells(before + _as_text(text), [_as_text(target)], "")
        return "bits_per_byte", [context], continuations, 0
    if task.output_type == "generate_until":
        answers = [str(one) for one in target] if isinstance(target, list) else [_as_text(target)]
        if not all(answer.strip() for answer in answers):
            raise ValueError("its answer is empty")
        context, continuations = cells(before + _as_text(text), answers, task.target_delimiter)
        return "generate", [context] * len(continuations), continuations, task.min_parameters
    choices = _choices(task, record)
    check_options(choices)
    if isinstance(text, int):  # the choices are contexts, as in Winogrande
        pairs = [cells(before + choice, [f"{task.target_delimiter}{target}"], "") for choice in choices]
        return "likelihood", [pair[0] for pair in pairs], [pair[1][0] for pair in pairs], _place(text, choices)
    context, continuations = cells(before + text, [f"{task.target_delimiter}{choice}" for choice in choices], "")
    return "likelihood", [context] * len(choices), continuations, _place(target, choices)


def _question(task: HarnessTask, record: dict[str, Any]) -> str | int:
    if isinstance(task.doc_to_text, int):
        return task.doc_to_text
    value = _resolve(record, task.doc_to_text)
    if isinstance(value, str) and value.isdigit() and task.doc_to_choice is not None:
        return int(value)
    if isinstance(value, int):
        return value
    text = _as_text(value)
    prefix = _text_of(task, record, task.gen_prefix or "")
    gap = task.target_delimiter if prefix and text and not (text[-1].isspace() or prefix[0].isspace()) else ""
    return text + gap + prefix


def _target(task: HarnessTask, record: dict[str, Any]) -> Any:
    if isinstance(task.doc_to_target, int | list):
        return task.doc_to_target
    if task.doc_to_target in record:
        return record[task.doc_to_target]
    text = _rendered(task.doc_to_target, record)
    if text.isdigit() and task.doc_to_choice is not None:
        return int(text)
    if len(text) >= 2 and text[0] == "[" and text[-1] == "]":
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            return text
    return text


def _choices(task: HarnessTask, record: dict[str, Any]) -> list[str]:
    given = task.doc_to_choice
    if isinstance(given, dict):
        return list(given.values())
    if isinstance(given, list):
        return given
    assert given is not None  # checked with the task
    found = record[given] if given in record else ast.literal_eval(_rendered(given, record))
    if not isinstance(found, list | tuple):
        raise ValueError(f"its choices are no list but {found!r}")
    return [str(choice) for choice in found]


def _place(answer: Any, choices: list[str]) -> int:
    if isinstance(answer, list):
        raise ValueError("has several right answers; ltm takes one")
    if isinstance(answer, str):
        if answer not in choices:
            raise ValueError(f"its answer {answer!r} is none of its choices")
        return choices.index(answer)
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise ValueError(f"its answer {answer!r} is neither a place nor one of its choices")
    if not 0 <= answer < len(choices):
        raise ValueError(f"its answer is {answer}, but it has choices 0 to {len(choices) - 1}")
    return answer


def _example(task: HarnessTask, record: dict[str, Any]) -> str:
    """Return one few-shot example: question, delimiter, answer, delimiter."""
    answer = _target(task, record)
    text = _question(task.model_copy(update={"gen_prefix": None}), record)
    if isinstance(text, int):
        text = _choices(task, record)[text]
    elif isinstance(answer, int) and task.doc_to_choice is not None:
        answer = _choices(task, record)[answer]
    if isinstance(answer, list):
        answer = answer[0]
    prefix = _text_of(task, record, task.gen_prefix or "")
    gap = " " if prefix and answer and not (prefix[-1].isspace() or str(answer)[0].isspace()) else ""
    return f"{text}{task.target_delimiter}{prefix}{gap}{answer}{task.fewshot_delimiter}"


def _resolve(record: dict[str, Any], field: str) -> Any:
    return record[field] if field in record else _rendered(field, record)


def _text_of(task: HarnessTask, record: dict[str, Any], field: str) -> str:
    del task
    return _as_text(_resolve(record, field)) if field else ""


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


@lru_cache(maxsize=64)
def _template(text: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _regex_replace
    return environment.from_string(text)


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


def _rendered(text: str, record: dict[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        return str(_template(text).render(**record))
    except TemplateError as error:
        raise ValueError(f"template {text!r}: {error.message}") from None
    except Exception as error:  # a template may do anything with its record
        raise ValueError(f"template {text!r}: {type(error).__name__}: {error}") from None


def _in_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return str(error) or type(error).__name__


def _splits(task: HarnessTask, folder: Path, where: str, problems: Problems) -> dict[str, list[Row]]:
    files = task.files()
    named: dict[str, Any] = files if isinstance(files, dict) else {"train": files}  # as Hugging Face datasets name it
    splits: dict[str, list[Row]] = {}
    for split, names in named.items():
        rows: list[Row] = []
        for name in names if isinstance(names, list) else [names]:
            rows += _records(task, folder / str(name), str(name), where, problems)
        splits[str(split)] = _typed(rows) if task.dataset_path == "csv" else rows
    return splits


def _records(task: HarnessTask, path: Path, name: str, where: str, problems: Problems) -> Iterator[Row]:
    if task.dataset_path != "parquet":
        yield from read_rows(path, name, where, problems, {"json": ".json", "csv": ".csv"}[task.dataset_path])
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(path).read().to_pylist()
    except (OSError, pa.ArrowException) as error:
        problems.add(where, f"cannot read {name}: {getattr(error, 'strerror', None) or 'not a Parquet file'}")
        return
    for place, row in enumerate(rows):
        yield Row(f"{name}[{place}]", row)


def _typed(rows: list[Row]) -> list[Row]:
    """Turn columns of a CSV file that hold only whole numbers, or only numbers, into numbers, as its loader would."""
    if not rows:
        return rows
    kinds: dict[str, type] = {}
    for column in rows[0].value:
        values = [row.value[column] for row in rows]
        for kind, pattern in ((int, r"[+-]?\d+"), (float, r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")):
            if all(re.fullmatch(pattern, value) for value in values):
                kinds[column] = kind
                break
    return [Row(row.where, {key: kinds.get(key, str)(value) for key, value in row.value.items()}) for row in rows]
