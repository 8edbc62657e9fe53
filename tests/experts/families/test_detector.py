"""A detector's boxes as a map. The network itself is tested on real weights (tests/real_small)."""

import numpy as np
import pytest
import torch

from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.families.detector.config import DetectorConfig
from tove_lvlm.experts.families.detector.network import draw
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

ENTRY = {"name": "objects", "family": "detector", "classes": 3, "map_size": 4}
STATED = {"file_bytes": 8, "channels": 3, "grid": [4, 4]}


def test_each_class_has_a_map_and_the_best_box_counts():
    boxes = np.array(
        [
            [0, 1, 0.5, 0.0, 0.0, 0.5, 0.5],  # the upper left quarter
            [0, 1, 0.9, 0.25, 0.0, 0.5, 0.25],  # over a cell of it
            [0, 2, 0.8, 0.0, 0.63, 1.0, 1.5],  # the last row: 0.63 is behind the centre of the row before; 1.5 outside
            [0, 0, 0.2, 0.0, 0.0, 1.0, 1.0],  # below the threshold
        ]
    )
    grid = draw(boxes, classes=3, side=4, threshold=0.3)
    expected = np.zeros((3, 4, 4), np.float32)
    expected[1, :2, :2] = 0.5
    expected[1, 0, 1] = 0.9
    expected[2, 3] = 0.8
    np.testing.assert_allclose(grid, expected)


def test_a_class_without_a_channel_is_named():
    with pytest.raises(ConfigError, match="an object of class 7; `classes` is 3"):
        draw(np.array([[0, 7, 0.9, 0, 0, 1, 1]]), classes=3, side=4, threshold=0.3)


def test_the_picture_shows_the_best_class_of_each_cell():
    expert = build_expert({**ENTRY, **STATED})
    grid = torch.zeros(1, 3, 4, 4)
    grid[0, 1, 0, 0], grid[0, 2, 0, 0], grid[0, 1, 1, 1] = 0.4, 1.0, 0.4
    picture = expert.picture(grid)
    assert picture.shape == (1, 4, 4, 3)
    assert int(picture[0, 0, 0].max()) == 255
    assert int(picture[0, 1, 1].max()) == 102
    assert int(picture[0, 2, 2].max()) == 0
    assert not torch.equal(picture[0, 0, 0].float() / 255, picture[0, 1, 1].float() / 102)


def test_the_description_lies_beside_the_graph(tmp_path):
    graph = tmp_path / "graph.pb"
    graph.write_bytes(b"graph")
    with pytest.raises(WeightsError, match=r"one `.pbtxt` file in the same folder; found none"):
        DetectorConfig.content(graph)
    (tmp_path / "a.pbtxt").write_bytes(b"text")
    assert DetectorConfig.content(graph) == b"graphtext" + (4).to_bytes(8, "little")
    (tmp_path / "b.pbtxt").write_bytes(b"text")
    with pytest.raises(WeightsError, match=r"found a\.pbtxt, b\.pbtxt"):
        DetectorConfig.content(graph)


def test_what_is_no_graph_is_refused(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "graph.pb").write_bytes(b"graph")
    (tmp_path / "graph.pbtxt").write_bytes(b"text")
    with pytest.raises(WeightsError, match="OpenCV cannot read it"):
        complete_fields(ENTRY, str(tmp_path / "graph.pb"), "here")


def test_its_shape_is_known_without_a_run():
    assert (describe({**ENTRY, **STATED}).channels, describe({**ENTRY, **STATED}).grid) == (3, (4, 4))
