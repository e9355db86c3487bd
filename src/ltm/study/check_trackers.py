"""Whether the trackers that a study asks for are there; a study runs without them, so all of it is a warning."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse

from ltm.runs.trackers.base import missing
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings


def check_trackers(settings: StudySettings, notes: Notes) -> None:
    """Note which trackers cannot be used here, with the line that installs them; imports none of them."""
    for name in settings.trackers.chosen():
        if line := missing(name):
            notes.warning(f"trackers.{name}", f"is not installed, and would get nothing: {line}")
    wandb = settings.trackers.wandb
    if wandb is not None and wandb.mode == "online" and missing("wandb") is None and not _has_key():
        notes.warning("trackers.wandb.mode", "is online, but there is no key here: wandb login; nearest: offline")


def _has_key() -> bool:
    """Return whether wandb will find a key, where it looks for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
