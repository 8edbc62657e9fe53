"""Files of transformers, for the families whose networks are its own: a folder's JSONs, the names in a state dict.

No torch here: a tower's YAML is checked before torch is imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import storage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def fields_of_folder(folder: Path) -> dict[str, Any]:
    """The architecture fields that the JSONs of a folder state; empty without a config.json.

    They are a vision encoder's config, or the vision part of a larger model's, and how its images are normalised.

    Args:
        folder: With config.json and perhaps preprocessor_config.json.
    """
    if not (folder / "config.json").is_file():
        return {}
    config, preprocessor = storage.load_json(folder / "config.json"), folder / "preprocessor_config.json"
    vision = config.get("vision_config", config)
    beside = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")
    stated: dict[str, Any] = {"architecture": {key: value for key, value in vision.items() if key not in beside}}
    processing = storage.load_json(preprocessor) if preprocessor.is_file() else {}
    size = vision.get("image_size") or (processing.get("size") or {}).get("height")  # a depth estimator's is there
    if isinstance(size, int):
        stated["image_size"] = size
    for key, stated_key, without in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        if processing.get("do_normalize") is False:
            stated[key] = [without] * 3
        elif stated_key in processing:
            stated[key] = list(processing[stated_key])
    return stated


def renamed(backbone: "PreTrainedModel", tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor] | None":
    """The tensors under today's names, as transformers loads them; None where it does not know them all.

    Args:
        backbone: A model of transformers.
        tensors: Its state dict, as this or an earlier version of transformers has saved it.
    """
    both = type(backbone).from_pretrained(
        None, config=backbone.config, state_dict=dict(tensors), output_loading_info=True
    )
    loaded, report = cast("tuple[PreTrainedModel, dict[str, Any]]", both)  # which the option makes it
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]  # taken out of the backbone
    if missing or report["unexpected_keys"] or report["mismatched_keys"]:
        return None
    expected = backbone.state_dict().keys()
    return {key: tensor for key, tensor in loaded.state_dict().items() if key in expected}
