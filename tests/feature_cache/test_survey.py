"""What stat and verify say, and that they change nothing."""

import pytest

from helpers import tiny_towers
from tove_lvlm.feature_cache import CacheFolder, FeatureCache, shard
from tove_lvlm.feature_cache.survey import as_json, survey


def test_each_backbone_of_a_tower_is_listed(tower, tmp_path):
    cache = CacheFolder(tmp_path / "cache")
    tower.feature_cache = FeatureCache(cache, tower)
    tower(tiny_towers.pixels(5))
    found = {part.name: part for part in survey(cache, read_records=True)}
    assert found.keys() == {"clip", *tiny_towers.EXPERT_NAMES}
    assert {part.images for part in found.values()} == {5}
    clip = [file for file in (cache.path / found["clip"].folder).iterdir() if not file.name.startswith(".")]
    assert sorted(file.suffix for file in clip) == [".data", ".index", ".json"]
    assert found["clip"].bytes == sum(file.stat().st_size for file in clip)
    assert found["clip"].about["shape"] == [16, 32]
    assert found["depth"].about["settings"]["family"] == "dense_vit"
    assert not any(part.problems for part in found.values())
    assert as_json(list(found.values()))[0]["images"] == 5


def test_damage_of_every_kind_is_named(open_store, tmp_path, keys, records):
    opened = open_store()
    opened.put(keys[:8], records[:8])
    other = open_store()
    other.put(keys[:3], records[:3])
    opened.close()
    other.close()
    cache = CacheFolder(tmp_path / "cache")
    (part,) = survey(cache)
    assert (part.images, part.entries, part.problems) == (8, 11, [])
    data = opened.path / f"{min(path.stem for path in opened.path.glob('*.data'))}.data"
    content = bytearray(data.read_bytes())
    content[shard.DATA_HEADER] ^= 1
    data.write_bytes(content)
    with data.with_suffix(".index").open("ab") as file:
        file.write(b"torn")
    (opened.path / "ffff.index").write_bytes(b"z" * 100)
    before = tiny_towers.hashes(cache.path)
    (part,) = survey(cache)
    assert [text.partition(": ")[0] for text in part.problems] == [
        f"`{data.with_suffix('.index')}`",
        f"`{opened.path / 'ffff.index'}` is no shard of this backbone's features",
    ]
    done = []
    (part,) = survey(cache, read_records=True, progress=lambda now, total: done.append(now <= total))
    assert any(f"`{data}`: 1 of" in text for text in part.problems)
    assert all(done)
    assert tiny_towers.hashes(cache.path) == before


@pytest.mark.parametrize(
    "text", ["", "{}", '{"key": "zz", "shape": [1], "dtype": "float32", "channel_axis": 0}', "[1]"]
)
def test_a_part_that_is_not_described_is_named(open_store, tmp_path, keys, records, text):
    opened = open_store()
    opened.put(keys, records)
    (opened.path / "part.json").write_text(text)
    (part,) = survey(CacheFolder(tmp_path / "cache"))
    assert len(part.problems) == 1
    assert "part.json" in part.problems[0]
