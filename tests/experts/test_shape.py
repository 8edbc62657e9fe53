"""What an expert gives, found without weights; sizes that do not fit are refused before anything is built."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.shape import _measured

ENTRIES = [{"name": name, **fields} for name, fields in tiny_towers.EXPERTS.items()]
SHAPES = {"depth": (1, 16, 16), "normals": (3, 16, 16), "shapes": (24, 4, 4), "cnn": (16, 2, 2)}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_the_spec_says_what_a_run_gives(entry):
    spec, expert = describe(entry), build_expert(entry)
    size = spec.preprocessing.size
    assert (spec.channels, *spec.grid) == tuple(expert(torch.zeros(1, 3, size, size)).shape[1:]) == SHAPES[spec.name]


def test_what_a_spec_declares():
    spec = describe(ENTRIES[2])
    assert (spec.kind, spec.library, spec.architecture) == ("embedding", "timm", "vit_tiny_patch16_224")
    assert describe(ENTRIES[0]).kind == "low_level"


def test_a_network_is_built_once_for_its_shape_and_not_at_all_when_the_fields_say_it():
    _measured.cache_clear()
    describe(ENTRIES[3])
    describe(ENTRIES[3])
    assert _measured.cache_info().misses == 1
    assert describe({**ENTRIES[3], "channels": 5, "grid": [7, 9]}).grid == (7, 9)
    assert _measured.cache_info().misses == 1


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [
        ("vit_tiny_patch16_224", 40, "`image_size` 40 is not a multiple of the patch size 16 .*nearest: 32 or 48"),
        ("vit_tiny_patch16_224", 8, "`image_size` 8 is not a multiple of the patch size 16 of .*nearest: 16 or 32"),
    ],
)
def test_sizes_that_do_not_fit(architecture, size, message):
    entry = {"name": "e", "family": "timm", "architecture": architecture, "image_size": size}
    with pytest.raises(ConfigError, match=f"expert `e`: .*{message}"):
        describe(entry)


def test_a_cnn_takes_any_size():
    entry = {"name": "e", "family": "timm", "architecture": "resnet18", "image_size": 100}
    assert describe(entry).grid == (4, 4)
