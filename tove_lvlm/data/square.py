"""An image in the middle of a square of one colour, as LLaVA pads it, and the same at the image processor's size.

LLaVA pads first and resizes the whole square. Resizing gives the padding's colour wherever nothing else is near, so
that only the image and what lies a filter's reach around it need be resized.

Source: LLaVA's `expand2square`; resizing first is our choice.
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

    A value differs by 1 of 255 at most, where two places of the filter, the same but for float's rounding, fall on two
    sides of a half: about one value in ten thousand (tests). An image of 640 x 480 takes three quarters of the time.

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


def _size(is_wide: bool, along: Any, across: Any) -> tuple[Any, Any]:
    """(x, y) of what lies along the image's long side and across it."""
    return (along, across) if is_wide else (across, along)


def square_side(processor: Any) -> int | None:
    """The side to which an image processor resizes a square with Pillow, if that is all that it does to its size.

    Args:
        processor: A transformers image processor.

    Returns:
        None of any other processor.
    """
    # Here, because this module serves commands that need no transformers.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    if not isinstance(processor, CLIPImageProcessorPil | LlavaImageProcessorPil) or not processor.do_resize:
        return None
    side, crop = processor.size.get("shortest_edge"), processor.crop_size
    is_kept = not processor.do_center_crop or (crop.get("height"), crop.get("width")) == (side, side)
    return side if is_kept and processor.resample in _REACH else None
