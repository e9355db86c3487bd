"""Successive halving: who may be stopped, who is, and that nothing random enters."""

import dataclasses

from test_worker import final_weights, study

from ltm.progress import Progress
from ltm.records import Variant
from ltm.runs import halving, queue, stage
from ltm.runs.section import HalvingSection, RunsSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json, write_rows


def test_only_what_was_proposed_may_be_stopped_and_thirty_percent_of_it_never(tmp_path, kjv_texts):
    work, _, jobs = study(tmp_path, kjv_texts)
    drawn = read_variants(work)
    assert halving.candidates(jobs, drawn) == []
    proposed = [dataclasses.replace(v, drawn=False, round="adaptive") for v in drawn]
    may = halving.candidates(jobs, proposed)
    assert set(may) == {job.run_id for job in jobs if not halving.is_exempt(job.run_id)}
    assert halving.candidates(jobs, [dataclasses.replace(v, round="confirmation") for v in proposed]) == []
    assert halving.candidates(jobs, [dataclasses.replace(v, aside=True) for v in proposed]) == []
    exempt = sum(halving.is_exempt(f"{i:012x}") for i in range(4000)) / 4000
    assert 0.27 < exempt < 0.33


def test_the_worse_half_goes_and_ties_are_settled_by_the_id():
    scores = {"d": 0.0, "a": 0.0, "c": 2.0, "b": 1.0, "e": float("nan")}
    assert halving.losers(scores, 0.5) == ["a", "d"]
    assert halving.losers(dict(reversed(scores.items())), 0.5) == ["a", "d"]
    assert halving.losers({"a": 1.0}, 0.5) == []
    assert halving.rungs(HalvingSection(enabled=True, rungs=[0.5, 0.25, 0.5]), 8) == [2, 4]
    assert halving.rungs(HalvingSection(), 8) == []


def test_losers_end_early_and_survivors_end_as_they_would_have(tmp_path, kjv_texts, monkeypatch):
    monkeypatch.setattr(halving, "is_exempt", lambda run_id: False)
    runs = {"halving": {"enabled": True, "rungs": [0.25, 0.5]}, "device": "cpu", "compile": False, "workers": 1}
    calm, _, jobs = study(tmp_path / "calm", kjv_texts)
    work, recipe, _ = study(tmp_path / "w", kjv_texts)
    recipe = queue.Recipe(recipe.sets, recipe.model, RunsSection(**{**recipe.runs.model_dump(), **runs}))
    variants = [dataclasses.replace(v, drawn=False, round="adaptive") for v in read_variants(work)]
    write_rows(work.path("sets", "variants.parquet"), variants, Variant)
    queue.write_jobs(work, recipe, jobs)
    monkeypatch.setattr(halving, "add_moments", lambda *_: None)
    asked = []

    def judge(run_ids, tokens):
        asked.append((len(run_ids), tokens))
        assert all((work.path("runs", r) / "checkpoint.safetensors").exists() for r in run_ids)
        return {run_id: float(place) for place, run_id in enumerate(run_ids)}

    with stage.workers(recipe.runs) as pool:
        complete = stage.build(work, recipe, jobs, pool, Progress(quiet=True), judge)
    assert asked == [(3, 50 * 64), (2, 100 * 64)]
    assert complete == [jobs[2].run_id]
    states = queue.states(work, [job.run_id for job in jobs])
    assert list(states.values()) == ["stopped", "stopped", "complete"]
    assert queue.missing(work, jobs) == []
    reason = read_json(work.path("runs", jobs[1].run_id, queue.ENDED))
    assert (reason["step"], reason["n_steps"]) == (100, 200)
    assert "the median of 2 candidates" in reason["reason"]
    assert not (work.path("runs", jobs[0].run_id) / "checkpoint.safetensors").exists()
    with stage.workers(recipe.runs) as pool:  # nothing is taken up again
        assert stage.build(work, recipe, jobs, pool, Progress(quiet=True), judge) == complete
    assert len(asked) == 2
    whole = WorkFolder(calm.root)
    with stage.workers(recipe.runs) as pool:
        stage.build(whole, dataclasses.replace(recipe, runs=RunsSection(device="cpu", compile=False, workers=1,
                    batch_tokens=64)), [jobs[2]], pool, Progress(quiet=True))  # fmt: skip
    one, two = final_weights(work, jobs[2].run_id), final_weights(whole, jobs[2].run_id)
    assert all((one[name] == two[name]).all() for name in one)
