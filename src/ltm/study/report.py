"""What the command line prints of a study: plans, states, results, in words."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ltm import records
from ltm.errors import InputError
from ltm.runs import queue
from ltm.store import as_json, read_json, read_rows
from ltm.study.budget import LIKELY_OVER, OVER, in_words
from ltm.study.study import Study
from ltm.units import format_bytes, format_count, format_seconds

_SHOWN_FINDINGS = 3


def plan_text(plan: dict[str, Any]) -> str:
    """Return a plan as a short table and sentences."""
    width = max(len(stage["stage"]) for stage in plan["stages"])
    left = "" if plan["runs_left"] == plan["n_runs"] else f" ({plan['runs_left']:.3g} left)"
    lines = [
        f"{plan['n_runs']} runs{left} of {format_count(plan['run_tokens'])} tokens, "
        f"{format_count(plan['n_params'])} parameters, {plan['n_workers']} workers on {plan['device']}",
        f"rate: {plan['rate']['tokens_per_second_per_worker']:,.0f} tokens/s a worker ({plan['rate']['source']})",
        *_planned_rounds(plan["design"]["rounds"]),
        "",
    ]
    lines += [f"  {row['stage']:<{width}}  {_stage_text(row)}" for row in plan["stages"]]
    kwh_low, kwh_high = plan["energy_kwh_range"]
    usd_low, usd_high = plan["cost_usd_range"]
    lines += [
        "",
        f"time    {format_seconds(plan['seconds'])} "
        f"({format_seconds(plan['seconds_low'])} to {format_seconds(plan['seconds_high'])}; 90 %, {plan['why']})",
        f"disk    {_between(format_bytes, plan, 'disk_bytes')}     "
        f"memory  {_between(format_bytes, plan, 'memory_bytes')}",
        f"energy  {plan['energy_kwh']:.3g} kWh ({kwh_low:.3g} to {kwh_high:.3g}, at {plan['watts']:.0f} W)     "
        f"cost  {plan['cost_usd']:.2f} USD ({usd_low:.2f} to {usd_high:.2f})",
        "",
        "what it can find out:",
        *(f"  {line}" for line in plan["power_in_words"]),
    ]
    if plan["budget"]:
        lines += ["", "budget:", *(f"  {in_words(row)}" for row in plan["budget"])]
    for offer in plan["alternatives"]:
        lines += ["", *_offer_lines(offer)]
    if not plan["alternatives"] and any(row["verdict"] in (OVER, LIKELY_OVER) for row in plan["budget"]):
        lines += [
            "",
            "no single change of variants, seeds, tokens or model keeps this budget; change several, or raise it",
        ]
    return "\n".join(lines)


def _planned_rounds(rounds: list[dict[str, Any]]) -> list[str]:
    """Return one line about the rounds of a study that has any."""
    shown = [f"{row['round']} {row['runs']} runs on {row['sets']} sets" for row in rounds]
    return [f"rounds: {', '.join(shown)}"] if shown else []


def _stage_text(row: dict[str, Any]) -> str:
    if "measured" in row:
        return f"{'done':>12}   (took {format_seconds(row['measured'])})"
    return f"{format_seconds(row['seconds']):>12}   ({format_seconds(row['low'])} to {format_seconds(row['high'])})"


def _between(write: Callable[[float], str], plan: dict[str, Any], key: str) -> str:
    low, high = plan[f"{key}_range"]
    return f"{write(plan[key])} ({write(low)} to {write(high)})"


def _offer_lines(offer: dict[str, Any]) -> list[str]:
    """Return a change that keeps the budget: what it takes, what is lost, how to make it."""
    return [
        f"to keep it: {offer['change']}",
        f"  then {format_seconds(offer['seconds'])} "
        f"({format_seconds(offer['seconds_low'])} to {format_seconds(offer['seconds_high'])}), {offer['n_runs']} runs, "
        f"{offer['energy_kwh']:.3g} kWh, {offer['cost_usd']:.2f} USD, {format_bytes(offer['disk_bytes'])}",
        *(f"  lost: {line}" for line in offer["lost"]),
        f"  {offer['set']}",
    ]


def status_text(status: dict[str, Any]) -> str:
    """Return a status in a few lines."""
    runs = ", ".join(f"{count} {state}" for state, count in status["runs"].items() if count) or "none yet"
    stages = "  ".join(f"{name}{' ✓' if state == 'complete' else ''}" for name, state in status["stages"].items())
    left = "unknown" if status["eta_seconds"] is None else format_seconds(status["eta_seconds"])
    if status["eta_seconds"]:
        left += f" ({format_seconds(status['eta_low'])} to {format_seconds(status['eta_high'])})"
    lines = [
        f"{status['study']} in {status['work']}",
        f"stages   {stages}",
        f"runs     {runs}",
        *_round_lines(status),
        f"time     {format_seconds(status['elapsed_seconds'])} spent, {left} left; cost {status['cost_usd']:.2f} USD",
    ]
    if status["runs"]["complete"]:
        rate = status["rate"]
        each = f"{rate['tokens_per_second_per_worker']:,.0f} tokens/s a worker"
        lines.append(f"rate     {rate['runs_per_hour']:,.0f} runs an hour, {each}")
    if status["paused"]:
        lines.append("paused   `ltm resume STUDY` lets it go on")
    if status["working_on"]:
        lines.append(f"now      {status['working_on']}")
    if status["eta_seconds"] and status["eta_from"]:
        lines.append(f"         {status['eta_from']}")
    lines += [f"budget   {in_words(row)}" for row in status["budget"]]
    lines += [f"failed   {run_id}: {error}" for run_id, error in list(status["failed"].items())[:10]]
    return "\n".join(lines)


def _round_lines(status: dict[str, Any]) -> list[str]:
    """Return one line about the rounds of a study that has any."""
    shown = []
    for row in status.get("rounds", []):
        how_far = f"{row['complete']} of {row['runs']} runs" if row["state"] == "under way" else f"{row['runs']} runs"
        shown.append(f"{row['round']} {row['state']} ({how_far})")
    return [f"rounds   {', '.join(shown)}"] if shown else []


def result_text(study: Study, result: dict[str, Any], until: str) -> str:
    """Return what a finished `run` says: failures, the strongest findings, the page."""
    lines = []
    if not result["built"]:
        lines.append("nothing to do: the study is up to date")
    failed = result["failed_runs"]
    if failed:
        run_id, error = next(iter(failed.items()))
        lines.append(f"{len(failed)} runs failed and are left out; the first is {run_id}: {error}")
    if until == "dashboard":
        lines += ["", *findings_lines(study), "", f"the whole story: {page_path(study)}"]
    return "\n".join(lines)


def findings_lines(study: Study) -> list[str]:
    """Return the strongest findings in words, or that nothing could be told apart."""
    language = study.settings.dashboard.language
    findings = read_json(study.work.path("patterns", "findings.json"))
    claimed = [f["text"][language] for f in findings["findings"] if f["claimed"]][:_SHOWN_FINDINGS]
    unclear = [f["text"][language] for f in findings["not_told_apart"]][: _SHOWN_FINDINGS - len(claimed)]
    lines = ["strongest findings:", *(f"  {i}. {text}" for i, text in enumerate(claimed, 1))] if claimed else []
    if unclear:
        lines += ["could not be told apart from chance:", *(f"  - {text}" for text in unclear)]
    return lines or ["nothing was found out: too few runs were scored"]


def page_path(study: Study) -> str:
    """Return where the result page lies."""
    from ltm.dashboard.stage import page_path as where

    return str(where(study.settings.dashboard, study.work))


def stage_report(study: Study, name: str) -> dict[str, Any]:
    """Return the JSON document of one stage."""
    if name == "runs":
        return {"runs": [as_json(run) for run in queue.complete_runs(study.work)], "status": study.status()}
    value: dict[str, Any] = import_module(f"ltm.{name}.stage").report(study.work)
    return value


def stage_text(name: str, value: dict[str, Any]) -> str:
    """Return one stage's report for people: its numbers, without the long lists."""
    if name == "patterns":
        lines = [f"{'kind':<8} {'what':<60} {'ability':<10} {'effect':>7}  {'90 % interval':<16} {'q':>6}"]
        for effect in sorted(value["effects"], key=lambda e: (not e["claimed"], e["p"]))[:20]:
            interval = f"[{effect['low']:.2f}, {effect['high']:.2f}]"
            what = f"{effect['kind']:<8} {_cut(effect['label'], 60):<60} {effect['ability']:<10}"
            how_sure = f"{effect['q']:>6.3f}{'  *' if effect['claimed'] else ''}"
            lines.append(f"{what} {effect['estimate']:>7.2f}  {interval:<16} {how_sure}")
        return "\n".join([*lines, f"effects in {_units(value)}; * = claimed"])
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{key}:", *(f"  {k}: {v}" for k, v in item.items() if not isinstance(v, (list, dict)))]
        elif isinstance(item, list):
            lines.append(f"{key}: {len(item)} (see --json)")
        else:
            lines.append(f"{key}: {item}")
    return "\n".join(lines)


