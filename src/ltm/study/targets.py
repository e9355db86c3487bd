"""What a word on the command line names: a study file, a work folder, a run's folder, or a run's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltm.errors import InputError, LtmError
from ltm.store import WorkFolder
from ltm.study.edits import Edit, look
from ltm.study.settings import find_study
from ltm.study.study import Study, load

_HINT = "name a study file, a work folder, or a run: ltm why STUDY RUN, or ltm why work/STUDY/runs/ID"


@dataclass(frozen=True)
class Target:
    """A work folder, perhaps with its study file, perhaps one run of it."""

    work: WorkFolder
    study: Study | None = None
    run_id: str | None = None

    def edit(self) -> Edit | None:
        """Return what the study file would change in the work folder; None where no file was named."""
        if self.study is None:
            return None
        try:
            return look(self.study.settings, self.study.document, self.work)
        except LtmError:
            return None


def find(word: str, overrides: Sequence[str] = (), work: str | None = None) -> Target:
    """Return what a word names.

    Args:
        word: A study file or the name of one that comes with ltm, a work folder, a run's folder, or (the beginning of)
            a run's id, which is looked for in `work`, else in all work folders below `work/`.
        overrides: `--set` of the command line, for a study file.
        work: `--work` of the command line.

    Raises:
        InputError: it names nothing, or several things.
    """
    path = Path(word)
    if (path / "ltm.json").exists():
        return _checked(Target(WorkFolder(path)))
    if path.is_dir() and path.parent.name == "runs" and (path.parent.parent / "ltm.json").exists():
        return _checked(Target(WorkFolder(path.parent.parent), run_id=path.name))
    if _is_study(word):
        study = load(word, overrides, work, recorded=True)
        return Target(study.work, study)
    return _run(word, work)


def find_run(words: Sequence[str], overrides: Sequence[str] = (), work: str | None = None) -> Target:
    """Return the run that `[STUDY] RUN` names.

    Raises:
        InputError: it names no run.
    """
    if len(words) == 2:
        target = find(words[0], overrides, work)
        if target.run_id is not None:
            raise InputError(f"{words[0]} is a run, not a study", _HINT)
        return Target(target.work, target.study, Path(words[1]).name)
    target = find(words[0], overrides, work)
    if target.run_id is None:
        raise InputError(f"{words[0]} is a study: which of its runs?", _HINT)
    return target


def _checked(target: Target) -> Target:
    target.work.check_version()
    return target


def _is_study(word: str) -> bool:
    try:
        return find_study(word).is_file()
    except InputError:
        return False


def _run(word: str, work: str | None) -> Target:
    roots = [Path(work)] if work else sorted(path.parent for path in Path("work").glob("*/ltm.json"))
    found: list[Target] = []
    for root in roots:
        folder = WorkFolder(root)
        if word and "/" not in word and any((root / "runs").glob(f"{word}*/run.json")):
            found.append(Target(folder, run_id=word))
    if len(found) == 1:
        return _checked(found[0])
    if found:
        places = ", ".join(str(target.work.root) for target in found)
        raise InputError(f"runs called `{word}` lie in {places}", "say which: --work DIR")
    raise InputError(f"no study, work folder or run is called `{word}`", _HINT)
