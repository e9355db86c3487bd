"""Make a work folder with 10,000 complete runs, out of nothing."""
import sys, os, json, time, dataclasses
from pathlib import Path
import ltm
from ltm.records import Run, Variant
from ltm.store import WorkFolder, write_json, write_rows, as_json, json_bytes
from ltm.runs import queue
root = Path(sys.argv[1]); n = int(sys.argv[2])
study = ltm.load("demo", {}, work=str(root))
work = study.work; work.create()
write_json(root/"study.json", {**json.loads(study.settings.model_dump_json()), "overrides": {}})
jobs = [queue.Job(f"{i:012x}", i, 1, f"v{i}", "c") for i in range(n)]
queue.write_jobs(work, study.recipe, jobs)
curve = [float(i)/3 for i in range(64)]
for i, j in enumerate(jobs[: int(n*0.97)]):
    run = Run(j.run_id, f"v{i}", 1, "llama-0.1m", 100000, 1000000, 2000, 10.0+i%7*.1, 1e5, .1, "cpu", "bf16", 3.3, list(range(64)), curve, "h:1", "2026", "2026", {"ltm": "1", "torch": "2"})
    d = root/"runs"/j.run_id; d.mkdir(parents=True)
    (d/"run.json").write_bytes(json_bytes(as_json(run)))
    (d/"weights.safetensors").write_bytes(b"x"*100)
