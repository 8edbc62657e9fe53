"""What the plot of `tove usage` shows is what the report says."""

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.viz.palette import expert_colors
from tove_lvlm.viz.usage import usage_figure, usage_plot

COSTS = {"gflops": 0.1, "parameters": 10, "memory_bytes": 40}
ROWS = {
    "depth": (0.2, 0.1, 0.3, 0.13, -0.062, 2.1),
    "normals": (0.25, 0.0, 0.1, 0.004, 0.001, 2.2),
    "edges": (0.15, 0.65, 0.2, 0.03, -0.012, 2.3),
    "dinov2": (0.4, 0.25, 0.1, 0.35, -0.143, 4.5),
}
KEYS = ("gate_mass", "first_share", "relative_norm", "loss_change", "score_change", "ms")


def report() -> dict:
    experts = {name: dict(zip(KEYS, values, strict=True)) | COSTS for name, values in ROWS.items()}
    return {"experts": experts, "clip": {"ms": 3.0}, "tower": {"ms": 14.0}, "quality": {"loss": 0.1, "score": 0.9}}


def bars(figure, title) -> list[float]:
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return [patch.get_width() for patch in axes.patches]


def points(figure) -> dict[str, tuple[float, float]]:
    lines = [line for axes in figure.axes for line in axes.lines]
    return {line.get_label(): tuple(line.get_xydata()[0]) for line in lines if line.get_marker() == "o"}


def test_bars_and_points_have_the_reports_figures():
    figure = usage_figure(report())
    column = dict(zip(KEYS, zip(*ROWS.values(), strict=True), strict=True))
    assert bars(figure, "mean gate mass") == pytest.approx(column["gate_mass"])
    assert bars(figure, "first among the experts") == pytest.approx(column["first_share"])
    assert bars(figure, "strength") == pytest.approx(column["relative_norm"])
    assert bars(figure, "loss gained without it") == pytest.approx(column["loss_change"])
    assert bars(figure, "score lost without it") == pytest.approx([6.2, -0.1, 1.2, 14.3])
    expected = {name: (values[5], -100 * values[4]) for name, values in ROWS.items()}
    assert points(figure) == {name: pytest.approx(point) for name, point in expected.items()}
    colors = {line.get_label(): line.get_color() for axes in figure.axes for line in axes.lines}
    assert all(colors[name] == color for name, color in expert_colors(ROWS).items())


def test_an_image_folder_gives_what_there_is():
    given = report()
    for row in given["experts"].values():
        row["loss_change"] = row["score_change"] = None
    given["experts"]["edges"]["detached"] = True
    given["quality"] = None
    figure = usage_figure(given)
    assert [axes.get_title(loc="left") for axes in figure.axes][3:] == ["strength against cost"]
    assert bars(figure, "mean gate mass") == pytest.approx([0.2, 0.25, 0.4])
    assert points(figure)["dinov2"] == pytest.approx((4.5, 0.1))
    assert "edges" not in points(figure)


def test_a_missing_cost_or_score_leaves_out_only_itself():
    given = report()
    given["experts"]["depth"]["ms"] = None
    given["experts"]["normals"]["score_change"] = None
    figure = usage_figure(given)
    assert sorted(points(figure)) == ["dinov2", "edges"]
    assert len(bars(figure, "score lost without it")) == 3


def test_all_detached_is_an_error():
    given = report()
    for row in given["experts"].values():
        row["detached"] = True
    with pytest.raises(ValueError, match="every expert is detached"):
        usage_figure(given)


def test_files_are_written_and_are_the_same_twice(tmp_path):
    first, second = usage_plot(report(), tmp_path / "a" / "usage"), usage_plot(report(), tmp_path / "b" / "usage")
    assert [file.name for file in first] == ["usage.svg", "usage.png"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    pixels = np.asarray(Image.open(first[1]).convert("RGB"))
    assert pixels.shape[1] == 1600
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "not blank"
