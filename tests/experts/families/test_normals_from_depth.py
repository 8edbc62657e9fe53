"""Surface normals: of known surfaces by hand, and out of a depth expert."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert
from tove_lvlm.experts.families.normals_from_depth.model import depth_of, normals_of
from tove_lvlm.experts.pictures import normals_picture
from tove_lvlm.storage import WeightsError

DENSE = {"family": "dense_vit", "width": 24, "depth": 1, "heads": 2, "patch_size": 4, "channels": 1}


COMPUTED = {"name": "normals", "family": "normals_from_depth", "image_size": 16, "depth": DENSE}


@pytest.mark.parametrize("facing", [(0.0, 0.0, 1.0), (0.4, 0.0, 1.0), (-0.3, 0.5, 1.0)])
@pytest.mark.parametrize("field_of_view", [60.0, 90.0])
def test_normal_of_a_plane(facing, field_of_view):
    """A plane through (0, 0, 5): its depth along each pixel's ray, and one normal everywhere, the border included."""
    wanted = torch.tensor(facing, dtype=torch.float64)
    wanted /= wanted.norm()
    size = 12
    focal = size / 2 / math.tan(math.radians(field_of_view) / 2)
    centred = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / focal
    # In the axes left, up, to the camera a ray is (-u, -v, -1); the plane's point on it has ray . n * z = (0,0,-5) . n.
    rays = torch.stack([-centred.expand(size, size), -centred[:, None].expand(size, size), -torch.ones(size, size)])
    z_HW = -5 * wanted[2] / (rays.double() * wanted.view(3, 1, 1)).sum(0)
    normals = normals_of(z_HW[None, None], field_of_view)
    torch.testing.assert_close(normals, wanted.view(1, 3, 1, 1).expand(1, 3, size, size), atol=1e-9, rtol=0)


def test_of_a_photographed_room_the_floor_looks_up_and_the_wall_at_the_camera():
    """Middlebury's measured disparity, an inverse depth with a few holes, as a relative estimator would give it."""
    disparity = np.load(Path(data.data_dir) / "motorcycle_disp.npz")["arr_0"]
    disparity = np.where(np.isfinite(disparity) & (disparity > 0), disparity, np.nan)
    disparity = torch.from_numpy(np.nan_to_num(disparity, nan=np.nanmedian(disparity))).float()[None, None]
    square = F.interpolate(disparity[..., 120:620], size=224, mode="bilinear", antialias=True)
    normals = normals_of(depth_of(square, 4.0), 60.0)
    floor, wall = normals[0, :, -35:].mean((1, 2)), normals[0, :, 40:90, 15:75].mean((1, 2))
    assert floor[1] > 0.85, floor
    assert wall[2] > 0.4, wall
    assert wall[1].abs() < 0.25, wall


def test_colours():
    normals = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]).T.view(1, 3, 1, 3)
    assert normals_picture(normals)[0, 0].tolist() == [[128, 128, 255], [255, 128, 128], [128, 0, 128]]


@torch.no_grad()
def test_computed_from_a_depth_expert_with_its_weights(tmp_path):
    torch.manual_seed(0)
    depth = build_expert({"name": "depth", **DENSE, "image_size": 16})
    torch.save(depth.state_dict(), tmp_path / "depth.pth")
    expert = build_expert(COMPUTED)
    expert.load_pretrained(tmp_path / "depth.pth")
    pixels = torch.randn(2, 3, 16, 16)
    normals, map_B1HW = expert(pixels), depth(pixels)
    assert tuple(normals.shape) == (2, *[expert.spec.channels, *expert.spec.grid]) == (2, 3, 16, 16)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(2, 16, 16))
    # By hand: an inverse depth, the nearest point at 1 and the farthest at 4.
    low, high = map_B1HW.amin((2, 3), keepdim=True), map_B1HW.amax((2, 3), keepdim=True)
    z_B1HW = 1 / (0.25 + 0.75 * (map_B1HW - low) / (high - low))
    torch.testing.assert_close(normals, normals_of(z_B1HW, 60.0))
    assert expert.to(torch.bfloat16)(pixels.bfloat16()).dtype == torch.bfloat16
    assert expert.has_weights
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"do not fit DenseViT"):
        expert.load_pretrained(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field_of_view": 180.0}, "`field_of_view` is 180.0; expected above 0 and below 180"),
        ({"depth_range": 1.0}, "`depth_range` is 1.0; expected above 1"),
        ({"depth": {**DENSE, "channels": 3}}, "3 channels; expected 1"),
        ({"depth": {"family": "dense"}}, "did you mean `dense_vit`"),
        ({"output": "features"}, "valid: map"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ConfigError, match=message):
        build_expert({**COMPUTED, **change})
