"""The `trackers` section of a study: which programs get a copy of its runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ltm.config import Section

Name = Annotated[str, Field(pattern=r"^[^\s/\\#?%:]{1,128}$")]


def _on_or_off(value: Any) -> Any:
    """Read `true` as all defaults and `false` as off."""
    return {} if value is True else None if value is False else value


class WandbSection(Section):
    """Weights & Biases."""

    mode: Literal["offline", "online"] = "offline"
    """`offline`: files in the work folder, for `wandb sync`. `online`: rows, titles and the page are sent as they
    come; needs `wandb login`."""
    project: Name | None = None
    """By default the study's name."""
    entity: Name | None = None
    """Team or user; by default the one of the login."""


class TrackioSection(Section):
    """Trackio, on this machine: `TRACKIO_DIR=WORK/trackers/trackio trackio show`."""

    project: Name | None = None
    """By default the study's name."""


class TensorboardSection(Section):
    """TensorBoard: `tensorboard --logdir WORK/trackers/tensorboard`."""

    folder: str | None = None
    """Where the event files go; by default `trackers/tensorboard` in the work folder."""


class MlflowSection(Section):
    """MLflow."""

    uri: str | None = None
    """Of the tracking store; by default a SQLite file, `trackers/mlflow/mlflow.db` in the work folder."""
    experiment: str | None = None
    """By default the study's name."""


class TrackersSection(Section):
    """Programs that get a copy of every finished run: config, curve, scores; and of the result page. All off by
    default. One that fails, hangs or is not installed never fails or slows a run. `true` takes all defaults."""

    wandb: Annotated[WandbSection | None, BeforeValidator(_on_or_off)] = None
    """Weights & Biases."""
    trackio: Annotated[TrackioSection | None, BeforeValidator(_on_or_off)] = None
    """Trackio."""
    tensorboard: Annotated[TensorboardSection | None, BeforeValidator(_on_or_off)] = None
    """TensorBoard."""
    mlflow: Annotated[MlflowSection | None, BeforeValidator(_on_or_off)] = None
    """MLflow."""
    patience_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A tracker that does nothing for so long is ended; the next start of the study hands it the rest."""

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each tracker that is on, by name."""
        named = {"wandb": self.wandb, "trackio": self.trackio, "tensorboard": self.tensorboard, "mlflow": self.mlflow}
        return {name: section.model_dump() for name, section in named.items() if section is not None}
