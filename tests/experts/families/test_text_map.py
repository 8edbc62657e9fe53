"""PP-OCR's detector in torch against onnxruntime running its published graph, on a photographed page."""

import importlib.metadata

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import WeightSource
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.catalogue import catalogue
from tove_lvlm.experts.precision import deviation_in
from tove_lvlm.experts.preprocess import normalised
from tove_lvlm.weights.sources import fetch

SIZE = 256
ENTRY = {"name": "text", "family": "text_map", "image_size": SIZE}


@pytest.fixture(scope="module")
def graph() -> str:
    """The file that the catalogue names: it lies in the installed package rapidocr."""
    return str(fetch(WeightSource(pretrained=catalogue()["pp_ocr_det"]["pretrained"])))


@pytest.fixture(scope="module")
def expert(graph):
    made = build_expert(ENTRY)
    made.load_pretrained(graph)
    return made


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    """(SIZE, SIZE, 3) uint8, tinted so that red and blue are told apart."""
    photograph = Image.fromarray(data.page()).convert("RGB").resize((SIZE, SIZE), Image.BICUBIC)
    return (np.asarray(photograph) * np.array([1.0, 0.9, 0.6])).astype(np.uint8)


@pytest.fixture(scope="module")
def official(graph, page) -> np.ndarray:
    """rapidocr's own preprocessing (BGR, as OpenCV reads) and onnxruntime's answer."""
    onnxruntime = pytest.importorskip("onnxruntime")
    prepared = pytest.importorskip("rapidocr.ch_ppocr_det.utils").DetPreProcess(limit_side_len=SIZE)(page[..., ::-1])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: prepared})[0]


def seen(expert, page: np.ndarray) -> torch.Tensor:
    rgb = torch.from_numpy(page.transpose(2, 0, 1).copy()).float()[None] / 255
    return normalised(rgb, expert.spec.preprocessing)


@torch.no_grad()
def test_the_map_is_onnxruntimes_on_a_photograph_with_text(expert, official, page):
    heat = expert(seen(expert, page))
    assert tuple(heat.shape) == official.shape == (1, 1, SIZE, SIZE)
    np.testing.assert_allclose(heat.numpy(), official, atol=1e-4)
    assert 0.05 < (official > 0.3).mean() < 0.5, "lines of text cover a part of the page"
    picture = expert.picture(heat)[0]
    assert picture[heat[0, 0] > 0.99].float().mean() > 240
    assert picture[heat[0, 0] < 0.01].float().mean() < 10


@torch.no_grad()
def test_features_are_what_the_head_reads(expert, page):
    features = build_expert({**ENTRY, "output": "features"})
    features.load_state_dict(expert.state_dict())
    grid = features(seen(expert, page))
    assert tuple(grid.shape[1:]) == (features.spec.channels, *features.spec.grid) == (96, SIZE // 4, SIZE // 4)
    assert torch.equal(expert.network.head(grid), expert(seen(expert, page)))


def test_saved_as_tensors_it_needs_no_graph(expert, tmp_path, monkeypatch):
    storage.save_tensors(tmp_path / "model.safetensors", expert.state_dict())
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    again = build_expert(ENTRY)
    again.load_pretrained(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in expert.state_dict().items())


def test_bad_graphs(graph, tmp_path):
    onnx = pytest.importorskip("onnx")
    damaged = tmp_path / "a.onnx"
    damaged.write_bytes(open(graph, "rb").read()[:-1000])
    with pytest.raises(storage.WeightsError, match=r"a\.onnx` are truncated or no ONNX graph"):
        build_expert(ENTRY).load_pretrained(damaged)
    other = onnx.load(graph)
    del other.graph.node[-12:]
    onnx.save(other, damaged)
    with pytest.raises(storage.WeightsError, match=r"81 convolutions; PP-OCRv6's small detector has 83|has 85"):
        build_expert(ENTRY).load_pretrained(damaged)
    with pytest.raises(storage.MissingWeightsError, match="does not exist|do not exist"):
        build_expert(ENTRY).load_pretrained(tmp_path / "none.onnx")


def test_without_onnx_the_extra_is_named(graph, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"tove-lvlm\[text\]"):
        build_expert(ENTRY).load_pretrained(graph)


def test_size_and_licence():
    with pytest.raises(ConfigError, match="`image_size` 100 is not a multiple of the patch size 32"):
        describe({**ENTRY, "image_size": 100})
    stated = importlib.metadata.metadata("rapidocr")["License-Expression"]
    assert catalogue()["pp_ocr_det"]["license"] == stated.lower()


@torch.no_grad()
def test_in_bfloat16_it_finds_the_same_text(expert, page):
    """Measured on a CPU: 0.006 of the map's spread on this page, 0.048 on photographs with hardly any text."""
    assert 0.001 < deviation_in(expert, seen(expert, page)).of_spread < 0.02 < expert.bf16_bound
