"""What merging leaves behind: a stock CLIP folder, and of an LVLM the whole model with that CLIP in the tower's place.

Where the tower's base is another encoder of transformers, that one's class stands for the CLIP in all of it; where it
is of another library, a tower without experts, which needs this package (or what `tove export` writes) to be read.

* clip/      CLIPVisionModel, its image processor, README.md, merge.json: loads where this package is not installed
* lvlm/      LlavaForConditionalGeneration with that CLIP, the same projector and language model
* pretrain/  the projector alone, as stage 1 writes it
* llm/       the language model with its LoRA merged in

scripts/finetune_vicuna.py goes on from it with model.vision_tower=clip/, model.pretrain_mm_mlp_adapter=pretrain/ and
model.llm=llm/.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    PreTrainedModel,
    VisionEncoderDecoderModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ...checkpoints import LoadedCheckpoint, detect, open_checkpoint
from ...checkpoints.card import stated_sources
from ...checkpoints.model_info import make_model_info, save_model_info
from ...checkpoints.projector import collect_projector
from ...checkpoints.stage1 import save_stage1
from ...config import ConfigError, to_dict
from ...config.merge import MergeRunConfig
from ...config.model import ModelConfig
from ...licenses import commercial_use
from ...lvlm.build import assemble, make_processor, stock_vision, tove_vision, without_zero3_init
from ...lvlm.image_processor import as_trained
from ...lvlm.parts import causal_language_model
from ...storage import save_json
from ...storage.pretrained import save_stock
from ...tower.configuration import ToVEVisionConfig
from ...tower.modeling import ToVEVisionModel
from .encoder_decoder import write_encoder_decoder

logger = logging.getLogger(__name__)

CLIP, LVLM, PRETRAIN, LLM = "clip", "lvlm", "pretrain", "llm"
REPORT = "merge.json"


@dataclass(frozen=True, kw_only=True)
class MergeSource:
    """Where the knowledge came from."""

    checkpoint: str
    kind: str
    fingerprint: str
    """SHA-256 over the tower's tensors."""
    select_layer: int | None
    """None: the encoder's own last hidden state, which LLaVA cannot read."""
    side: int
    """Of the encoder's square images."""
    image_processor: Any
    image_aspect_ratio: str
    transparency: str
    experts: list[str]
    licenses: dict[str, str | None]
    """Of `clip` and each merged expert, as the tower's sources state it."""
    unreadable: str | None
    """Why a stock LLaVA could not read the student, so that no LVLM is written; None where it can."""

    @classmethod
    def of(
        cls, loaded: LoadedCheckpoint, tower: ToVEVisionModel, student: PreTrainedModel, fingerprint: str
    ) -> "MergeSource":
        """Take down what is needed once the model itself is gone; what will not be written is said now.

        Args:
            loaded: The LVLM or tower that is merged.
            tower: Its tower.
            student: The whole student, before it learns.
            fingerprint: Of the tower.
        """
        weight_sources = tower.sources or stated_sources(loaded.folder)
        parts = {"clip": weight_sources.get("clip") or {}}
        parts |= {name: (weight_sources.get("experts") or {}).get(name) or {} for name in tower.attached_names}
        layer = tower.config.select_layer if tower.config.base is None else tower.config.base.get("layer")
        unreadable = None
        if isinstance(loaded.model, LlavaForConditionalGeneration) and not isinstance(student, ToVEVisionModel):
            unreadable = _unreadable(student, plain_processor(loaded.image_processor, tower.config.base_size), layer)
        if unreadable is not None:
            logger.warning("only %s will be written, no LVLM: %s", CLIP, unreadable)
        return cls(
            checkpoint=str(loaded.folder),
            kind=loaded.kind,
            fingerprint=fingerprint,
            select_layer=layer,
            side=tower.config.base_size,
            image_processor=loaded.image_processor,
            image_aspect_ratio=loaded.image_aspect_ratio,
            transparency=loaded.transparency,
            experts=tower.attached_names,
            licenses={name: entry.get("license") for name, entry in parts.items()},
            unreadable=unreadable,
        )


