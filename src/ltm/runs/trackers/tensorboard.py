"""TensorBoard: one folder of events for each run, with its settings for the HPARAMS tab and its scores.

Writes: `trackers/tensorboard/<study>/<key>/events.out.tfevents.*`, one file a run, replaced as a whole. TensorBoard has
no place for a page; the study's entry names it in a text.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.record_writer import RecordWriter

from ltm.runs.trackers.base import TrackedRun, TrackedStudy, Tracker

_FILE = "events.out.tfevents.{seconds:010d}.ltm"
_DT_STRING = 7


class TensorboardTracker:
    """Writes event files."""

    def __init__(self, settings: dict[str, Any], study: str, folder: Path) -> None:
        self.folder = Path(settings["folder"]).expanduser() if settings["folder"] else folder
        self.study = study

    def write_run(self, run: TrackedRun) -> None:
        """Keep a run: loss by tokens seen, scores at the last step, settings."""
        last = run.curve[-1][0] if run.curve else 0
        passed = run.finished - run.started
        simple = {k: v for k, v in run.config.items() if isinstance(v, (str, int, float, bool))}
        events = [_event(run.started, 0, hparams.hparams_pb(simple, run.key, run.started))]
        events += [_event(run.started, 0, _text("config", _table(run.config)))]
        events += [
            _event(run.started + passed * tokens / last, tokens, _scalar("loss", loss)) for tokens, loss in run.curve
        ]
        events += [_event(run.finished, last, _scalar(name, value)) for name, value in run.summary.items()]
        self._write(run.key, run.started, events)

    def write_study(self, study: TrackedStudy) -> None:
        """Keep the study's settings as a text."""
        words = f"{study.question}\n\n{_table(study.config)}"
        if study.page is not None:
            words += f"\n\nresult page: {study.page.name}, in the study's work folder"
        events = [_event(study.at, 0, _text("study", words))]
        events += [_event(study.at, 0, _scalar(name, value)) for name, value in study.summary.items()]
        self._write(study.key, study.at, events)

    def close(self) -> None:
        """Do nothing: every file is whole."""

    def _write(self, key: str, seconds: float, events: list[Event]) -> None:
        """Write a run's events into a new folder that takes the place of the old one."""
        folder = self.folder / self.study / key
        fresh = folder.with_name(f".{key}.{os.getpid()}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        with open(fresh / _FILE.format(seconds=int(seconds)), "wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=seconds, step=0, file_version="brain.Event:2").SerializeToString())
            for event in events:
                writer.write(event.SerializeToString())
            writer.flush()
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _event(seconds: float, step: int, summary: Summary) -> Event:
    return Event(wall_time=seconds, step=step, summary=summary)


def _scalar(tag: str, value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _text(tag: str, text: str) -> Summary:
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=_DT_STRING, string_val=[text.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def _table(config: dict[str, Any]) -> str:
    """Return settings as a Markdown table; book titles cannot break it."""
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in sorted(config.items())]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def open_tracker(settings: dict[str, Any], study: str, folder: Path) -> Tracker:
    """Return the tracker."""
    return TensorboardTracker(settings, study, folder)
