"""LoRA on the language model only, peft's adapter folder, and merging.

The target is a regular expression over full module names, so that it cannot leak into the tower. Projector and
`tove_fusion` are trained in place beside the adapter: as peft's `modules_to_save` they would be copies, which escape
ZeRO and the tower's own contracts.

See docs/design.md, "LVLM checkpoints".
"""

import logging
from collections import Counter
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..config.model import LoraConfig
from ..registry import require
from ..sharding import collect, numel
from .parts import base_model

logger = logging.getLogger(__name__)

_WRAP = "base_model.model."


def add_lora(model: nn.Module, options: LoraConfig) -> nn.Module:
    """peft's model around a frozen LLaVA model, LoRA on every linear layer of the language model.

    Args:
        model: From `build_lvlm`.
        options: The `lora` block.

    Raises:
        ImportError: peft is absent.
    """
    peft = require("peft", extra="train")
    config = peft.LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        use_dora=options.use_dora,
        use_rslora=options.use_rslora,
        bias="none",
        target_modules=lora_target(model),
        task_type="CAUSAL_LM",
    )
    wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    reached = Counter(name.rsplit(".", 1)[-1] for name in wrapped.base_model.targeted_module_names)
    kinds = ", ".join(f"{name} ({count})" for name, count in sorted(reached.items()))
    logger.info("LoRA on linear layers of the language model: %s", kinds)
    if left_out := _out_of_reach(model):
        logger.warning("LoRA does not reach %s: a mixture's experts are no linear layers and stay frozen", left_out)
    return wrapped


def lora_target(model: nn.Module) -> str:
    """Regular expression that matches the full names of the language model's linear layers and nothing else."""
    language_model = base_model(model).model.language_model
    linear = (nn.Linear, Conv1D)  # Conv1D is GPT-2's linear layer
    leaves = {name.rsplit(".", 1)[-1] for name, m in language_model.named_modules() if isinstance(m, linear)}
    return rf"model\.language_model\.(.*\.)?({'|'.join(sorted(leaves))})"


def _out_of_reach(model: nn.Module) -> str:
    """What of the language model belongs to no linear layer, as a mixture's experts, and its share of the weights."""
    sizes: Counter[str] = Counter()
    whole = 0
    for name, parameter in base_model(model).model.language_model.named_parameters():
        whole += numel(parameter)
        if len(getattr(parameter, "ds_shape", parameter.shape)) > 2:
            sizes[name.rsplit(".", 1)[-1]] += numel(parameter)
    return f"{', '.join(sizes)} ({sizes.total() / whole:.0%} of its weights)" if sizes else ""


def collect_merged(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole model's weights with LoRA merged in, on rank 0, by their names in LLaVA; every rank must call.

    The sum is taken in float32 and rounded once, as peft's own merge does not under bf16.
    """
    tensors = collect(model.named_parameters())
    buffers = dict(model.named_buffers())
    tensors |= {name: buffers[name].detach().cpu() for name in model.state_dict() if name in buffers and tensors}
    merged = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        plain = name.removeprefix(_WRAP)
        if ".base_layer." in name:
            stem = name.rsplit(".base_layer.", 1)[0]
            plain = plain.replace(".base_layer.", ".")
            if name.endswith(".weight"):
                layer: Any = model.get_submodule(stem)  # peft's
                lora_A, lora_B = (tensors[f"{stem}.{part}.default.weight"].float() for part in ("lora_A", "lora_B"))
                magnitude = tensors.get(f"{stem}.lora_magnitude_vector.default.weight")
                weight = tensor.float().T if layer.fan_in_fan_out else tensor.float()
                weight = weight + layer.scaling["default"] * (lora_B @ lora_A)
                if magnitude is not None:  # DoRA: length and direction of each output's weights
                    weight = weight * (magnitude.float() / weight.norm(dim=1))[:, None]
                tensor = (weight.T if layer.fan_in_fan_out else weight).to(tensor.dtype).contiguous()
        merged[plain] = tensor
    return merged
