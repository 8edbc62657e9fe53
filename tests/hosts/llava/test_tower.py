"""The tower behind LLaVA's surface, and how it is found."""

import json
from types import SimpleNamespace

import pytest
import torch

from helpers import tiny_llava, tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.hosts.llava.packing import unpack
from tove_lvlm.hosts.llava.tower import ToVELlavaTower
from tove_lvlm.hosts.names import TOWER_VARIABLE


@pytest.fixture(scope="module")
def name(tiny_tower_yaml):
    return f"tove:{tiny_tower_yaml}"


@pytest.fixture
def tower(name):
    return make(name)


def make(name, delay_load=False, **changes):
    return ToVELlavaTower(name, tiny_llava.arguments(name, **changes), delay_load=delay_load)


def channels(tower):
    return {name: expert.spec.channels for name, expert in tower.vision_tower.experts.items()}


def test_surface(tower):
    assert tower.is_loaded
    assert (tower.num_patches, tower.num_patches_per_side, tower.image_size) == (16, 4, 16)
    assert (tower.select_layer, tower.select_feature) == (-2, "patch")
    assert tower.config.image_size == 16
    assert tower.hidden_size == tower(tiny_towers.pixels()).shape[-1]
    assert tower.dummy_feature.shape == (1, tower.hidden_size)
    assert tower.image_processor.crop_size == {"height": 16, "width": 16}
    assert tower.image_processor.size["shortest_edge"] == 16
    assert len(tower.image_processor.image_mean) == 3


def test_features_are_those_of_the_tower(tower, tiny_tower):
    got = unpack(tower(tiny_towers.pixels()), channels(tower), width=32)
    want = tiny_tower.encode_frozen(tiny_towers.pixels())
    assert torch.equal(got.t_clip_BND, want.t_clip_BND)
    assert torch.equal(want.t_clip_BND, tiny_tower(tiny_towers.pixels()).hidden_states[0])
    assert all(torch.equal(got.grids[name], want.grids[name]) for name in tiny_towers.EXPERT_NAMES)


def test_a_list_of_images_and_a_dummy(tower):
    images = tiny_towers.pixels()
    both = tower(images)
    single = tower([images[0], images[1]])
    assert [one.shape for one in single] == [both[:1].shape, both[1:].shape]
    assert torch.equal(single[1], tower(images[1:]))
    dummy = unpack(tower(torch.cat([images[:1], torch.zeros_like(images[:1])])), channels(tower), width=32)
    assert dummy.weight_B.tolist() == [True, False]


