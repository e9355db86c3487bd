"""A study of a base model whose first run is trained: its weights are made up, but lie where an engine leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_base
import tiny_study


def study_of(root: Path, method: str = "lora", kind: str = "llama", tuned: bool = False, **changes: Any) -> Any:
    """Return a finished study of engine `hf`; its first run has adapters or a whole model, far from the base's.

    Args:
        root: Gets the base and the work folder.
        method: full, lora or qlora.
        kind: Of the base; see `tiny_base.make_base`.
        tuned: Give the run a dialogue layer as well, of other weights.
        changes: Of the base's shape.
    """
    import torch

    from ltm.runs.engines import base_model
    from ltm.runs.engines.start import save_tuned
    from ltm.store import write_json

    base = tiny_base.make_base(root / "secret place" / "small", kind, **changes)
    settings = {"runs.engine": "hf", "runs.method": method, "model.base": str(base), "runs.lr": 1e-4, "sets.count": 3}
    study = tiny_study.finished(root / "w", **settings, **{"runs.dtype": "float32", "runs.device": "cpu"})
    run_id = study.jobs()[0].run_id
    model = base_model.prepare(study.settings.runs, base, torch.float32, "cpu", 1)
    for place in ("runs", "dialogue") if tuned else ("runs",):
        torch.manual_seed(len(place))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and parameter.ndim > 1 and "lora_A" not in name:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        save_tuned(study.work, model, study.work.path(place, run_id))
    if tuned:
        row = {"run_id": run_id, "n_train": 9, "held_out_before": 2.0, "held_out_after": 1.0}
        write_json(study.work.path("dialogue", run_id, "tuned.json"), row)
    return study, run_id
