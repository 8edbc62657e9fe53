"""An adapter's folder is read by peft and by this package."""

import json
import shutil

import pytest
import torch

from helpers.tiny_checkpoints import add_awake_lora, image_inputs, logits
from tove_lvlm.checkpoints import load_model
from tove_lvlm.checkpoints.adapter import save_adapter
from tove_lvlm.checkpoints.model_info import make_model_info
from tove_lvlm.checkpoints.projector import assign_projector
from tove_lvlm.sharding import collect_trainable
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors


@pytest.fixture
def saved(built, llm, tiny_tower_yaml, tmp_path):
    """(folder, its `model` block, inputs, logits of the model that was saved)."""
    model, processor = built
    wrapped = add_awake_lora(model)
    inputs = image_inputs(model)
    block = {"llm": str(llm), "tower": str(tiny_tower_yaml)}
    save_adapter(tmp_path, wrapped, collect_trainable(wrapped), make_model_info(block, wrapped, "square"))
    processor.save_pretrained(tmp_path)
    return tmp_path, block, inputs, logits(wrapped, inputs)


def as_of_before(folder):
    """The form up to this version: projector and `tove_fusion` among the LoRA, as peft's `modules_to_save`."""
    parts = load_tensors(folder / "non_lora.safetensors")
    (folder / "non_lora.safetensors").unlink()
    lora = load_tensors(folder / "adapter_model.safetensors")
    both = lora | {f"base_model.model.model.{name}": tensor for name, tensor in parts.items()}
    save_tensors(folder / "adapter_model.safetensors", both)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["modules_to_save"] = ["multi_modal_projector", "tove_fusion"]
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("before", [False, True])
def test_adapter_folder_is_read_by_peft_and_by_chat(saved, before):
    import peft

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.config.model import ModelConfig

    folder, block, inputs, expected = saved
    base, _ = build_lvlm(ModelConfig(**block))
    if before:
        as_of_before(folder)
    else:
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["modules_to_save"] is None, "which vLLM refuses"
        assert all(".lora_" in name for name in load_tensors(folder / "adapter_model.safetensors"))
        assign_projector(base, load_tensors(folder / "non_lora.safetensors"), folder)
    read = peft.PeftModel.from_pretrained(base, folder).eval()
    torch.testing.assert_close(logits(read, inputs), expected, atol=1e-5, rtol=1e-4)
    loaded = load_model(folder)
    assert loaded.image_aspect_ratio == "square"
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    torch.testing.assert_close(logits(loaded.model, inputs), expected, atol=1e-5, rtol=1e-4)


def keys_with(tensors, *parts):
    return [key for key in tensors if all(part in key for part in parts)]


def drop_all_lora(tensors):
    for key in keys_with(tensors, ".lora_"):
        del tensors[key]


def drop_a_layer(tensors):
    for key in keys_with(tensors, ".lora_", ".layers.1."):
        del tensors[key]


def rename_one(tensors):
    key = keys_with(tensors, ".lora_A")[0]
    tensors[key.replace("lora_A", "lora_a")] = tensors.pop(key)


def add_one(tensors):
    tensors["base_model.model.extra.lora_A.weight"] = torch.zeros(2, 2)


def shorten_one(tensors):
    key = keys_with(tensors, ".lora_A")[0]
    tensors[key] = tensors[key][:1].clone()


def spoil_one(tensors):
    tensors[keys_with(tensors, ".lora_B")[0]].fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop_all_lora, r"\d+ missing \("),
        (drop_a_layer, r"\d+ missing \(.*layers.1."),
        (rename_one, r"1 missing .*; 1 unexpected .*lora_a"),
        (add_one, r"1 unexpected .*extra.lora_A"),
        (shorten_one, r"1 of another shape .*lora_A"),
        (spoil_one, r": `.*lora_B.*` holds NaN or infinity"),
    ],
)
def test_an_adapter_is_loaded_with_exactly_its_tensors(checkpoints, tmp_path, change, told):
    folder = tmp_path / "adapter"
    shutil.copytree(checkpoints["adapter"], folder)
    tensors = load_tensors(folder / "adapter_model.safetensors")
    change(tensors)
    save_tensors(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(WeightsError, match=rf"adapter_model.safetensors.*{told}"):
        load_model(folder)


def test_projector_and_fusion_are_there_and_finite(checkpoints, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(checkpoints["adapter"], folder)
    tensors = load_tensors(folder / "non_lora.safetensors")
    tensors[keys_with(tensors, "tove_fusion", "gate")[0]].fill_(float("nan"))
    save_tensors(folder / "non_lora.safetensors", tensors)
    with pytest.raises(WeightsError, match=r"non_lora.safetensors.*holds NaN"):
        load_model(folder)
    (folder / "non_lora.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks non_lora.safetensors.*copy the whole folder"):
        load_model(folder)
