"""Pictures inside a page: as addresses that hold their content (`data:image/png;base64,...`)."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.images import flatten, read_image, resolve_image

_SMALL = 128
"""Up to so many pixels a picture is kept as it is."""


def data_address(content: bytes, kind: str) -> str:
    """Bytes of a picture as an address.

    Args:
        content: The file.
        kind: `png` or `jpeg`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture_address(picture_HW3: np.ndarray) -> str:
    """Pixels as an address, to the bit.

    Args:
        picture_HW3: uint8.
    """
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HW3)).save(stream, format="png")
    return data_address(stream.getvalue(), "png")


def file_address(folder: Path, name: str, side: int, allow_symlinks: bool = False) -> str:
    """A picture of a folder, reduced where it is large, as an address.

    Args:
        folder: Image folder.
        name: Within it.
        side: Longest side in pixels.
        allow_symlinks: As for `resolve_image`.

    Raises:
        DataError: It is not there, not in that folder, or cannot be read.
    """
    path = resolve_image(folder, name, allow_symlinks=allow_symlinks)
    picture = flatten(read_image(path, apply_exif=True, reduce_to=side), "white")
    is_small = max(picture.size) <= _SMALL
    if not is_small:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, **({"format": "PNG"} if is_small else {"format": "JPEG", "quality": 88}))
    return data_address(stream.getvalue(), "png" if is_small else "jpeg")
