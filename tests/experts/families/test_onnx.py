"""A network in an ONNX file against the same network in torch; inside a tower, saved and read again."""

import copy
import pickle

import pytest
import torch
import yaml

from helpers import tiny_towers
from helpers.exported_networks import CHANNELS, SIZE, convolution, make_onnx
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

ENTRY = {"name": "net", "family": "onnx", "image_size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def expert(file, **more):
    made = build_expert(complete_fields({**ENTRY, **more}, str(file), "here"))
    made.load_pretrained(file)
    return made


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", ["batch", 1])
def test_the_same_grid_as_in_torch(tmp_path, pixels, batch):
    made = expert(make_onnx(tmp_path / "net.onnx", batch))
    assert (made.spec.channels, made.spec.grid, made.spec.output) == (CHANNELS, (SIZE, SIZE), "features")
    assert made.spec.kind == "embedding"
    assert expert(tmp_path / "net.onnx", output="map").spec.kind == "low_level"
    torch.testing.assert_close(made(pixels), convolution(pixels), atol=1e-5, rtol=1e-5)
    assert made(pixels.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("result", "layout"), [("last", "nhwc"), ("tokens", "tokens")])
def test_other_outputs_and_layouts(tmp_path, pixels, result, layout):
    made = expert(make_onnx(tmp_path / "net.onnx", 1), result=result, output_layout=layout)
    torch.testing.assert_close(made(pixels), convolution(pixels), atol=1e-5, rtol=1e-5)


def test_bgr(tmp_path, pixels):
    made = expert(make_onnx(tmp_path / "net.onnx"), channel_order="bgr")
    torch.testing.assert_close(made(pixels), convolution(pixels.flip(1)), atol=1e-5, rtol=1e-5)


def test_copies_run_and_other_bytes_make_another_network(tmp_path, pixels):
    made = expert(make_onnx(tmp_path / "net.onnx"))
    before = made(pixels)
    assert torch.equal(copy.deepcopy(made)(pixels), before)
    assert torch.equal(pickle.loads(pickle.dumps(made))(pixels), before)
    made.load_pretrained(make_onnx(tmp_path / "other.onnx", seed=1))
    torch.testing.assert_close(made(pixels), convolution(pixels, seed=1), atol=1e-5, rtol=1e-5)


def test_compiling_leaves_it_to_the_runtime(tmp_path, pixels):
    made = expert(make_onnx(tmp_path / "net.onnx"))
    before = made(pixels)
    made.compile(backend="eager")
    assert torch.equal(made(pixels), before)


def test_in_a_tower_that_is_saved_and_read_again(tmp_path):
    file = make_onnx(tmp_path / "net.onnx")
    entry = {"name": "net", "family": "onnx", "image_size": SIZE, "pretrained": str(file), "license": "mit"}
    path = tiny_towers.make_tower_yaml(tmp_path, experts=["depth"])
    written = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**written, "experts": [*written["experts"], entry]}))
    tower = tiny_towers.wake(build_tower(path))
    images = tiny_towers.pixels()
    before = tower(images)
    tower.save_pretrained(tmp_path / "tower")
    file.unlink()
    again = ToVEVisionModel.from_pretrained(tmp_path / "tower")
    assert torch.equal(again(images).last_hidden_state, before.last_hidden_state)
    again.detach("net")
    assert not torch.equal(again(images).last_hidden_state, before.last_hidden_state)
    half = ToVEVisionModel.from_pretrained(tmp_path / "tower", dtype=torch.bfloat16)
    assert half.experts["net"].file.dtype == torch.uint8
    assert half(images.bfloat16()).last_hidden_state.isfinite().all()


# ---- what is refused ----


def test_without_a_file_the_fields_are_asked_for():
    with pytest.raises(ConfigError, match="`file_bytes`, `channels`, `grid` are read off the network's file"):
        describe(ENTRY)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"result": "gird"}, "here: expert `net`, .*`result` is `gird`; the network's outputs are grid, last"),
        ({"result": "last", "output_layout": "tokens"}, r"`last` has the shape \(1, 12, 12, 5\), but `output_layout"),
        ({"image_size": 13}, r"the network takes \['batch', 3, 12, 12\] and refuses `image_size` 13"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, more, message):
    file = make_onnx(tmp_path / "net.onnx", size=SIZE)
    with pytest.raises(ConfigError, match=message):
        complete_fields({**ENTRY, **more}, str(file), "here")


def test_damaged_and_other_files(tmp_path):
    file = make_onnx(tmp_path / "net.onnx")
    fields = complete_fields(ENTRY, str(file), "here")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"net\.onnx.*onnxruntime cannot read it"):
        complete_fields(ENTRY, str(file), "here")
    with pytest.raises(WeightsError, match=r"net\.onnx. do not fit OnnxNetwork: 1 of another shape"):
        build_expert(fields).load_pretrained(file)
    file.write_bytes(bytes(len(content)))
    with pytest.raises(WeightsError, match=r"net\.onnx.*onnxruntime cannot read it"):
        build_expert(fields).load_pretrained(file)


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    file = make_onnx(tmp_path / "net.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"tove-lvlm\[onnx\]"):
        complete_fields(ENTRY, str(file), "here")