def _units(value: dict[str, Any]) -> str:
    if "scores" in value:
        return "the units of the given scores"
    return "seed standard deviations (within sets where no seed noise is known)"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def find_row(study: Study, wanted: str) -> tuple[str, dict[str, Any]]:
    """Return what an id (or its beginning) names: a book, a run or a variant.

    Raises:
        InputError: nothing or more than one thing is called so.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for kind, path, cls, key in (
        ("book", ("books", "catalogue.parquet"), records.Book, "book_id"),
        ("variant", ("sets", "variants.parquet"), records.Variant, "variant_id"),
    ):
        file = study.work.path(*path)
        if file.exists():
            rows: list[Any] = read_rows(file, cls)
            found += [(kind, as_json(row)) for row in rows if getattr(row, key).startswith(wanted)]
    if study.work.path("runs", "jobs.json").exists():
        for job in study.jobs():
            if job.run_id.startswith(wanted):
                run = queue.read_run(study.work, job.run_id)
                state = {"run_id": job.run_id, "state": queue.state_of(study.work, job.run_id)}
                found.append(("run", {**state, **(as_json(run) if run else {})}))
    if len(found) != 1:
        what = "nothing" if not found else f"{len(found)} things"
        raise InputError(
            f"{what} in {study.work.root} begins with `{wanted}`", "ids: ltm sql STUDY 'select * from runs'"
        )
    return found[0]
