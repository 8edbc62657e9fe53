"""Training with the expert cache: the losses that it gives, in each recipe, resumed, on two ranks; what is refused.

float32 gives the same bits. float16 changes features by 2e-4 and the losses of these six steps by less than 1e-3.
"""

import pytest

from helpers import llava_runs, merge_runs
from helpers.training import losses, metrics, same, weights
from tove_lvlm.feature_cache import CacheFolder
from tove_lvlm.feature_cache.survey import survey
from tove_lvlm.train import checkpoint

pytestmark = pytest.mark.usefixtures("one_rank")


def images(folder) -> dict[str, int]:
    """Images of each backbone."""
    return {part.name: part.images for part in survey(CacheFolder(folder, make=False))}


def test_float32_gives_the_same_bits_from_an_empty_and_from_a_full_cache(train, world, capfd):
    assert train("pretrain", f"train.output_dir={world}/plain") == 0
    options = ("train.expert_cache_dtype=float32", f"train.expert_cache={world}/cache")
    for name in ("empty", "full"):
        assert train("pretrain", f"train.output_dir={world}/{name}", *options) == 0
        assert metrics(world / name) == metrics(world / "plain")  # gate mass, entropy and balance loss among them
        assert same(weights(world / name), weights(world / "plain"))
    assert images(world / "cache") == {"clip": 24, "depth": 24, "normals": 24, "shapes": 24, "cnn": 24}
    said = capfd.readouterr().err
    assert "(float32) has features of images: clip of 0, depth of 0, normals of 0, shapes of 0, cnn of 0" in said
    assert "clip of 24, depth of 24" in said


@pytest.mark.full
def test_float16_is_near_and_stage_2_reads_what_stage_1_kept(train, world, monkeypatch):
    from tove_lvlm.experts.base import Expert

    cache = f"train.expert_cache={world}/cache"
    assert train("pretrain", f"train.output_dir={world}/plain") == 0
    assert train("pretrain", cache) == 0
    assert losses(world / "out-pretrain") == pytest.approx(losses(world / "plain"), abs=1e-3)
    assert losses(world / "out-pretrain") != losses(world / "plain")
    monkeypatch.setattr(Expert, "forward", lambda self, pixels: pytest.fail("an expert ran"))
    start = f"model.pretrain_mm_mlp_adapter={world}/out-pretrain"
    assert train("finetune", cache, start, "train.max_steps=2") == 0


@pytest.mark.parametrize("dtype", ["float16", pytest.param("int8", marks=pytest.mark.full)])
def test_a_resumed_run_is_bit_identical(train, world, monkeypatch, dtype):
    options = [f"train.expert_cache_dtype={dtype}", "train.num_train_epochs=2", f"train.expert_cache={world}/cache"]
    assert train("pretrain", *options[:2], f"train.expert_cache={world}/other", f"train.output_dir={world}/whole") == 0
    inner = checkpoint.save

    def save_and_die(state, record, *args):
        written = inner(state, record, *args)
        if record.trainer_state.global_step == 4:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train("pretrain", *options)
    monkeypatch.setattr(checkpoint, "save", inner)
    (part,) = [part for part in (world / "cache").iterdir() if part.is_dir()][:1]
    for index in part.glob("*.index"):  # as a kill leaves it
        with index.open("ab") as file:
            file.write(b"BLCK")
    assert train("pretrain", *options) == 0
    assert metrics(world / "out-pretrain") == metrics(world / "whole")
    assert same(weights(world / "out-pretrain"), weights(world / "whole"))


@pytest.mark.full
def test_a_run_may_go_on_with_a_cache_that_it_began_without(train, world):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=3", f"train.expert_cache={world}/cache") == 0


