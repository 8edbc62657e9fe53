"""`register()` and what a BLIP-2 model makes of `vit_model`."""

import pytest
import torch
from torch import nn

from helpers import tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.hosts.lavis import register
from tove_lvlm.hosts.lavis.register import _blip2_base, _hook_vision_encoder
from tove_lvlm.hosts.lavis.tower import ToVEVisualEncoder
from tove_lvlm.hosts.names import TOWER_VARIABLE


@pytest.fixture
def base(lavis):
    return lavis.models.Blip2Base


def build(base, name, img_size=tiny_towers.SIZE, drop=0):
    return base.init_vision_encoder(name, img_size, drop, False, "fp16")


def test_register_is_idempotent(base):
    hooks = [base.__dict__[name] for name in ("init_vision_encoder", "load_checkpoint", "load_from_pretrained")]
    assert register() == []
    assert hooks == [base.__dict__[name] for name in ("init_vision_encoder", "load_checkpoint", "load_from_pretrained")]


@pytest.mark.parametrize("how", ["yaml", "folder", "environment"])
def test_every_way_to_name_a_tower(base, world, how, tmp_path, monkeypatch):
    name = f"tove:{world.tower}"
    if how == "folder":
        from tove_lvlm import build_tower

        tiny_towers.wake(build_tower(world.tower)).save_pretrained(tmp_path / "tower")
        name = f"tove:{tmp_path / 'tower'}"
    elif how == "environment":
        monkeypatch.setenv(TOWER_VARIABLE, str(world.tower))
        name = "tove"
    encoder, ln_vision = build(base, name)
    assert isinstance(encoder, ToVEVisualEncoder)
    assert ln_vision.normalized_shape == (tiny_towers.WIDTH,)
    moved = (encoder(tiny_towers.pixels()) != encoder.tower(tiny_towers.pixels()).hidden_states[0]).any()
    assert moved == (how == "folder"), "a YAML starts at CLIP, a saved tower where it was saved"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toves", r"`vit_model` is `toves`: .*eva_clip_g or clip_L, or `tove:PATH`"),
        ("tove:", r"`vit_model: tove:` does not say which tower.*TOVE_TOWER"),
        ("tove", r"`vit_model: tove` does not say which tower"),
        ("tove:/no/such.yaml", r"`vit_model: tove:/no/such.yaml`: `/no/such.yaml` does not exist"),
        ("tove:nosuch", r"no file or folder `nosuch`"),
        ("tove:{out}/bert", r"config.json says `model_type: bert`, expected `tove_vision`"),
        ("tove:{out}/train", r"has no config.json"),
        ("tove:{out}/opt/config.json", r"unknown key"),
    ],
)
def test_a_name_that_is_no_tower(base, world, name, message, monkeypatch):
    monkeypatch.delenv(TOWER_VARIABLE, raising=False)
    with pytest.raises(UserError, match=message):
        build(base, name.format(out=world.out))


def test_settings_that_do_not_fit_the_tower(base, world):
    with pytest.raises(UserError, match=r"`model.image_size` is 224 and the tower .*tower.yaml takes 16"):
        build(base, f"tove:{world.tower}", img_size=224)
    with pytest.raises(UserError, match=r"`model.drop_path_rate` is 0.1"):
        build(base, f"tove:{world.tower}", drop=0.1)


def test_other_encoders_are_lavis_own(base, monkeypatch):
    from lavis.models.blip2_models import blip2

    monkeypatch.setattr(blip2, "create_clip_vit_L", lambda *args: args)
    monkeypatch.setattr(blip2, "LayerNorm", lambda width: width)
    with pytest.raises(AttributeError, match="num_features"):  # LAVIS's own line after its own builder
        build(base, "clip_L", img_size=224)


class MainBranch(nn.Module):
    """`Blip2Base` as on LAVIS's main branch, where the builder is a method and keeps the name."""

    def init_vision_encoder(self, model_name, img_size, drop_path_rate, use_grad_checkpoint, precision):
        self.vit_name = model_name
        return "LAVIS's own", None


