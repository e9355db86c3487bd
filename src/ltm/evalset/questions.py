"""Which questions a study asks: its eval file, the families and numbers that it takes of it, the user's own items.

Reads: the eval file, the language files, and the data files that the eval file names. `ltm check` asks here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltm.config import Document, validate
from ltm.errors import ConfigError, InputError
from ltm.evalset import evalfile, harness, language, own
from ltm.evalset.evalfile import EvalFile, Family
from ltm.evalset.own import OwnDraft, OwnItems
from ltm.evalset.rows import Problems
from ltm.evalset.section import EvalsetSection
from ltm.records import FLUENCY


def sources(section: EvalsetSection) -> dict[str, Any]:
    """Return what the items follow from beside the library: the eval file, languages, and the user's data files.

    Raises:
        InputError: the eval file cannot be read.
    """
    path = Path(section.path) if section.path else evalfile.PACKAGED
    words = {code: (language.FOLDER / f"{code}.yaml").read_text(encoding="utf-8") for code in language.packaged_codes()}
    base = evalfile.PACKAGED.read_text(encoding="utf-8") if section.path else ""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the eval file {path}: {error.strerror}", "check evalset.path") from None
    return {"file": text, "extends": base, "languages": words, "data": _data_hashes(section)}


def questions(section: EvalsetSection) -> tuple[EvalFile, list[OwnDraft]]:
    """Read the eval file and the user's items; everything wrong with either is told at once.

    Raises:
        InputError: the eval file cannot be read.
        ConfigError: it, a family that the study names, or an item has problems, each with its place.
    """
    document = evalfile.document(section.path)
    problems = Problems()
    try:
        file = validate(EvalFile, document)
    except ConfigError as error:
        problems.lines += error.problems
        own.drafts(_readable_sets(document), document, problems)
        problems.raise_any()
        raise
    drafts = own.drafts(file.items, document, problems)
    names = {family.name: "the family" for family in file.families}
    for entry in file.items:
        _own_name(entry.name, names, document.where(("items",)), problems)
    for task, folder, where in harness.resolved(file.tasks, document, problems):
        _own_name(task.task, names, where, problems)
        drafts += harness.drafts(task, folder, where, problems)
    known = [family.name for family in file.families]
    for name in section.families or ():
        if name not in known:
            problems.add("evalset.families", f"no family `{name}` in {document.path}; it has: {', '.join(known)}")
    problems.raise_any()
    return file, drafts


def wanted_items(section: EvalsetSection, file: EvalFile) -> dict[str, int]:
    """Return how many items each family is to have in each bank; families that are off are left out."""
    chosen = [f for f in file.families if f.items and (section.families is None or f.name in section.families)]
    if section.items_per_family:
        return {family.name: section.items_per_family for family in chosen}
    if section.items_per_ability:
        return {family.name: _share(family, chosen, section.items_per_ability) for family in chosen}
    return {family.name: family.items for family in chosen}


def _readable_sets(document: Document) -> list[OwnItems | None]:
    """Return the sets of own items that are right in themselves, so that their items can be looked at."""
    found: list[OwnItems | None] = []
    entries = document.data.get("items")
    for entry in entries if isinstance(entries, list) else []:
        try:
            found.append(OwnItems.model_validate(entry))
        except ValidationError:
            found.append(None)
    return found


def _share(family: Family, chosen: Sequence[Family], n: int) -> int:
    if family.ability == FLUENCY:
        return min(n, family.items)
    total = sum(other.items for other in chosen if other.ability == family.ability)
    return max(1, round(n * family.items / total))


def _own_name(name: str, names: dict[str, str], where: str, problems: Problems) -> None:
    if name in names:
        problems.add(where, f"`{name}` is the name of {names[name]} already; names of families must differ")
    names.setdefault(name, f"the set at {where}")


def _data_hashes(section: EvalsetSection) -> dict[str, str]:
    """Return the hash of every file that the eval file names; a file that cannot be read has none."""
    if section.path is None:
        return {}
    try:
        document = evalfile.document(section.path)
    except (ConfigError, InputError):
        return {}
    folder = Path(document.path).parent
    names = sorted(set(_named_files(document, folder)))
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if (folder / name).is_file()
    }


def _named_files(document: Document, folder: Path) -> list[str]:
    """Return every text below `items` and `tasks` that is the name of a file there, those in task files too."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, str) and node not in found and _is_file(folder, node):
            found.append(node)
            if node.endswith((".yaml", ".yml")):
                walk(evalfile.document(str(folder / node)).data)

    walk([document.data.get("items"), document.data.get("tasks")])
    return found


def _is_file(folder: Path, name: str) -> bool:
    return 0 < len(name) < 500 and "\n" not in name and "\0" not in name and (folder / name).is_file()
