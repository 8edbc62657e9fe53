"""Fields of the family `transformers`, checked without importing torch.

    {name: dino, family: transformers, architecture: {model_type: dinov2}, pretrained: FILE}
    {name: dino, family: transformers, pretrained: FOLDER}

The config.json and preprocessor_config.json of a folder state what an entry leaves out. The vision encoder of a whole
Qwen-VL is taken from that model's folder.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .... import storage
from ....config import ConfigError
from ....config.ranges import number
from ...libraries import TRANSFORMERS
from ...schema import EXPERT_CONFIGS, ExpertConfig
from ...transformers_files import fields_of_folder

QWEN = {
    "qwen2_vl_vision": "Qwen2VisionTransformerPretrainedModel",
    "qwen2_5_vl_vision": "Qwen2_5_VisionTransformerPretrainedModel",
    "qwen3_vl_vision": "Qwen3VLVisionModel",
    "qwen3_5_vision": "Qwen3_5VisionModel",
}
"""Model type of Qwen's vision encoders, which are no `AutoModel` -> class."""
AS_THEY_ARE = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
"""Pixels in [0, 1]: what an encoder takes that normalises its images itself."""


@EXPERT_CONFIGS.register("transformers")
@dataclass(frozen=True, kw_only=True)
class TransformersConfig(ExpertConfig):
    """A vision encoder of transformers; with a local folder everything is read from its config.json."""

    library: ClassVar = TRANSFORMERS
    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: dict[str, Any]
    """The encoder's config, `model_type` included."""
    layer: int | None = field(default=None, metadata=number(low=-1000, high=1000))
    """Index of the hidden state that is used; none takes the encoder's own last hidden state. Of Qwen's encoders only
    their merger's tokens are read, and there is none."""

    def __post_init__(self):
        super().__post_init__()
        if self.layer is not None and self.architecture.get("model_type") in QWEN:
            raise ConfigError(
                f"expert `{self.name}`: `layer` is {self.layer}, but of a `{self.architecture['model_type']}` the "
                "merger's tokens are read, which Qwen's language model reads; leave `layer` out"
            )
        given = {"mean": self.mean, "std": self.std}
        if self.architecture.get("model_type") == "radio" and given != AS_THEY_ARE:
            raise ConfigError(
                f"expert `{self.name}`: RADIO normalises its images itself, and `mean` {self.mean} and `std` "
                f"{self.std} would do it twice; write `mean: [0, 0, 0]` and `std: [1, 1, 1]`"
            )

    @classmethod
    def stated_in(cls, folder: Path) -> dict[str, Any]:
        """As `ExpertConfig.stated_in`, in transformers' layout."""
        stated = fields_of_folder(folder)
        if "architecture" in stated:
            architecture, whole = stated["architecture"], storage.load_json(folder / "config.json")
            kind = architecture.get("model_type") or whole.get("model_type")
            if f"{kind}_vision" in QWEN:  # published files name the whole model there, or nothing
                architecture["model_type"] = f"{kind}_vision"
            if kind == "radio":
                stated |= AS_THEY_ARE
        return stated
