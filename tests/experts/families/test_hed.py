"""HED against controlnet_aux's own network, and its weights turned out of Keras."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.edge_experts import RGB, SIZE, expert_of, seen
from helpers.paths import ROOT
from helpers.random_weights import lively


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
