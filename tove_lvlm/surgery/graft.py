"""Give a trained LLaVA model with a plain CLIP a ToVE tower around that very CLIP.

The fusion starts at zero, so that the first logits are the old ones bit for bit, and then only `tove_fusion` needs
training. The model is copied shard by shard; the language model is never built.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, LlavaConfig, LlavaProcessor

from ..checkpoints.model_info import save_model_info
from ..checkpoints.whole import read_llava_config
from ..config import UserError
from ..config.sources import WeightSource
from ..config.trained import pixel_settings
from ..lvlm.build import tove_vision
from ..lvlm.image_processor import as_trained
from ..lvlm.parts import vision_config
from ..storage import (
    MissingWeightsError,
    WeightsError,
    atomic_file,
    load_tensors,
    new_folder,
    save_json,
    save_tensors,
    weight_files,
)
from ..tower.build import build_tower, tower_config_from_yaml
from ..tower.configuration import ToVEVisionConfig
from ..tower.image_processing import ToVEImageProcessor
from ..tower.modeling import ToVEVisionModel
from ..weights.sources import recorded

_TOWER = "vision_tower."
# CLIP's own wrapper (older transformers), and a table that newer ones compute.
_WRAPPER, _COMPUTED = "vision_model.", "position_ids"
_KEPT_FILES = ("generation_config.json", "tokenizer.model", "LICENSE*", "NOTICE*")


@dataclass(frozen=True, kw_only=True)
class Graft:
    """What was written."""

    output: Path
    experts: list[str]
    select_layer: int
    """CLIP's layer that the checkpoint's projector was trained on; the tower reads it."""
    added: int
    """Parameters that came with the tower."""
    trainable: int
    """Those of `tove_fusion` among them."""


def graft(checkpoint: str | Path, tower: str | Path, output: str | Path, options: Sequence[str] = ()) -> Graft:
    """Write a LlavaForConditionalGeneration folder with a ToVE tower in place of the plain CLIP.

    The checkpoint's own CLIP weights, layer, normalisation, dtype, projector and language model stay.

    Args:
        checkpoint: LlavaForConditionalGeneration folder with a plain CLIP, any number of shards.
        tower: YAML; of its `clip` only the sizes are used, and they must be the checkpoint's.
        output: Folder, written whole or not at all; it must be empty or not there.
        options: `a.b=c` strings put over the YAML.

    Raises:
        UserError: The checkpoint has no plain CLIP, or reads it in a way that a tower does not; the CLIPs' sizes
            differ; there is something in `output`, or it is in the way of an input.
        WeightsError: Tensors of the CLIP are missing or left over.
    """
    source, output = Path(checkpoint), Path(output)
    if not source.is_dir():
        raise MissingWeightsError(f"checkpoint `{source}` is no folder")
    with new_folder(output, source, tower) as writing:
        config = read_llava_config(source)
        image_processor, processor = _read_processor(source, config)
        settings = _settings(source, config, image_processor, tower, options)
        with tempfile.TemporaryDirectory() as folder:
            clip, dtype = _save_clip(source, config, Path(folder) / "clip")
            built = build_tower(tower, [*options, *settings, f"clip.pretrained={clip}"])
        built.sources["clip"] = recorded(WeightSource(pretrained=str(source.resolve())))
        _write_weights(source, writing, built.to(dtype))
        _new_config(config, built).save_pretrained(writing)
        vision = tove_vision(built)
        pixels = pixel_settings(source)
        processor.image_processor = as_trained(_image_processor(image_processor, built.config), **pixels)
        processor.patch_size, processor.num_additional_image_tokens = vision.patch_size, vision.extra_tokens
        processor.vision_feature_select_strategy = vision.select_strategy
        processor.save_pretrained(writing)
        for pattern in _KEPT_FILES:
            for file in source.glob(pattern):
                shutil.copyfile(file, writing / file.name)
        save_model_info(writing, {**pixels, "sources": built.sources})
    frozen = [*built.experts.parameters()]
    trainable = sum(p.numel() for p in built.tove_fusion.parameters())
    return Graft(
        output=output,
        experts=built.attached_names,
        select_layer=built.config.select_layer,
        added=trainable + sum(p.numel() for p in frozen),
        trainable=trainable,
    )


# ---- what fits ----


def _read_processor(source: Path, config: LlavaConfig) -> tuple[Any, LlavaProcessor]:
    """(image processor, processor) of the checkpoint."""
    try:
        processor = LlavaProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError) as error:
        raise UserError(f"`{source}` has no processor that can be read (processor_config.json): {error}") from error
    image_processor = processor.image_processor
    size = vision_config(config).image_size
    crop = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    if (crop["height"], crop["width"]) != (size, size):
        raise UserError(f"`{source}`: its processor gives images of {dict(crop)}; its CLIP takes {size} x {size}")
    return image_processor, processor


def _settings(
    source: Path, config: LlavaConfig, image_processor: Any, tower: str | Path, options: Sequence[str]
) -> list[str]:
    """Options that bring the YAML to the checkpoint's CLIP, after comparing the sizes."""
    where = f"{source}/config.json"
    kind = vision_config(config).model_type
    if kind == ToVEVisionConfig.model_type:
        raise UserError(f"{where}: the model has a ToVE tower already")
    if kind != "clip_vision_model":
        raise UserError(f"{where}: the vision tower is a `{kind}`; expected a CLIP (`clip_vision_model`)")
    if config.vision_feature_select_strategy != "default" or not isinstance(config.vision_feature_layer, int):
        raise UserError(
            f"{where}: `vision_feature_select_strategy` is `{config.vision_feature_select_strategy}` and "
            f"`vision_feature_layer` is {config.vision_feature_layer}; a tower stands in for the patch tokens of one "
            "layer (`default`, one number)"
        )
    expected = tower_config_from_yaml(tower, options).clip_config
    actual = ToVEVisionConfig(clip_config=vision_config(config).to_dict()).clip_config
    if expected is None or actual is None:
        raise UserError(f"`{source}` has a CLIP, and the base of `{tower}` is none; take a tower with a `clip`")
    differing = [f"{key} {actual[key]} (the YAML's: {expected[key]})" for key in actual if actual[key] != expected[key]]
    if differing:
        raise UserError(f"the CLIP of `{source}` is not that of `{tower}`: {', '.join(differing)}")
    return [
        f"clip.select_layer={config.vision_feature_layer}",
        f"clip.image_mean={list(image_processor.image_mean)}",
        f"clip.image_std={list(image_processor.image_std)}",
        "fusion.zero_init=true",
    ]


