"""What may be uploaded and what is offered."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.view import pictures
from tove_lvlm.view.pictures import check_upload, find_examples


def noise(width: int = 30, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def bomb(path: Path, side: int = 30_000) -> Path:
    """A PNG of a few bytes that claims nearly a thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(b"\0" * 1000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp"])
def test_a_picture_is_taken_whatever_it_is_called(tmp_path, suffix):
    noise().save(tmp_path / f"a{suffix}")
    path = (tmp_path / f"a{suffix}").rename(tmp_path / "upload")
    assert check_upload(path, "a") == path


def test_what_is_no_single_picture_gets_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # a harness that another test imports sets it
    cases = {bomb(tmp_path / "bomb.png"): "bomb.png has far more than the 40,000,000 pixels that a picture may have"}
    cases[bomb(tmp_path / "big.png", 7000)] = "big.png has 7000 x 7000 pixels, more than the limit of 40000000"
    svg = tmp_path / "drawing.svg"
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    cases[svg] = "drawing.svg is no picture that can be read; use one of JPEG, PNG"
    half = tmp_path / "half.png"
    noise(200, 200).save(half)
    half.write_bytes(half.read_bytes()[:5000])
    cases[half] = "half.png cannot be read"
    moving = tmp_path / "moving.gif"
    noise().save(moving, save_all=True, append_images=[noise().rotate(90), noise().rotate(180)])
    cases[moving] = "moving.gif is an animation of 3 pictures; save one of them as a picture"
    empty = tmp_path / "empty.png"
    empty.touch()
    cases[empty] = "empty.png is no picture that can be read"
    for path, expected in cases.items():
        with pytest.raises(DataError) as error:
            check_upload(path, path.name)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    large = tmp_path / "large.bmp"
    noise(100, 100).save(large)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1 << 14)
    with pytest.raises(DataError, match="a picture may have"):
        check_upload(large, "large.bmp")


def test_examples_are_the_demos_scenes_or_a_folder(demo_folder, tmp_path):
    found = find_examples(None, [demo_folder / "tove"])
    assert [example.name for example in found] == [f"{number:06d}.png" for number in range(6)]
    assert find_examples(None, [tmp_path]) == []
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="has no pictures in it"):
        find_examples(tmp_path, [])
    with pytest.raises(UserError, match="is no folder"):
        find_examples(tmp_path / "absent", [])
    for number in range(30):
        noise().save(tmp_path / f"{number:02d}.png")
    assert [example.name for example in find_examples(tmp_path, [])] == [f"{number:02d}.png" for number in range(24)]
