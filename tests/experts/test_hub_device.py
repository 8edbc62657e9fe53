"""The hub on a CUDA device: each way of running the experts gives the plain grids, and what each takes is printed.

    pytest -m gpu -s tests/experts/test_hub_device.py

`test_timed` prints milliseconds per image of `clip_b16_base`'s experts and of a ResNet-50, with random weights in
bfloat16; no time is asserted. What pays there is measured again by benchmarks/tower_overhead.py before it is a default.
"""

import copy
import json
import statistics

import pytest
import torch

from helpers.paths import ROOT
from helpers.small_experts import ENTRIES, small_expert
from tove_lvlm.cost import clock_of
from tove_lvlm.experts import ExpertHub, build_expert
from tove_lvlm.experts.precision import deviation, deviation_in
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.tower.build import tower_config_from_yaml

GIVEN = Preprocessing(64, (0.5,) * 3, (0.5,) * 3)
SETTINGS = ("channels_last", "compile", "streams")
VARIANTS = [(), ("channels_last",), ("streams",), ("compile",), ("channels_last", "compile"), SETTINGS]
COMPILED = ["timm_resnet", "timm_vit", "depth_dpt", "hed"]
"""As many as a minute's compiling takes."""
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def varied(hub: ExpertHub, variant: tuple[str, ...]) -> ExpertHub:
    """A copy that runs otherwise."""
    hub = copy.deepcopy(hub)
    hub.channels_last, hub.streams = "channels_last" in variant, "streams" in variant
    if "compile" in variant:
        hub.compile_experts()
    return hub


def pixels_of(size: int, batch: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    coarse = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    return smooth.to(device, dtype)


def ms_per_image(
    hub: ExpertHub, pixels: torch.Tensor, given: Preprocessing, repeats: int = 10, names: list[str] | None = None
) -> float:
    """Median over the repeats, after two to warm up; of some experts alone, where names are given."""
    clock, elapsed = clock_of(pixels.device), []
    for number in range(repeats + 2):
        start = clock()
        hub(pixels, given, names=names)
        if number > 1:
            elapsed.append((clock() - start) / len(pixels))
    return statistics.median(elapsed)


def large_hub() -> ExpertHub:
    """The experts of a tower that is run, and a CNN, with the weights that their libraries begin with."""
    config = tower_config_from_yaml(str(ROOT / "projects" / "towers" / "clip_b16_base.yaml"))
    torch.manual_seed(0)
    experts = {entry["name"]: build_expert(entry) for entry in config.experts}
    entry = {"name": "resnet", "family": "timm", "architecture": "resnet50", "image_size": 224}
    return ExpertHub({**experts, "resnet": build_expert(entry)})


def test_a_copy_runs_otherwise_and_the_first_as_before():
    hub = ExpertHub({"timm_resnet": small_expert("timm_resnet")})
    pixels = pixels_of(64, 2, "cpu")
    plain = hub(pixels, GIVEN)["timm_resnet"]
    other = varied(hub, ("channels_last",))
    assert (other.channels_last, hub.channels_last) == (True, False)
    assert ms_per_image(other, pixels, GIVEN, repeats=1) > 0
    assert deviation(other(pixels, GIVEN)["timm_resnet"], plain).relative < 1e-5
    assert torch.equal(hub(pixels, GIVEN)["timm_resnet"], plain)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "+".join(variant) or "plain")
def test_every_family_gives_the_plain_grids(variant):
    """Float32 without TF32; relative to a grid's values, since random weights give nearly flat maps. Canny is left out:
    a last digit moves a pixel over its threshold.
    """
    names = COMPILED if "compile" in variant else [name for name in ENTRIES if name != "edge_filter_canny"]
    hub = ExpertHub({name: small_expert(name) for name in names}).to("cuda")
    pixels = pixels_of(64, 4, "cuda")
    other = varied(hub, variant)
    for _ in range(3):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            plain, found = hub(pixels, GIVEN), other(pixels, GIVEN)
        errors = {name: deviation(grid, plain[name]).relative for name, grid in found.items()}
        assert max(errors.values()) < 1e-3, errors


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", ENTRIES)
def test_bfloat16_is_as_near_as_on_a_cpu(name):
    expert = small_expert(name).to("cuda")
    found = deviation_in(expert, pixels_of(expert.spec.preprocessing.size, 2, "cuda"))
    assert found.relative < (expert.bf16_bound if expert.spec.family == "edge_filter" else 0.06)


@pytest.mark.gpu
@on_gpu
def test_timed():
    hub, size = large_hub().to("cuda", torch.bfloat16), 224
    given, pixels = Preprocessing(size, (0.5,) * 3, (0.5,) * 3), pixels_of(size, 32, "cuda", torch.bfloat16)
    plain = hub(pixels, given)
    rows = {}
    for variant in VARIANTS:
        other = varied(hub, variant)
        found = other(pixels, given)
        times = {name: ms_per_image(other, pixels, given, names=[name]) for name in other}
        times |= {"all": ms_per_image(other, pixels, given)}
        rows["+".join(variant) or "plain"] = {name: round(ms, 4) for name, ms in times.items()}
        errors = {name: deviation(grid, plain[name]).relative for name, grid in found.items()}
        assert max(errors.values()) < 0.1, (variant, errors)
    print(json.dumps({"device": torch.cuda.get_device_name(), "dtype": "bfloat16", "batch": 32, "ms": rows}, indent=2))
