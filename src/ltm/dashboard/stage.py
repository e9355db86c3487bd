"""Write the result page of a study, at any moment of it.

Reads: whatever the work folder holds so far. Writes: `ltm_result_dashboard.html`, one file that works offline.
"""

from __future__ import annotations

from pathlib import Path

from ltm.dashboard.section import DashboardSection
from ltm.progress import Progress
from ltm.store import WorkFolder, store_error, write_text
from ltm.units import format_bytes

VERSION = 3


def page_path(section: DashboardSection, work: WorkFolder) -> Path:
    """Return where the page of a study lies: inside the work folder, or at the absolute path of the section.

    Raises:
        StoreError: a relative path leads out of the work folder.
    """
    given = Path(section.path).expanduser()
    return given if given.is_absolute() else work.path(section.path)


def build(section: DashboardSection, work: WorkFolder, progress: Progress) -> Path:
    """Write the page and return its path.

    Equal rows give equal bytes: the page carries no clock.

    Raises:
        StoreError: the page cannot be written, or its path leads out of the work folder without being absolute.
    """
    from ltm.dashboard.inputs import read_inputs
    from ltm.dashboard.page import make_page

    path = page_path(section, work)
    page = make_page(read_inputs(work), section.language)
    try:
        write_text(path, page)
    except OSError as error:  # the folder of an absolute path cannot be made
        raise store_error(error, path) from error
    progress.say(f"dashboard {path} ({format_bytes(len(page.encode()))})")
    return path
