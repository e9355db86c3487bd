"""Weights & Biases: one run there for each run here, grouped by study; the result page is an artifact.

Writes: offline, `trackers/wandb/wandb/offline-run-*` for `wandb sync`; online, whatever wandb sends. Online, a run that
is handed over again is resumed under its id, and the server keeps the points that it has; offline, its folder is
replaced.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb tells its makers of crashes; ltm's user did not agree

import wandb

from ltm.runs.trackers.base import TrackedRun, TrackedStudy, Tracker


class WandbTracker:
    """Hands runs to Weights & Biases."""

    def __init__(self, settings: dict[str, Any], study: str, folder: Path) -> None:
        self.mode = str(settings["mode"])
        self.project, self.entity = settings["project"] or study, settings["entity"]
        self.folder = folder
        for name in ("data", "cache"):  # what waits to be sent lies here too, not in the user's home
            os.environ[f"WANDB_{name.upper()}_DIR"] = str((folder / name).resolve())
            (folder / name).mkdir(parents=True, exist_ok=True)

    def write_run(self, run: TrackedRun) -> None:
        """Keep a run: its curve by tokens seen, its config, its summary."""
        there = self._begin(run.key, run.name, run.group, run.kind, run.tags, run.config)
        there.define_metric("tokens")
        there.define_metric("loss", step_metric="tokens")
        for tokens, loss in run.curve:
            if tokens < there.starting_step:
                continue  # the server has it
            there.log({"tokens": tokens, "loss": loss}, step=tokens)
        there.summary.update(run.summary)
        there.finish(exit_code=0)

    def write_study(self, study: TrackedStudy) -> None:
        """Keep the study; its page becomes a new version of the artifact when it changed."""
        there = self._begin(study.key, study.name, study.name, "study", study.tags, study.config, study.question)
        there.summary.update(study.summary)
        if study.page is not None:
            artifact = wandb.Artifact(f"{study.name}-dashboard", type="dashboard", description=study.question)
            artifact.add_file(str(study.page), name=study.page.name)
            there.log_artifact(artifact)
        there.finish(exit_code=0)

    def close(self) -> None:
        """End wandb's own process."""
        wandb.teardown()

    def _begin(
        self, key: str, name: str, group: str, kind: str, tags: list[str], config: dict[str, Any], notes: str = ""
    ) -> Any:
        if self.mode == "offline":
            for old in (self.folder / "wandb").glob(f"offline-run-*-{key}"):
                shutil.rmtree(old, ignore_errors=True)
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=key,
            name=name,
            group=group,
            job_type=kind,
            tags=tags,
            config=config,
            notes=notes or None,
            dir=str(self.folder),
            mode="offline" if self.mode == "offline" else "online",
            resume="allow" if self.mode == "online" else None,
            reinit="finish_previous",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, disable_job_creation=True,
                x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            ),
        )  # fmt: skip


def open_tracker(settings: dict[str, Any], study: str, folder: Path) -> Tracker:
    """Return the tracker; the mode of the study file counts, not `WANDB_MODE`, unless that switches wandb off."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        settings = {**settings, "mode": "offline"}
    return WandbTracker(settings, study, folder)
