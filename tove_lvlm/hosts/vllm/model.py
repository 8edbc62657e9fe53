"""vLLM's LLaVA with a ToVE tower where the config has one; vLLM imports this when it serves a LLaVA model.

vLLM asks three things of a vision tower: how many tokens an image has, a module that makes them, and that this module
takes its weights out of a stream. The language model, its attention and its batches are vLLM's.

Source: vLLM 0.32, `vllm/model_executor/models/llava.py`.
"""

from typing import Any

import torch
from vllm.model_executor.models import llava as host
from vllm.model_executor.models.vision import VisionEncoderInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from ...config import UserError
from ...tower.configuration import ToVEVisionConfig
from .checks import check_language_model
from .register import TESTED, version
from .tower import ServedTower

_NEEDED = (
    "init_vision_tower_for_llava",
    "LlavaProcessingInfo",
    "LlavaDummyInputsBuilder",
    "LlavaForConditionalGeneration",
    "_build_llava_or_pixtral_hf_info",
    "_build_llava_or_pixtral_hf_processor",
)
if lacking := [name for name in _NEEDED if not hasattr(host, name)]:
    raise UserError(
        f"vLLM {version()} has no `{host.__name__}.{lacking[0]}`, which tove_lvlm replaces; install vLLM {TESTED}, or "
        'serve models without a ToVE tower with VLLM_PLUGINS=""'
    )


class TowerInfo(VisionEncoderInfo):
    """Sizes of a ToVE tower's images."""

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """However large the image was."""
        return int(self.vision_config.num_tokens)

    def get_image_size(self) -> int:
        """Side in pixels."""
        return int(self.vision_config.image_size)

    def get_patch_size(self) -> int:
        """Side in pixels of what a token stands for."""
        return int(self.vision_config.patch_size)

    def get_patch_grid_length(self) -> int:
        """Tokens of a row."""
        return int(self.vision_config.side)


class ProcessingInfo(host.LlavaProcessingInfo):
    """vLLM's, which knows the stock vision towers alone."""

    def get_vision_encoder_info(self) -> VisionEncoderInfo:
        """Of the tower that the config has."""
        config = self.get_hf_config()
        is_ours = isinstance(config.vision_config, ToVEVisionConfig)
        return TowerInfo(config) if is_ours else super().get_vision_encoder_info()


def processing_info(context: Any) -> Any:
    """Ours in place of vLLM's; Pixtral's stays."""
    stock = host._build_llava_or_pixtral_hf_info(context)
    return ProcessingInfo(context) if type(stock) is host.LlavaProcessingInfo else stock


_stock_tower = host.init_vision_tower_for_llava


def vision_tower(config: Any, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """vLLM's function, which builds a LLaVA model's vision tower, with ours among the kinds."""
    if isinstance(config.vision_config, ToVEVisionConfig):
        return ServedTower(config.vision_config).to(torch.get_default_dtype())  # in which vLLM serves
    stock: torch.nn.Module = _stock_tower(config, *args, **kwargs)
    return stock


host.init_vision_tower_for_llava = vision_tower


@MULTIMODAL_REGISTRY.register_processor(
    host._build_llava_or_pixtral_hf_processor, info=processing_info, dummy_inputs=host.LlavaDummyInputsBuilder
)
class ToVELlava(host.LlavaForConditionalGeneration):
    """vLLM's LLaVA, of stock models and of those with a ToVE tower."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        check_language_model(vllm_config.model_config.hf_config.text_config.to_dict())
        super().__init__(vllm_config=vllm_config, prefix=prefix)
