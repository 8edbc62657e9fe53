"""A network in a TFLite file against the same network in torch."""

import pytest
import torch

from helpers.exported_networks import CHANNELS, SIZE, convolution, make_tflite
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

ENTRY = {"name": "net", "family": "tflite", "image_size": SIZE, "output": "map", "mean": [0.0] * 3, "std": [1.0] * 3}
pytest.importorskip("ai_edge_litert")


@pytest.fixture
def file(tmp_path):
    return make_tflite(tmp_path / "net.tflite")


def test_the_same_grid_as_in_torch(file):
    made = build_expert(complete_fields(ENTRY, str(file), "here"))
    made.load_pretrained(file)
    assert (made.spec.channels, made.spec.grid) == (CHANNELS, (SIZE, SIZE))
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(pixels), convolution(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image_size": 10}, r"the network takes \[1, 12, 12, 3\], but `image_size` 10 .* give \[1, 10, 10, 3\]"),
        ({"input_layout": "nchw"}, r"`input_layout: nchw` give \[1, 3, 12, 12\]"),
        ({"result": "map"}, "`result` is `map`; the network's outputs are grid"),
        ({"output_layout": "tokens"}, "`output_layout: tokens` is of 3 dimensions"),
    ],
)
def test_fields_that_do_not_fit(file, more, message):
    with pytest.raises(ConfigError, match=message):
        complete_fields({**ENTRY, **more}, str(file), "here")


def test_a_damaged_file(file):
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match="LiteRT cannot read it"):
        complete_fields(ENTRY, str(file), "here")


def test_without_litert_the_extra_is_named(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"tove-lvlm\[tflite\]"):
        complete_fields(ENTRY, str(file), "here")
