"""Fields of the family `normal_bae`, checked without importing torch.

    {name: normals, family: normal_bae, pretrained: FILE}
    {name: normals, family: normal_bae, pretrained: FILE, output: features}

The NLL-AngMF network that Prismer uses: an encoder that halves the image five times, and a decoder that reads normals
and how sure they are at several sizes. controlnet_aux brings the network; `scannet.pt` are the weights.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig, Library

CONTROLNET_AUX = Library(name="controlnet_aux", module="controlnet_aux", extra="normals", license="apache-2.0")


@EXPERT_CONFIGS.register("normal_bae")
@dataclass(frozen=True, kw_only=True)
class NormalBaeConfig(ExpertConfig):
    """NormalBae's surface normals: x to the left, y up, z to the camera."""

    library: ClassVar = CONTROLNET_AUX
    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: unit normals, three channels as large as the image. `features`: what the decoder reads the first normals
    from, 512 channels at an eighth of the image."""
    image_size: int = 384
    """A multiple of 32."""
