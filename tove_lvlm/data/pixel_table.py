"""Images travel to the device as bytes; what an image processor makes of each byte is a table, looked up there.

A loader's workers then only decode and resize, and a batch is a quarter as large in shared memory and on its way. An
8-bit image processor gives each byte of a channel one value whatever stands around it, so that its rescaling and
normalisation are 256 numbers for each channel, read off the processor itself: the pixels are its own, bit for bit.

Shapes: B images, 3 H W pixels, V = 256 values of a byte.

Source: our choice.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import DataError
from .images import to_pixels

_VALUES = 256


class PixelTable:
    """Pixels of bytes.

    Args:
        table_3V: What stands for each value, by channel, float32.
    """

    def __init__(self, table_3V: torch.Tensor):
        self.table_3V = table_3V
        self._offset_311 = torch.arange(3)[:, None, None] * _VALUES

    @classmethod
    def of(cls, processor: Any, aspect_ratio: str = "square") -> "PixelTable | None":
        """The table of an image processor; None of one that does more than resize in 8 bits and map each value.

        Args:
            processor: As for `images.to_pixels`.
            aspect_ratio: As there.
        """
        all_values = Image.fromarray(np.arange(_VALUES, dtype=np.uint8).reshape(16, 16)).convert("RGB")
        noise = np.random.default_rng(0).integers(0, _VALUES, (37, 53, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        kept = {"do_resize": False, "do_center_crop": False, "do_pad": False, "return_tensors": "pt"}
        try:
            table = cls(processor.preprocess(all_values, **kept)["pixel_values"][0].float().reshape(3, _VALUES))
            bytes_3HW = to_pixels(picture, processor, aspect_ratio, as_bytes=True)
            expected_3HW = to_pixels(picture, processor, aspect_ratio)
            if bytes_3HW.dtype == torch.uint8 and torch.equal(table(bytes_3HW[None])[0], expected_3HW):
                return table
        except (DataError, KeyError, RuntimeError, TypeError, ValueError):  # another kind of processor
            pass
        return None

    def __call__(self, bytes_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32, on the device of the bytes.

        Args:
            bytes_B3HW: uint8, of `images.to_pixels(..., as_bytes=True)`.
        """
        if self.table_3V.device != bytes_B3HW.device:
            self.table_3V, self._offset_311 = (t.to(bytes_B3HW.device) for t in (self.table_3V, self._offset_311))
        return self.table_3V.flatten()[bytes_B3HW + self._offset_311]
