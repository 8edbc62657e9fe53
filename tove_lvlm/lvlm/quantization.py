"""A language model held in 4 or 8 bits while LoRA trains on it (QLoRA, Dettmers et al. 2023, by bitsandbytes).

Quantised are the linear layers of the language model. Its embeddings and output layer, the tower, the projector and
`tove_fusion` never are. What is trained is a LoRA as without it: it is loaded and merged over the weights that lie on
disk.
"""

from typing import Any, cast

import torch
from torch import nn

from ..config import ConfigError
from ..registry import require
from .parts import base_model

WHOLE = 16
"""`train.bits` of a language model that is not quantised."""
_STORED_BITS = {8: 8.0, 4: 4.127}
"""Of a weight; in 4 bits with a scale for each 64, which are in 8 bits themselves (section 3 of the paper)."""


def quantization_config(bits: int, dtype: torch.dtype) -> Any:
    """How transformers loads a language model; None for whole weights.

    Args:
        bits: 4 (NF4, scales quantised too), 8 (LLM.int8) or 16.
        dtype: That is computed in.

    Raises:
        ImportError: bitsandbytes is absent; names the extra.
    """
    if bits == WHOLE:
        return None
    require("bitsandbytes", extra="qlora")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=torch.uint8,
    )


def mark_quantized(model: nn.Module, bits: int) -> None:
    """Tell peft that the language model inside a LLaVA model is quantised, which it asks the model it wraps.

    Args:
        model: From `assemble`, with a language model of `quantization_config`.
        bits: Of that.
    """
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = bits == 4, bits == 8  # type: ignore[assignment]


def check_bits(bits: int, zero3: bool) -> None:
    """Refuse what bitsandbytes cannot do.

    Args:
        bits: `train.bits`.
        zero3: Whether DeepSpeed partitions weights.

    Raises:
        ConfigError: It would cut quantised ones.
    """
    if bits != WHOLE and zero3:
        raise ConfigError(
            f"`train.bits` is {bits}, and ZeRO-3 cannot partition quantised weights; take ZeRO-2, under which each GPU "
            "holds them whole: projects/deepspeed/zero2.json"
        )


def size_quantized(model: nn.Module, bits: int) -> None:
    """Write into the weights of a model on the meta device in how many bits each would be held.

    Args:
        model: A LLaVA model, inside peft or not, of which LoRA is trained.
        bits: `train.bits`.
    """
    if bits == WHOLE:
        return
    for module in base_model(model).model.language_model.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad:
            cast(Any, module.weight).stored_bits = _STORED_BITS[bits]


def is_quantized(model: nn.Module) -> bool:
    """Whether `size_quantized` says that some of a model's weights are."""
    return any(hasattr(parameter, "stored_bits") for parameter in model.parameters())


def stored_bytes(parameter: nn.Parameter) -> float:
    """Of a frozen weight, in bfloat16 unless `size_quantized` says otherwise."""
    return parameter.numel() * getattr(parameter, "stored_bits", WHOLE) / 8
