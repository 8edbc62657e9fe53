"""A checkpoint in LLaVA's layout, and back in transformers'.

    transformers                          LLaVA
    model.language_model.*                model.*
    lm_head.*                             lm_head.*
    model.multi_modal_projector.linear_1  model.mm_projector.0         (linear_2: .2)
    model.vision_tower.tove_fusion.*      model.mm_projector.tove_fusion.*
    model.vision_tower.*                  a saved tower in the folder `tower`, named by `mm_vision_tower`

Every tensor goes over as it is, `<image>`'s row included, so that logits are equal both ways. LLaVA itself is not
needed for it.

See docs/hosts.md, "LLaVA layouts".
"""

from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import save_torch_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from ...checkpoints import LoadedCheckpoint, open_checkpoint
from ...checkpoints.model_info import save_model_info
from ...config import UserError
from ...config.model import V1_TEMPLATE, ModelConfig
from ...lvlm.build import append_image_token, assemble, load_tokenizer, load_vision, make_processor
from ...lvlm.image_processor import as_trained
from ...lvlm.parts import text_config
from ...lvlm.processor import set_chat_template
from ...storage import WeightsError, load_json, load_strict, load_tensors, new_folder, save_json
from ...storage.pretrained import load_pretrained, save_stock
from ...tower.modeling import ToVEVisionModel
from ..names import NAME, is_tove, tower_path
from .packing import pack

