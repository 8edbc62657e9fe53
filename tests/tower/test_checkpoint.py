"""A tower on disk: whole, light, and never partly random."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from helpers import tiny_towers
from tove_lvlm import ToVEImageProcessor, ToVEVisionModel, build_tower, storage
from tove_lvlm.storage import MissingWeightsError, WeightsError
from tove_lvlm.weights.sources import ChecksumError


@pytest.fixture
def tower(tiny_tower):
    return tiny_towers.wake(tiny_tower)


def same(left, right) -> bool:
    with torch.no_grad():
        a, b = left(tiny_towers.pixels()), right(tiny_towers.pixels())
    return torch.equal(a.last_hidden_state, b.last_hidden_state) and torch.equal(a.gate_probs, b.gate_probs)


LOADERS = [ToVEVisionModel.from_pretrained, AutoModel.from_pretrained, build_tower]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("load", LOADERS)
def test_round_trip(tower, tmp_path, light, load):
    tower.save_pretrained(tmp_path, light=light)
    loaded = load(tmp_path)
    assert type(loaded) is ToVEVisionModel
    assert same(loaded, tower)
    assert not loaded.training
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in tower.state_dict().items())
    assert loaded.sources == tower.sources
    frozen = [n for n, p in loaded.named_parameters() if p.requires_grad != n.startswith("tove_fusion.")]
    assert frozen == []


@pytest.mark.parametrize("light", [False, True])
def test_round_trip_in_bf16(tower, tmp_path, light):
    tower.to(torch.bfloat16).save_pretrained(tmp_path, light=light)
    loaded = ToVEVisionModel.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert same(loaded, tower)
    assert ToVEVisionModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_light_holds_the_fusion_and_references_only(tower, tmp_path):
    tower.save_pretrained(tmp_path, light=True)
    saved = storage.load_tensors(tmp_path)
    assert saved.keys() == {f"tove_fusion.{name}" for name in tower.tove_fusion.state_dict()}
    sources = json.loads((tmp_path / "sources.json").read_text())
    assert sources["form"] == "light"
    assert sources["clip"]["sha256"] == storage.fingerprint(sources["clip"]["source"])
    assert list(sources["experts"]) == tower.expert_names


def test_the_config_says_nothing_of_where_weights_came_from(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    assert "pretrained" not in config
    assert str(tmp_path.parent) not in config
    assert AutoConfig.from_pretrained(tmp_path).experts == tower.config.experts


def copy_tower_folder(tiny_tower_yaml, folder):
    shutil.copytree(tiny_tower_yaml.parent, folder)
    return folder / tiny_tower_yaml.name


def test_light_refuses_other_weights(tiny_tower_yaml, tmp_path):
    yaml = copy_tower_folder(tiny_tower_yaml, tmp_path / "parts")
    build_tower(yaml).save_pretrained(tmp_path / "light", light=True)
    tiny_towers.make_expert(yaml.parent / "depth", "depth", seed=99)
    with pytest.raises(WeightsError, match="weights of `depth` .* are not those that the tower was trained with"):
        ToVEVisionModel.from_pretrained(tmp_path / "light")


def test_light_refuses_weights_whose_place_is_not_known_yet(tower, tmp_path, monkeypatch):
    def fetch(source):
        raise ChecksumError("the sha256 is another")

    tower.save_pretrained(tmp_path, light=True)
    monkeypatch.setattr("tove_lvlm.tower.checkpoint.fetch", fetch)
    with pytest.raises(WeightsError, match="weights of `clip` at `.*clip` are not those .*: the sha256 is another"):
        ToVEVisionModel.from_pretrained(tmp_path)


def test_light_names_missing_parts_and_takes_another_place(tiny_tower_yaml, tmp_path):
    yaml = copy_tower_folder(tiny_tower_yaml, tmp_path / "parts")
    tower = tiny_towers.wake(build_tower(yaml))
    tower.save_pretrained(tmp_path / "light", light=True)
    (yaml.parent / "clip").rename(tmp_path / "moved")
    with pytest.raises(MissingWeightsError, match="weights of `clip`.*sources={'clip': PATH}"):
        ToVEVisionModel.from_pretrained(tmp_path / "light")
    loaded = ToVEVisionModel.from_pretrained(tmp_path / "light", sources={"clip": str(tmp_path / "moved")})
    assert same(loaded, tower)


def test_light_needs_known_sources(tower, tmp_path):
    tower.sources = {}
    with pytest.raises(WeightsError, match="not known where clip, depth, normals, shapes, cnn came from"):
        tower.save_pretrained(tmp_path, light=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "`format` is 2; this version reads 1"),
        ({"format": "1"}, "`format` is '1'"),
        ({"form": "heavy"}, "`form` is 'heavy'; expected whole or light"),
        ({"clip": None}, "`clip` is NoneType; expected an object"),
        ({"experts": None}, "`experts` is NoneType; expected an object"),
        ({"experts": {"depth": []}}, "`experts.depth` is list; expected an object"),
    ],
)
def test_sources_that_this_version_did_not_write_are_refused(tower, tmp_path, change, told):
    tower.save_pretrained(tmp_path, light=True)
    file = tmp_path / "sources.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(WeightsError, match=f"sources.json: {told}"):
        ToVEVisionModel.from_pretrained(tmp_path)


def test_light_refuses_options_it_cannot_follow(tower, tmp_path):
    tower.save_pretrained(tmp_path, light=True)
    with pytest.raises(ValueError, match="device_map"):
        ToVEVisionModel.from_pretrained(tmp_path, device_map="auto")


@pytest.mark.parametrize("part", ["clip.encoder.layers.0", "experts.depth.vit.blocks.0", "tove_fusion.gate"])
@pytest.mark.parametrize("load", LOADERS)
def test_whole_is_never_partly_random(tower, tmp_path, part, load):
    tower.save_pretrained(tmp_path)
    tensors = storage.load_tensors(tmp_path)
    storage.save_tensors(tmp_path / "model.safetensors", {k: t for k, t in tensors.items() if not k.startswith(part)})
    with pytest.raises(WeightsError, match=f"lack.* tensors of the tower.* \\({part}"):
        load(tmp_path)


@pytest.mark.parametrize("light", [False, True])
def test_truncated_weights_name_the_place(tower, tmp_path, light):
    tower.save_pretrained(tmp_path, light=light)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=f"{tmp_path}.*truncated"):
        ToVEVisionModel.from_pretrained(tmp_path)


def test_light_with_a_missing_tensor_names_it(tower, tmp_path):
    tower.save_pretrained(tmp_path, light=True)
    tensors = storage.load_tensors(tmp_path)
    tensors.pop("tove_fusion.gate.fc1.weight")
    storage.save_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(WeightsError, match=r"model.safetensors.*1 missing \(gate.fc1.weight\)"):
        ToVEVisionModel.from_pretrained(tmp_path)


def test_the_image_processor_lies_beside_it(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is ToVEImageProcessor


def test_loose_buffers_of_a_backbone_survive_the_meta_device(tmp_path):
    """transformers materialises them without a value; rotary tables and relative positions live there."""
    for name, args in {
        "eva02_tiny_patch14_224": {"img_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2},
        "swin_tiny_patch4_window7_224": {"img_size": 28, "depths": [2, 1], "embed_dim": 12, "num_heads": [2, 2]},
    }.items():
        fields = {"name": "e", "family": "timm", "architecture": name, "model_args": args, "image_size": 28}
        torch.manual_seed(0)
        config = {"clip_config": tiny_towers.CLIP_ARCHITECTURE, "experts": [fields], "fusion": {"zero_init": False}}
        tower = tiny_towers.wake(ToVEVisionModel(AutoConfig.for_model("tove_vision", **config)).eval())
        assert len(tower.experts["e"].non_persistent_buffers()) > 0
        tower.save_pretrained(tmp_path / name)
        for _ in range(3):  # garbage is not the same every time
            loaded = ToVEVisionModel.from_pretrained(tmp_path / name)
            for (key, buffer), (_, expected) in zip(
                loaded.experts["e"].non_persistent_buffers(), tower.experts["e"].non_persistent_buffers(), strict=True
            ):
                assert torch.equal(buffer, expected), key
            assert same(loaded, tower)
