"""The hub: one preparation per distinct setting, frozen, the caller's dtype."""

import pytest
import tiny
import torch

from tove_lvlm.experts import EXPERTS, Expert, ExpertHub, build_expert, hub
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.experts.schema import EXPERT_FIELDS

GIVEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def experts() -> ExpertHub:
    torch.manual_seed(0)
    return ExpertHub({name: build_expert({"name": name, **tiny.EXPERTS[name]}) for name in tiny.EXPERT_NAMES})


def test_one_preparation_per_distinct_size_mean_and_std(experts, monkeypatch):
    made = []
    real = hub.prepare
    monkeypatch.setattr(hub, "prepare", lambda p, given, wanted: made.append(wanted) or real(p, given, wanted))
    experts(tiny.pixels(), GIVEN)
    assert len(made) == len(set(made)) == 3, "depth and normals share one"


def test_grids(experts):
    grids = experts(tiny.pixels(), GIVEN)
    assert {name: tuple(grid.shape) for name, grid in grids.items()} == {
        "depth": (2, 1, 16, 16),
        "normals": (2, 3, 16, 16),
        "shapes": (2, 24, 4, 4),
        "cnn": (2, 16, 2, 2),
    }
    assert not any(grid.requires_grad for grid in grids.values())


def test_each_expert_sees_its_own_normalisation(experts):
    seen = {}
    for name, expert in experts.items():
        expert.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
    grey = torch.zeros(1, 3, 16, 16)  # 0.5 in every channel, by GIVEN
    experts(grey, GIVEN)
    assert seen["depth"].abs().max() == 0
    torch.testing.assert_close(seen["shapes"], torch.full((1, 3, 16, 16), (0.5 - 0.4) / 0.3))
    assert seen["cnn"].shape == (1, 3, 32, 32)
    assert seen["cnn"][0, 0].mean().item() == pytest.approx((0.5 - 0.485) / 0.229, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grids_have_the_dtype_asked_for_whatever_the_weights_have(experts, dtype):
    assert {grid.dtype for grid in experts(tiny.pixels(), GIVEN, dtype=dtype).values()} == {dtype}
    experts.to(torch.bfloat16)
    assert {grid.dtype for grid in experts(tiny.pixels(), GIVEN, dtype=dtype).values()} == {dtype}
    assert {grid.dtype for grid in experts(tiny.pixels().to(dtype), GIVEN).values()} == {dtype}


def test_a_grid_that_is_not_as_the_spec_says(experts):
    experts["depth"].encode = lambda pixels: torch.zeros(2, 16, 24)
    with pytest.raises(ValueError, match=r"expert `depth` gave a grid of shape \(2, 16, 24\).*\(B, 1, h, w\)"):
        experts(tiny.pixels(), GIVEN)


def test_eval_mode_is_pinned(experts):
    experts.train()
    experts["cnn"].train(True)
    assert not any(module.training for module in experts.modules())
    before = experts["cnn"].backbone.bn1.running_mean.clone()
    experts(tiny.pixels(), GIVEN)
    assert torch.equal(experts["cnn"].backbone.bn1.running_mean, before)


def test_families_have_a_schema_and_a_class_each():
    assert EXPERTS.names() == EXPERT_FIELDS.names()
    assert all(issubclass(EXPERTS.get(name), Expert) for name in EXPERTS.names())


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_picture(experts, name):
    expert = experts[name]
    picture = expert.picture(expert(tiny.pixels()))
    assert picture.shape == (2, 16, 16, 3)
    assert picture.dtype == torch.uint8
    assert picture.min() == 0
    assert picture.max() == 255


def test_features_are_no_picture(experts):
    with pytest.raises(ValueError, match="24 channels; a picture has 1 or 3"):
        experts["shapes"].picture(torch.zeros(1, 24, 4, 4))


def test_no_gradient_even_where_a_host_makes_everything_trainable(experts):
    experts.requires_grad_(True)
    grids = experts(tiny.pixels().requires_grad_(True), GIVEN)
    assert not any(grid.requires_grad for grid in grids.values())