_TOWER_FOLDER = "tower"
# (transformers, LLaVA); the first that fits is taken, both ways.
_NAMES = (
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.vision_tower.tove_fusion.", "model.mm_projector.tove_fusion."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
_FROZEN = "model.vision_tower."
# Fields that LLaVA adds to the language model's config.
_LLAVA_FIELDS = ("mm_", "tune_mm_", "freeze_mm_", "unfreeze_mm_", "use_mm_", "image_", "tokenizer_", "architectures")


def to_llava(checkpoint: str | Path, output: str | Path) -> Path:
    """Write anything that our scripts wrote as a folder that LLaVA's `load_pretrained_model` takes without a base.

    Args:
        checkpoint: As for `open_checkpoint`; not a tower alone.
        output: Folder, empty or not there; its name tells LLaVA what it is.

    Raises:
        UserError: The checkpoint has no language model of LLaVA's kind, or the name would mislead LLaVA.
    """
    output = Path(output)
    _check_name(output.name)
    with new_folder(output, checkpoint) as folder:
        loaded = open_checkpoint(checkpoint)
        if not loaded.checkpoint.has_language_model:
            raise UserError(f"`{checkpoint}` is a tower alone; name it in LLaVA's config: `mm_vision_tower: tove:PATH`")
        config = loaded.llava.config
        kind = text_config(config).model_type
        if kind != "llama" or config.projector_hidden_act != "gelu":
            raise UserError(
                f"`{checkpoint}` has a language model of type `{kind}` and a projector with "
                f"`{config.projector_hidden_act}`; LLaVA's layout is written for `llama` and `gelu`"
            )
        vision = _save_vision(loaded, folder, output)
        save_json(folder / "config.json", _llava_config(loaded) | vision)
        tensors = {
            new: tensor for name, tensor in loaded.model.state_dict().items() if (new := _renamed(name, 0)) is not None
        }
        save_torch_state_dict(tensors, folder)
        loaded.llava.generation_config.save_pretrained(folder)
        loaded.processor.tokenizer.save_pretrained(folder)
    return output


def to_transformers(checkpoint: str | Path, output: str | Path) -> Path:
    """Write a whole LLaVA checkpoint as an ordinary `LlavaForConditionalGeneration` folder.

    Args:
        checkpoint: Folder with LLaVA's config.json and all weights; a LoRA is merged with LLaVA's own script first.
        output: Folder, empty or not there.

    Raises:
        UserError: The folder is not in LLaVA's layout, or its tower is not to be had.
        WeightsError: Weights are missing or left over.
    """
    folder, output = Path(checkpoint), Path(output)
    with new_folder(output, folder) as written:
        fields = load_json(folder / "config.json")
        if fields.get("model_type") != "llava_llama":
            raise UserError(
                f"{folder / 'config.json'} says `model_type: {fields.get('model_type')}`; expected `llava_llama`"
            )
        if fields.get("mm_projector_type") != "mlp2x_gelu":
            raise UserError(
                f"{folder / 'config.json'} says `mm_projector_type: {fields.get('mm_projector_type')}`; "
                "transformers' LLaVA has `mlp2x_gelu`"
            )
        parts = _parts(load_tensors(folder), folder)
        dtype = next(iter(parts["language_model"].values())).dtype
        vision = load_vision(_model_config(fields, folder), dtype)
        if parts["tove_fusion"] or hasattr(vision.tower, "tove_fusion"):
            load_strict(cast(ToVEVisionModel, vision.tower).tove_fusion, parts["tove_fusion"], where=folder)
        tokenizer = load_tokenizer(str(folder))
        set_chat_template(tokenizer, V1_TEMPLATE, f"`{folder}`")
        llm = _language_model(fields, parts["language_model"], dtype, folder)
        append_image_token(llm, tokenizer)
        model = assemble(llm, vision, tokenizer, dtype)
        load_strict(model.model.multi_modal_projector, parts["projector"], where=folder)
        pixels = {"image_aspect_ratio": fields.get("image_aspect_ratio") or "square", "transparency": "ignore"}
        processor = make_processor(vision, tokenizer)
        processor.image_processor = as_trained(processor.image_processor, **pixels, where=folder)
        processor.save_pretrained(written)
        save_stock(model, written)
        save_model_info(written, pixels)
    return output


# ---- to LLaVA ----


def _check_name(name: str) -> None:
    misleading = [word for word in ("lora", "mpt", "mistral") if word in name.lower()]
    if "llava" not in name.lower() or misleading:
        reason = f"has `{misleading[0]}` in it" if misleading else "lacks `llava`"
        raise UserError(
            f"LLaVA takes a checkpoint for what its folder is called, and `{name}` {reason}; choose a name such as "
            "`llava-tove-7b`"
        )


def _save_vision(loaded: LoadedCheckpoint, folder: Path, output: Path) -> dict[str, Any]:
    """Write the tower, or the plain CLIP, beside the weights; returns LLaVA's settings for it."""
    if loaded.tower is None:
        clip = loaded.llava.model.vision_tower
        save_stock(clip, folder / _TOWER_FOLDER)
        loaded.image_processor.save_pretrained(folder / _TOWER_FOLDER)
        # LLaVA's own CLIP is found by its absolute path only.
        name, width, layer = str(output.resolve() / _TOWER_FOLDER), clip.config.hidden_size, None
        layer = loaded.llava.config.vision_feature_layer
    else:
        tower = loaded.tower
        tower.save_pretrained(folder / _TOWER_FOLDER)
        size = tower.config.image_size
        with torch.no_grad():
            image_B3HW = torch.zeros(1, 3, size, size, dtype=tower.dtype, device=tower.device)
            width = pack(tower.encode_frozen(image_B3HW), tower.expert_names).shape[-1]
        name, layer = f"{NAME}:{_TOWER_FOLDER}", tower.config.select_layer
    return {"mm_vision_tower": name, "mm_hidden_size": width, "mm_vision_select_layer": layer}


def _llava_config(loaded: LoadedCheckpoint) -> dict[str, Any]:
    text = text_config(loaded.llava.config).to_dict()
    text.pop("_name_or_path", None)
    tokenizer = loaded.processor.tokenizer
    return text | {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "dtype": str(loaded.llava.dtype).removeprefix("torch."),
        "use_cache": True,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": loaded.image_aspect_ratio,
        "tokenizer_padding_side": "right",  # which LLaVA's own training wants
        "tokenizer_model_max_length": tokenizer.model_max_length,
    }


def _renamed(name: str, direction: int) -> str | None:
    """The name in the other layout; None for what is saved with the tower.

    Args:
        name: Of a tensor.
        direction: 0 for a name of transformers', 1 for one of LLaVA's.
    """
    for pair in _NAMES:
        if name.startswith(pair[direction]):
            return pair[1 - direction] + name.removeprefix(pair[direction])
    if direction == 0 and name.startswith(_FROZEN):
        return None
    raise WeightsError(f"tensor `{name}` has no place in the other layout")


# ---- to transformers ----


def _parts(tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """LLaVA's tensors by the part of transformers' model that they belong to, by their names in it."""
    prefixes = {
        "tove_fusion": "model.vision_tower.tove_fusion.",
        "projector": "model.multi_modal_projector.",
        "language_model": "",
    }
    parts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in prefixes}
    for name, tensor in tensors.items():
        if name.startswith(_FROZEN):
            continue  # LLaVA saves the tower's frozen weights too and never reads them; nor do we
        new = cast(str, _renamed(name, 1))  # only the other direction leaves something out
        part, prefix = next((part, prefix) for part, prefix in prefixes.items() if new.startswith(prefix))
        # The causal language model alone calls its decoder `model`.
        new = new.replace("model.language_model.", "model.", 1) if part == "language_model" else new
        parts[part][new.removeprefix(prefix)] = tensor
    if not parts["language_model"]:
        raise WeightsError(
            f"`{folder}` holds no language model: merge it with its base first (LLaVA: merge_lora_weights)"
        )
    return parts


def _model_config(fields: dict[str, Any], folder: Path) -> ModelConfig:
    name = fields.get("mm_vision_tower")
    if name is None:
        raise UserError(f"{folder / 'config.json'} names no vision tower (`mm_vision_tower`)")
    if not is_tove(name):
        layer = fields.get("mm_vision_select_layer", -2)
        return ModelConfig(llm=str(folder), vision_tower=str(name), mm_vision_select_layer=layer)
    path = tower_path(name, "mm_vision_tower", folder)
    if path.is_dir():
        return ModelConfig(llm=str(folder), vision_tower=str(path))
    return ModelConfig(llm=str(folder), vision_tower=NAME, tower=str(path))


def _language_model(
    fields: dict[str, Any], tensors: dict[str, torch.Tensor], dtype: torch.dtype, folder: Path
) -> LlamaForCausalLM:
    plain = {key: value for key, value in fields.items() if not key.startswith(_LLAVA_FIELDS)}
    plain.pop("model_type")
    llm: LlamaForCausalLM = load_pretrained(
        LlamaForCausalLM,
        None,
        where=f"weights in `{folder}`",
        leftovers=False,
        config=LlamaConfig(**plain),
        state_dict=tensors,
        dtype=dtype,
    )
    return llm
