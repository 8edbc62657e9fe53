"""The sampler: deterministic per seed, balanced, disjoint splits."""

import dataclasses

import numpy as np
import pytest

from tove_lvlm.world import scene


@pytest.fixture(scope="module")
def scenes():
    return scene.sample(scene.split_seeds("train", 4000))


def _contents(scenes):
    used = zip(scenes.shape, scenes.color, scenes.num_objects, strict=True)
    return {frozenset(zip(color[:n].tolist(), shape[:n].tolist(), strict=True)) for shape, color, n in used}


def test_a_scene_depends_on_its_seed_alone(scenes):
    some = np.array([3999, 7, 7, 1024])
    again = scene.sample(scenes.seed[some])
    for field in dataclasses.fields(scenes):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(scenes, field.name)[some], field.name)
    assert not np.array_equal(again.x[0], again.x[1])


def test_these_numbers_never_change():
    """Shipped weights and published tables were made with this world: another hash would be another world."""
    one = scene.sample(np.array([0, 1]))
    assert one.num_objects.tolist() == PINNED["num_objects"]
    assert one.color.tolist() == PINNED["color"]
    assert one.shape.tolist() == PINNED["shape"]
    np.testing.assert_allclose(one.depth[:, 0], PINNED["depth"], rtol=1e-12)
    assert scene.split_seeds("heldout", 5).tolist() == PINNED["heldout"]


def test_objects_are_distinct_inside_the_picture_and_apart_in_depth(scenes):
    for one in scenes[:500]:
        n = int(one.num_objects[0])
        pairs = set(zip(one.color[0, :n].tolist(), one.shape[0, :n].tolist(), strict=True))
        assert len(pairs) == n
        gaps = np.diff(np.sort(np.log(one.depth[0, :n])))
        assert gaps.min() >= 0.15 * np.log(4) - 1e-9
    valid = scenes.valid
    for centre in (scenes.x, scenes.y):
        assert (centre - 1.05 * scenes.size)[valid].min() > 0
        assert (centre + 1.05 * scenes.size)[valid].max() < scene.IMAGE_SIZE
    assert (scenes.shape[~valid] == -1).all()
    assert (scenes.color[~valid] == -1).all()
    assert (scenes.depth[~valid] == 0).all()


def test_depth_is_independent_of_everything_a_picture_shows_directly(scenes):
    valid = scenes.valid
    log_depth = np.log(scenes.depth[valid])
    for name in ("size", "x", "y", "color", "shape", "albedo"):
        assert abs(np.corrcoef(log_depth, getattr(scenes, name)[valid])[0, 1]) < 0.03, name
    assert abs((scenes.depth[valid] < scene.DEPTH_SPLIT).mean() - 0.5) < 0.015
    low, high = scene.DEPTH_RANGE
    assert low <= scenes.depth[valid].min() < 1.02 * low
    assert high >= scenes.depth[valid].max() > 0.98 * high


def test_counts_shapes_and_colors_are_even(scenes):
    valid = scenes.valid
    assert np.allclose(np.bincount(scenes.num_objects)[2:] / len(scenes), 1 / 3, atol=0.03)
    assert np.allclose(np.bincount(scenes.shape[valid]) / valid.sum(), 1 / 4, atol=0.015)
    assert np.allclose(np.bincount(scenes.color[valid]) / valid.sum(), 1 / 6, atol=0.015)


def test_splits_share_no_scene_by_content(scenes):
    heldout = scene.sample(scene.split_seeds("heldout", 4000))
    assert not set(scenes.seed) & set(heldout.seed)
    train_sets, heldout_sets = _contents(scenes), _contents(heldout)
    assert len(train_sets) > 1500
    assert len(heldout_sets) > 1500
    assert not train_sets & heldout_sets


def test_bucket_ignores_the_order_of_objects():
    scenes = scene.sample(np.arange(60_000))
    two = np.flatnonzero(scenes.num_objects == 2)
    codes = np.sort(scenes.color[two, :2] * 4 + scenes.shape[two, :2], axis=1) @ [24, 1]
    bucket = scene.scene_bucket(scenes.seed[two])
    for code in np.unique(codes):
        assert len(set(bucket[codes == code])) == 1
    assert 0.4 < bucket.mean() < 0.6


def test_split_seeds_continue_where_they_stopped():
    whole = scene.split_seeds("heldout", 9000)
    np.testing.assert_array_equal(scene.split_seeds("heldout", 3000, offset=6000), whole[6000:])
    assert (np.diff(whole) > 0).all()
    assert scene.split_seeds("train", 3, start=10**10).min() >= 10**10
    assert len(scene.split_seeds("train", 0)) == 0


def test_indexing(scenes):
    assert len(scenes[5]) == 1
    assert scenes[5].seed[0] == scenes.seed[5]
    assert scenes[-1].seed[0] == scenes.seed[-1]
    assert len(scenes[10:20]) == 10
    with pytest.raises(IndexError):
        scenes[4000]


@pytest.mark.parametrize("seeds", [np.array([-1]), np.array([0.5]), np.zeros((2, 2), int)])
def test_bad_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match="non-negative integers"):
        scene.sample(seeds)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'test'; expected one of train, heldout"):
        scene.split_seeds("test", 1)


PINNED = {
    "num_objects": [4, 2],
    "color": [[0, 1, 5, 5], [4, 0, -1, -1]],
    "shape": [[2, 3, 2, 0], [2, 3, -1, -1]],
    "depth": [6.635056055750715, 4.717232547857796],
    "heldout": [0, 4, 5, 6, 10],
}
