"""The index in memory, small and folded."""

import numpy as np

from tove_lvlm.feature_cache import table
from tove_lvlm.feature_cache.shard import ENTRY
from tove_lvlm.feature_cache.table import KeyTable


def entries(keys: list[bytes]) -> np.ndarray:
    made = np.zeros(len(keys), ENTRY)
    made["key"] = np.frombuffer(b"".join(keys), "V16")
    made["record"], made["crc"] = np.arange(len(keys)), np.arange(len(keys)) + 100
    return made


def test_every_key_is_found_before_and_after_folding(monkeypatch):
    monkeypatch.setattr(table, "_FOLD_AT", 50)
    rng = np.random.default_rng(0)
    keys = [rng.bytes(16) for _ in range(300)]
    found = KeyTable()
    for number, start in enumerate(range(0, 300, 20)):
        found.add([(number, entries(keys[start : start + 20]))])
    assert len(found) == 300
    for place, key in enumerate(keys):
        assert found.find(key) == [(place // 20, place % 20, place % 20 + 100)]
    assert found.find(bytes(16)) == []
    assert found.num_images() == 300


def test_keys_that_share_their_first_half_are_told_apart():
    keys = [b"a" * 8 + bytes([number]) * 8 for number in range(5)]
    found = KeyTable()
    found.add([(0, entries(keys))])
    assert found.num_images() == 5
    assert [found.find(key)[0].record for key in keys] == list(range(5))


def test_an_image_that_was_kept_twice_has_two_places_the_newest_first():
    found = KeyTable()
    found.add([(0, entries([b"k" * 16]))])
    assert found.num_images() == 1
    found.add([(1, entries([b"k" * 16]))])
    assert [place.shard for place in found.find(b"k" * 16)] == [1, 0]
    assert (len(found), found.num_images()) == (2, 1)
