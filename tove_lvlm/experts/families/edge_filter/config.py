"""Fields of the family `edge_filter`, checked without importing torch.

    {name: edges, family: edge_filter, filter: canny}

There are no weights, so an entry has no `pretrained`.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ....config import ConfigError
from ....config.ranges import number
from ...libraries import KORNIA
from ...schema import EXPERT_CONFIGS, ExpertConfig


@EXPERT_CONFIGS.register("edge_filter")
@dataclass(frozen=True, kw_only=True)
class EdgeFilterConfig(ExpertConfig):
    """A classical edge filter: nothing is learned, there are no weights."""

    library: ClassVar = KORNIA
    has_weights: ClassVar[bool] = False
    output: str = field(default="map", metadata={"choices": ("map",)})
    filter: str = field(metadata={"choices": ("canny", "sobel")})
    """`canny`: edges, 0 or 1. `sobel`: the size of the gradient."""
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    low: float = field(default=0.1, metadata=number(above=0))
    """Canny's lower threshold on the gradient."""
    high: float = field(default=0.2, metadata=number(above=0))
    """Canny's upper threshold."""
    hysteresis: bool = True
    """Whether Canny keeps weak edges only where they touch strong ones; else they are 0.5 and strong ones 1."""

    def __post_init__(self):
        super().__post_init__()
        if self.low > self.high:
            raise ConfigError(f"expert `{self.name}`: thresholds need `low` <= `high`; got {self.low}, {self.high}")
