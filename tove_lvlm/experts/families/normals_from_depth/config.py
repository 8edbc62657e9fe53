"""Fields of the family `normals_from_depth`, checked without importing torch.

    {name: normals, family: normals_from_depth, pretrained: FILE,
     depth: {family: depth, architecture: {model_type: dpt}}}

The weights are the depth expert's. The camera is assumed, because the image does not tell it (model.py).

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import Any

from ....config.ranges import number
from ...schema import EXPERT_CONFIGS, ExpertConfig, parse_expert


@EXPERT_CONFIGS.register("normals_from_depth")
@dataclass(frozen=True, kw_only=True)
class NormalsFromDepthConfig(ExpertConfig):
    """Surface normals computed from the map of a depth expert, whose weights are all that it has."""

    output: str = field(default="map", metadata={"choices": ("map",)})
    depth: dict[str, Any]
    """`family` and fields of the depth expert; name and input are this entry's own."""
    field_of_view: float = field(default=60.0, metadata=number(above=0, below=180))
    """Horizontal angle of the camera in degrees."""
    inverse: bool = True
    """Whether the map is an inverse depth (near is large), as relative estimators give it."""
    depth_range: float = field(default=4.0, metadata=number(above=1))
    """How many times farther than the nearest point the farthest is, for a map without units. Our choice."""

    def __post_init__(self):
        super().__post_init__()
        shared = {key: getattr(self, key) for key in ("name", "image_size", "mean", "std")}
        parse_expert({**self.depth, **shared}, where=f"expert `{self.name}`, `depth`")