def _unreadable(student: PreTrainedModel, image_processor: Any, layer: int | None) -> str | None:
    if layer is None:
        return "LLaVA reads a hidden state by its number; state the base's `layer` (-2 is LLaVA's own)"
    try:
        stock_vision(student, image_processor, layer)
    except ConfigError as error:
        return str(error)
    return None


def write(folder: Path, clip: PreTrainedModel, source: MergeSource, report: dict, config: MergeRunConfig) -> None:
    """Write everything.

    Args:
        folder: Empty, where to write.
        clip: The whole student, in the dtype to write.
        source: Of the teacher.
        report: Figures for merge.json and the README.
        config: The resolved configuration.
    """
    report = {"source": {k: v for k, v in vars(source).items() if k != "image_processor"}, **report}
    with without_zero3_init():  # rank 0 writes alone: to partition what it loads would wait for the others
        write_clip(folder / CLIP, clip, source, report)
        if source.unreadable is not None or not detect(source.checkpoint).has_language_model:
            return
        loaded = open_checkpoint(source.checkpoint)
        if isinstance(loaded.model, VisionEncoderDecoderModel):
            write_base_model(folder, clip, source, loaded)
        else:
            write_lvlm(folder, clip, source, config, loaded)


def write_clip(folder: Path, clip: PreTrainedModel, source: MergeSource, report: dict) -> None:
    """The stock CLIP with its image processor, a README and the report."""
    if isinstance(clip, ToVEVisionModel):
        clip.save_pretrained(folder)
    else:
        save_stock(clip, folder)
        plain_processor(source.image_processor, source.side).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(source, report, type(clip).__name__), encoding="utf-8")
    save_json(folder / REPORT, report)


def plain_processor(image_processor: Any, side: int) -> Any:
    """transformers' own CLIP image processor with the tower's settings, so that no name of ours is written.

    Args:
        image_processor: The tower's.
        side: Of the encoder's images, which a tower with an `input_size` has more pixels than.
    """
    fields = image_processor.to_dict()
    of_size = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
    names = (*of_size, "do_normalize", "image_mean", "image_std", "do_convert_rgb")
    settings = {name: fields[name] for name in names if fields.get(name) is not None}
    if settings["crop_size"]["height"] > side:
        settings |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return CLIPImageProcessorPil(**settings)


@torch.no_grad()
def write_base_model(folder: Path, clip: PreTrainedModel, source: MergeSource, loaded: LoadedCheckpoint) -> None:
    """The base model with the student in its tower's place; further tuning goes on from it."""
    base = write_encoder_decoder(folder / LVLM, loaded, clip)
    save_model_info(folder / LVLM, make_model_info({}, base, source.image_aspect_ratio, source.transparency))


@torch.no_grad()
def write_lvlm(
    folder: Path, clip: PreTrainedModel, source: MergeSource, config: MergeRunConfig, loaded: LoadedCheckpoint
) -> None:
    """The LVLM with the student in place of the tower, and what further tuning starts from."""
    model, dtype = replace_tower(loaded, clip, source.select_layer)
    block: dict[str, Any] = {"llm": f"../{LLM}", "vision_tower": f"../{CLIP}"}
    if not isinstance(clip, ToVEVisionModel):
        block["mm_vision_select_layer"] = source.select_layer
    frozen_llm = loaded.checkpoint.frozen_llm
    if frozen_llm is not None:
        block["llm"] = frozen_llm
    pixels = (source.image_aspect_ratio, source.transparency)
    model_info = make_model_info(to_dict(ModelConfig(**block)), model.model, *pixels)
    cast(nn.Module, model.model).to(dtype)  # transformers' own `to` loses `self` for type checkers
    save_stock(model.model, folder / LVLM)
    model.processor.save_pretrained(folder / LVLM)
    save_model_info(folder / LVLM, model_info)
    if not config.merge.save_for_tuning:
        return
    save_stage1(folder / PRETRAIN, collect_projector(model.model), model.model, model.processor)
    save_model_info(folder / PRETRAIN, model_info)
    if frozen_llm is None:
        model.llm.save_pretrained(folder / LLM)
        model.processor.tokenizer.save_pretrained(folder / LLM)


