"""Several starts of one study on one work folder: one leads, the others help, and whoever is left goes on.

Reads and writes: what `ltm.runs.executors.crew` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ltm.errors import BusyError, StoreError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.runs.pause import is_paused
from ltm.runs.section import RunsSection
from ltm.store import WorkFolder


def together(
    section: RunsSection, work: WorkFolder, lead: Callable[[], dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    """Lead a study, or help whoever leads it, until it is done.

    Args:
        section: How many workers this machine has.
        work: The work folder.
        lead: Builds the study; raises BusyError where somebody else does.
        progress: Told who leads.
    """
    from ltm.runs.executors.crew import follow
    from ltm.runs.stage import local_executor

    while True:
        try:
            return lead()
        except BusyError as busy:
            progress.say(f"{busy.message}: helping with its runs")
        local = local_executor(section)
        local.may_work = lambda: not is_paused(work)
        if not follow(work, local, lambda: work.owner() is not None):
            progress.say("the study is done")
            return {"built": [], "failed_runs": _failures(work)}
        progress.say("nobody leads the study any more: going on with it here")


def _failures(work: WorkFolder) -> dict[str, str]:
    try:
        return queue.failures(work, queue.read_jobs(work)[1])
    except StoreError:
        return {}
