"""From an image file to the tower's pixels, as LLaVA does it, but with every failure named.

Like LLaVA's training code this ignores the EXIF orientation unless told otherwise: its data sets were annotated on
the stored pixels. For a user's own photograph pass `apply_exif=True`.

Shapes: 3 channels, H W of the image processor.
"""

import functools
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from .errors import DataError
from .square import expand_to_square, resize_in_square, resize_middle, square_side

ASPECT_RATIOS = ("square", "pad")
TRANSPARENCIES = ("white", "ignore")
MAX_PIXELS = 89_478_485
"""Largest image that is decoded: Pillow's own limit, a quarter of a gigabyte in RGB."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded, by content and not by name. Pillow knows more, and for some of it starts other programs."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def resolve_image(folder: str | Path, name: str, *, allow_symlinks: bool = False) -> Path:
    """Find an image inside its folder.

    Args:
        folder: the image folder.
        name: path relative to it.
        allow_symlinks: accept a link inside the folder that leads out of it.

    Raises:
        DataError: the path leaves the folder, or there is no such file.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"'image' must be a path inside the image folder, got {name!r}")
    if os.path.isabs(name):
        raise DataError(f"image path {name!r} is absolute; write it relative to the image folder {folder}")
    if ".." in Path(name).parts:
        raise DataError(f"image path {name!r} leaves the image folder {folder}; use a path inside it")
    path = Path(folder) / name
    try:
        if not allow_symlinks and not path.resolve().is_relative_to(Path(folder).resolve()):
            raise DataError(
                f"image path {name!r} leaves the image folder {folder} through a symbolic link; where that is meant, "
                "set data.allow_symlinks=true"
            )
        if not path.is_file():
            raise DataError(f"there is no image {path}")
    except (OSError, RuntimeError, UnicodeError) as error:  # UnicodeError: half of a surrogate pair
        raise DataError(f"image path {name!r} cannot be followed: {error}") from error
    return path


def read_image(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    apply_exif: bool = False,
    reduce_to: int | None = None,
) -> Image.Image:
    """Decode an image to RGB or RGBA, see `to_8_bit`; of an animation the first picture.

    Args:
        source: a file, by path or opened.
        name: for messages; the path by default.
        max_pixels: largest image that is decoded.
        apply_exif: turn it as the camera says.
        reduce_to: side that it is going to be resized to. A JPEG of at least four times that is decoded at a half, a
            quarter or an eighth, whichever leaves it twice as large and its sides even, or it would be shifted: a fifth
            of the time for 4000 x 3000 pixels, and a resized pixel differs by less than a level of 255 on average
            (tests).

    Raises:
        DataError: not an image of one of `FORMATS`, cut short, broken, larger than `max_pixels`, or of values that say
            nothing about brightness.
    """
    name = str(source) if name is None else name
    try:
        with Image.open(source, formats=_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"image {name} has {width} x {height} pixels, more than the limit of {max_pixels}")
            if reduce_to is not None and image.format == "JPEG":
                short = min(width, height)
                for part in (8, 4, 2):
                    if short >= 2 * part * reduce_to and width % (2 * part) == height % (2 * part) == 0:
                        image.draft(None, (width // part, height // part))
                        break
            is_png = image.format == "PNG"  # a turned image has forgotten it
            return to_8_bit(ImageOps.exif_transpose(image) if apply_exif else image, name, is_png)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        reason = str(error).replace(repr(source), repr(name))  # of an opened file it would be its address in memory
        raise DataError(f"image {name} cannot be read: {type(error).__name__}: {reason}") from error


def to_8_bit(image: Image.Image, name: str = "", is_png: bool = False) -> Image.Image:
    """An image of any mode as 8-bit RGB, or as RGBA where some of it is transparent.

    16 bits become 8 by value / 257, rounded, where Pillow's own conversion cuts off at 255. Gray, palettes, CMYK and
    the like are Pillow's conversion.

    Args:
        image: opened by Pillow.
        name: for messages.
        is_png: whether it is of a PNG, which has 16 bits at most, though Pillow 10 opens it with 32.

    Raises:
        DataError: 32-bit integers or floats, whose range may be any.
    """
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and is_png):
        values_HW = np.rint(np.asarray(image).astype(np.float64) / 257)
        return Image.fromarray(values_HW.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise DataError(
            f"image {name} holds 32-bit {kind}, whose range says nothing about brightness; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            return rgba
    return image.convert("RGB")


def flatten(image: Image.Image, transparency: str) -> Image.Image:
    """An image without transparency.

    Args:
        image: from `to_8_bit`.
        transparency: `white` puts it on white, as transformers 5 does; `ignore` gives a transparent pixel the colour
            that is stored under it, often black, as LLaVA does.
    """
    if image.mode == "RGBA" and transparency == "white":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def to_pixels(
    image: Image.Image,
    processor: Any,
    aspect_ratio: str = "square",
    max_pixels: int = MAX_PIXELS,
    as_bytes: bool = False,
    direct_resize: bool = False,
) -> torch.Tensor:
    """Run the image processor on one image.

    Args:
        image: from `read_image`.
        processor: a transformers image processor; `transparency` of it says how to `flatten` (without one: ignore).
            Whether it pads by itself makes no difference here.
        aspect_ratio: `square` leaves the shape to the processor (CLIP's cuts the middle out), `pad` fills the image up
            to a square with the processor's mean colour first.
        max_pixels: bound of the intermediate image.
        as_bytes: leave out rescaling and normalisation, which `pixel_table.PixelTable` does later.
        direct_resize: resize only what is kept, where `square` can stand in for the processor.

    Returns:
        (3, H, W) float tensor, or uint8.

    Raises:
        DataError: the image is so elongated that its intermediate image would pass `max_pixels`.
        ValueError: unknown aspect ratio.
    """
    check_aspect_ratio(aspect_ratio)
    image = flatten(image, getattr(processor, "transparency", "ignore"))
    short, long = sorted(image.size)
    if aspect_ratio == "pad":
        # A square around the largest plain photograph is still fine; around a strip it is a bomb.
        num_pixels, limit = long * long, 2 * max_pixels
    else:
        edge = processor.size.get("shortest_edge") or 0
        num_pixels, limit = edge * edge * long // short, max_pixels
    if num_pixels > limit:
        raise DataError(f"an image of {image.size[0]} x {image.size[1]} pixels is too elongated to be resized")
    left_out = {"do_rescale": False, "do_normalize": False} if as_bytes else {}
    color = tuple(int(mean * 255) for mean in processor.image_mean) if aspect_ratio == "pad" else None
    side = square_side(processor, aspect_ratio) if direct_resize else None
    if side is not None:
        resample, left_out["do_resize"] = processor.resample, False
        image = (
            resize_middle(image, side, resample) if color is None else resize_in_square(image, color, side, resample)
        )
    elif color is not None:
        image = expand_to_square(image, color)
    prepared = processor.preprocess(image, do_pad=False, return_tensors="pt", **left_out)
    pixels_3HW: torch.Tensor = prepared["pixel_values"][0]
    return pixels_3HW


def check_aspect_ratio(aspect_ratio: str) -> None:
    """Raise ValueError for an unknown name."""
    if aspect_ratio not in ASPECT_RATIOS:
        raise ValueError(f"unknown image_aspect_ratio {aspect_ratio!r}; choose from {', '.join(ASPECT_RATIOS)}")


def pixel_shape(processor: Any) -> tuple[int, int, int]:
    """The (3, H, W) that a processor gives, found by running it."""
    channels, height, width = to_pixels(Image.new("RGB", (8, 8)), processor).shape
    return channels, height, width
