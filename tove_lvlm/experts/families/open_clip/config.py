"""Fields of the family `open_clip`, checked without importing torch.

    {name: clip, family: open_clip, architecture: ViT-B-16, pretrained: FILE}

The open_clip_config.json of a folder states what an entry leaves out. `open_clip/NAME/TAG` in place of an entry takes
all from open_clip's own tables.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .... import storage
from ....config.ranges import number
from ...schema import EXPERT_CONFIGS, ExpertConfig, Library

OPEN_CLIP = Library(name="open_clip", module="open_clip", extra="experts", license="mit")


@EXPERT_CONFIGS.register("open_clip")
@dataclass(frozen=True, kw_only=True)
class OpenCLIPConfig(ExpertConfig):
    """The visual trunk of any open_clip model, by name."""

    library: ClassVar = OPEN_CLIP
    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: str | dict[str, Any]
    """open_clip's name of the model, or the `model_cfg` of an open_clip_config.json, read from a folder."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Put over the model's `vision_cfg`."""
    quick_gelu: bool | None = None
    """Whether the weights were trained with QuickGELU (OpenAI's were); as the model's configuration when left out."""
    out_index: int = field(default=-1, metadata=number(low=-1000, high=1000))
    """Which of the trunk's intermediate features is used; -1 is the last."""

    @classmethod
    def stated_in(cls, folder: Path) -> dict[str, Any]:
        """As `ExpertConfig.stated_in`; first what open_clip's `save_for_hf` writes: the model's configuration, and how
        its images are normalised.
        """
        if not (folder / "open_clip_config.json").is_file():
            return super().stated_in(folder)
        config = storage.load_json(folder / "open_clip_config.json")
        model, preprocess = config.get("model_cfg", config), config.get("preprocess_cfg") or {}
        stated: dict[str, Any] = {
            "architecture": {key: model[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in model}
        }
        size = model.get("vision_cfg", {}).get("image_size")
        if isinstance(size, int):
            stated["image_size"] = size
        return {**stated, **{key: list(preprocess[key]) for key in ("mean", "std") if key in preprocess}}
