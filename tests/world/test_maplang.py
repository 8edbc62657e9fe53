"""The map language: cells say what the scene's arrays say."""

import numpy as np
import pytest

from tove_lvlm.world import maplang, scene


@pytest.fixture(scope="module")
def scenes():
    return scene.sample(scene.split_seeds("heldout", 200))


def _columns(words):
    return [maplang.WORDS.index(word) for word in words]


def test_words_are_distinct_and_share_nothing():
    assert len(set(maplang.WORDS)) == len(maplang.WORDS) == 6 + 4 + 8 + 1 + 8 + 8


def test_cover_is_a_disc_with_nearer_objects_in_front():
    scenes = scene.sample(np.array([0]))
    for name, values in {"x": (32, 40), "y": (32, 32), "size": (8, 8), "depth": (3.0, 4.0)}.items():
        getattr(scenes, name)[0, :2] = values
    scenes.num_objects[0] = 2
    share_SNO = maplang.cover(scenes).reshape(8, 8, 4)
    area = np.pi * 64
    assert share_SNO[..., 0].sum() * 64 == pytest.approx(area, rel=0.05)
    lens = 2 * 64 * np.arccos(0.5) - 0.5 * 8 * np.sqrt(4 * 64 - 64)  # two discs of radius 8, centres 8 apart
    assert share_SNO[..., 1].sum() * 64 == pytest.approx(area - lens, rel=0.08)
    assert share_SNO[:3].sum() == share_SNO[5:].sum() == 0.0
    swapped = scenes.depth[0, [1, 0]].copy()
    scenes.depth[0, :2] = swapped
    np.testing.assert_allclose(maplang.cover(scenes)[0, :, 1].sum() * 64, area, rtol=0.05)


def test_every_object_is_seen_and_no_cell_is_overfull(scenes):
    share_SNO = maplang.cover(scenes)
    assert share_SNO.shape == (200, 64, 4)
    assert share_SNO.min() >= 0
    assert share_SNO.sum(-1).max() <= 1 + 1e-6
    seen = share_SNO.sum(axis=1) > 0.2
    np.testing.assert_array_equal(seen, scenes.valid)
    hard = maplang.harden(share_SNO)
    assert set(np.unique(hard)) == {0.0, 1.0}
    assert hard.sum(-1).max() == 1


def test_a_cell_names_what_covers_it(scenes):
    share_SNO = maplang.harden(maplang.cover(scenes))
    weight_SNV = maplang.cells(scenes, share_SNO)
    np.testing.assert_array_equal(weight_SNV, maplang.cells(scenes))
    near, far = np.log(scene.DEPTH_RANGE)
    colors, shapes, depths, rows, columns = map(
        _columns, (scene.COLORS, scene.SHAPES, maplang.DEPTH_WORDS, maplang.ROW_WORDS, maplang.COLUMN_WORDS)
    )
    empty = maplang.WORDS.index(maplang.EMPTY)
    for i in range(40):
        for cell in range(64):
            content = weight_SNV[i, cell]
            assert content[rows].argmax() == cell // 8
            assert content[columns].argmax() == cell % 8
            assert content[rows].sum() == content[columns].sum() == 1
            owner = share_SNO[i, cell].argmax() if share_SNO[i, cell].any() else None
            if owner is None:
                assert content[empty] == 1
                assert content[colors + shapes + depths].sum() == 0
                continue
            assert content[empty] == 0
            assert content[colors].argmax() == scenes.color[i, owner]
            assert content[shapes].argmax() == scenes.shape[i, owner]
            mean_word = float(content[depths] @ np.arange(8))
            expected = np.clip((np.log(scenes.depth[i, owner]) - near) / (far - near) * 8 - 0.5, 0, 7)
            assert mean_word == pytest.approx(expected, abs=1e-5)
            assert content[depths].sum() == pytest.approx(1)


def test_soft_cells_mix_their_neighbours(scenes):
    soft = maplang.cells(scenes, maplang.cover(scenes))
    content = soft[..., : maplang.WORDS.index(maplang.EMPTY) + 1]
    share = content[..., _columns((*scene.COLORS, maplang.EMPTY))].sum(-1)
    np.testing.assert_allclose(share, 1, atol=1e-5)
    assert ((content > 0.05) & (content < 0.95)).any()
