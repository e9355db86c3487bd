"""Why a run has its id, why it is as it is, and why it is trained again: what changed, from which value to which."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ltm.errors import StoreError
from ltm.records import Run
from ltm.runs import queue
from ltm.store import WorkFolder, read_json
from ltm.study import provenance
from ltm.study.edits import Edit
from ltm.study.provenance import BOOKS, Origin
from ltm.units import format_seconds

WEIGHTS = "weights.safetensors"


def why(work: WorkFolder, wanted: str, edit: Edit | None = None) -> dict[str, Any]:
    """Return all that explains one run, as plain values.

    Args:
        work: The study's work folder.
        wanted: The run's id, or its beginning.
        edit: What the study file, as it stands now, would change; None where no file was given.

    Raises:
        InputError: no run, or several, are called so.
        StoreError: the study has no runs yet.
    """
    known = provenance.origins(work)
    run_id = provenance.find_run(work, wanted, known)
    origin = known[run_id]
    state = queue.state_of(work, run_id)
    run = queue.read_run(work, run_id) if state == "complete" else None
    other = _counterpart(work, origin, known)
    books = [] if origin.variant is None else origin.variant.book_ids
    more = [] if other is None or other.variant is None else other.variant.book_ids
    titles = provenance.titles_of(work, {*books, *more})
    return {
        "run_id": run_id,
        "state": state,
        "wanted": origin.wanted,
        "reason": _reason(work, origin, state),
        "made_from": origin.made_from(),
        "books": [titles.get(book, book) for book in books],
        "recomputed_id": origin.recomputed,
        "compared_with": None if other is None else _about(work, other),
        "changed": [] if other is None else provenance.changes(*_in_time(origin, other), titles),
        "trained": None if run is None else _trained(run),
        "weights_kept": work.path("runs", run_id, WEIGHTS).exists(),
        "scored": work.path("scores", f"{run_id}.parquet").exists(),
        "pending_edit": [] if edit is None or not (edit.changed or edit.causes) else edit.in_words(),
        "pending_drops": edit is not None and run_id in edit.dropped,
    }


def why_text(value: Mapping[str, Any]) -> str:
    """Return the explanation as a person reads it."""
    asked = "the study asks for it" if value["wanted"] else "the study no longer asks for it"
    lines = [f"run {value['run_id']}: {value['state']}; {asked}", f"  {value['reason']}"]
    if value["recomputed_id"] is None:
        lines.append("its id cannot be recomputed: what it was made from was not recorded (an earlier ltm)")
    elif value["recomputed_id"] == value["run_id"]:
        lines.append("its id is the fingerprint of what follows, and of nothing else (recomputed: the same):")
    else:
        lines.append(f"its id does not fit what follows, which gives {value['recomputed_id']}: a file was edited")
    set_to = {key: item for key, item in value["made_from"].items() if key != BOOKS and item is not None}
    lines += [f"  {key}: {provenance.plain(item)}" for key, item in set_to.items()]
    if value["books"]:
        lines.append(f"  {len(value['books'])} books, in this order: {', '.join(value['books'])}")
    if value["compared_with"]:
        lines += _compared(value)
    if value["trained"]:
        lines += ["trained", *(f"  {key}: {item}" for key, item in value["trained"].items())]
        kept = "kept" if value["weights_kept"] else "not kept"
        lines.append(f"  weights: {kept}; scores: {'there' if value['scored'] else 'not made yet'}")
    if value["pending_edit"]:
        lines += ["the study file was edited since:", *(f"  {line}" for line in value["pending_edit"])]
        if value["pending_drops"]:
            lines.append("  this run would no longer be used (ltm run asks for --accept-changes)")
    return "\n".join(lines)


def _compared(value: Mapping[str, Any]) -> list[str]:
    other = value["compared_with"]
    if value["wanted"]:
        head = f"it is not {other['run_id']} ({other['state']}, asked for before the study was changed), since:"
    else:
        head = f"in its place the study asks for {other['run_id']} ({other['state']}), since:"
    return [head, *(f"  {line}" for line in value["changed"] or ["nothing that is recorded"])]


def _counterpart(work: WorkFolder, origin: Origin, known: Mapping[str, Origin]) -> Origin | None:
    """Return the run that took this one's place, or whose place it took; None if the study never changed."""
    others = [other for other in known.values() if other.wanted != origin.wanted]
    if origin.wanted:
        finished = [other for other in others if queue.state_of(work, other.run_id) == "complete"]
        others = finished or others
    return provenance.nearest(origin, others)


def _in_time(origin: Origin, other: Origin) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what both were made from, the earlier one first."""
    return (other.made_from(), origin.made_from()) if origin.wanted else (origin.made_from(), other.made_from())


def _about(work: WorkFolder, other: Origin) -> dict[str, Any]:
    return {"run_id": other.run_id, "state": queue.state_of(work, other.run_id)}


def _reason(work: WorkFolder, origin: Origin, state: str) -> str:
    """Return in words why the run is in its state, and what will happen to it."""
    folder = work.path("runs", origin.run_id)
    done = f"{queue.progress_of(work, origin.run_id):.0%} done"
    if state == "complete":
        return "it is finished; nothing that it is made from has changed" if origin.wanted else _UNUSED
    if state == "failed":
        failure = _json(folder / "failed.json")
        error = str(failure.get("error", "unknown")).splitlines()[0]
        return f"its own error ended it ({failure.get('attempts', 1)} attempts): {error}; the next start tries again"
    if state == "lost":
        how = "from its last checkpoint" if (folder / "checkpoint.safetensors").exists() else "from the beginning"
        return f"its process or machine went away{_since(folder)} ({done}); the next start goes on {how}"
    if state == "stopped":
        return f"it was stopped ({done}); the next start goes on from its checkpoint"
    if state == "running":
        return f"it is being trained ({done})"
    return "it was not begun yet" if origin.wanted else "it was never begun, and the study no longer asks for it"


_UNUSED = "it is finished, but no finding uses it; it counts again when the change is undone"


def _since(folder: Any) -> str:
    try:
        passed = time.time() - (folder / "heartbeat.json").stat().st_mtime
    except OSError:
        return ""
    return f" {format_seconds(passed)} ago"


def _trained(run: Run) -> dict[str, str]:
    """Return when, where and with what it was trained."""
    machine = ", ".join(f"{key} {item}" for key, item in sorted(run.hardware.items())) or "not recorded"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(run.versions.items()))
    return {
        "when": f"{run.started_at} to {run.finished_at} ({format_seconds(run.seconds)} of training)",
        "where": f"{run.worker}, {run.device}, {run.dtype}{', compiled' if run.compiled else ''}",
        "machine": machine,
        "versions": versions,
        "micro batch": f"{run.micro_batch_tokens} tokens",
        "loss": f"{run.final_loss:.4f} nats per token at the end of {run.n_tokens} tokens",
        "weights' SHA-256": run.weights_sha256 or "not recorded",
    }


def _json(path: Any) -> dict[str, Any]:
    try:
        value = read_json(path)
    except StoreError:
        return {}
    return value if isinstance(value, dict) else {}
