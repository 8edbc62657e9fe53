"""Image files of every format that is read, through the function that every command and data set reads them with.

An image that is accepted has the file's size and the values of a plain decode by Pillow, converted as `to_rgb` says.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from tove_lvlm.data.images import flatten, read_image, to_pixels

from ..mutate import byte_edits, edited_bytes, rarely
from ..property import Target
from ..worlds import image_processor

MODES = {
    "PNG": ("RGB", "L", "1", "P", "LA", "RGBA", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("RGB", "L", "1", "P"),
    "TIFF": ("RGB", "L", "1", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr"),
    "PPM": ("RGB", "L", "1", "I"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG2000": ("RGB", "L", "RGBA"),
    "ICO": ("RGBA",),
    "EPS": ("RGB",),
}
"""Formats with the modes that Pillow writes; the last two are not among those that are read."""
READ = set(MODES) - {"ICO", "EPS"}
_SNIPPETS = (b"%!PS", b"\xff\xd8", b"II*\0", b"\x89PNG\r\n\x1a\n", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"IDAT")
_SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.sampled_from([(1, 1), (1, 900), (900, 1), (300, 200)])
CASES = st.fixed_dictionaries(
    {
        "format": st.sampled_from(sorted(MODES)),
        "mode": st.integers(0, 9),
        "size": _SIZES.map(list),
        "seed": st.integers(0, 3),
        "orientation": st.integers(2, 8) | st.sampled_from([None, 0, 1, 9]),
        "apply_exif": st.booleans(),
        "aspect_ratio": st.sampled_from(["square", "pad"]),
        "max_pixels": rarely(st.sampled_from([4000, 100]), 89_478_485),
        "bytes": st.just([]) | byte_edits(3, _SNIPPETS),
    }
)


def _write(case: dict[str, Any], folder: Path) -> None:
    width, height = case["size"]
    modes = MODES[case["format"]]
    mode = modes[case["mode"] % len(modes)]
    values_HW3 = np.random.default_rng(case["seed"]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(values_HW3)
    if mode in ("I;16", "I"):
        values_HW = values_HW3[..., 0].astype(np.uint16) * 256 + values_HW3[..., 1]
        picture = Image.fromarray(values_HW.astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode in ("LAB", "F", "LA"):
        picture = Image.merge(mode, picture.split()) if mode == "LAB" else picture.convert("L").convert(mode)
    else:
        picture = picture.convert(mode)
    exif = Image.Exif()
    if case["orientation"] is not None:
        exif[0x0112] = case["orientation"]
    stream = io.BytesIO()
    picture.save(stream, format=case["format"], **({"exif": exif} if case["format"] in ("PNG", "JPEG", "WEBP") else {}))
    (folder / "picture.png").write_bytes(edited_bytes(stream.getvalue(), case["bytes"]))


def _act(case: dict[str, Any], inputs: Path, output: Path) -> tuple[Image.Image, torch.Tensor]:
    limit = case["max_pixels"]
    image = read_image(inputs / "picture.png", max_pixels=limit, apply_exif=case["apply_exif"])
    return image, to_pixels(image, image_processor(), case["aspect_ratio"], limit)


def _accepted(case: dict[str, Any], inputs: Path, output: Path, result: tuple[Image.Image, torch.Tensor]) -> None:
    image, pixels_3HW = result
    with Image.open(inputs / "picture.png") as plain:
        assert plain.format in READ, f"{plain.format} is not documented as one that is read"
        is_png, size = plain.format == "PNG", plain.size
        orientation = plain.getexif().get(0x0112) if case["apply_exif"] else None
        values = np.asarray(plain)
        converted = np.asarray(plain.convert("RGB"))
        alpha = plain.convert("RGBA").getchannel("A") if plain.has_transparency_data else None
        mode = plain.mode
    assert size[0] * size[1] <= case["max_pixels"]
    assert is_png or mode not in ("F", "I"), "values of no known range were accepted"
    if mode.startswith("I"):
        converted = np.repeat(((values.astype(np.int64) * 2 + 257) // 514)[..., None], 3, axis=2)
    converted = _turned(converted, orientation)
    assert image.mode == ("RGB" if alpha is None or np.asarray(alpha).min() == 255 else "RGBA")
    assert image.size == converted.shape[1::-1]
    assert np.array_equal(np.asarray(flatten(image, "ignore")), converted), "other values than Pillow's"
    assert pixels_3HW.shape == (3, 16, 16)
    assert bool(torch.isfinite(pixels_3HW).all())


def _turned(image: np.ndarray, orientation: int | None) -> np.ndarray:
    """EXIF's eight orientations, by their definition."""
    turns = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
    quarter, mirrored = turns.get(orientation, (0, False))
    if orientation in (5, 7):
        image = image.swapaxes(0, 1)
        return image if orientation == 5 else image[::-1, ::-1]
    image = np.rot90(image, quarter)
    return image[:, ::-1] if mirrored else image


TARGET = Target(name="images", cases=CASES, write=_write, act=_act, accepted=_accepted)
