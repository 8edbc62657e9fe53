"""An image as a square of the image processor's size: padded, as LLaVA pads it, or its middle.

LLaVA pads first and resizes the whole square; an image processor resizes the whole image and cuts the middle out of it.
Only what is kept need be resized. A filter's positions are then rounded otherwise, and a value differs by 1 of 255 at
most, about one in ten thousand of a padded image's (tests).

Source: LLaVA's `expand2square`, transformers' CLIP image processor; resizing only what is kept is our choice.
"""

import math
from typing import Any

from PIL import Image

_REACH = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}
"""Pixels to each side that a filter reads, of the larger of the two images' pixels. Bilinear is left out: one of its
values in 300 would differ."""


def expand_to_square(image: Image.Image, color: tuple[int, ...]) -> Image.Image:
    """Put an image in the middle of a square of one colour (LLaVA's `expand2square`)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def resize_in_square(image: Image.Image, color: tuple[int, ...], side: int, resample: Image.Resampling) -> Image.Image:
    """`expand_to_square(image, color).resize((side, side), resample)`, without resizing the padding.

    Args:
        image: RGB.
        color: Of the padding.
        side: Of the result, pixels.
        resample: Bicubic or Lanczos.
    """
    long, short = max(image.size), min(image.size)
    if long == short:
        return image.resize((side, side), resample)
    is_wide, scale, start = image.width == long, long / side, (long - short) // 2
    reach = math.ceil(_REACH[resample] * max(scale, 1)) + 1
    # Rows (or columns) of the result that see the image, and the part of the square that they see.
    first, last = max(0, math.floor((start - reach) / scale)), min(side, math.ceil((start + short + reach) / scale))
    low, high = max(0, math.floor(first * scale) - reach), min(long, math.ceil(last * scale) + reach)
    part = Image.new(image.mode, _size(is_wide, long, high - low), color)
    part.paste(image, _size(is_wide, 0, start - low))
    seen = (*_size(is_wide, 0, first * scale - low), *_size(is_wide, long, last * scale - low))
    resized = part.resize(_size(is_wide, side, last - first), resample, box=seen)
    square = Image.new(image.mode, (side, side), color)
    square.paste(resized, _size(is_wide, 0, first))
    return square


def resize_middle(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """The shorter side resized to `side`, and the middle of the longer one.

    Args:
        image: RGB.
        side: Of the result, pixels.
        resample: Bicubic or Lanczos.
    """
    long, short = max(image.size), min(image.size)
    whole = int(side * long / short)  # the longer side as transformers rounds it
    start, scale = (whole - side) // 2, long / whole
    is_wide = image.width == long
    seen = (*_size(is_wide, start * scale, 0), *_size(is_wide, (start + side) * scale, short))
    return image.resize((side, side), resample, box=seen)


def _size(is_wide: bool, along: Any, across: Any) -> tuple[Any, Any]:
    """(x, y) of what lies along the image's long side and across it."""
    return (along, across) if is_wide else (across, along)


def square_side(processor: Any, aspect_ratio: str) -> int | None:
    """The side of the square that an image processor makes of an image with Pillow, if the functions here can stand in.

    Args:
        processor: A transformers image processor.
        aspect_ratio: As `images.to_pixels`.

    Returns:
        None of any other processor.
    """
    # Here, because this module serves commands that need no transformers.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    if not isinstance(processor, CLIPImageProcessorPil | LlavaImageProcessorPil) or not processor.do_resize:
        return None
    side, crop = processor.size.get("shortest_edge"), processor.crop_size
    cuts = (
        (crop.get("height"), crop.get("width")) == (side, side) if processor.do_center_crop else aspect_ratio == "pad"
    )
    return side if cuts and processor.resample in _REACH else None
