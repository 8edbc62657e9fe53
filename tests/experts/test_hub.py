"""The hub: one preparation per distinct setting, frozen, the caller's dtype."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.experts import EXPERTS, Expert, ExpertHub, build_expert, hub
from tove_lvlm.experts.preprocess import Preprocessing, prepare
from tove_lvlm.experts.schema import EXPERT_CONFIGS, parse_expert
from tove_lvlm.train.compiler import compiler_problem

GIVEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def experts() -> ExpertHub:
    torch.manual_seed(0)
    return ExpertHub(
        {name: build_expert({"name": name, **tiny_towers.EXPERTS[name]}) for name in tiny_towers.EXPERT_NAMES}
    )


def test_one_resize_per_size_and_the_same_pixels_as_each_alone(experts, monkeypatch):
    """Depth and normals share everything; shapes has their size and another mean; two CNNs share a resize."""
    torch.manual_seed(1)
    other = {"name": "other", **tiny_towers.EXPERTS["cnn"], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    experts["other"] = build_expert(other)
    done, seen = [], {}
    for step in ("picture", "resized", "normalised"):
        real = getattr(hub, step)
        monkeypatch.setattr(hub, step, lambda *given, step=step, real=real: done.append(step) or real(*given))
    for name, expert in experts.items():
        expert.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
    pixels = tiny_towers.pixels().to(torch.bfloat16)
    experts(pixels, GIVEN)
    assert (done.count("picture"), done.count("resized"), done.count("normalised")) == (1, 1, 3)
    for name, expert in experts.items():
        assert torch.equal(seen[name], prepare(pixels, GIVEN, expert.spec.preprocessing).to(seen[name].dtype))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_pixels_are_resampled_as_asked(experts, mode):
    seen = {}
    for name, expert in experts.items():
        expert.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
    pixels = tiny_towers.pixels()
    experts(pixels, GIVEN, resample=mode)
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[mode]
    wanted = experts["cnn"].spec.preprocessing  # of another size than the tower's
    assert torch.equal(seen["cnn"], prepare(pixels, GIVEN, wanted, mode))
    assert (seen["cnn"] - prepare(pixels, GIVEN, wanted, other)).abs().max() > 0.1


def test_some_experts_alone_give_what_they_give_together(experts):
    together = experts(tiny_towers.pixels(), GIVEN)
    some = experts(tiny_towers.pixels(), GIVEN, names=["cnn", "depth"])
    assert list(some) == ["depth", "cnn"]
    assert all(torch.equal(grid, together[name]) for name, grid in some.items())


def test_grids(experts):
    grids = experts(tiny_towers.pixels(), GIVEN)
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
    assert {grid.dtype for grid in experts(tiny_towers.pixels(), GIVEN, dtype=dtype).values()} == {dtype}
    experts.to(torch.bfloat16)
    assert {grid.dtype for grid in experts(tiny_towers.pixels(), GIVEN, dtype=dtype).values()} == {dtype}
    assert {grid.dtype for grid in experts(tiny_towers.pixels().to(dtype), GIVEN).values()} == {dtype}


def test_a_grid_that_is_not_as_the_spec_says(experts):
    experts["depth"].encode = lambda pixels: torch.zeros(2, 16, 24)
    with pytest.raises(ValueError, match=r"expert `depth` gave a grid of shape \(2, 16, 24\).*\(B, 1, h, w\)"):
        experts(tiny_towers.pixels(), GIVEN)


def test_eval_mode_is_pinned(experts):
    experts.train()
    experts["cnn"].train(True)
    assert not any(module.training for module in experts.modules())
    before = experts["cnn"].backbone.bn1.running_mean.clone()
    experts(tiny_towers.pixels(), GIVEN)
    assert torch.equal(experts["cnn"].backbone.bn1.running_mean, before)


def test_families_have_a_schema_and_a_class_each():
    assert EXPERTS.names() == EXPERT_CONFIGS.names()
    assert all(issubclass(EXPERTS.get(name), Expert) for name in EXPERTS.names())


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_picture(experts, name):
    expert = experts[name]
    picture = expert.picture(expert(tiny_towers.pixels()))
    assert picture.shape == (2, 16, 16, 3)
    assert picture.dtype == torch.uint8
    assert picture.min() == 0
    assert picture.max() == 255


def test_features_are_no_picture(experts):
    with pytest.raises(ValueError, match="24 channels; a picture has 1 or 3"):
        experts["shapes"].picture(torch.zeros(1, 24, 4, 4))


def test_no_gradient_even_where_a_host_makes_everything_trainable(experts):
    experts.requires_grad_(True)
    grids = experts(tiny_towers.pixels().requires_grad_(True), GIVEN)
    assert not any(grid.requires_grad for grid in grids.values())


class Bent(Expert):
    """As little as a compiler can be given: it takes most of its time whatever the network."""

    def __init__(self, fields):
        super().__init__(fields)
        self.gain_C11 = torch.nn.Parameter(torch.full((3, 1, 1), 1.5))

    def encode(self, pixels_B3HW):
        return torch.nn.functional.leaky_relu(pixels_B3HW * self.gain_C11, 0.1)


@pytest.mark.full
def test_compiled_experts_give_the_same_grids_and_keep_their_names():
    missing = compiler_problem(torch.device("cpu"))
    if missing:
        pytest.skip(missing)
    entry = {
        "name": "bent",
        "family": "timm",
        "architecture": "none",
        "image_size": 16,
        "channels": 3,
        "grid": [16, 16],
    }
    bent = ExpertHub({"bent": Bent(parse_expert(entry, "here"))})
    before, names = bent(tiny_towers.pixels(), GIVEN), list(bent.state_dict())
    bent.compile_experts()
    after = bent(tiny_towers.pixels(), GIVEN)
    torch.testing.assert_close(after["bent"], before["bent"])
    assert list(bent.state_dict()) == names


def test_what_compile_is_asked_for_reaches_every_expert(experts):
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    before = experts(tiny_towers.pixels(), GIVEN)
    experts.compile_experts(backend=backend)
    after = experts(tiny_towers.pixels(), GIVEN)
    assert len(seen) >= len(experts)
    for name, grid in before.items():
        torch.testing.assert_close(after[name], grid)


def test_many_experts_are_all_compiled():
    """torch stops at eight graphs of one function, which all experts share, and runs the others uncompiled."""
    from torch._dynamo import config

    ran = []

    def backend(graph, inputs):
        return lambda *args: ran.append(graph) or graph.forward(*args)

    entries = {f"e{depth}": tiny_towers.EXPERTS["depth"] | {"depth": depth} for depth in range(1, 11)}
    experts = ExpertHub({name: build_expert({"name": name, **entry}) for name, entry in entries.items()})
    # Not pytest's own patching, whose undoing hides the setting for the rest of the process.
    with config.patch(recompile_limit=8):
        experts.compile_experts(backend=backend)
        experts(tiny_towers.pixels(), GIVEN)
    assert len(ran) == 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streams_change_nothing(experts):
    experts = experts.to("cuda")
    pixels = tiny_towers.pixels(8).cuda()
    before = experts(pixels, GIVEN)
    experts.streams = True
    for _ in range(20):
        after = experts(pixels, GIVEN)
        assert all(torch.equal(after[name], grid) for name, grid in before.items())
