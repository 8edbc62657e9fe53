"""Open what our scripts wrote: a merged model, an adapter, stage 1's folder, or a tower alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ..config import UserError, parse
from ..registry import require
from ..storage import WeightsError, load_tensors, misfits
from .light import MODEL_FILE, PROJECTOR_FILE, adapter_parts, as_llava, check_tower

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, PreTrainedModel

    from ..tower.modeling import ToVEVisionModel

TOWER, MERGED, ADAPTER, STAGE1 = "tower", "merged", "adapter", "stage1"


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A checkpoint in memory, on the CPU and in eval mode."""

    kind: str
    """`tower` (a saved tower), `merged` (a LlavaForConditionalGeneration folder), `adapter` (stage 2's LoRA, merged in
    memory) or `stage1` (the light folder of scripts/pretrain_projector.py)."""
    folder: Path
    """Where it really lies: of an `output_dir` without a merged model, its `adapter`."""
    model: nn.Module
    """The LLaVA model; of kind `tower`, the tower itself."""
    processor: Any
    """Its LlavaProcessor; of kind `tower`, the image processor."""
    image_aspect_ratio: str
    """How images were brought to a square in training."""

    @property
    def tower(self) -> "ToVEVisionModel | None":
        """The ToVE tower in it; None for a model with a plain CLIP."""
        from ..tower.recorder import find_tower

        return find_tower(self.model)

    @property
    def llava(self) -> "LlavaForConditionalGeneration":
        """`model` of any kind but `tower`, under its own type."""
        return as_llava(self.model)

    @property
    def device(self) -> "torch.device":
        """Where the model is."""
        return cast("PreTrainedModel", self.model).device

    def require_tower(self) -> "ToVEVisionModel":
        """The ToVE tower in it.

        Raises:
            UserError: The model has a plain CLIP.
        """
        tower = self.tower
        if tower is None:
            raise UserError(f"`{self.folder}` has a plain CLIP, no ToVE tower; `tove graft` gives it one")
        return tower

    @property
    def image_processor(self) -> Any:
        """Of the tower or of the plain CLIP."""
        return getattr(self.processor, "image_processor", self.processor)


def open_checkpoint(folder: str | Path) -> LoadedCheckpoint:
    """Load anything that this package's scripts wrote.

    Args:
        folder: A saved tower; stage 1's or stage 2's `output_dir`; an `adapter`.

    Raises:
        UserError: The folder holds none of these; the message says what was looked for.
    """
    kind, folder = locate(folder)
    if kind == TOWER:
        from ..tower.build import build_tower
        from ..tower.image_processing import ToVEImageProcessor

        tower = build_tower(folder).eval()
        processor = ToVEImageProcessor.for_tower(tower.config)
        return LoadedCheckpoint(kind=TOWER, folder=folder, model=tower, processor=processor, image_aspect_ratio="pad")
    return _load_stage1(folder) if kind == STAGE1 else load_model(folder)


def locate(folder: str | Path) -> tuple[str, Path]:
    """(kind, where it really lies) as `open_checkpoint` would find it; nothing is loaded.

    Raises:
        UserError: As for `open_checkpoint`.
    """
    folder = _existing(folder)
    if _config(folder).get("model_type") == "tove_vision":
        return TOWER, folder
    return (STAGE1, folder) if _is_stage1(folder) else _locate_model(folder)


def open_tower(source: str | Path) -> "ToVEVisionModel":
    """The ToVE tower of a YAML, a saved tower, or anything else that `open_checkpoint` takes.

    Raises:
        UserError: There is none in it.
    """
    if Path(source).is_dir() and _config(Path(source)).get("model_type") != "tove_vision":
        tower = open_checkpoint(source).tower
        if tower is None:
            raise UserError(f"`{source}` has a plain CLIP, no ToVE tower; `tove graft` gives it one")
        return tower
    from ..tower.build import build_tower

    return build_tower(source)


