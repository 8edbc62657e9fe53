"""Fields of the family `depth`, checked without importing torch.

    {name: depth, family: depth, architecture: {model_type: dpt}, pretrained: FILE}
    {name: depth, family: depth, pretrained: FOLDER}

The config.json and preprocessor_config.json of a folder state what an entry leaves out.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...libraries import TRANSFORMERS
from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig
from ...transformers_files import fields_of_folder


@EXPERT_CONFIGS.register("depth")
@dataclass(frozen=True, kw_only=True)
class DepthConfig(ExpertConfig):
    """A depth estimator of transformers; with a local folder everything is read from its config.json."""

    library: ClassVar = TRANSFORMERS
    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: the predicted depth. `features`: what the neck hands to the head."""
    architecture: dict[str, Any]
    """The estimator's config, `model_type` included (`dpt`, `depth_anything`)."""

    @classmethod
    def stated_in(cls, folder: Path) -> dict[str, Any]:
        """As `ExpertConfig.stated_in`, in transformers' layout."""
        return fields_of_folder(folder)
