"""Filling a cache ahead of training: the run that follows finds every image."""

import json

import pytest

from helpers import merge_runs
from helpers.paths import ROOT
from helpers.pictures import paint
from helpers.training import losses
from tove_lvlm.config import UserError
from tove_lvlm.data import images
from tove_lvlm.experts.base import Expert
from tove_lvlm.recipes.fill_cache import fill, read_run

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.mark.parametrize("bf16", ["true", pytest.param("false", marks=pytest.mark.full)])
def test_a_run_of_llava_finds_every_image(train, world, monkeypatch, bf16):
    options = [f"train.expert_cache={world}/cache", f"train.bf16={bf16}", "train.max_steps=3"]
    filled = fill(world / "pretrain.yaml", options)
    assert (filled.images, filled.computed, filled.read, filled.broken, filled.stopped) == (24, 24 * 5, 0, [], None)
    again = fill(world / "pretrain.yaml", options, batch_size=7)
    assert (again.computed, again.read) == (0, 24 * 5)
    monkeypatch.setattr(Expert, "forward", lambda self, pixels: pytest.fail("an expert ran"))
    assert train("pretrain", *options) == 0
    assert len(losses(world / "out-pretrain")) == 3


def test_runs_of_the_base_model_and_of_merging_find_theirs(
    train_base, base_world, checkpoints, tmp_path, monkeypatch, tiny_data
):
    options = [f"train.expert_cache={tmp_path}/cache", "data.augment=false", "train.max_steps=2"]
    filled = fill(base_world / "pretrain_base.yaml", options)
    assert filled.computed == 24 * 5  # the shards' and the statements' pictures are among the 24
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], tiny_data / "images", max_steps=2)
    assert fill(path, options[:1]).computed == 0
    monkeypatch.setattr(Expert, "forward", lambda self, pixels: pytest.fail("an expert ran"))
    assert train_base("pretrain_base", *options) == 0
    assert merge_runs.run(path, *options[:1]) == 0


def test_merging_resizes_as_the_stages_do_and_finds_their_images(world, checkpoints, tmp_path, monkeypatch):
    inner, resized = images.resize_middle, []
    monkeypatch.setattr(images, "resize_middle", lambda image, *args: resized.append(image.size) or inner(image, *args))
    folder, names = tmp_path / "images", ["wide.png", "high.png", "large.png"]
    for seed, (name, size) in enumerate(zip(names, [(90, 70), (50, 130), (200, 180)], strict=True)):
        paint(folder / name, seed, size)
    talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "!"}]
    (tmp_path / "data.json").write_text(
        json.dumps([{"id": name, "image": name, "conversations": talk} for name in names])
    )
    cache = f"train.expert_cache={tmp_path}/cache"
    options = [cache, f"data.train=[{tmp_path}/data.json]", f"data.image_folder={folder}"]
    assert fill(world / "pretrain.yaml", options).computed == 3 * 5
    assert len(resized) == 3
    path = merge_runs.write_yaml(tmp_path, checkpoints["stage1"], folder)
    found = fill(path, [cache])
    assert (found.computed, found.read) == (0, 3 * 5)
    assert len(resized) == 6
    fill(path, [cache, "data.direct_resize=false"])
    assert len(resized) == 6, "nothing of the whole image left out"


def test_each_of_several_ranks_takes_its_share(world, monkeypatch):
    options = [f"train.expert_cache={world}/cache", f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        filled = fill(world / "pretrain.yaml", options)
        assert (filled.images, filled.computed, filled.read) == (12, 12 * 5, 0)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert fill(world / "pretrain.yaml", options).read == 24 * 5


def test_broken_images_are_named_and_the_limit_told(world):
    rows = json.loads((world / "data" / "pretrain.json").read_text())
    rows[3]["image"] = "nowhere.png"
    (world / "rows.json").write_text(json.dumps(rows))
    options = [f"train.expert_cache={world}/cache", f"data.train=[{world}/rows.json]"]
    filled = fill(world / "pretrain.yaml", options)
    assert filled.images == 24
    assert len(filled.broken) == 1
    assert "nowhere.png" in filled.broken[0]
    limited = fill(world / "pretrain.yaml", [f"train.expert_cache={world}/small", "train.expert_cache_size_gb=0.00001"])
    assert "its limit of 1e-05 GB is reached" in limited.stopped
    assert limited.images == 2


def test_what_names_no_cache_or_has_no_experts_is_refused(world):
    with pytest.raises(UserError, match="`train.expert_cache` is empty; name the folder to fill"):
        fill(world / "pretrain.yaml")
    options = [f"train.expert_cache={world}/cache", "model.vision_tower=clip"]
    with pytest.raises(UserError, match="a plain CLIP, of which nothing is kept"):
        fill(world / "pretrain.yaml", options)


def test_the_stage_is_read_off_the_yaml(world, checkpoints, tmp_path, tiny_data):
    merge_yaml = merge_runs.write_yaml(tmp_path, checkpoints["tower"], tiny_data / "images")
    paths = [world / "pretrain.yaml", world / "finetune.yaml", merge_yaml]
    assert [read_run(path)[0].name for path in paths] == ["pretrain", "finetune", "merge"]


def test_the_base_models_stage_is_read_off_the_yaml(base_world):
    assert read_run(base_world / "pretrain_base.yaml")[0].name == "pretrain_base"