def test_nothing_is_trainable_and_nothing_wakes(tower):
    tower.train()
    output = tower(tiny_towers.pixels())
    assert not output.requires_grad
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any("tove_fusion" in key for key in tower.state_dict())
    assert torch.equal(output, tower.eval()(tiny_towers.pixels()))
    assert tower.requires_grad_(False) is tower
    with pytest.raises(UserError, match="are frozen: leave `unfreeze_mm_vision_tower`"):
        tower.requires_grad_(True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_to_dtype_keeps_the_images_dtype(tower, dtype):
    tower.to(dtype=dtype)
    assert {parameter.dtype for parameter in tower.parameters()} == {dtype}
    assert tower(tiny_towers.pixels()).dtype == torch.float32  # as LLaVA's CLIP: the features take the images' dtype
    features = tower(tiny_towers.pixels().to(dtype))
    assert features.dtype == dtype
    assert features.isfinite().all()


def test_delay_load(name, tower):
    late = make(name, delay_load=True)
    assert not late.is_loaded
    assert list(late.parameters()) == []
    assert late.config.image_size == 16
    assert late.num_patches_per_side == 4
    with pytest.raises(UserError, match="once load_model"):
        _ = late.hidden_size
    late.load_model(device_map={"": "cpu"})
    held = late.vision_tower
    late.load_model()
    assert late.vision_tower is held
    assert torch.equal(late(tiny_towers.pixels()), tower(tiny_towers.pixels()))


def test_on_the_meta_device_the_weights_wait(name, tower):
    with torch.device("meta"):
        late = make(name)  # not delayed: LLaVA-NeXT builds it so inside from_pretrained
    assert not late.is_loaded
    late.load_model()
    assert not any(tensor.is_meta for tensor in [*late.parameters(), *late.buffers()])
    assert torch.equal(late(tiny_towers.pixels()), tower(tiny_towers.pixels()))


def test_detached_experts_take_no_room(tower):
    full = tower.hidden_size
    before = tower(tiny_towers.pixels())
    tower.vision_tower.detach("normals")
    assert tower.hidden_size < full
    got = unpack(
        tower(tiny_towers.pixels()),
        {n: c for n, c in zip(tiny_towers.EXPERT_NAMES, (1, 3, 24, 16), strict=True)},
        width=32,
    )
    assert list(got.grids) == ["depth", "shapes", "cnn"]
    tower.vision_tower.attach()
    assert torch.equal(tower(tiny_towers.pixels()), before)


# ---- finding the tower ----


def test_a_relative_path_and_the_environment(tiny_tower_yaml, monkeypatch, tmp_path):
    folder = tiny_tower_yaml.parent
    settings = SimpleNamespace(mm_vision_tower="tove:tower.yaml", name_or_path=str(folder))
    assert ToVELlavaTower(settings.mm_vision_tower, settings, delay_load=True).path == tiny_tower_yaml.resolve()
    settings.name_or_path = str(tmp_path)
    with pytest.raises(UserError, match=r"mm_vision_tower: tove:tower.yaml`.*no file or folder|does not exist"):
        ToVELlavaTower(settings.mm_vision_tower, settings, delay_load=True)
    settings.mm_vision_tower = "tove"
    monkeypatch.delenv(TOWER_VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"does not say which tower.*{TOWER_VARIABLE}"):
        ToVELlavaTower("tove", settings, delay_load=True)
    monkeypatch.setenv(TOWER_VARIABLE, str(tiny_tower_yaml))
    assert ToVELlavaTower("tove", settings, delay_load=True).path == tiny_tower_yaml.resolve()


def test_foreign_paths(tmp_path, tiny_tower_yaml):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="has no config.json"):
        make(f"tove:{tmp_path / 'other'}")
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "llava_llama"}))
    with pytest.raises(UserError, match=r"other/config.json says `model_type: llava_llama`, expected `tove_vision`"):
        make(f"tove:{tmp_path / 'other'}")
    (tmp_path / "run.yaml").write_text("model: {llm: x}\n")
    with pytest.raises(UserError, match=r"run.yaml.*unknown key `model`"):
        make(f"tove:{tmp_path / 'run.yaml'}")
    broken = tmp_path / "tower.yaml"
    broken.write_text(tiny_tower_yaml.read_text().replace("./", f"{tiny_tower_yaml.parent}/").replace("/cnn", "/gone"))
    with pytest.raises(UserError, match=r"tower.yaml: `experts\[3\].pretrained`.*/gone` does not exist"):
        make(f"tove:{broken}")


# ---- settings of LLaVA that ask for something else ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_vision_select_layer": -1}, "`mm_vision_select_layer` is -1.*write --mm_vision_select_layer -2"),
        ({"mm_vision_select_feature": "cls_patch"}, "`mm_vision_select_feature` is `cls_patch`"),
        ({"unfreeze_mm_vision_tower": True}, "are frozen"),
        ({"mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter"}, "are frozen"),
    ],
)
def test_settings_that_would_be_dropped(name, changes, message):
    with pytest.raises(UserError, match=message):
        make(name, delay_load=True, **changes)
    make(name, delay_load=True, mm_vision_select_layer=2, mm_tunable_parts="mm_mlp_adapter")  # 2 of 4 states is -2


@pytest.mark.parametrize("kind", ["gated", "concat"])
def test_projector_fuses_as_the_towers_own_config_says(tiny_tower_yaml, kind):
    """The baseline that concatenates has wider tokens, and its projector is as wide."""
    from tove_lvlm import build_tower
    from tove_lvlm.hosts.llava.packing import pack
    from tove_lvlm.hosts.llava.projector import ToVEProjector

    whole = build_tower(tiny_tower_yaml, [f"fusion.kind={kind}"])
    tiny_towers.wake(whole)
    layer = torch.nn.Linear(whole.config.hidden_size, 8)
    projector = ToVEProjector(whole.config, layer).eval()
    projector.tove_fusion.load_state_dict(whole.tove_fusion.state_dict())
    with torch.no_grad():
        packed = pack(whole.encode_frozen(tiny_towers.pixels()), whole.expert_names)
        assert torch.equal(projector(packed), layer(whole(tiny_towers.pixels()).last_hidden_state))
