"""Colours over the picture as computed by hand."""

import numpy as np
from matplotlib import colormaps

from helpers.tiny_gates import gates_of
from tove_lvlm.viz.gates_plot import heat_picture


def test_a_pixel_is_the_values_colour_over_the_pale_picture():
    values_YX = np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.1]], dtype=np.float32)
    heat_HW3 = heat_picture(gates_of(values_YX[None], ["depth"]), values_YX, (0.0, 1.0))
    assert heat_HW3.shape == (4, 6, 3)
    for row, column, value, gray in ((0, 0, 0.0, 0.0), (1, 5, 1.0, 1.0), (3, 2, 0.75, 0.0), (2, 3, 0.75, 1.0)):
        pale = (gray + 0.6) / 1.6
        color = np.array(colormaps["viridis"](value)[:3])
        assert heat_HW3[row, column].tolist() == np.rint(255 * (0.28 * pale + 0.72 * color)).tolist()