def _new_config(config: LlavaConfig, tower: ToVEVisionModel) -> LlavaConfig:
    vision = tove_vision(tower)
    config.vision_config = tower.config
    config.vision_feature_layer = vision.feature_layer
    config.vision_feature_select_strategy = vision.select_strategy
    config.image_seq_length = vision.num_tokens
    return config


def _image_processor(saved: Any, config: ToVEVisionConfig) -> ToVEImageProcessor:
    """The checkpoint's own settings, but for the size where the tower takes more pixels than its CLIP."""
    fields = ToVEImageProcessor.for_tower(config).to_dict()
    sizes = {key: fields[key] for key in ("size", "crop_size")} if config.input_size else {}
    return ToVEImageProcessor.from_dict({**saved.to_dict(), **sizes})


# ---- tensors ----


def _split(key: str) -> tuple[str, str] | None:
    """(prefix, name within the tower) of a vision tensor's key on disk; None for every other key."""
    for prefix in (_TOWER, f"model.{_TOWER}"):
        if key.startswith(prefix):
            return prefix, key.removeprefix(prefix)
    return None


@contextmanager
def _opened(file: Path) -> Iterator[tuple[list[str], Callable[[str], torch.Tensor]]]:
    """The keys of a weight file and what reads one of its tensors; safetensors are read one by one."""
    if file.suffix != ".safetensors":
        tensors = load_tensors(file)
        yield list(tensors), tensors.__getitem__
        return
    try:
        with safe_open(file, framework="pt") as opened:
            yield list(opened.keys()), opened.get_tensor
    except SafetensorError as error:
        raise WeightsError(f"weights `{file}` are truncated or not safetensors: {error}") from error


def _save_clip(source: Path, config: LlavaConfig, folder: Path) -> tuple[Path, torch.dtype]:
    """The checkpoint's CLIP as a folder of its own, and its dtype."""
    tensors = {}
    for file in weight_files(source):
        with _opened(file) as (keys, read):
            for key in keys:
                if (split := _split(key)) is not None:
                    tensors[split[1].removeprefix(_WRAPPER)] = read(key)
    if not tensors:
        raise WeightsError(f"weights in `{source}` hold no tensor of the vision tower (`{_TOWER}*`)")
    dtypes = sorted({str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()})
    if len(dtypes) != 1:
        raise WeightsError(f"weights in `{source}`: the vision tower's tensors have several dtypes: {dtypes}")
    save_tensors(folder / "model.safetensors", tensors)
    CLIPVisionConfig(**vision_config(config).to_dict()).save_pretrained(folder)
    return folder, getattr(torch, dtypes[0].removeprefix("torch."))


def _write_weights(source: Path, folder: Path, tower: ToVEVisionModel) -> None:
    """The checkpoint's files with CLIP's tensors under their new names, and a last one with what the tower adds."""
    files = weight_files(source)
    targets = [
        folder / f"model-{number + 1:05d}-of-{len(files) + 1:05d}.safetensors" for number in range(len(files) + 1)
    ]
    weight_map: dict[str, str] = {}
    prefix = _TOWER
    for file, target in zip(files, targets, strict=False):
        with _opened(file) as (keys, read):
            names = {key: _renamed(key) for key in keys if not (_split(key) and key.endswith(_COMPUTED))}
            prefix = next((split[0] for key in keys if (split := _split(key)) is not None), prefix)
            if file.suffix == ".safetensors" and list(names) == list(names.values()) == keys:
                shutil.copyfile(file, target)
            else:
                with atomic_file(target) as temporary:
                    save_file({new: read(key).contiguous() for key, new in names.items()}, temporary, {"format": "pt"})
        weight_map |= dict.fromkeys(names.values(), target.name)
    added = {f"{prefix}{key}": tensor for key, tensor in tower.state_dict().items() if not key.startswith("clip.")}
    save_tensors(targets[-1], added)
    weight_map |= dict.fromkeys(added, targets[-1].name)
    index = {"metadata": {"total_size": sum(map(_data_bytes, targets))}, "weight_map": weight_map}
    save_json(folder / "model.safetensors.index.json", index)


def _renamed(key: str) -> str:
    split = _split(key)
    return key if split is None else f"{split[0]}clip.{split[1].removeprefix(_WRAPPER)}"


def _data_bytes(file: Path) -> int:
    """Bytes of a safetensors file's tensors: all but the header, whose length is in the first eight."""
    with file.open("rb") as stream:
        return file.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")