@dataclass(frozen=True)
class PlainClipLVLM:
    """An LVLM with a plain CLIP."""

    model: LlavaForConditionalGeneration
    processor: Any
    llm: PreTrainedModel
    """Its language model as a causal language model of its own, sharing the weights."""


def replace_tower(
    loaded: LoadedCheckpoint, clip: PreTrainedModel, select_layer: int | None
) -> tuple[PlainClipLVLM, torch.dtype]:
    """Put a CLIP in the tower's place: same projector, same language model.

    Args:
        loaded: An LVLM, which gives its parts away.
        clip: A whole CLIPVisionModel, another encoder of transformers, or a tower without experts.
        select_layer: Hidden state that the projector reads; a tower's own counts.

    Returns:
        (the model, the dtype it had)

    Raises:
        ConfigError: LLaVA cannot read the encoder's patch tokens.
    """
    old = loaded.llava
    dtype = old.dtype
    llm = causal_language_model(old)
    cast(nn.Module, clip).to(dtype)  # as above
    if isinstance(clip, ToVEVisionModel):
        vision = tove_vision(clip)
        vision = replace(vision, image_processor=_as_trained(vision.image_processor, loaded))
    else:
        vision_config = old.model.vision_tower.config
        side = vision_config.base_size if isinstance(vision_config, ToVEVisionConfig) else vision_config.image_size
        processor = _as_trained(plain_processor(loaded.image_processor, side), loaded)
        vision = stock_vision(clip, processor, cast(int, select_layer))  # a number where it can be read
    tokenizer = loaded.processor.tokenizer
    new = assemble(llm, vision, tokenizer, dtype)
    new.model.multi_modal_projector = old.model.multi_modal_projector
    return PlainClipLVLM(model=new, processor=make_processor(vision, tokenizer), llm=llm), dtype


def _as_trained(image_processor: Any, loaded: LoadedCheckpoint) -> Any:
    return as_trained(image_processor, loaded.image_aspect_ratio, loaded.transparency)


def model_card(source: MergeSource, report: dict, kind: str) -> str:
    """README.md of the CLIP folder.

    Args:
        source: Of the teacher.
        report: Figures.
        kind: The student's class.
    """
    if kind == ToVEVisionModel.__name__:
        title, state = "A base with experts merged in", "its tokens"
        about = f"A `{kind}` without experts"
        use = "It takes no more time than the base did."
    else:
        title = f"{'A CLIP' if kind == 'CLIPVisionModel' else f'A {kind}'} with experts merged in"
        state = "its own last hidden state" if source.select_layer is None else f"hidden state {source.select_layer}"
        about = f"A stock `{kind}`"
        use = f"Use the patch tokens of {state}, without the class token where there is one, as LLaVA does."
    rows = "\n".join(
        f"| {name} | {license or 'not recorded'} | {commercial_use([license])} |"
        for name, license in source.licenses.items()
    )
    figures = ", ".join(f"{key} {report[key]:.4f}" for key in ("loss", "gap", "cosine") if key in report)
    return f"""# {title}

{about}. In {state} it has learnt what a ToVE tower gave there ({", ".join(source.experts)} fused into the
encoder's tokens), from {report["images"]} images in {report["steps"]} steps; layers that are not read are the original
ones. {use}

    {kind}.from_pretrained(folder); AutoImageProcessor.from_pretrained(folder)

Last figures: {figures or "none"} (gap: share of the squared distance from the encoder's own tokens to the tower's that
is left).
Source tower: sha256 `{source.fingerprint}` over its tensors. All settings: merge.json.

| part of the tower | license, as its sources state it | commercial use |
|---|---|---|
{rows}
"""
