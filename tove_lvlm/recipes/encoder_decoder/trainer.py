"""The trainer of the base model: its loss and its learning rates.

The loss is the texts' cross-entropy, over the tokens of the global batch or summed over each text
(`train.loss_reduction`), plus the gate's balance loss, once for each image, weighed by `train.balance_loss_weight`.
"""

from typing import Any, cast

import torch

from ...config.encoder_decoder import RunConfig
from ...tower.gate import Gate
from ...tower.modeling import ToVEVisionModel
from ...train.loop import GuardedTrainer
from ..meter import Meter
from .objective import TextLoss, TextObjective


class TextTrainer(GuardedTrainer):
    """See the module's docstring.

    Args:
        run_config: The resolved configuration.
        kwargs: GuardedTrainer's own.
    """

    def __init__(self, *, run_config: RunConfig, **kwargs):
        super().__init__(run_config=run_config, **kwargs)
        self.meter = Meter(self._tower.expert_names)

    @property
    def _tower(self) -> ToVEVisionModel:
        return cast(ToVEVisionModel, cast(TextObjective, self.model).model.encoder)

    def rates(self) -> tuple[dict[str, float], dict[int, str]]:
        """`fusion_lr` for `tove_fusion`, `gate_lr` for its gate, where they are given; the decoder's for all else."""
        train = self.run_config.train
        kinds = {id(parameter): "decoder" for parameter in self.model.parameters()}
        kinds |= {id(parameter): "fusion" for parameter in self._tower.tove_fusion.parameters()}
        rates = {"decoder": train.learning_rate, "fusion": train.fusion_lr or train.learning_rate}
        if train.gate_lr is not None:
            gates = [module for module in self.model.modules() if isinstance(module, Gate)]
            kinds |= {id(parameter): "gate" for gate in gates for parameter in gate.parameters()}
            rates["gate"] = train.gate_lr
        return rates, kinds

    def loss_of(self, model, inputs: dict, num_items_in_batch) -> tuple[torch.Tensor, Any, Any]:
        """The texts' loss and the balance loss of a micro-batch."""
        output: TextLoss = model(**inputs)
        train, steps = self.run_config.train, self.current_gradient_accumulation_steps
        if train.loss_reduction == "mean_per_token":
            # Divided by the labels of all ranks and accumulation steps; the ranks' gradients are averaged.
            loss = output.loss_sum / num_items_in_batch * self.accelerator.num_processes
        else:
            loss = output.loss_sum / output.num_texts / steps
        balance = cast(torch.Tensor, output.tower.balance_loss)
        loss = loss + train.balance_loss_weight / steps * balance.to(loss.dtype)
        return loss, output, output.tower if self._tower.expert_names else None
