"""The `tove_fusion` that a tower's config asks for.

See docs/design.md, "Tower".
"""

from torch import nn

from ..experts import describe
from .concat import ConcatFusion
from .configuration import ToVEVisionConfig
from .fusion import ToVEFusion


def make_fusion(config: ToVEVisionConfig) -> nn.Module:
    """Gate and transfer, or the concatenation that ToVE is compared with; at its start.

    Args:
        config: Architecture; CLIP's own width is that of the tokens that come in, `hidden_size` of those that go out.
    """
    specs, settings = [describe(entry) for entry in config.experts], config.fusion_settings
    if settings.kind == "concat":
        return ConcatFusion(specs, config.side, settings)
    return ToVEFusion(specs, config.clip_config["hidden_size"], config.side, settings)
