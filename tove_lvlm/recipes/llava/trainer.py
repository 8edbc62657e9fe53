"""The trainer of LLaVA's two stages: its loss and its learning rates.

The loss is the language model's mean over the tokens of the global batch (all ranks and accumulation steps) plus the
gate's balance loss, whose mean over the accumulation steps is weighed by `train.balance_loss_weight`.

See docs/design.md, "Training".
"""

from typing import Any

import torch

from ...config.llava import RunConfig
from ...lvlm.parts import adapter_parts, base_model
from ...tower.gate import Gate
from ...train.loop import GuardedTrainer
from ..meter import Meter


class ToVETrainer(GuardedTrainer):
    """See the module's docstring.

    Args:
        run_config: The resolved configuration.
        recorder: GateRecorder on the tower, none for a plain CLIP.
        kwargs: GuardedTrainer's own.
    """

    def __init__(self, *, run_config: RunConfig, recorder: Any | None, **kwargs):
        self.recorder = recorder
        super().__init__(run_config=run_config, **kwargs)
        tower = base_model(self.model).model.vision_tower
        self.meter = Meter(tower.expert_names if recorder is not None else [])

    def rates(self) -> tuple[dict[str, float], dict[int, str]]:
        """`mm_projector_lr` for projector and fusion, `gate_lr` for the gate where it is given."""
        train = self.run_config.train
        adapter = {id(p) for part in adapter_parts(self.model).values() for p in part.parameters()}
        kinds = {id(p): "projector" if id(p) in adapter else "language_model" for p in self.model.parameters()}
        rates = {
            "projector": train.mm_projector_lr or train.learning_rate,
            "language_model": train.learning_rate,
        }
        if train.gate_lr is not None:
            gates = [module for module in self.model.modules() if isinstance(module, Gate)]
            kinds |= {id(parameter): "gate" for gate in gates for parameter in gate.parameters()}
            rates["gate"] = train.gate_lr
        return rates, kinds

    def loss_of(self, model, inputs: dict, num_items_in_batch) -> tuple[torch.Tensor, Any, Any]:
        """Language-model loss and balance loss of a micro-batch."""
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        # The model divided by the tokens of all ranks; the ranks' gradients are averaged.
        loss = outputs.loss * self.accelerator.num_processes
        tower_output = None
        if self.recorder is not None:
            tower_output = self.recorder.last
            self.recorder.clear()
            scale = self.run_config.train.balance_loss_weight / self.current_gradient_accumulation_steps
            loss = loss + scale * tower_output.balance_loss.to(loss.dtype)
        return loss, outputs, tower_output
