"""Fields of the family `timm`, checked without importing torch.

    {name: convnext, family: timm, architecture: convnext_base.clip_laion2b, pretrained: FILE}

The config.json of timm's folders on the hub states what an entry leaves out. `timm/NAME.TAG` in place of an entry takes
all from timm's own tables.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ....config.ranges import number
from ...libraries import TIMM
from ...schema import EXPERT_CONFIGS, ExpertConfig


@EXPERT_CONFIGS.register("timm")
@dataclass(frozen=True, kw_only=True)
class TimmConfig(ExpertConfig):
    """Any timm backbone, by name."""

    library: ClassVar = TIMM
    output: str = field(default="features", metadata={"choices": ("features",)})
    """A backbone has no map to give."""
    architecture: str
    """timm's model name, with or without the tag of its weights."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `timm.create_model`."""
    out_index: int = field(default=-1, metadata=number(low=-1000, high=1000))
    """Which of the backbone's intermediate features is used; -1 is the last."""
