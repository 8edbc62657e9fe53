"""What makes another key, and what does not."""

import copy

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import build_tower
from tove_lvlm.feature_cache import identity
from tove_lvlm.feature_cache.identity import CLIP, arithmetic, describe_part, image_keys


def key(tower, name, compute="float32", stored="float16"):
    return describe_part(tower, name).key(compute, stored)


def test_an_image_is_known_by_its_very_pixels():
    pixels = tiny_towers.pixels(4)
    keys = image_keys(pixels)
    assert len(set(keys)) == 4
    assert {len(one) for one in keys} == {16}
    assert image_keys(pixels[[2, 0]]) == [keys[2], keys[0]]
    assert image_keys(pixels.transpose(2, 3).contiguous().transpose(2, 3)) == keys
    changed = pixels.clone()
    changed[1, 2, 3, 4] = torch.nextafter(changed[1, 2, 3, 4], torch.tensor(9.0))
    assert [a == b for a, b in zip(image_keys(changed), keys, strict=True)] == [True, False, True, True]
    assert not set(image_keys(pixels.bfloat16())) & set(keys)
    zeros = torch.zeros(1, 3, 4, 16), torch.zeros(1, 3, 8, 8)
    assert image_keys(zeros[0]) != image_keys(zeros[1])


def test_towers_that_share_a_backbone_share_its_key_whatever_they_call_it(tmp_path):
    one = build_tower(tiny_towers.make_tower_yaml(tmp_path / "one", ["depth", "shapes"]))
    path = tiny_towers.make_tower_yaml(tmp_path / "two", ["depth", "shapes", "cnn"], temperature=2.0)
    path.write_text(path.read_text().replace("name: shapes", "name: other_name"))
    two = build_tower(path)
    assert key(one, CLIP) == key(two, CLIP)
    assert key(one, "depth") == key(two, "depth")
    assert key(one, "shapes") == key(two, "other_name")
    assert len({key(two, name) for name in (CLIP, "depth", "other_name", "cnn")}) == 4
    one.save_pretrained(tmp_path / "saved")
    saved = type(one).from_pretrained(tmp_path / "saved")
    assert all(key(saved, name) == key(one, name) for name in (CLIP, "depth", "shapes"))


@pytest.mark.parametrize("name", [CLIP, "depth"])
def test_weights_make_another_key(tower, name):
    before = key(tower, name)
    module = tower.clip if name == CLIP else tower.experts[name]
    other = describe_part(tower, "shapes")
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-3
    assert key(tower, name) != before
    assert describe_part(tower, "shapes") == other


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"image_mean": [0.4, 0.5, 0.5]}, {CLIP, "depth"}),
        ({"expert_resample": "bilinear"}, {"depth"}),
        ({"select_layer": -3}, {CLIP}),
    ],
)
def test_preprocessing_and_layer_make_another_key(tower, change, names):
    before = {name: key(tower, name) for name in (CLIP, "depth")}
    for field, value in change.items():
        setattr(tower.config, field, value)
    assert {name for name, old in before.items() if key(tower, name) != old} == names


def test_arithmetic_and_dtype_make_another_key(tower):
    keys = {
        key(tower, "depth", compute, stored) for compute in ("float32", "bfloat16") for stored in ("float16", "int8")
    }
    assert len(keys) == 4
    cpu = torch.device("cpu")
    assert arithmetic(tower, cpu) == "float32"
    with torch.autocast("cpu", torch.bfloat16):
        assert arithmetic(tower, cpu) == "float32, autocast bfloat16"
    assert arithmetic(copy.deepcopy(tower).bfloat16(), cpu) == "bfloat16"


def test_the_code_of_an_expert_of_your_own_is_in_its_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(module: str, text: str) -> str:
        (tmp_path / f"{module}.py").write_text(text)
        return identity.code_of(__import__(module).Mine)

    first = digest("own_1", 'class Mine:\n    """Text."""\n    def encode(self, x):\n        return x\n')
    assert first
    assert digest("own_2", "class Mine:\n    def encode(self, x):\n\n        return x  # why\n") == first
    assert digest("own_3", "class Mine:\n    def encode(self, x):\n        return -x\n") != first
