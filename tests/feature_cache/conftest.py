"""A cache in a folder of the test's own, a store of small features in it, and the tiny tower with awake fusion."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.feature_cache import CacheFolder
from tove_lvlm.feature_cache.codec import Codec
from tove_lvlm.feature_cache.store import PartStore

SHAPE = (3, 5)
KEY = "ab" * 32


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache")


@pytest.fixture
def open_store(tmp_path):
    """`open_store()`: the store as another process would open it."""

    def open_store(key: str = KEY, **options) -> PartStore:
        codec = Codec("float32", SHAPE, -1)
        about = {"name": "depth", "dtype": "float32", "shape": list(SHAPE), "channel_axis": -1}
        return PartStore(CacheFolder(tmp_path / "cache", **options), key, codec, about)

    return open_store


@pytest.fixture
def keys():
    """Keys of ten images."""
    return [bytes([number]) * 16 for number in range(10)]


@pytest.fixture
def records():
    """Their records."""
    features = torch.randn(10, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Codec("float32", SHAPE, -1).encode(features).records_BR


@pytest.fixture
def tower(tiny_tower):
    return tiny_towers.wake(tiny_tower).eval()
