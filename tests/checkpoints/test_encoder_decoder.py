"""The base model's folder: found, loaded, its experts taken out and put back, its errors."""

import pytest
import torch
from transformers import VisionEncoderDecoderModel

from helpers import tiny_towers
from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.checkpoints import detect, load_model, open_checkpoint, open_tower, save_with_experts
from tove_lvlm.checkpoints.encoder_decoder import EncoderDecoderCheckpoint
from tove_lvlm.checkpoints.publish import stage
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors
from tove_lvlm.surgery.attach import attach


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tower_yaml):
    base = tmp_path_factory.mktemp("base")
    model, processor = build_base(make_decoder(base / "decoder"), tiny_tower_yaml)
    return save_base(base / "model", model, processor)


def logits(loaded):
    ids = torch.tensor([[0, 5, 6, 7]] * 2)
    with torch.no_grad():
        return loaded.model(pixel_values=tiny_towers.pixels(), decoder_input_ids=ids).logits


def test_it_is_found_and_loaded(folder, tiny_tower_yaml):
    found = detect(folder)
    assert isinstance(found, EncoderDecoderCheckpoint)
    assert found.experts().attached == tiny_towers.EXPERT_NAMES
    loaded = load_model(folder)
    model, _ = build_base(folder.parent / "decoder", tiny_tower_yaml)
    with torch.no_grad():
        expected = model(pixel_values=tiny_towers.pixels(), decoder_input_ids=torch.tensor([[0, 5, 6, 7]] * 2)).logits
    assert torch.equal(logits(loaded), expected)
    assert loaded.processor.prompt_ids("red box") == [0, *loaded.processor.tokenizer("red box").input_ids]
    assert loaded.image_aspect_ratio == "square"


def test_experts_are_taken_out_and_put_back_byte_for_byte(folder, tmp_path):
    loaded = open_checkpoint(folder)
    whole = logits(loaded)
    loaded.tower.detach("depth", "cnn")
    without = logits(loaded)
    assert save_with_experts(loaded, tmp_path / "without") == ["encoder_decoder"]
    assert not any(".experts.depth." in name for name in load_tensors(tmp_path / "without" / "model.safetensors"))
    reloaded = open_checkpoint(tmp_path / "without")
    assert reloaded.tower.attached_names == ["normals", "shapes"]
    assert torch.equal(logits(reloaded), without)
    attach(tmp_path / "without", tmp_path / "again", folder)
    assert torch.equal(logits(open_checkpoint(tmp_path / "again")), whole)
    weights = [path / "model.safetensors" for path in (folder, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_was_trained_for_an_expert_can_be_forgotten(folder, tmp_path):
    loaded = open_checkpoint(folder)
    loaded.tower.detach("depth")
    (tmp_path / "f").mkdir()
    loaded.checkpoint.without_experts(tmp_path / "f", ["depth"])
    forgotten = open_checkpoint(tmp_path / "f")
    assert forgotten.tower.expert_names == ["normals", "shapes", "cnn"]
    torch.testing.assert_close(logits(forgotten), logits(loaded), atol=1e-4, rtol=1e-4)


def test_its_tower_opens_alone(folder):
    assert open_tower(folder).attached_names == tiny_towers.EXPERT_NAMES


def test_a_missing_tensor_is_named(folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_tensors(broken / "model.safetensors")
    name = next(key for key in tensors if key.endswith("crossattention.self.query.weight"))
    del tensors[name]
    save_tensors(broken / "model.safetensors", tensors, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"1 missing, which would be random .{name}"):
        open_checkpoint(broken)


@torch.no_grad()
def test_as_it_goes_to_the_hub_stock_transformers_loads_it(folder, tmp_path):
    stage(folder, "me/base", tmp_path / "staged")
    card = (tmp_path / "staged" / "README.md").read_text()
    assert 'VisionEncoderDecoderModel.from_pretrained("me/base")' in card
    assert "| depth |" in card
    model = VisionEncoderDecoderModel.from_pretrained(tmp_path / "staged").eval()
    inputs = {"pixel_values": tiny_towers.pixels(), "decoder_input_ids": torch.tensor([[0, 5, 6, 7]] * 2)}
    assert torch.equal(model(**inputs).logits, logits(load_model(folder)))


def test_a_mean_term_is_saved_and_goes_when_its_expert_comes_back(folder, tmp_path):
    loaded = open_checkpoint(folder)
    whole = logits(loaded)
    loaded.tower.detach("depth", mean_terms={"depth": torch.full((tiny_towers.WIDTH,), 0.5)})
    without = logits(loaded)
    save_with_experts(loaded, tmp_path / "without")
    assert torch.equal(logits(open_checkpoint(tmp_path / "without")), without)
    attach(tmp_path / "without", tmp_path / "back", folder)
    assert torch.equal(logits(open_checkpoint(tmp_path / "back")), whole)
