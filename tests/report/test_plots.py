"""The curves show what was logged."""

import math

import numpy as np
import pytest

from helpers.report_files import clip_line, log_line, make_run
from tove_lvlm.report.plots import OTHER, SECTIONS, curve_plot, gate_mass_plot, run_colors, section_plots, thinned
from tove_lvlm.report.reading import Series, read_runs
from tove_lvlm.viz.palette import MODELS, expert_colors

STEPS = (10, 20, 30)


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "clip", [clip_line(step) for step in STEPS])
    make_run(tmp_path / "tove", [log_line(step, own_figure=step / 2) for step in STEPS])
    return read_runs([tmp_path])


def lines(plot):
    (axes,) = plot.figure.axes
    return [(line.get_color(), line.get_xydata().tolist()) for line in axes.lines if len(line.get_xydata()) > 2]


def test_each_run_is_a_line_in_its_colour(runs):
    assert run_colors(runs) == {"clip": MODELS["clip"], "tove": MODELS["tove"]}
    plot = curve_plot(runs, "loss")
    expected = [[step, 3 - step / 20] for step in STEPS]
    assert [(color, points) for color, points in lines(plot)] == [
        (MODELS["clip"], [pytest.approx(point) for point in expected]),
        (MODELS["tove"], [pytest.approx(point) for point in expected]),
    ]
    assert plot.about == "clip: 2.5 at step 10, 1.5 at step 30; tove: 2.5 at step 10, 1.5 at step 30"
    assert plot.absent == []
    assert curve_plot(runs, "gate_entropy").absent == ["clip"]


def test_gate_mass_is_a_plot_of_each_run_that_has_a_gate(runs):
    plot = gate_mass_plot(runs[1])
    colors = expert_colors(["depth", "edges"])
    assert plot.legend == colors
    assert lines(plot)[0] == (colors["depth"], [pytest.approx([step, 0.25 + step / 100]) for step in STEPS])
    (even,) = [line for line in plot.figure.axes[0].lines if len(line.get_xydata()) == 2]
    assert set(even.get_ydata()) == {0.5}
    assert plot.figure.axes[0].get_ylim()[0] == 0


def test_every_figure_that_was_logged_is_in_one_part(runs):
    titles = {name: [plot.title for plot in section_plots(runs, name)] for name in (*SECTIONS, OTHER)}
    assert titles == {
        "Losses": ["loss", "balance loss", "gradient norm"],
        "Learning rates": ["learning rate, projector", "learning rate, language_model"],
        "Gate": ["gate mass, tove", "gate entropy, nats"],
        "Throughput": ["images per second", "tokens per second"],
        "Memory": ["peak memory, GB (10^9 bytes)"],
        "Further figures": ["own_figure"],
    }


def test_a_long_series_is_drawn_by_means_and_no_number_breaks_the_line():
    values = [float(number) for number in range(10)]
    values[4] = values[6] = values[7] = math.nan
    series = Series(steps=list(range(10)), values=values)
    steps, means = thinned(series, most=5)
    assert steps == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert np.array_equal(means, [0.5, 2.5, 5.0, math.nan, 8.5], equal_nan=True)
    assert thinned(series, most=10)[0] == list(range(10))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 10**400])
def test_what_cannot_be_drawn_is_left_out(tmp_path, value):
    make_run(tmp_path / "run", [log_line(10), log_line(20, loss=value), log_line(30)])
    plot = curve_plot(read_runs([tmp_path / "run"]), "loss")
    plot.figure.canvas.draw()
    drawn = np.array(lines(plot)[0][1])
    assert np.isnan(drawn[1, 1])
    assert drawn[[0, 2], 1] == pytest.approx([2.5, 1.5])
