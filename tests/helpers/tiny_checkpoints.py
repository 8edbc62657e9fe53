"""LVLMs with random weights, built from a language model and a tower, and saved in every form that the scripts write.

Shapes: B batch, T tokens, V vocabulary, D width.
"""

import json
from pathlib import Path

import torch

from helpers.paths import ROOT
from helpers.tiny_towers import pixels, wake
from tove_lvlm.checkpoints.adapter import save_adapter
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.checkpoints.model_info import make_model_info
from tove_lvlm.checkpoints.projector import collect_projector
from tove_lvlm.checkpoints.stage1 import save_stage1
from tove_lvlm.config.model import MODEL_FILE, LoraConfig, ModelConfig
from tove_lvlm.lvlm.lora import add_lora, collect_merged
from tove_lvlm.lvlm.parts import adapter_parts
from tove_lvlm.sharding import collect_trainable


def build(llm: Path, *, seed: int = 0, awake: bool = True, **keys):
    """A model in eval mode, and its processor.

    Args:
        llm: Folder of the language model.
        seed: Of what is drawn.
        awake: Give a ToVE tower's `tove_fusion` ordinary weights, as after training.
        **keys: Further keys of `model`; paths may be given as such.
    """
    block = {key: str(value) if isinstance(value, Path) else value for key, value in {"llm": llm, **keys}.items()}
    torch.manual_seed(seed)
    model, processor = build_lvlm(ModelConfig(**block))
    if awake and hasattr(model.model.vision_tower, "tove_fusion"):
        wake(model.model.vision_tower)
    return model.eval(), processor


def save(folder: Path, model, processor, aspect_ratio: str = "square", max_shard_size: str | None = None) -> Path:
    """A merged folder, as stage 2 writes it; in shards of `max_shard_size`, as others write it.

    Returns:
        The folder.
    """
    if max_shard_size is None:
        save_merged(folder, collect_merged(model), model, processor)
    else:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        processor.save_pretrained(folder)
    (folder / MODEL_FILE).write_text(json.dumps({"image_aspect_ratio": aspect_ratio}))
    return folder


def image_inputs(model, seed: int = 0) -> dict[str, torch.Tensor]:
    """A question of two words about one picture of noise."""
    ids_BT = torch.tensor([[1, *[model.config.image_token_id] * model.config.image_seq_length, 300, 310]])
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "pixel_values": pixels(1, seed)}


def logits(model, inputs: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """(B, T, V) of a question; that of `image_inputs` when left out."""
    with torch.no_grad():
        return model(**(image_inputs(model) if inputs is None else inputs)).logits


def add_awake_lora(model, std: float = 0.2, seed: int | None = 5):
    """peft's model with random B matrices, so that LoRA does something; projector and fusion trainable.

    Args:
        model: From `build`.
        std: Of the B matrices.
        seed: Where they are drawn from; torch's generator goes on when None.
    """
    wrapped = add_lora(model, LoraConfig(lora_enable=True, lora_r=4, lora_alpha=8, lora_dropout=0.0))
    for part in adapter_parts(wrapped).values():
        part.requires_grad_(True)
    if seed is not None:
        torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)
    return wrapped.eval()


def make_checkpoints(folder: Path, llm: Path, tower_yaml: Path) -> dict[str, Path]:
    """One and the same awake model saved in every form that the scripts write.

    Returns:
        Kind of checkpoint -> folder: `tower`, `stage1`, `adapter`, `merged`.
    """
    folders = {kind: folder / kind for kind in ("tower", "stage1", "adapter", "merged")}
    model, processor = build(llm, tower=tower_yaml)
    about = make_model_info({"llm": str(llm), "tower": str(tower_yaml)}, model, "square")
    model.model.vision_tower.save_pretrained(folders["tower"])
    save_stage1(folders["stage1"], collect_projector(model), model, processor)
    model = add_awake_lora(model, std=0.1, seed=None)
    save_adapter(folders["adapter"], model, collect_trainable(model), about)
    processor.save_pretrained(folders["adapter"])
    save(folders["merged"], model, processor)
    for kind in ("stage1", "merged"):
        (folders[kind] / MODEL_FILE).write_text(json.dumps(about))
    return folders


def make_miniature(folder: Path) -> Path:
    """The shipped miniature, untrained, as a merged folder: its answers depend on the image.

    Its language model knows the world's words, so it answers the world's questions with yes, no, colours and shapes.
    """
    llm, tower = ROOT / "tove_lvlm/assets/miniature/vicuna", ROOT / "projects/miniature/tower.yaml"
    model, processor = build(llm, tower=tower, seed=1, awake=False)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight *= 3  # so that pictures are on the scale of words
        # Of itself it says no to nearly everything: let a random direction decide.
        yes, no = (processor.tokenizer.convert_tokens_to_ids(f"\u2581{word}") for word in ("yes", "no"))
        head_VD = model.lm_head.weight
        middle_D = (head_VD[yes] + head_VD[no]) / 2
        step_D = torch.randn(middle_D.shape, generator=torch.Generator().manual_seed(1)) * middle_D.std()
        head_VD[yes], head_VD[no] = middle_D + step_D, middle_D - step_D
    return save(folder, model, processor, aspect_ratio="pad")
