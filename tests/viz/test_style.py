import numpy as np
import pytest
from PIL import Image

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import new_figure, rendered, save_figure, spread, svg_text

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def lab(color: str, matrix: np.ndarray) -> np.ndarray:
    """CIELAB of a hex colour as somebody with that blindness sees it."""
    srgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(matrix @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = (to_xyz @ linear / [0.9505, 1, 1.089]) ** (1 / 3)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("group", ["EXPERTS", "MODELS"])
def test_colors_are_told_apart_by_colour_blind_readers_too(blindness, group):
    colors = list(getattr(palette, group).values())
    seen = [lab(color, BLINDNESS[blindness]) for color in colors]
    for i in range(len(seen)):
        for j in range(i):
            assert np.linalg.norm(seen[i] - seen[j]) > 15, (colors[i], colors[j])


def test_an_expert_keeps_its_colour_whoever_is_beside_it():
    both = palette.expert_colors(["dinov2", "depth", "sam"])
    assert both["depth"] == palette.expert_colors(["depth"])["depth"] == palette.EXPERTS["depth"]
    assert len(set(both.values())) == 3
    many = palette.expert_colors([f"expert{i}" for i in range(20)])
    assert len(many) == 20


def test_labels_keep_their_distance_and_their_order():
    assert spread([1.0, 5.0], least=1) == [1.0, 5.0]
    assert spread([], least=1) == []
    assert spread([2.0, 2.0], least=1) == [1.5, 2.5]
    places = spread([3.0, 1.0, 1.1, 1.2, 2.0], least=0.5)
    assert sorted(places) == pytest.approx([places[i] for i in (1, 2, 3, 4, 0)])
    assert np.diff(sorted(places)).min() >= 0.5 - 1e-9


def test_a_figure_as_pixels_and_as_a_text_is_what_is_written(tmp_path):
    def figure():
        made = new_figure(2, 1)
        made.subplots().plot([1, 2], [2, 1], color="#0072b2")
        return made

    (file,) = save_figure(figure(), tmp_path / "a", ("png",), dpi=50)
    with Image.open(file) as image:
        assert np.array_equal(rendered(figure(), 50), np.asarray(image.convert("RGB")))
    assert rendered(figure(), 50).shape == (50, 100, 3)
    assert svg_text(figure()) == svg_text(figure())
    assert "<text" in svg_text(figure())
