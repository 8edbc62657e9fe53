"""A tower that takes more pixels than its CLIP, in the hosts: they give it those pixels and count its tokens right."""

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from helpers import tiny_llava, tiny_towers
from helpers.tiny_checkpoints import build, save
from tove_lvlm.hosts.llava.packing import unpack
from tove_lvlm.hosts.llava.tower import ToVELlavaTower

SIZE = 64


@pytest.fixture(scope="module")
def tower_yaml(tmp_path_factory):
    """The tiny tower's YAML with 64 pixels given, 16 of them for its CLIP."""
    path = tiny_towers.make_tower_yaml(tmp_path_factory.mktemp("large"))
    tower = yaml.safe_load(path.read_text())
    tower["clip"]["input_size"] = SIZE
    path.write_text(yaml.safe_dump(tower))
    return path


def test_transformers_llava_from_the_photograph_to_the_logits(llm, tower_yaml, tmp_path):
    made, processor = build(llm, tower=tower_yaml)
    save(tmp_path / "saved", made, processor)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    image = Image.effect_noise((100, 70), 90).convert("RGB")
    inputs = processor(text="<image>\na b", images=image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, SIZE, SIZE)
    assert (
        (inputs["input_ids"] == loaded.config.image_token_id).sum()
        == tiny_towers.SIDE**2
        == loaded.config.image_seq_length
    )
    with torch.no_grad():
        logits = loaded(**inputs).logits
        assert torch.equal(logits, made(**inputs).logits)
        other = inputs["pixel_values"].clone()
        other[..., ::2, :] += 1  # finer than CLIP's pixels
        other[..., 1::2, :] -= 1
        assert not torch.equal(loaded(**{**inputs, "pixel_values": other}).logits, logits)


def test_llavas_own_code_gets_the_size_and_the_tokens_of_the_tower(tower_yaml):
    name = f"tove:{tower_yaml}"
    tower = ToVELlavaTower(name, tiny_llava.arguments(name))
    assert (tower.image_size, tower.num_patches, tower.num_patches_per_side) == (SIZE, 16, 4)
    assert tower.image_processor.crop_size == {"height": SIZE, "width": SIZE}
    pixels_B3HW = torch.rand(2, 3, SIZE, SIZE)
    packed = tower(pixels_B3HW)
    assert packed.shape == (2, 16, tower.hidden_size)
    channels = {name: expert.spec.channels for name, expert in tower.vision_tower.experts.items()}
    found, want = unpack(packed, channels, width=tiny_towers.WIDTH), tower.vision_tower.encode_frozen(pixels_B3HW)
    assert torch.equal(found.t_clip_BND, want.t_clip_BND)
    assert all(torch.equal(found.grids[name], want.grids[name]) for name in tiny_towers.EXPERT_NAMES)
