"""What a model will cost, read off its real sizes on the meta device: parameters, FLOPs, memory.

Nothing is allocated and no weight is read. Memory is that of the model states (weights, gradients, optimizer), by
DeepSpeed's own estimators for what is trained, plus the frozen weights in bf16 or in `train.bits`; activations come on
top and depend on batch, length and gradient checkpointing.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ..cost import count, flop_counter, totals_by_module
from ..registry import require
from ..tower.cost import tower_parts
from .parts import base_model, vision_config
from .quantization import is_quantized, stored_bytes

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

GPU_COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One row of the table: a part of the model with its parameters and its forward FLOPs for one image."""

    name: str
    trainable: int
    frozen: int
    flops: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of model states per GPU, and of host memory per node, for one ZeRO setting and number of GPUs."""

    setting: str
    num_gpus: int
    gpu_bytes: int
    host_bytes: int


def parts(model: nn.Module) -> list[Part]:
    """Rows for a `LlavaForConditionalGeneration`, with or without peft around it, on the meta device.

    Args:
        model: The model with `requires_grad` as the stage sets it.

    Returns:
        CLIP, each expert, the fusion, the projector and the language model. FLOPs are those of one image (for the
        language model: of reading its visual tokens, 2 x parameters x tokens).
    """
    core = base_model(model)
    tower, projector = core.model.vision_tower, core.model.multi_modal_projector
    flops, num_tokens = image_flops(core)
    rows = []
    for name, module in tower_parts(tower):
        trainable, frozen = count(module)
        rows.append(Part(name=name, trainable=trainable, frozen=frozen, flops=flops[module]))
    trainable, frozen = count(projector)
    rows.append(Part(name="projector", trainable=trainable, frozen=frozen, flops=flops[projector]))
    language = nn.ModuleList([core.model.language_model, core.lm_head])
    trainable, frozen = count(language)
    looked_up = cast(nn.Embedding, core.get_input_embeddings()).weight.numel()  # the embedding multiplies nothing
    reading = 2 * (trainable + frozen - looked_up) * num_tokens
    rows.append(Part(name="language model", trainable=trainable, frozen=frozen, flops=reading))
    return rows


def image_flops(core: "LlavaForConditionalGeneration") -> tuple[dict[nn.Module, int], int]:
    """Forward FLOPs of each tower part and of the projector for one image, and the number of visual tokens."""
    tower, projector = core.model.vision_tower, core.model.multi_modal_projector
    config = vision_config(core.config)
    watched = (dict(tower_parts(tower)) | {"projector": projector}).values()
    pixels_B3HW = torch.zeros(1, 3, config.image_size, config.image_size, device="meta", dtype=core.dtype)
    # FlopCounterMode names modules by class path; reading its running total around each part is exact and simpler.
    with (
        torch.no_grad(),
        flop_counter() as counter,
        totals_by_module(watched, counter.get_total_flops) as flops,
    ):
        features = core.model.get_image_features(pixel_values=pixels_B3HW).pooler_output
    return cast("dict[nn.Module, int]", flops), features[0].shape[0]  # operations are whole numbers


def memory(model: nn.Module, num_gpus: Iterable[int] = GPU_COUNTS, gpus_per_node: int = 8) -> list[Memory]:
    """Model states per GPU under ZeRO-2, ZeRO-3 and ZeRO-3 with offload; of a quantised model under ZeRO-2 alone.

    Args:
        model: As for `parts`.
        num_gpus: Numbers of GPUs, in nodes of `gpus_per_node`.
        gpus_per_node: GPUs of one machine.

    Raises:
        ImportError: DeepSpeed is absent.
    """
    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints when it is imported; stdout may be somebody's JSON
        zero2 = require("deepspeed.runtime.zero.stage_1_and_2", extra="train").estimate_zero2_model_states_mem_needs
        zero3 = require("deepspeed.runtime.zero.stage3", extra="train").estimate_zero3_model_states_mem_needs
    trainable, _ = count(model)
    frozen_bytes = sum(stored_bytes(parameter) for parameter in model.parameters() if not parameter.requires_grad)
    largest = max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())
    rows = []
    for total in num_gpus:
        nodes = max(1, total // gpus_per_node)
        shape = {"num_gpus_per_node": total // nodes, "num_nodes": nodes}
        host, gpu = zero2(trainable, cpu_offload=False, **shape)
        rows.append(Memory(setting="zero2", num_gpus=total, gpu_bytes=int(gpu + frozen_bytes), host_bytes=int(host)))
        if is_quantized(model):
            continue
        host, gpu, _ = zero3(trainable, largest, cpu_offload=False, cpu_offload_params=False, **shape)
        gpu += frozen_bytes / total
        rows.append(Memory(setting="zero3", num_gpus=total, gpu_bytes=int(gpu), host_bytes=int(host)))
        host, gpu, _ = zero3(trainable, largest, cpu_offload=True, cpu_offload_params=True, **shape)
        host += frozen_bytes / nodes
        rows.append(Memory(setting="zero3_offload", num_gpus=total, gpu_bytes=int(gpu), host_bytes=int(host)))
    return rows
