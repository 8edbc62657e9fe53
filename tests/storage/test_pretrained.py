"""What is not in the files would be random: every model that is loaded is refused then, whatever it is for."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from helpers.tiny_lvlm import make_llm
from helpers.tiny_towers import make_clip
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.config.model import ModelConfig
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors
from tove_lvlm.storage.pretrained import load_pretrained, save_stock


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_llm(folder / "llm")
    make_clip(folder / "clip")
    return folder


def broken(parts, tmp_path, name, change):
    """A copy of a part whose tensors were changed."""
    shutil.copytree(parts / name, tmp_path / name)
    tensors = load_tensors(tmp_path / name)
    change(tensors)
    save_tensors(tmp_path / name / "model.safetensors", tensors)
    return tmp_path / name


def key_with(tensors, part):
    return next(key for key in tensors if part in key)


def test_the_weights_are_those_of_the_files(parts):
    for model_class, name in ((AutoModelForCausalLM, "llm"), (CLIPVisionModel, "clip")):
        model, stock = load_pretrained(model_class, parts / name), model_class.from_pretrained(parts / name)
        assert type(model) is type(stock)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in stock.state_dict().items())


@pytest.mark.parametrize("name", ["llm", "clip"])
def test_a_part_that_lacks_a_layer_is_refused_before_training(parts, tmp_path, name):
    folder = broken(parts, tmp_path, name, lambda tensors: tensors.pop(key_with(tensors, "layers.1.")))
    block = {"llm": str(parts / "llm"), "clip": str(parts / "clip"), "vision_tower": "clip"} | {name: str(folder)}
    with pytest.raises(WeightsError, match=f"{name}`: its weights do not fit .*1 missing, which would be random"):
        build_lvlm(ModelConfig(**block))


def test_another_architecture_is_refused(parts, tmp_path):
    config = SiglipVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    SiglipVisionModel(config).save_pretrained(tmp_path / "siglip")
    block = ModelConfig(llm=str(parts / "llm"), clip=str(tmp_path / "siglip"), vision_tower="clip")
    with pytest.raises(WeightsError, match=r"siglip`: its weights do not fit CLIPVisionModel: "):
        build_lvlm(block)


def test_other_shapes_are_one_line(parts, tmp_path):
    def halve(tensors):
        key = key_with(tensors, "mlp.up_proj")
        tensors[key] = tensors[key][:3].clone()

    with pytest.raises(WeightsError, match=r"1 of another shape \(model.layers.0.mlp.up_proj.weight\)") as error:
        load_pretrained(AutoModelForCausalLM, broken(parts, tmp_path, "llm", halve))
    assert "\n" not in str(error.value)


def test_what_may_lack_what_is_optional_and_what_is_left_over(parts, tmp_path):
    folder = broken(parts, tmp_path, "llm", lambda tensors: tensors.update(extra=torch.zeros(1)))
    load_pretrained(AutoModelForCausalLM, folder)
    with pytest.raises(WeightsError, match=r"1 unexpected \(extra\)"):
        load_pretrained(AutoModelForCausalLM, folder, leftovers=False)
    load_pretrained(AutoModelForCausalLM, folder, leftovers=False, optional=["extr"])
    tensors = load_tensors(folder)
    lacking = key_with(tensors, "layers.0.")
    del tensors[lacking]
    save_tensors(folder / "model.safetensors", tensors)
    load_pretrained(AutoModelForCausalLM, folder, may_lack=lambda model: {lacking})


@pytest.mark.parametrize("shard", ["../model.safetensors", "/tmp/model.safetensors"])
def test_an_index_names_nothing_out_of_its_folder(parts, tmp_path, shard):
    shutil.copytree(parts / "llm", tmp_path / "llm")
    (tmp_path / "llm" / "model.safetensors").rename(tmp_path / "model.safetensors")
    keys = load_tensors(tmp_path / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, shard)}
    (tmp_path / "llm" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="is no index of shards"):
        load_pretrained(AutoModelForCausalLM, tmp_path / "llm")


def test_a_number_that_is_none_is_named(parts, tmp_path):
    folder = broken(parts, tmp_path, "llm", lambda tensors: tensors[key_with(tensors, "mlp.up_proj")].fill_(torch.nan))
    with pytest.raises(WeightsError, match=r"`model.layers.0.mlp.up_proj.weight` holds NaN or infinity"):
        load_pretrained(AutoModelForCausalLM, folder)


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    "encoder", [CLIPVisionModel(CLIPVisionConfig(**SIZES)), SiglipVisionModel(SiglipVisionConfig(**SIZES))]
)
def test_stock_models_are_saved_under_names_that_older_readers_know(parts, tmp_path, encoder):
    """transformers 4 and vLLM have a `vision_model` in the encoder."""
    save_stock(encoder, tmp_path / "alone")
    assert all(name.startswith("vision_model.") for name in load_tensors(tmp_path / "alone"))
    read = load_pretrained(type(encoder), tmp_path / "alone", leftovers=False)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), read.parameters(), strict=True))
    text = AutoConfig.from_pretrained(parts / "llm")
    llava = LlavaForConditionalGeneration(LlavaConfig(vision_config=encoder.config, text_config=text))
    save_stock(llava, tmp_path / "llava")
    names = load_tensors(tmp_path / "llava").keys()
    of_encoder = {name for name in names if name.startswith("vision_tower.")}
    expected = {f"vision_tower.vision_model.{name}" for name in llava.model.vision_tower.state_dict()}
    assert of_encoder == expected
    again = load_pretrained(LlavaForConditionalGeneration, tmp_path / "llava", leftovers=False)
    assert all(torch.equal(a, b) for a, b in zip(llava.parameters(), again.parameters(), strict=True))
