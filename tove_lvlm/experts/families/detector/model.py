"""Low-level expert: where objects of which class are, by an object detector that OpenCV runs on the CPU.

Shapes: B images, C classes, H W sides of the map.

See docs/design.md, "Experts".
"""

import torch

from ...base import EXPERTS
from ...exported.model import ExportedNetwork
from .config import DetectorConfig


@EXPERTS.register("detector")
class Detector(ExportedNetwork):
    """Low level: the boxes of an object detector, a channel for each class, drawn with their scores.

    Image by image on the CPU, wherever the tower is. In bfloat16 its pixels alone are rounded.
    """

    library = DetectorConfig.library.name
    bf16_bound = 0.02

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Each class in a colour of its own, as bright as its score, the highest score in front."""
        score_BHW, number_BHW = grid_BCHW.float().max(1)
        hue_BHW = (number_BHW * 0.618034) % 1.0  # steps of the golden ratio are far apart
        offsets_3 = torch.tensor([0.0, 2 / 3, 1 / 3], device=grid_BCHW.device)
        wave_BHW3 = ((hue_BHW[..., None] + offsets_3) % 1.0 * 6 - 3).abs() - 1
        return (wave_BHW3.clamp(0, 1) * score_BHW[..., None] * 255).round().to(torch.uint8)
