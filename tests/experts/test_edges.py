"""Edge experts against kornia's and controlnet_aux's own networks and filters."""

import importlib.util
import sys
from pathlib import Path

import kornia
import numpy as np
import pytest
import torch
from kornia.contrib import EdgeDetectorBuilder
from safetensors.torch import load_file

from helpers.paths import ROOT
from helpers.random_weights import lively
from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.preprocess import normalised

SIZE = 32
RGB = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def expert_of(family: str, **fields):
    return build_expert({"name": "edges", "family": family, "image_size": SIZE, **fields})


def seen(expert) -> torch.Tensor:
    """The picture as the tower hands it to the expert."""
    return normalised(RGB, expert.spec.preprocessing)


@pytest.fixture(scope="module")
def dexined():
    """kornia's whole detector, its own preprocessing included."""
    torch.manual_seed(0)
    return EdgeDetectorBuilder.build("dexined", pretrained=False, image_size=SIZE).eval()


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_dexined_is_kornias(dexined, whole, tmp_path):
    """Weights as kornia publishes them, a bare state dict in a .pth, or its detector's; mean, std and BGR are its."""
    network = dexined.model[1]
    torch.save((dexined.model if whole else network).state_dict(), tmp_path / "DexiNed_BIPED_10.pth")
    expert = expert_of("dexined")
    expert.load_pretrained(tmp_path / "DexiNed_BIPED_10.pth")
    expected = dexined.model(RGB)
    edges = expert(seen(expert))
    torch.testing.assert_close(edges, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 1e-3
    assert torch.equal(expert.picture(edges)[..., 0].float(), (edges[:, 0] * 255).round())
    features = expert_of("dexined", output="features")
    features.load_pretrained(tmp_path / "DexiNed_BIPED_10.pth")
    grid = features(seen(expert))
    assert tuple(grid.shape[1:]) == (features.spec.channels, *features.spec.grid) == (256, 2, 2)
    sixth = network.up_block_6(grid, [SIZE, SIZE])
    torch.testing.assert_close(sixth, network.get_features(seen(expert).flip(1))[5])


def test_dexined_with_a_tensor_too_few(dexined, tmp_path):
    state = dexined.model[1].state_dict()
    state.pop("block_cat.conv.bias")
    torch.save(state, tmp_path / "d.pth")
    with pytest.raises(storage.WeightsError, match=r"d\.pth` do not fit DexiNed: 1 missing \(network\.block_cat"):
        expert_of("dexined").load_pretrained(tmp_path / "d.pth")


def controlnet_hed():
    """The network class of controlnet_aux, read out of its file: the package itself imports all its detectors."""
    home = importlib.util.find_spec("controlnet_aux").submodule_search_locations[0]
    source = (Path(home) / "hed" / "__init__.py").read_text()
    names = {"torch": torch}
    exec(source[source.index("class DoubleConvBlock") : source.index("class HEDdetector")], names)
    return names["ControlNetHED_Apache2"]()


@torch.no_grad()
def test_hed_is_controlnet_auxs(tmp_path):
    """`ControlNetHED.pth`: the mean of the side outputs, resized as OpenCV does, on RGB over 0..255."""
    cv2 = pytest.importorskip("cv2")
    network = lively(controlnet_hed(), scale=0.04)
    network.norm.copy_(torch.tensor([120.0, 110.0, 100.0]).view(1, 3, 1, 1))
    torch.save(network.state_dict(), tmp_path / "ControlNetHED.pth")
    expert = expert_of("hed")
    expert.load_pretrained(tmp_path / "ControlNetHED.pth")
    sides = [np.stack([cv2.resize(one[0].numpy(), (SIZE, SIZE)) for one in side]) for side in network(RGB * 255)]
    expected = 1 / (1 + np.exp(-np.mean(sides, axis=0)))
    edges = expert(seen(expert))
    np.testing.assert_allclose(edges[:, 0].numpy(), expected, atol=1e-4)
    assert expected.std() > 0.01
    features = expert_of("hed", output="features")
    features.load_state_dict(expert.state_dict())
    assert tuple(features(seen(expert)).shape[1:]) == (features.spec.channels, *features.spec.grid) == (512, 2, 2)


def test_hed_of_keras_is_turned_round(tmp_path):
    """scripts/convert_hed.py: kernels transposed, BGR to RGB, every layer at its place."""
    h5py = pytest.importorskip("h5py")
    script = ROOT / "scripts" / "convert_hed.py"
    found = importlib.util.spec_from_file_location("convert_hed", script)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    own = expert_of("hed").state_dict()
    with h5py.File(tmp_path / "hed.h5", "w") as file:
        for number, (place, name) in enumerate(module._layers()):
            o, i, k, _ = own[f"{name}.weight"].shape
            kernel = np.full((k, k, i, o), number, dtype=np.float32)
            if i == 3:
                kernel += np.arange(3, dtype=np.float32)[:, None] / 10  # blue, green, red
            file[f"{place}/vars/0"], file[f"{place}/vars/1"] = kernel, np.full(o, -number, dtype=np.float32)
    module.main([str(tmp_path / "hed.h5"), "--to", str(tmp_path / "hed")])
    tensors = load_file(tmp_path / "hed" / "model.safetensors")
    assert {key: tensor.shape for key, tensor in tensors.items()} == {key: value.shape for key, value in own.items()}
    first = tensors["block1.convs.0.weight"]
    assert torch.allclose(first[0, :, 0, 0] - first[0, 2, 0, 0], torch.tensor([0.2, 0.1, 0.0]))
    assert tensors["norm"].flatten().tolist() == pytest.approx([122.67892, 116.66877, 104.00699])
    numbers = [int(tensors[f"{name}.bias"][0]) for _, name in module._layers()]
    assert numbers == [-number for number in range(len(numbers))]
    expert_of("hed").load_pretrained(tmp_path / "hed")
    with pytest.raises(SystemExit):
        module.main([str(tmp_path / "none.h5"), "--to", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("hysteresis", [True, False])
def test_canny_is_kornias(hysteresis):
    expert = expert_of("edge_filter", filter="canny", low=0.3, high=0.9, hysteresis=hysteresis)
    expected = kornia.filters.canny(RGB, 0.3, 0.9, hysteresis=hysteresis)[1]
    assert torch.equal(expert(seen(expert)), expected)
    assert set(expected.unique().tolist()) == ({0.0, 1.0} if hysteresis else {0.0, 0.5, 1.0})
    assert expert(seen(expert).bfloat16()).dtype == torch.bfloat16


def test_sobel_is_kornias():
    expert = expert_of("edge_filter", filter="sobel")
    expected = kornia.filters.sobel(kornia.color.rgb_to_grayscale(RGB))
    assert torch.equal(expert(seen(expert)), expected)
    assert expert.picture(expected).amax() == 255
    assert not expert.has_weights
    assert not list(expert.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": "prewitt"}, "valid: canny | sobel"),
        ({"low": 0.5}, "thresholds need 0 < `low` <= `high`; got 0.5, 0.2"),
        ({"family": "dexined", "filter": None}, "unknown key `filter`"),
        ({"family": "hed", "image_size": 40, "filter": ...}, "`image_size` 40 is not a multiple of the patch size 16"),
    ],
)
def test_refusals(change, message):
    entry = {"name": "edges", "family": "edge_filter", "filter": "canny", **change}
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
        describe({key: value for key, value in entry.items() if value is not ...})


@pytest.mark.parametrize("entry", [{"family": "dexined"}, {"family": "edge_filter", "filter": "sobel"}])
def test_without_kornia_the_extra_is_named(entry, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "kornia"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"tove-lvlm\[experts\]"):
        expert_of(**entry)
