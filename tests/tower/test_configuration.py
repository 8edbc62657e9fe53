"""The tower's config: what hosts read, JSON round trip, refusals."""

import pytest

from helpers import tiny_towers
from tove_lvlm import ToVEVisionConfig
from tove_lvlm.config import ConfigError

DEPTH = {"name": "depth", **tiny_towers.EXPERTS["depth"]}


def config(**kwargs) -> ToVEVisionConfig:
    return ToVEVisionConfig(clip_config=tiny_towers.CLIP_ARCHITECTURE, **kwargs)


def test_what_hosts_read():
    made = config(experts=[DEPTH])
    assert (made.hidden_size, made.image_size, made.patch_size, made.num_channels) == (32, 16, 4, 3)
    assert (made.side, made.num_tokens, made.num_hidden_layers) == (4, 16, 1)
    assert made.expert_names == ["depth"]
    assert made.image_mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_json_round_trip(tmp_path):
    made = config(experts=[DEPTH], detached=["depth"], fusion={"temperature": 2}, image_mean=(0.1, 0.2, 0.3))
    made.save_pretrained(tmp_path)
    loaded = ToVEVisionConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == made.to_dict()
    assert loaded.fusion_settings.temperature == 2.0
    assert loaded.attached_names == []


def test_the_default_is_a_plain_clip():
    assert ToVEVisionConfig().expert_names == []
    assert ToVEVisionConfig().num_tokens == 49


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"clip_config": {**tiny_towers.CLIP_ARCHITECTURE, "image_size": [16, 32]}}, "square token grid"),
        ({"clip_config": {**tiny_towers.CLIP_ARCHITECTURE, "patch_size": [4, 8]}}, "square token grid"),
        ({"clip_config": {**tiny_towers.CLIP_ARCHITECTURE, "patch_size": 32}}, "smaller than `patch_size`"),
        ({"select_layer": 9}, "hidden states -4 to 3"),
        ({"experts": [{**DEPTH, "name": "train"}]}, "cannot be called `train`"),
        ({"experts": [DEPTH, DEPTH]}, "named twice"),
        ({"experts": [DEPTH], "detached": ["x"]}, "`detached` names the expert `x`"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std above 0"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ToVEVisionConfig(**{"clip_config": tiny_towers.CLIP_ARCHITECTURE, **kwargs})


def test_unknown_fusion_setting():
    with pytest.raises(ConfigError, match="unknown key `gate_nois`; did you mean `gate_noise`"):
        config(fusion={"gate_nois": 1})


def test_config_saved_before_transfers_had_a_scale_keeps_its_arithmetic():
    """Such a checkpoint was trained with the transfers' output added as it is."""
    saved = ToVEVisionConfig().to_dict()
    assert saved["fusion"]["transfer_scale"] == 1.0
    del saved["fusion"]["transfer_scale"]
    assert ToVEVisionConfig(**saved).fusion_settings.transfer_scale is None
    assert ToVEVisionConfig(fusion={"zero_init": False}).fusion_settings.transfer_scale == 1.0


def test_the_gates_key_of_an_earlier_version_is_read():
    """With a warning where somebody wrote it, silently where a saved tower holds it."""
    with pytest.warns(FutureWarning, match="`gate_input` is deprecated: write `gate: token`"):
        assert config(fusion={"gate_input": "tokens"}).fusion_settings == config().fusion_settings
    saved = config(fusion={"gate": "constant"}).to_dict()
    assert "gate_input" not in saved["fusion"]
    saved["fusion"]["gate_input"] = saved["fusion"].pop("gate")
    assert ToVEVisionConfig(**saved).fusion_settings.gate == "constant"  # a warning would be an error here
