"""What cannot be merged is refused before anything runs; a few broken images are listed."""

import json

import pytest

from helpers import merge_runs, tiny_towers
from helpers.pictures import paint

pytestmark = pytest.mark.usefixtures("one_rank")


def refused(capfd, path, *options) -> str:
    assert merge_runs.run(path, *options) == 2
    return capfd.readouterr().err.splitlines()[-1]


def test_what_cannot_be_merged_is_one_line(checkpoints, clip_only, images, tmp_path, capfd, tiny_tower):
    before = tiny_towers.hashes(checkpoints["tower"])
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)
    tiny_tower.save_pretrained(tmp_path / "fresh")
    assert "never trained" in refused(capfd, path, f"model.checkpoint={tmp_path}/fresh")
    bare = tiny_towers.wake(tiny_tower)
    bare.detach(*tiny_towers.EXPERT_NAMES)
    bare.save_pretrained(tmp_path / "bare")
    assert "no expert attached" in refused(capfd, path, f"model.checkpoint={tmp_path}/bare")
    assert "plain CLIP" in refused(capfd, path, f"model.checkpoint={clip_only}")
    assert "`model.checkpoint`" in refused(capfd, path, f"model.checkpoint={tmp_path}/nowhere")
    both = ("data.horizontal_flip=true", f"train.expert_cache={tmp_path}/cache")
    assert "exclude each other" in refused(capfd, path, *both)
    assert "`merge.loss`" in refused(capfd, path, "merge.loss=l7")
    assert "unknown key `train.mm_projector_lr`" in refused(capfd, path, "train.mm_projector_lr=1.0")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(capfd, path, f"data.images=[{tmp_path}/empty]")
    for index in range(8):
        (tmp_path / "empty" / f"{index}.png").write_bytes(b"no picture")
    assert "6 bad samples, more than the 5 allowed" in refused(capfd, path, f"data.images=[{tmp_path}/empty]")
    assert not (tmp_path / "out" / "clip").exists()
    assert tiny_towers.hashes(checkpoints["tower"]) == before


def test_a_few_broken_images_are_listed(checkpoints, tmp_path):
    folder = tmp_path / "pictures"
    for index in range(12):
        paint(folder / f"{index:02}.png", index, size=(16, 16))
    (folder / "05.png").write_bytes(b"broken")
    assert merge_runs.run(merge_runs.write_yaml(tmp_path, checkpoints["tower"], folder, max_steps=3)) == 0
    report = json.loads((tmp_path / "out" / "clip" / "merge.json").read_text())
    assert report["skipped"] == [str(folder / "05.png")]
    assert report["images"] == 12
