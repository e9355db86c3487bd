"""Fields of a question as people write them: counts, numbers and words, with all that is wrong told together."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ltm.errors import ConfigError, InputError
from ltm.units import parse_count

Given = str | int | float | bool | None


class Problems:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, message: str, hint: str) -> None:
        """Note one problem and what to do about it."""
        self.found.append((message, hint))

    def stop(self) -> None:
        """Raise what was found, if anything was."""
        if len(self.found) == 1:
            raise InputError(*self.found[0])
        if self.found:
            raise ConfigError([f"{message} ({hint})" for message, hint in self.found])


def choice(name: str, value: Given, known: Sequence[str], usual: str, problems: Problems) -> str:
    """Return one of the known words, or the usual one."""
    if value is None:
        return usual
    text = str(value).lower().replace("-", "")
    if text in known:
        return text
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.0)[0]
    problems.add(f"{flag(name)} {value}: there is no such {name}", f"nearest: {near}; one of {', '.join(known)}")
    return usual


def count(name: str, value: Given, usual: int, problems: Problems) -> int:
    """Return a whole number of at least 1, or the usual one."""
    if value is None:
        return usual
    try:
        found = parse_count(value)
    except ValueError:
        problems.add(f"{flag(name)} {value} is not a whole number", "write 8, 1.5k, 25M or 10B")
        return usual
    if not 1 <= found < 10**18:
        problems.add(f"{flag(name)} is {found}", "it must be at least 1" if found < 1 else "that is too many")
        return usual
    return found


def number(name: str, value: Given, usual: float, problems: Problems, most: float = 1e12, zero: bool = False) -> float:
    """Return a number above 0 (or 0 where that has a meaning), or the usual one."""
    if value is None:
        return usual
    try:
        found = float(value)
    except ValueError:
        problems.add(f"{flag(name)} {value} is not a number", "write 0.5 or 2")
        return usual
    if not (0 < found <= most or (zero and found == 0)):
        wanted = f"above 0 and at most {most:g}" if most < 1e12 else "at least 0" if zero else "above 0"
        problems.add(f"{flag(name)} is {value}", f"it must be {wanted}")
        return usual
    return found


def flag(name: str) -> str:
    """Return a field as it is written on the command line."""
    return "--" + name.replace("_", "-")
