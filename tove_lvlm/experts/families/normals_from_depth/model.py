"""Low-level expert: surface normals computed from a depth expert's map.

The camera is assumed, because the image does not tell it: a pinhole with square pixels, its axis through the middle of
the image, and the field of view of the fields (60 degrees by default). A relative estimator's map d is an inverse depth
up to scale and shift; it is brought to [0, 1] over the image and then to depth z = 1 / (f + (1 - f) d), where 1 / f is
how many times farther the farthest point is (`depth_range`). A map in metres is taken as it is (`inverse: false`).

Each pixel (u, v) is lifted to the point P = z ((u - cu) / focal, (v - cv) / focal, 1), and the normal is the normalised
cross product of P's differences along u and v. Its axes are NormalBae's: x to the left, y up, z to the camera, so that
(0, 0, 1) is a wall seen from the front.

Shapes: B images, H W pixels.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ....config import ConfigError
from ...base import EXPERTS, Expert, build_expert
from ...pictures import normals_picture


@EXPERTS.register("normals_from_depth")
class NormalsFromDepth(Expert):
    """Low level: surface normals computed from the map of a depth expert, which holds all the weights."""

    kind = "low_level"
    bf16_bound = 0.3  # differences of neighbours in a map: twenty times the error of the map

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        shared = {key: fields[key] for key in ("name", "image_size", "mean", "std")}
        self.depth = build_expert({**fields["depth"], **shared, "output": "map"})
        if self.depth.spec.channels != 1:
            raise ConfigError(
                f"expert `{fields['name']}`: `depth` gives a map of {self.depth.spec.channels} channels; expected 1"
            )
        self.patch_size = self.depth.patch_size

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return f"normals of {fields['depth'].get('family')}"

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Unit normals (B, 3, H, W): x to the left, y up, z to the camera."""
        map_B1HW = self.depth(pixels_B3HW).float()
        z_B1HW = depth_of(map_B1HW, self.fields["depth_range"]) if self.fields["inverse"] else map_B1HW
        return normals_of(z_B1HW, self.fields["field_of_view"]).to(pixels_B3HW.dtype)

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Normals as colours: red to the left, green up, blue to the camera."""
        return normals_picture(grid_BCHW)

    def use_attention(self, implementation: str | None) -> None:
        """As `Expert.use_attention`, of the depth expert."""
        self.depth.use_attention(implementation)

    def load_pretrained(self, path: str | os.PathLike[str]) -> None:
        """The depth expert's weights, in its own format."""
        self.depth.load_pretrained(path)

    def repair_buffers(self) -> None:
        """Those of the depth expert."""
        self.depth.repair_buffers()


def normals_of(z_B1HW: torch.Tensor, field_of_view: float) -> torch.Tensor:
    """Unit normals of a depth map, (B, 3, H, W): x to the left, y up, z to the camera.

    Args:
        z_B1HW: Depth along the camera's axis, above 0, in any unit.
        field_of_view: Horizontal, in degrees.
    """
    height, width = z_B1HW.shape[-2:]
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    u_W = torch.arange(width, device=z_B1HW.device, dtype=z_B1HW.dtype) - (width - 1) / 2
    v_H = torch.arange(height, device=z_B1HW.device, dtype=z_B1HW.dtype) - (height - 1) / 2
    x_B1HW, y_B1HW = z_B1HW * u_W / focal, z_B1HW * v_H[:, None] / focal
    points_B3HW = torch.cat([x_B1HW, y_B1HW, z_B1HW], dim=1)
    along_u_B3HW = _difference(points_B3HW, dim=3)
    along_v_B3HW = _difference(points_B3HW, dim=2)
    return F.normalize(torch.linalg.cross(along_u_B3HW, along_v_B3HW, dim=1), dim=1, eps=1e-12)


def depth_of(map_B1HW: torch.Tensor, depth_range: float) -> torch.Tensor:
    """Depth of an inverse depth without scale and shift, the nearest point of an image at 1.

    Args:
        map_B1HW: Near is large.
        depth_range: Where the farthest point of an image is.
    """
    low, high = map_B1HW.amin((2, 3), keepdim=True), map_B1HW.amax((2, 3), keepdim=True)
    nearness_B1HW = (map_B1HW - low) / (high - low).clamp(min=1e-6)
    return 1 / (1 / depth_range + (1 - 1 / depth_range) * nearness_B1HW)


def _difference(points_B3HW: torch.Tensor, dim: int) -> torch.Tensor:
    """Central differences, one-sided at the border; the length does not matter."""
    pad = (1, 1, 0, 0) if dim == 3 else (0, 0, 1, 1)
    padded = F.pad(points_B3HW, pad, mode="replicate")
    size = padded.shape[dim]
    return padded.narrow(dim, 2, size - 2) - padded.narrow(dim, 0, size - 2)