def load_model(folder: str | Path) -> LoadedCheckpoint:
    """Load a model that can answer: a merged folder or an adapter.

    Raises:
        UserError: The folder holds no such model.
    """
    from .whole import load_whole

    kind, folder = _locate_model(_existing(folder))
    if kind == ADAPTER:
        return _load_adapter(folder)
    model, processor = load_whole(folder)
    ratio = _model_file(folder).get("image_aspect_ratio", "pad")
    return LoadedCheckpoint(kind=MERGED, folder=folder, model=model, processor=processor, image_aspect_ratio=ratio)


def _locate_model(folder: Path) -> tuple[str, Path]:
    if any(folder.glob("model*.safetensors")):
        kind = _config(folder).get("model_type")
        if kind != "llava":
            raise UserError(f"`{folder}` holds a model of type `{kind}`; expected a LLaVA model (`llava`)")
        return MERGED, folder
    if not (folder / "adapter_config.json").is_file() and (folder / "adapter" / "adapter_config.json").is_file():
        folder = folder / "adapter"
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"`{folder}` holds neither a merged model (model*.safetensors) nor an adapter (adapter_config.json); give "
            "the output_dir of a finished scripts/finetune_vicuna.py"
        )
    return ADAPTER, folder


def _load_adapter(folder: Path) -> LoadedCheckpoint:
    from .build import build_lvlm

    peft = require("peft", extra="train")
    # The adapter brings the projector and tove_fusion itself: stage 1's folder may be gone.
    config, ratio = _model_block(folder, pretrain_mm_mlp_adapter=None)
    model, processor = build_lvlm(config)
    check_tower(model, _model_file(folder), folder / MODEL_FILE)
    _check_adapter(model, folder)
    model = peft.PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    return LoadedCheckpoint(kind=ADAPTER, folder=folder, model=model, processor=processor, image_aspect_ratio=ratio)


def _check_adapter(model: nn.Module, folder: Path) -> None:
    """peft only warns where projector or `tove_fusion` are not in the adapter, and they would stay at their start."""
    expected = {
        f"base_model.model.model.{prefix}.{name}": tensor
        for prefix, part in adapter_parts(model).items()
        for name, tensor in part.state_dict().items()
    }
    file = folder / "adapter_model.safetensors"
    problems = misfits(expected, {key: t for key, t in load_tensors(file).items() if ".lora_" not in key})
    if problems:
        raise WeightsError(f"{file} does not fit the model that its {MODEL_FILE} names: {'; '.join(problems)}")


def _load_stage1(folder: Path) -> LoadedCheckpoint:
    from .build import build_lvlm

    config, ratio = _model_block(folder, pretrain_mm_mlp_adapter=str(folder))
    model, processor = build_lvlm(config)
    return LoadedCheckpoint(
        kind=STAGE1, folder=folder, model=model.eval(), processor=processor, image_aspect_ratio=ratio
    )


def _is_stage1(folder: Path) -> bool:
    has_weights = any(folder.glob("model*.safetensors")) or (folder / "adapter").is_dir()
    return (folder / PROJECTOR_FILE).is_file() and not has_weights


def _model_block(folder: Path, **changes) -> tuple[Any, str]:
    """(ModelConfig, image_aspect_ratio) from a folder's MODEL_FILE."""
    from ..config.model import ModelConfig

    model_info = _model_file(folder)
    if "model" not in model_info:
        raise UserError(f"folder `{folder}` has no {MODEL_FILE}, which says what it belongs to")
    config = parse(ModelConfig, model_info["model"] | changes, where=str(folder / MODEL_FILE), warn=False)
    return config, model_info.get("image_aspect_ratio", "pad")


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"model folder `{folder}` does not exist")
    return folder


def _config(folder: Path) -> dict:
    return _json(folder / "config.json")


def _model_file(folder: Path) -> dict:
    return _json(folder / MODEL_FILE)


def _json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
