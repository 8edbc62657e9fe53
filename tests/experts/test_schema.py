"""Architecture fields of an expert: defaults, the weights' own config.json, refusals."""

import json

import pytest

from helpers import tiny_towers
from tove_lvlm.config import ConfigError
from tove_lvlm.experts.schema import complete_fields, parse_expert


def test_defaults():
    fields = parse_expert({"name": "e", "family": "timm", "architecture": "resnet18"}, "here")
    assert fields["output"] == "features"
    assert fields["image_size"] == 224
    assert fields["mean"] == [0.485, 0.456, 0.406]
    assert fields["channels"] is None


def test_the_weights_own_config_fills_what_the_yaml_leaves_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**tiny_towers.DENSE, "channels": 3, "note": "ignored"}))
    fields = complete_fields({"name": "e", "family": "dense_vit", "image_size": 32}, str(tmp_path), "here")
    assert (fields["channels"], fields["width"]) == (3, 24)
    assert fields["image_size"] == 32, "the YAML wins"


def test_a_timm_folder_from_the_hub(tmp_path):
    hub = {
        "architecture": "resnet18",
        "num_classes": 1000,
        "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "tag": "x"},
    }
    (tmp_path / "config.json").write_text(json.dumps(hub))
    fields = complete_fields({"name": "e", "family": "timm"}, str(tmp_path), "here")
    assert (fields["architecture"], fields["image_size"], fields["mean"]) == ("resnet18", 160, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18}, "`image_size` 18 is not a multiple of `patch_size` 4"),
        ({"width": 25}, "`width` 25 is not a multiple of `heads`"),
        ({"depth": 0}, "`depth` is 0; expected at least 1"),
        ({"std": [0.0, 1.0, 1.0]}, "`std` has 0.0 in it; expected above 0"),
        ({"mean": [0.5]}, "need 3 numbers each"),
        ({"image_size": "big"}, "`image_size` is 'big'"),
        ({"family": "dense"}, "unknown expert family `dense`; did you mean `dense_vit`"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_expert({"name": "depth", **tiny_towers.EXPERTS["depth"], **change}, "here")
