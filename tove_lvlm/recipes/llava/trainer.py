"""The trainer of LLaVA's two stages: its loss and its learning rates.

The loss is the language model's mean over the tokens of the global batch (all ranks and accumulation steps) plus the
gate's balance loss, whose mean over the accumulation steps is weighed by `train.balance_loss_weight`.

See docs/design.md, "Training".
"""

import logging
from contextlib import ExitStack, nullcontext
from typing import Any, cast

import torch
from transformers import CLIPVisionModel

from ...config.llava import RunConfig
from ...environment import environment
from ...lvlm.chunked_loss import chunked_loss
from ...lvlm.image_tokens import uncounted_image_tokens
from ...lvlm.padding_free import backend, padding_free_attention
from ...lvlm.parts import FUSION, adapter_parts, base_model, text_config
from ...tower.clip import without_unread_layers
from ...tower.gate import Gate
from ...train.loop import GuardedTrainer
from ..meter import Meter

logger = logging.getLogger(__name__)


class ToVETrainer(GuardedTrainer):
    """See the module's docstring.

    Args:
        run_config: The resolved configuration.
        recorder: GateRecorder on the tower, none for a plain CLIP.
        padding_free: The collator concatenates rows.
        kwargs: GuardedTrainer's own.
    """

    def __init__(self, *, run_config: RunConfig, recorder: Any | None, padding_free: bool = False, **kwargs):
        self.recorder, self.padding_free = recorder, padding_free
        super().__init__(run_config=run_config, **kwargs)
        tower = base_model(self.model).model.vision_tower
        self.meter = Meter(tower.expert_names if recorder is not None else [])

    def train(self, resume_from_checkpoint=None, **kwargs):
        """As the engine's; without padding, the language model attends by rows meanwhile."""
        with ExitStack() as stack:
            # The collator has compared images and their tokens; transformers would wait for the device to do it anew.
            stack.enter_context(environment(TRANSFORMERS_DISABLE_TORCH_CHECK="1"))
            llava = base_model(self.model)
            stack.enter_context(uncounted_image_tokens(llava.model))
            if isinstance(llava.model.vision_tower, CLIPVisionModel):
                read = cast("int | list[int]", llava.config.vision_feature_layer)
                stack.enter_context(without_unread_layers(llava.model.vision_tower, read))
            if self.padding_free:
                name = backend(text_config(llava.config), self.args.device, llava.dtype)
                logger.info("training without padding, attention `%s`", name)
                stack.enter_context(padding_free_attention(self.model, name))
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def rates(self) -> tuple[dict[str, float], dict[int, str]]:
        """`mm_projector_lr` for projector and fusion; `fusion_lr` and `gate_lr`, where given, for fusion and gate."""
        train = self.run_config.train
        parts = adapter_parts(self.model)
        adapter = {id(p) for part in parts.values() for p in part.parameters()}
        kinds = {id(p): "projector" if id(p) in adapter else "language_model" for p in self.model.parameters()}
        rates = {
            "projector": train.mm_projector_lr or train.learning_rate,
            "language_model": train.learning_rate,
        }
        if train.fusion_lr is not None and FUSION in parts:
            kinds |= {id(parameter): "fusion" for parameter in parts[FUSION].parameters()}
            rates["fusion"] = train.fusion_lr
        if train.gate_lr is not None:
            gates = [module for module in self.model.modules() if isinstance(module, Gate)]
            kinds |= {id(parameter): "gate" for gate in gates for parameter in gate.parameters()}
            rates["gate"] = train.gate_lr
        return rates, kinds

    def loss_of(self, model, inputs: dict, num_items_in_batch) -> tuple[torch.Tensor, Any, Any]:
        """Language-model loss and balance loss of a micro-batch."""
        with chunked_loss(self.model, inputs["shift_labels"]) if self.run_config.train.chunked_loss else nullcontext():
            outputs = model(**inputs, use_cache=False, num_items_in_batch=num_items_in_batch)
        # The model divided by the tokens of all ranks; the ranks' gradients are averaged.
        loss = outputs.loss * self.accelerator.num_processes
        tower_output = None
        if self.recorder is not None:
            tower_output = self.recorder.last
            self.recorder.clear()
            scale = self.run_config.train.balance_loss_weight / self.current_gradient_accumulation_steps
            loss = loss + scale * tower_output.balance_loss.to(loss.dtype)
        return loss, outputs, tower_output
