"""The teacher's tokens on disk."""

import pytest
import torch

from helpers.pictures import paint
from tove_lvlm.config.merge import MergeConfig
from tove_lvlm.recipes.merge.cache import TargetCache
from tove_lvlm.recipes.merge.distiller import Distiller
from tove_lvlm.recipes.merge.images import ImageDataset, collate
from tove_lvlm.recipes.merge.student import cut, whole_student


def test_cache_gives_back_what_was_put_and_tells_teachers_apart(tmp_path):
    image = tmp_path / "a.png"
    paint(image, 0)
    cache = TargetCache(tmp_path / "cache", tower="one", bf16=False)
    key = cache.key(image)
    assert cache.get(key) is None
    kept = {"t_fuse": torch.randn(4, 3), "start": torch.tensor(2.0)}
    cache.put(key, kept)
    found = TargetCache(tmp_path / "cache", bf16=False, tower="one").get(key)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    assert TargetCache(tmp_path / "cache", tower="two", bf16=False).get(key) is None
    paint(image, 1)
    assert cache.key(image) != key
    file = next(cache.folder.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-3])
    assert cache.get(key) is None
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == [file]


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    cache = TargetCache(tmp_path)
    cache.put("abc", {"t_fuse": torch.zeros(2)})
    (cache.folder / "ab" / ".abd.safetensors.0123abcd.tove-tmp").mkdir()
    (cache.folder / "ab" / ".abd.safetensors.0123abcd.tove-lock").touch()
    assert TargetCache(tmp_path).get("abc") is not None
    assert [path.name for path in (cache.folder / "ab").iterdir()] == ["abc.safetensors"]


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("token_weight", ["none", "cls_attention"])
def test_teacher_runs_once_for_each_image_with_a_cache(tower, processor, tmp_path, token_weight):
    for index in range(6):
        paint(tmp_path / "images" / f"{index}.png", index)
    cache = TargetCache(tmp_path / "cache", tower="t")
    dataset = ImageDataset([tmp_path / "images"], processor, cache=cache)
    options = MergeConfig(token_weight=token_weight)
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), options, cache=cache)
    ran = []
    tower.register_forward_pre_hook(lambda module, args: ran.append(len(args[0])))

    def loss(indices):
        batch = collate([dataset[index] for index in indices])
        batch.pop("sample_ids")
        return distiller(**batch)

    first = loss([0, 1, 2, 3])
    second = loss([2, 3, 4, 5])  # two are new: all four are shown
    assert ran == [4, 4]
    again = loss([0, 1, 2, 3])
    assert ran == [4, 4]
    torch.testing.assert_close(again.loss, first.loss)
    torch.testing.assert_close(again.figures["gap"], first.figures["gap"])
    assert not torch.equal(second.loss, first.loss)
    assert not torch.equal(loss([5, 0]).loss, first.loss)
