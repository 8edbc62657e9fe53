"""Canny and Sobel are kornia's; what edge experts refuse."""

import sys

import kornia
import pytest
import torch

from helpers.edge_experts import RGB, expert_of, seen
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import describe


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
        ({"low": 0.5}, "thresholds need `low` <= `high`; got 0.5, 0.2"),
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
