"""Pictures of one expert's gate: colours over the picture as computed by hand, as files in memory."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from tove_lvlm.viz.gates import TokenGates
from tove_lvlm.viz.gates_cells import cell_images
from tove_lvlm.viz.gates_plot import Scale, common_scale, heat_picture


def gates_of(gate_KYX: np.ndarray, names: list[str], detached: str = "") -> TokenGates:
    """A picture whose left half is black and whose right half is white, 4 x 6 pixels for 2 x 3 tokens."""
    picture_HW3 = np.zeros((4, 6, 3), dtype=np.uint8)
    picture_HW3[:, 3:] = 255
    maps = {name: np.full((2, 2, 3), 10 * k, dtype=np.uint8) for k, name in enumerate(names) if name != detached}
    return TokenGates(
        names=names,
        picture_HW3=picture_HW3,
        maps=maps,
        features=[],
        gate_KYX=gate_KYX,
        strength_KYX=gate_KYX / 2,
    )


def test_a_pixel_is_the_values_colour_over_the_pale_picture():
    values_YX = np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.1]], dtype=np.float32)
    heat_HW3 = heat_picture(gates_of(values_YX[None], ["depth"]), values_YX, (0.0, 1.0))
    assert heat_HW3.shape == (4, 6, 3)
    for row, column, value, gray in ((0, 0, 0.0, 0.0), (1, 5, 1.0, 1.0), (3, 2, 0.75, 0.0), (2, 3, 0.75, 1.0)):
        pale = (gray + 0.6) / 1.6
        color = np.array(colormaps["viridis"](value)[:3])
        assert heat_HW3[row, column].tolist() == np.rint(255 * (0.28 * pale + 0.72 * color)).tolist()


def test_each_attached_expert_has_its_three_pictures():
    gate_KYX = np.stack([np.full((2, 3), 0.8), np.full((2, 3), 0.2), np.zeros((2, 3))]).astype(np.float32)
    gates = gates_of(gate_KYX, ["depth", "edges", "text"], detached="text")
    scale = common_scale([gates])
    cells = cell_images(gates, scale)
    assert list(cells) == ["depth", "edges"]

    def pixels(name: str, kind: str) -> np.ndarray:
        beginning, content = cells[name][kind].split(",")
        assert beginning == "data:image/png;base64"
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))

    assert np.array_equal(pixels("edges", "map"), gates.maps["edges"])
    assert np.array_equal(pixels("depth", "gate"), heat_picture(gates, gate_KYX[0], scale.gate))
    assert np.array_equal(pixels("edges", "strength"), heat_picture(gates, gate_KYX[1] / 2, scale.strength))
    assert scale == Scale(gate=(float(np.float32(0.2)), float(np.float32(0.8))), strength=(0.0, float(np.float32(0.4))))
