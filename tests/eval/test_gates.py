import pytest
import torch
from PIL import Image

from tove_lvlm.eval.gates import mean_gate_mass
from tove_lvlm.tower.image_processing import ToVEImageProcessor


def test_mean_gate_mass_over_images(tiny_tower, tmp_path):
    size = tiny_tower.config.image_size
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        Image.effect_noise((size, size), 40 + 30 * index).convert("RGB").save(files[-1])
    processor = ToVEImageProcessor.for_tower(tiny_tower.config)
    tiny_tower.detach(tiny_tower.expert_names[0])
    mass = mean_gate_mass(tiny_tower, processor, files, batch_size=2)
    pixels = processor([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = tiny_tower(pixels).gate_probs.mean(dim=(0, 1))
    assert list(mass) == tiny_tower.expert_names
    assert list(mass.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert mass[tiny_tower.expert_names[0]] == 0
    assert sum(mass.values()) == pytest.approx(1)


def test_no_tower_has_no_mass():
    assert mean_gate_mass(torch.nn.Linear(1, 1), None, ["x.png"]) == {}
