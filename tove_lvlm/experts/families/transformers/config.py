"""Fields of the family `transformers`, checked without importing torch.

    {name: dino, family: transformers, architecture: {model_type: dinov2}, pretrained: FILE}
    {name: dino, family: transformers, pretrained: FOLDER}

The config.json and preprocessor_config.json of a folder state what an entry leaves out.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ....config.ranges import number
from ...libraries import TRANSFORMERS
from ...schema import EXPERT_CONFIGS, ExpertConfig
from ...transformers_files import fields_of_folder


@EXPERT_CONFIGS.register("transformers")
@dataclass(frozen=True, kw_only=True)
class TransformersConfig(ExpertConfig):
    """A vision encoder of transformers; with a local folder everything is read from its config.json."""

    library: ClassVar = TRANSFORMERS
    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: dict[str, Any]
    """The encoder's config, `model_type` included."""
    layer: int | None = field(default=None, metadata=number(low=-1000, high=1000))
    """Index of the hidden state that is used; none takes the encoder's own last hidden state."""

    @classmethod
    def stated_in(cls, folder: Path) -> dict[str, Any]:
        """As `ExpertConfig.stated_in`, in transformers' layout."""
        return fields_of_folder(folder)
