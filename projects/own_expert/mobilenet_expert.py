"""An expert of your own, whole: torchvision's ImageNet MobileNetV2. `family: mobilenet` in a tower's YAML."""

import torch
from torchvision.models import mobilenet_v2

from tove_lvlm.experts import Expert, register_expert


@register_expert("mobilenet")
class MobileNet(Expert):
    """Embedding: torchvision's MobileNetV2, its last feature grid (1,280 channels, stride 32)."""

    library = "torchvision"

    def __init__(self, fields):
        super().__init__(fields)
        self.network = mobilenet_v2()

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.network.features(pixels_B3HW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {f"network.{key}": tensor for key, tensor in tensors.items()}