def test_the_base_model_and_merging_read_the_same_entries(train_base, base_world, checkpoints):
    cache = [f"train.expert_cache={base_world}/cache", "train.expert_cache_dtype=float32"]
    options = ["data.augment=false", "train.max_steps=4"]
    assert train_base("pretrain_base", *options, f"train.output_dir={base_world}/plain") == 0
    assert train_base("pretrain_base", *options, *cache, f"train.output_dir={base_world}/cached") == 0
    assert losses(base_world / "cached") == losses(base_world / "plain")
    kept = images(base_world / "cache")
    path = merge_runs.write_yaml(base_world, checkpoints["tower"], base_world / "data" / "images")
    assert merge_runs.run(path, f"train.output_dir={base_world}/merged-plain") == 0
    assert merge_runs.run(path, *cache, f"train.output_dir={base_world}/merged") == 0
    # Other batches than before: sums in another order, the last bits of float32.
    assert losses(base_world / "merged") == pytest.approx(losses(base_world / "merged-plain"), rel=1e-5)
    assert images(base_world / "cache") == kept | {name: 24 for name in kept}


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_tokens_that_are_weighed_by_attention_leave_clip_to_run(checkpoints, tmp_path, tiny_data):
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], tiny_data / "images")
    weighed = ["merge.token_weight=cls_attention", "train.expert_cache_dtype=float32"]
    assert merge_runs.run(path, *weighed, f"train.output_dir={tmp_path}/plain") == 0
    assert merge_runs.run(path, *weighed, f"train.expert_cache={tmp_path}/cache") == 0
    assert losses(tmp_path / "out") == losses(tmp_path / "plain")
    assert "clip" not in images(tmp_path / "cache")


def test_the_earlier_key_of_merging_is_read_with_a_warning(checkpoints, tmp_path, tiny_data):
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], tiny_data / "images", max_steps=2)
    with pytest.warns(FutureWarning, match=r"`merge\.cache_teacher` is deprecated: give .* `train\.expert_cache`"):
        assert merge_runs.run(path, f"merge.cache_teacher={tmp_path}/cache") == 0
    assert images(tmp_path / "cache")["clip"] == 24


def test_a_plain_clip_has_nothing_to_keep_and_says_so(train, world, capfd):
    options = ("model.vision_tower=clip", "train.max_steps=1")
    assert train("pretrain", *options, f"train.expert_cache={world}/cache") == 0
    assert "train.expert_cache is not used: a plain CLIP is the vision tower" in capfd.readouterr().err
    assert not (world / "cache").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.expert_cache=WORLD/data", "holds other files and no expert_cache.json; name a folder of its own"),
        ("train.expert_cache=WORLD/out-pretrain", "is or contains `train.output_dir`; name a folder of its own"),
        ("train.expert_cache=WORLD", "is or contains `train.output_dir`; name a folder of its own"),
        ("train.expert_cache=/proc/cache", "cannot be written"),
        ("train.expert_cache_dtype=float8", "`train.expert_cache_dtype`"),
        ("train.expert_cache_size_gb=0", "`train.expert_cache_size_gb`"),
    ],
)
def test_what_cannot_be_used_is_one_line(train, world, capfd, option, message):
    assert train("pretrain", option.replace("WORLD", str(world))) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_random_crops_and_flips_are_refused(train_base, base_world, checkpoints, tmp_path, tiny_data, capfd):
    cache = f"train.expert_cache={tmp_path}/cache"
    assert train_base("pretrain_base", cache) == 2
    assert "`data.augment` and `train.expert_cache` exclude each other" in capfd.readouterr().err.splitlines()[-1]
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], tiny_data / "images")
    assert merge_runs.run(path, "data.horizontal_flip=true", cache) == 2
    assert "`data.horizontal_flip` and `train.expert_cache` exclude" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "cache").exists()


@pytest.mark.full
@pytest.mark.parametrize("zero", [2, 3])
def test_two_ranks_give_the_losses_of_two_ranks(world, zero):
    from helpers.paths import ROOT

    plan = f"train.deepspeed={ROOT}/projects/deepspeed/zero{zero}.json"
    options = [plan, "train.expert_cache_dtype=float32", "train.save_steps=100"]
    assert llava_runs.run(world, "pretrain", [*options, f"train.output_dir={world}/plain"], ranks=2)[0] == 0
    for name in ("empty", "full"):
        cache = [f"train.expert_cache={world}/cache", f"train.output_dir={world}/{name}"]
        code, output = llava_runs.run(world, "pretrain", [*options, *cache], ranks=2)
        assert code == 0, output
        assert losses(world / name) == pytest.approx(losses(world / "plain"), rel=1e-5)
    assert set(images(world / "cache").values()) == {24}
