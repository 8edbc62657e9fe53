"""Pictures as addresses: to the bit, or reduced; never from outside their folder."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.data.errors import DataError
from tove_lvlm.viz.embedding import data_address, file_address, picture_address


def opened(address: str) -> tuple[str, Image.Image]:
    kind, content = address.removeprefix("data:image/").split(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def write(path: Path, width: int, height: int) -> np.ndarray:
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).save(path)
    return pixels_HW3


def test_pixels_come_back_to_the_bit():
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    kind, image = opened(picture_address(pixels_HW3))
    assert kind == "png"
    assert np.array_equal(np.asarray(image), pixels_HW3)
    assert data_address(b"abc", "jpeg") == "data:image/jpeg;base64,YWJj"


def test_files_are_reduced_where_they_are_large(tmp_path):
    small_HW3 = write(tmp_path / "small.png", 60, 40)
    write(tmp_path / "large.png", 900, 600)
    kind, image = opened(file_address(tmp_path, "small.png", 300))
    assert (kind, np.array_equal(np.asarray(image), small_HW3)) == ("png", True)
    kind, image = opened(file_address(tmp_path, "large.png", 300))
    assert (kind, image.size) == ("jpeg", (300, 200))


def test_only_pictures_of_the_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    write(tmp_path / "secret.png", 9, 9)
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "absent.png"):
        with pytest.raises(DataError):
            file_address(tmp_path / "inside", name, 300)
    assert file_address(tmp_path / "inside", "link.png", 300, allow_symlinks=True)
