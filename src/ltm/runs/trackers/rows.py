"""Runs as trackers keep them, made from rows on disk alone.

Reads: `study.json`, `runs/jobs.json`, `runs/<run_id>/run.json` (Run), `runs/recipes/`, `sets/variants.parquet`
(Variant), `books/catalogue.parquet` (titles), `scores/measures.parquet` (Measure). Writes: nothing.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltm.books.catalogue import columns
from ltm.errors import LtmError
from ltm.records import Measure, Run, Variant
from ltm.runs import queue
from ltm.runs.trackers.base import TrackedRun, TrackedStudy
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_json, read_rows

_OF_VARIANT = (
    *("variant_id", "index", "round", "block", "set_id", "template", "arm", "order", "gap_kind", "density"),
    *("spacing", "stream_seed"),
)


class Rows:
    """A work folder as trackers see it; files are read again when they changed.

    Args:
        work: The study's work folder.
        page: Where the result page lies, or will lie.
    """

    def __init__(self, work: WorkFolder, page: Path) -> None:
        self.work, self.page = work, page
        self._seen: dict[str, tuple[float, Any]] = {}
        self._row_digests: dict[str, tuple[int, str]] = {}

    def job_ids(self) -> list[str]:
        """Return the runs that the study asks for; none before its design stands."""
        path = self.work.path("runs", "jobs.json")
        found: list[str] = self._cached("jobs", path, lambda: [job.run_id for job in queue.read_jobs(self.work)[1]], [])
        return found

    def pending(self, fed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield each finished run whose copy is missing or not the newest, with the digest of what it would be now."""
        scores = self._measures()
        for run_id in self.job_ids():
            row = self._row_digest(run_id)
            if row and fed.get(run_id) != (digest := fingerprint([row, *scores.get(run_id, {}).items()])):
                yield run_id, digest

    def run(self, run_id: str) -> TrackedRun | None:
        """Return one finished run; None where its row cannot be read."""
        run = queue.read_run(self.work, run_id)
        if run is None:
            return None
        variant = self._variants().get(run.variant_id)
        study = str(self._study().get("name", self.work.root.name))
        tags = (
            [] if variant is None else [f"order {variant.order}", f"gaps {variant.gap_kind}", f"round {variant.round}"]
        )
        return TrackedRun(
            key=f"{run.run_id}-{fingerprint(study, 4)}",
            run_id=run.run_id,
            name=_name(run, variant),
            group=study,
            kind="run" if variant is None else variant.template,
            tags=tags,
            config=self._config(run, variant),
            curve=[(t, x) for t, x in zip(run.curve_tokens, run.curve_loss, strict=False) if math.isfinite(x)],
            summary={**_outcome(run), **self._measures().get(run_id, {})},
            started=_seconds(run.started_at),
            finished=_seconds(run.finished_at),
        )

    def study(self) -> tuple[TrackedStudy, str]:
        """Return the study as it is now, and a digest that changes with it."""
        settings = self._study()
        name = str(settings.get("name", self.work.root.name))
        jobs = self.job_ids()
        complete = sum(1 for run_id in jobs if self._row_digest(run_id))
        page = self.page if self.page.exists() else None
        at = page.stat().st_mtime if page else 0.0
        summary = {"runs": float(len(jobs)), "complete": float(complete)}
        config = _flat({k: v for k, v in settings.items() if k not in ("overrides", "work", "trackers")})
        config = {key: value for key, value in config.items() if key not in ("books.path", "books.manifest")}
        digest = fingerprint([summary, at, fingerprint(_plain(config))])
        question = str(settings.get("question", ""))
        return TrackedStudy(f"study-{fingerprint(name, 12)}", name, question, config, summary, page, at), digest

    def _config(self, run: Run, variant: Variant | None) -> dict[str, Any]:
        try:
            recipe = read_json(self.work.path("runs", "recipes", f"{run.recipe}.json"))
        except LtmError:
            recipe = {}
        config = _flat(recipe)
        config |= {"run_id": run.run_id, "init_seed": run.init_seed, "n_params": run.n_params, "device": run.device}
        config |= {"dtype": run.dtype, "compiled": run.compiled, "micro_batch_tokens": run.micro_batch_tokens}
        config |= {"weights_sha256": run.weights_sha256, "cuts": run.cuts}
        config |= {f"versions.{key}": value for key, value in run.versions.items()}
        config |= {f"hardware.{key}": value for key, value in run.hardware.items()}
        if variant is not None:
            titles = self._titles()
            config |= {f"variant.{name}": getattr(variant, name) for name in _OF_VARIANT}
            config["books"] = [titles.get(book, book) for book in variant.book_ids]
        return config

    def _study(self) -> dict[str, Any]:
        path = self.work.path("study.json")
        found: dict[str, Any] = self._cached("study", path, lambda: read_json(path), {})
        return found

    def _variants(self) -> dict[str, Variant]:
        path = self.work.path("sets", "variants.parquet")
        found: dict[str, Variant] = self._cached(
            "variants", path, lambda: {v.variant_id: v for v in read_variants(self.work)}, {}
        )
        return found

    def _titles(self) -> dict[str, str]:
        def read() -> dict[str, str]:
            table = columns(self.work, ["book_id", "title"])
            return dict(zip(table.column("book_id").to_pylist(), table.column("title").to_pylist(), strict=True))

        found: dict[str, str] = self._cached("titles", self.work.path("books", "catalogue.parquet"), read, {})
        return found

    def _measures(self) -> dict[str, dict[str, float]]:
        """Return the scores of each run, `scores/ability/family` and accuracies, once they are condensed."""
        path = self.work.path("scores", "measures.parquet")

        def read() -> dict[str, dict[str, float]]:
            found: dict[str, dict[str, float]] = {}
            for m in read_rows(path, Measure):
                row = found.setdefault(m.run_id, {})
                for name, value in (("", m.value), ("/accuracy", m.accuracy)):
                    if math.isfinite(value):
                        row[f"scores/{m.ability}/{m.family}{name}"] = value
            return found

        value: dict[str, dict[str, float]] = self._cached("measures", path, read, {})
        return value

    def _row_digest(self, run_id: str) -> str:
        """Return what changes when a run's row does; empty while there is none."""
        try:
            stat = self.work.root.joinpath("runs", run_id, "run.json").stat()
        except OSError:
            return ""
        known = self._row_digests.get(run_id)
        if known is None or known[0] != stat.st_mtime_ns:
            run = queue.read_run(self.work, run_id)
            known = (stat.st_mtime_ns, "" if run is None else fingerprint([run.finished_at, run.final_loss]))
            self._row_digests[run_id] = known
        return known[1]

    def _cached(self, name: str, path: Path, read: Any, otherwise: Any) -> Any:
        try:
            changed = path.stat().st_mtime
        except OSError:
            return otherwise
        if name not in self._seen or self._seen[name][0] != changed:
            try:
                self._seen[name] = (changed, read())
            except (LtmError, KeyError, TypeError, ValueError):  # half an edit, or damaged: the next look may do
                return self._seen[name][1] if name in self._seen else otherwise
        return self._seen[name][1]


def _name(run: Run, variant: Variant | None) -> str:
    if variant is None:
        return run.run_id
    gaps = "" if variant.gap_kind == "none" else f" {variant.gap_kind} {variant.density:g}"
    return f"set {variant.set_id} {variant.order}{gaps} {run.run_id[:6]}"


def _outcome(run: Run) -> dict[str, float]:
    values = {
        "final_loss": run.final_loss,
        "seconds": run.seconds,
        "tokens_per_second": run.tokens_per_second,
        "mfu": run.mfu,
        "n_tokens": float(run.n_tokens),
        "n_steps": float(run.n_steps),
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _seconds(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, child in value.items():
        name = f"{prefix}{key}"
        if isinstance(child, Mapping):
            found |= _flat(child, f"{name}.")
        elif child is not None:
            found[name] = child
    return found


def _plain(config: Mapping[str, Any]) -> list[str]:
    return sorted(f"{key}={value}" for key, value in config.items())