def test_the_form_of_the_main_branch(lavis, world):
    class Child(MainBranch):
        pass

    _hook_vision_encoder(MainBranch)
    model = Child()
    encoder, ln_vision = build(model, f"tove:{world.tower}")
    assert isinstance(encoder, ToVEVisualEncoder)
    assert ln_vision.normalized_shape == (tiny_towers.WIDTH,)
    assert model.vit_name == f"tove:{world.tower}"
    assert build(model, "eva2_clip_L")[0] == "LAVIS's own"


def test_a_lavis_of_another_kind_is_refused(monkeypatch):
    class Other:
        class models:
            class Blip2Base:
                @classmethod
                def init_vision_encoder(cls, model_name, size):
                    pass

    with pytest.raises(UserError, match=r"not supported: Blip2Base.init_vision_encoder takes \['model_name', 'size'\]"):
        _blip2_base(Other)
    with pytest.raises(UserError, match=r"this LAVIS .* is not supported: .* is not there"):
        _blip2_base(object())


def test_bert_folder_that_is_none(lavis, world, monkeypatch):
    from tove_lvlm.hosts.lavis.bert import VARIABLE

    monkeypatch.setenv(VARIABLE, str(world.out / "train"))
    with pytest.raises(UserError, match=rf"{VARIABLE} is .*train.*holds no config.json"):
        lavis.models.Blip2Base.init_tokenizer()


def test_only_the_one_name_is_redirected(lavis, bert):
    from lavis.models.blip2_models import blip2

    assert blip2.Blip2Base.init_tokenizer().bos_token == "[DEC]"
    assert blip2.BertConfig.from_pretrained(str(bert)).hidden_size == 64
    assert blip2.BertConfig(hidden_size=12).hidden_size == 12
    with pytest.raises(OSError, match="no/such/bert"):
        blip2.BertConfig.from_pretrained("no/such/bert")


def test_no_bert_to_be_had(lavis, monkeypatch):
    from lavis.models.blip2_models import blip2

    def offline(name):
        raise OSError("no connection")

    monkeypatch.delenv("TOVE_LAVIS_BERT", raising=False)
    monkeypatch.setattr(blip2.BertTokenizer, "_cls", type("Offline", (), {"from_pretrained": offline}))
    with pytest.raises(UserError, match=r"`bert-base-uncased` .*\(no connection\); set .* TOVE_LAVIS_BERT"):
        lavis.models.Blip2Base.init_tokenizer()


def test_processors(lavis, world):
    import numpy as np
    from lavis.common.registry import registry
    from omegaconf import OmegaConf
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)
    image, mirrored = Image.fromarray(pixels), Image.fromarray(pixels[:, ::-1].copy())

    def make(kind, **settings):
        cfg = OmegaConf.create({"tower": str(world.tower), **settings})
        return registry.get_processor_class(f"tove_image_{kind}").from_config(cfg)

    out = make("eval", image_size=tiny_towers.SIZE)(image)
    assert out.shape == (3, tiny_towers.SIZE, tiny_towers.SIZE)
    small = (
        torch.tensor(np.asarray(image.resize((tiny_towers.SIZE, tiny_towers.SIZE), Image.BICUBIC))).permute(2, 0, 1)
        / 255
    )
    torch.testing.assert_close(out, (small - 0.5) / 0.5)  # the tower's mean and std
    torch.testing.assert_close(make("train", min_scale=1.0)(image).shape, out.shape)
    tall = [make("train", flip=flip) for flip in (True, False)]
    names = [[type(step).__name__ for step in made.transform.transforms] for made in tall]
    assert ["RandomHorizontalFlip" in steps for steps in names] == [True, False]
    assert not torch.equal(make("eval")(mirrored), out)
    with pytest.raises(UserError, match=r"`image_size` is 224 and the tower has 16"):
        make("eval", image_size=224)
    with pytest.raises(UserError, match=r"vis_processor `mean`"):
        make("eval", mean=[0.4, 0.4, 0.4])


def test_processor_without_a_tower(lavis, monkeypatch):
    from lavis.common.registry import registry

    monkeypatch.setitem(registry.mapping["state"], "configuration", None)
    with pytest.raises(UserError, match=r"`model.vit_model` is `None`; write `tower: tove:PATH`"):
        registry.get_processor_class("tove_image_eval").from_config()
