"""DeepSpeed's ZeRO-2 for one run: every process holds the weights, and a part of gradients and optimizer states.

The loop stays `HfTrainer`'s; DeepSpeed reduces gradients, updates its part and gathers the weights. Checkpoints go
through its interface for whole states, since its own files are pickles. Source: Rajbhandari et al. 2020.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ltm.runs.engines import base_model
from ltm.runs.engines.hf import HfTrainer

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero2Trainer(HfTrainer):
    """One run in progress, shared by the processes of a group of kind `zero2`."""

    engine: Any

    def _lay_out(self, model: Any) -> None:
        os.environ.setdefault("DS_ACCELERATOR", self.group.device.split(":")[0])
        deepspeed = base_model.need("deepspeed")
        section, group = self.section, self.group
        self.inner = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        n_micro = section.batch_tokens // self.micro_tokens
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=self._plain_optimizer(),
            config={
                "train_micro_batch_size_per_gpu": self.micro_tokens // self.block_size // group.size,
                "gradient_accumulation_steps": n_micro,
                "gradient_clipping": section.clip_norm,
                "zero_optimization": {"stage": 2},
                "zero_allow_untested_optimizer": True,
                "steps_per_print": 10**9,
            },
        )
        self.model = self.engine
        self._make_moments()

    def _update(self, loss: float) -> None:
        # the last `step` of `_backward` has updated the weights: the rate was set before
        self._check(loss, float(self.engine.get_global_grad_norm() or 0.0))

    def _backward(self, loss: Tensor, is_last: bool) -> None:
        del is_last  # DeepSpeed counts the micro batches itself
        self.engine.backward(loss)
        self.engine.step()

    def _tensors(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors = {f"weight:{name}": value for name, value in self._trained_weights().items()}
        step = torch.tensor(float(self.state.step))
        for name, parameter in self.inner.named_parameters():
            if parameter.requires_grad:
                for moment in _MOMENTS:
                    value = safe_get_full_optimizer_state(parameter, moment)
                    tensors[f"optimizer:{moment}:{name}"] = value
                tensors[f"optimizer:step:{name}"] = step
        return tensors

    def _restore(self, weights: dict[str, Tensor], moments: dict[str, dict[str, Tensor]]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for name, parameter in self.inner.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(weights[name])
                safe_set_full_fp32_param(parameter, weights[name])
                for moment in _MOMENTS:
                    safe_set_full_optimizer_state(parameter, moments[name][moment], moment)
        step = next(iter(moments.values()))["step"]
        for state in self.optimizer.optimizer.state.values():
            state["step"] = step.clone()

    def _make_moments(self) -> None:
        """Make the moments of the part that this process updates, before the first step.

        DeepSpeed ties names to moments when the first parameter group has been updated, and leaves out those of the
        groups that follow, which have none yet; with moments from the start it finds them all.
        """
        states = self.optimizer.optimizer.state
        for group in self.optimizer.optimizer.param_groups:
            for part in group["params"]:
                states[part] = {moment: torch.zeros_like(part) for moment in _MOMENTS} | {"step": torch.tensor(0.0)}
        self.optimizer._lazy_init_hp_params_optimizer_state()

    def _all_weights(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.inner.state_dict().items()}

    def _trained_names(self) -> set[str]:
        return {name for name, p in self.inner.named_parameters() if p.requires_grad}
