"""The base of every section of a study, and the reader of study files: all errors at once, with line and column.

Each package owns its section (a frozen pydantic model that forbids unknown keys); only `ltm.study` composes them.
YAML is read with ruamel.yaml because it keeps positions and refuses duplicate keys, which PyYAML silently drops.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ltm.errors import ConfigError, InputError
from ltm.units import parse_count

Count = Annotated[int, BeforeValidator(parse_count)]
"""A whole number that may be written `1500`, `1.5k`, `25M` or `10B`."""

SectionT = TypeVar("SectionT", bound="Section")
Position = tuple[int, int]  # line and column, from 1
Location = tuple[str | int, ...]  # keys and indices from the top of the file


class Section(BaseModel):
    """A part of a study file: frozen, unknown keys forbidden, every field described."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Document:
    """A parsed YAML file that remembers where each key stands."""

    def __init__(self, data: dict[str, Any], positions: Mapping[Location, Position | None], path: str) -> None:
        self.data = data
        self.positions = positions
        self.path = path

    def where(self, location: Location) -> str:
        """Return `file:line:column` of the nearest known ancestor of a location, or the `--set` that put it there."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.positions:
                position = self.positions[location[:length]]
                if position is None:
                    return "--set " + ".".join(str(part) for part in location[:length])
                return f"{self.path}:{position[0]}:{position[1]}"
        return self.path


def read_yaml(path: Path) -> Document:
    """Read a YAML mapping with the position of every key.

    Raises:
        InputError: the file is missing or cannot be read.
        ConfigError: it is not UTF-8 or not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}", "check the path, or make a new study with `ltm init`") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a study file", "name the .yaml file") from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start})"], "save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> Document:
    """Parse YAML text; see `read_yaml`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        root = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        problem = str(error.problem or "not valid YAML").split(" with value")[0]
        raise ConfigError([f"{where}: {problem}"], "mend the YAML at that place") from None
    except YAMLError as error:
        raise ConfigError([f"{path}: not valid YAML: {error}"], "mend the YAML") from None
    if root is None:
        root = {}
    if not isinstance(root, Mapping):
        raise ConfigError([f"{path}:1:1: expected a mapping of sections"], "see `ltm init` for an example")
    positions: dict[Location, Position] = {(): (1, 1)}
    _collect_positions(root, (), positions)
    return Document(_plain(root), positions, path)


def validate(model: type[SectionT], document: Document) -> SectionT:
    """Return the section that a document describes.

    Raises:
        ConfigError: lists every problem with `file:line:column`, and the nearest key for an unknown one.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(_explain(error, model, document), "`ltm schema` prints every key with its meaning") from None


def parse_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return `section.key=value` texts (or a mapping of them) as a mapping.

    Values given as text are read as YAML, so that `8`, `true` and `[a, b]` mean what they mean in the file.

    Raises:
        ConfigError: a text has no `=`.
    """
    return dict(overrides) if isinstance(overrides, Mapping) else dict(_split_override(o) for o in overrides)


def apply_overrides(document: Document, overrides: Mapping[str, Any]) -> Document:
    """Return the document with settings laid over it; a problem with one is reported as `--set`.

    Raises:
        ConfigError: a setting goes through something that is not a section.
    """
    data = _plain(document.data)
    positions: dict[Location, Position | None] = dict(document.positions)
    for dotted, value in overrides.items():
        keys = dotted.split(".")
        target = data
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ConfigError([f"--set {dotted}: `{key}` is not a section"], "write section.key=value")
        target[keys[-1]] = value
        for location in [loc for loc in positions if loc[: len(keys)] == tuple(keys)]:
            del positions[location]
        positions[tuple(keys)] = None
    return Document(data, positions, document.path)


def _split_override(text: str) -> tuple[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {text}: expected section.key=value"], "for example --set sets.count=64")
    try:
        return key.strip(), _plain(YAML(typ="rt").load(value))
    except YAMLError:
        return key.strip(), value


def _collect_positions(node: Any, location: Location, positions: dict[Location, Position]) -> None:
    if isinstance(node, Mapping):
        for key, child in node.items():
            try:
                line, column = node.lc.key(key)  # type: ignore[attr-defined]
                positions[(*location, key)] = (line + 1, column + 1)
            except KeyError:  # merged in by `<<`: the parent's place has to do
                pass
            _collect_positions(child, (*location, key), positions)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            line, column = node.lc.item(index)  # type: ignore[attr-defined]
            positions[(*location, index)] = (line + 1, column + 1)
            _collect_positions(child, (*location, index), positions)


def _plain(node: Any) -> Any:
    """Return ruamel's annotated containers and scalars as plain Python values."""
    if isinstance(node, Mapping):
        return {str(key): _plain(child) for key, child in node.items()}
    if isinstance(node, list):
        return [_plain(child) for child in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[str]:
    problems = []
    for detail in error.errors(include_url=False, include_context=False):
        location = tuple(detail["loc"])
        dotted = ".".join(str(part) for part in location)
        where = document.where(location)
        if detail["type"] == "extra_forbidden":
            known = _field_names(model, location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            advice = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(sorted(known))}"
            problems.append(f"{where}: unknown key `{dotted}`{advice}")
        elif detail["type"] == "missing":
            problems.append(f"{where}: `{dotted}` is missing")
        else:
            message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            given = "" if isinstance(detail["input"], dict) else f", not {detail['input']!r}"
            expected = message if detail["msg"].startswith("Value error") else f"must be {message}{given}"
            problems.append(f"{where}: `{dotted}` {expected}" if dotted else f"{where}: {expected}")
    return problems


def _field_names(model: type[BaseModel], location: Location) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        info = getattr(current, "model_fields", {}).get(part)
        if info is None:
            return []
        current = _model_inside(info.annotation)
    return list(getattr(current, "model_fields", {}))


def _model_inside(annotation: Any) -> Any:
    """Return the section class inside `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_inside(inner)
        if found is not None:
            return found
    return None
