"""Known experts by name, any backbone in one line, and what is refused before anything is loaded."""

import open_clip
import pytest
import timm
from transformers import AutoConfig

from tove_lvlm.config import ConfigError, read_yaml
from tove_lvlm.experts import EXPERTS, describe
from tove_lvlm.experts.catalogue import FOLDER, catalogue, entry_of, resolve_entry
from tove_lvlm.tower.from_yaml import read_tower_yaml

EMBEDDING = read_yaml(FOLDER / "embedding.yaml")

CLIP = """
clip: {pretrained: none, architecture: {hidden_size: 32, num_hidden_layers: 2, image_size: 16, patch_size: 4}}
experts:
"""


def read(tmp_path, experts: str):
    path = tmp_path / "tower.yaml"
    path.write_text(CLIP + experts)
    return read_tower_yaml(path).experts


def test_a_name_stands_for_architecture_and_weights(tmp_path):
    (expert,) = read(tmp_path, "  - dinov2_l14_reg")
    assert expert.name == "dinov2_l14_reg"
    assert expert.fields["architecture"] == "vit_large_patch14_reg4_dinov2.lvd142m"
    assert (expert.fields["image_size"], expert.fields["mean"]) == (518, [0.485, 0.456, 0.406])
    assert expert.pretrained == "timm/vit_large_patch14_reg4_dinov2.lvd142m"
    assert expert.license == "apache-2.0"


def test_own_keys_go_over_it_and_other_weights_drop_what_pins_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(catalogue()["dinov2_l14_reg"], "revision", "abc")
    (known,) = read(tmp_path, "  - {expert: dinov2_l14_reg, image_size: 336}")
    assert (known.fields["image_size"], known.revision) == (336, "abc")
    (other,) = read(tmp_path, "  - {expert: dinov2_l14_reg, name: dino, pretrained: none}")
    assert (other.name, other.pretrained, other.revision, other.license) == ("dino", None, None, None)


@pytest.mark.parametrize(
    ("reference", "size", "name"),
    [
        ("timm/convnext_base.clip_laion2b", 256, "convnext_base"),
        ("timm/vit_small_patch14_dinov2", 518, "vit_small_patch14_dinov2"),
    ],
)
def test_any_timm_backbone_in_one_line(tmp_path, reference, size, name):
    (expert,) = read(tmp_path, f"  - {reference}")
    cfg = timm.get_pretrained_cfg(reference.removeprefix("timm/"))
    assert expert.name == name
    assert expert.pretrained == cfg.hf_hub_id
    assert expert.license == cfg.license
    assert expert.fields["image_size"] == size == cfg.input_size[-1]
    assert expert.fields["mean"] == list(cfg.mean)


def test_another_image_size_reaches_the_network():
    entry = {**entry_of("timm/vit_small_patch14_dinov2"), "image_size": 224}
    fields = {key: entry[key] for key in ("name", "family", "architecture", "image_size")}
    assert describe(fields).grid == (16, 16)
    assert describe({**fields, "image_size": 518}).grid == (37, 37)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dinov2_l14_rg", "unknown expert `dinov2_l14_rg`; did you mean `dinov2_l14_reg`"),
        ({"expert": 3}, "expected a name"),
        ("timm/vit_smal_patch16_224", "timm has no architecture `vit_smal_patch16_224`; did you mean `vit_small_pa"),
        ("timm/vit_small_patch14_dinov2.lvd", "has no weights `lvd`; did you mean `lvd142m`"),
        ("tim/resnet18", "unknown family `tim`; did you mean `timm`"),
        ("transformers/dinov2", "no table of transformers's networks"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ConfigError, match=r"here.*: .*" + message):
        resolve_entry(given, "here")


def of_family(family: str) -> list[str]:
    return [name for name, entry in catalogue().items() if entry["family"] == family and name in EMBEDDING]


@pytest.mark.parametrize("name", of_family("timm"))
def test_timm_entries_are_timms_own_table(name):
    entry = catalogue()[name]
    cfg = timm.get_pretrained_cfg(entry["architecture"])
    assert cfg.architecture == entry["architecture"].partition(".")[0]
    assert (entry["pretrained"], entry["license"]) == (cfg.hf_hub_id, cfg.license)
    assert (entry["image_size"], entry["mean"], entry["std"]) == (cfg.input_size[-1], [*cfg.mean], [*cfg.std])


@pytest.mark.parametrize("name", of_family("open_clip"))
def test_open_clip_entries_are_its_own_table(name):
    entry = catalogue()[name]
    vision = open_clip.get_model_config(entry["architecture"])["vision_cfg"]
    tags = open_clip.list_pretrained_tags_by_model(entry["architecture"])
    known = [open_clip.get_pretrained_cfg(entry["architecture"], tag) for tag in tags]
    (cfg,) = [cfg for cfg in known if cfg["hf_hub"].rstrip("/") == entry["pretrained"]]
    assert (entry["image_size"], entry["mean"], entry["std"]) == (vision["image_size"], [*cfg["mean"]], [*cfg["std"]])
    assert entry["file"] == "open_clip_*", "timm's or transformers' weights may lie beside open_clip's"


@pytest.mark.parametrize("name", of_family("transformers"))
def test_transformers_entries_are_its_own_configs(name):
    architecture = dict(catalogue()[name]["architecture"])
    config = AutoConfig.for_model(architecture.pop("model_type"))
    assert not [key for key in architecture if not hasattr(config, key)]
    assert architecture["image_size"] == catalogue()[name]["image_size"]


def test_the_embedding_experts_of_the_issue_are_all_there():
    entries = [catalogue()[name] for name in EMBEDDING]
    known = {str(entry["architecture"]).partition(".")[0] for entry in entries}
    sizes = ("small", "base", "large", "giant")
    assert {f"vit_{size}_patch14_{reg}dinov2" for size in sizes for reg in ("", "reg4_")} <= known
    assert {f"vit_{size}_patch16_dinov3" for size in ("small", "base", "large")} <= known
    assert {"samvit_base_patch16", "EVA02-B-16", "EVA02-L-14-336", "EVA01-g-14-plus"} <= known
    kinds = {entry["architecture"]["model_type"] for entry in entries if entry["family"] == "transformers"}
    assert {"dinov2", "siglip_vision_model", "clip_vision_model", "sam_vision_model"} <= kinds


@pytest.mark.parametrize("name", list(catalogue()))
def test_every_entry_is_complete(name):
    entry = catalogue()[name]
    assert entry["about"]
    assert entry["family"] in EXPERTS
    assert {"pretrained", "license"} <= entry.keys()
