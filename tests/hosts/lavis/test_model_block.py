"""LAVIS's `model` block of the base model: what it stands for, and what is refused."""

import pytest
import torch
from omegaconf import OmegaConf

from helpers import tiny_towers
from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig, TrainConfig
from tove_lvlm.hosts.lavis.model_block import MODEL_TYPES, ModelBlock, model_config, read_block, tower_config
from tove_lvlm.tower.build import build_tower


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished scripts/pretrain_base.py, tiny; its decoder is as wide as no other here."""
    out = tmp_path_factory.mktemp("trained")
    tower = tiny_towers.make_tower_yaml(out / "tower", ["depth", "cnn"])
    return save_base(out / "run", *build_base(make_decoder(out / "decoder"), tower))


def block(tower, **keys) -> ModelBlock:
    return read_block({"vit_model": f"tove:{tower}", "decoder": "shipped:miniature/decoder", **keys})


def test_defaults_are_those_of_our_own_runs():
    fields = TrainConfig.__dataclass_fields__
    ours = block("x")
    for name in ("trainable", "label_smoothing", "loss_reduction", "balance_loss_weight"):
        assert getattr(ours, name) == fields[name].default, name
    assert ours.detached == EncoderDecoderConfig(decoder="x", tower="y").detached


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_model_types_are_read(name):
    read = read_block(OmegaConf.load(MODEL_TYPES[name]).model)
    assert read.checkpoint is None
    assert read.vit_model.startswith("tove:projects/")


def test_parts(tiny_tower_yaml):
    config = model_config(block(tiny_tower_yaml, detached=["cnn"]))
    assert (config.tower, config.detached) == (str(tiny_tower_yaml), ["cnn"])
    assert config.tower_config.base.pretrained == str(tiny_tower_yaml.parent / "clip")
    assert config.decoder.endswith("miniature/decoder")
    assert tower_config(block(tiny_tower_yaml)).image_size == tiny_towers.SIZE


def test_a_saved_tower(tiny_tower_yaml, tmp_path):
    tiny_towers.wake(build_tower(tiny_tower_yaml)).save_pretrained(tmp_path / "tower")
    config = model_config(block(tmp_path / "tower"))
    assert (config.vision_tower, config.tower) == (str(tmp_path / "tower"), None)


def test_a_finished_run(lavis, trained):
    """Its own decoder and tower, and its weights, whatever the `model_type` says."""
    read = block("/no/tower.yaml", pretrained=str(trained))
    assert (read.folder, read.checkpoint) == (trained, None)
    assert model_config(read).pretrained == str(trained)
    assert tower_config(read).image_size == tiny_towers.SIZE
    from lavis.common.registry import registry

    from tove_lvlm.checkpoints.encoder_decoder import load_encoder_decoder

    made = registry.get_model_class("tove_vqa").from_config(
        {"vit_model": "", "decoder": "", "pretrained": str(trained), "detached": ["cnn"]}
    )
    assert made.model.encoder.attached_names == ["depth"]
    saved = load_encoder_decoder(trained)[0].decoder.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in made.model.decoder.state_dict().items())


def test_which_checkpoint_is_loaded(trained):
    assert block("x", pretrained="a.pth").checkpoint == "a.pth"
    assert block("x", pretrained="a.pth", load_pretrained=False).checkpoint is None
    assert block("x", pretrained="a.pth", finetuned="b.pth").checkpoint == "a.pth"
    assert block("x", pretrained="a.pth", finetuned="b.pth", load_finetuned=True).checkpoint == "b.pth"
    both = block("x", pretrained=str(trained), finetuned="b.pth", load_finetuned=True)
    assert (both.folder, both.checkpoint) == (trained, "b.pth")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"trainables": "x"}, "unknown key `trainables`.*did you mean `trainable`"),
        ({"trainable": "everything"}, "`trainable` is .*everything.*fusion_and_cross_attention"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` is 1.0; expected at least 0 and below 1"),
        ({"load_finetuned": True}, "`model.load_finetuned` is true and `model.finetuned` is empty"),
    ],
)
def test_keys_that_do_not_fit(keys, message):
    with pytest.raises(ConfigError, match=message):
        block("x", **keys)


def test_parts_that_are_not_there(tiny_tower_yaml, tmp_path):
    with pytest.raises(UserError, match="`model.vit_model: tove:/no/such.yaml`: .*does not exist"):
        model_config(block("/no/such.yaml"))
    with pytest.raises(ConfigError, match="`model.decoder`: folder `/no/decoder` does not exist"):
        model_config(block(tiny_tower_yaml, decoder="/no/decoder"))
    for take in (model_config, tower_config):
        with pytest.raises(ConfigError, match="`model.pretrained`: folder `.*` holds no base model; .*pretrain_base"):
            take(block(tiny_tower_yaml, pretrained=str(tmp_path)))
